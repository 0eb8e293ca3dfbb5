"""NVIDIA boards through NVML: the source itself; `nvml_boards` finds the boards.

What a board can do is found by calling it. A board with the energy counter is read at the counter's ticks; one without it
falls back to its power, integrated. Either way the driver's own power samples (`nvmlDeviceGetSamples`, about 120 with their
times) give the shape in between, so nothing here polls the driver fast.

Sources: nvml.h (units, return codes, the counter's "since the driver was last reloaded"); the tick of 20 to 100 ms and the
5 % between boards are Yang, Adamek and Armour, SC'24, arXiv 2312.02741.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import ModuleType

from lightning_watt.errors import SourceUnavailable
from lightning_watt.host import is_below
from lightning_watt.sources.base import HOST_CLOCK, Clock, Device, Failure, Reading, end_of
from lightning_watt.sources.masks import GPU
from lightning_watt.sources.nvidia.gains import gain_of
from lightning_watt.sources.nvml_boards import (
    NAME,
    REINSTALL,
    ListedBoard,
    choose,
    remedy_for,
    start,
    stop,
    unmeasured,
)
from lightning_watt.sources.ticks import Looks, TickReader, run_together
from lightning_watt.units import NS_PER_S, NS_PER_US, UJ_PER_J, UJ_PER_MJ

DUE_S = 1.0
POWER_DUE_S = 0.1
"""A board with neither counter nor samples is known only by asking for its power; ten times a second is gentle."""
RETRY_NS = 30 * NS_PER_S
"""A lost board's calls can be slow; it is asked again this often."""
UNLIKELY_W = 10_000.0
"""Published reports show samples of garbage above this; no board draws it."""
SILENT_NS = 5 * NS_PER_S
"""Power samples come several times a second; a driver without a new one for this long has stopped."""
STEP_NS = NS_PER_S // 10
"""The wall clock and the steady one drift apart by microseconds between two reads; by more than this, somebody set one."""


class NvmlSource:
    """Reads NVIDIA boards.

    Args:
        gpus: `"all"` boards that NVML shows; `"visible"`, those that `CUDA_VISIBLE_DEVICES` leaves; or NVML indices and
            UUIDs (`GPU-...` whole or shortened, `MIG-...`, or without prefix). A MIG slice stands for its parent board.
        at_ticks: wait for the counter's tick at each read, which makes its value exact; see `sources.ticks`.
        required: a board of a list that is not there raises; otherwise it is left out, and the others are read.
        processes: other processes of the run, which are no strangers on a board.

    Attributes:
        left_out: after `open`, of each wanted board that is not read: why, and the remedy.

    Example:
        >>> NvmlSource(gpus=[0]).name
        'nvml'
    """

    name = NAME

    def __init__(
        self,
        gpus: str | Sequence[GPU] = "all",
        *,
        at_ticks: bool = True,
        required: bool = True,
        processes: Sequence[int] = (),
    ) -> None:
        self.gpus = gpus
        self.processes = processes
        self.at_ticks = at_ticks
        self.required = required
        self.due_s = DUE_S
        self.left_out: list[SourceUnavailable] = []
        self._boards: list[_Board] = []
        self._clock: Clock = HOST_CLOCK
        self._nvml: ModuleType | None = None

    def open(self, clock: Clock) -> list[Device]:
        """Find the boards.

        Raises:
            SourceUnavailable: no driver, no board, or none that could be opened.
            ValueError: `gpus` names a board that is not there; the message lists those that are.
        """
        self._clock, self.left_out = clock, []
        nvml = self._nvml = start(self.gpus)
        try:
            chosen, self.left_out = choose(nvml, self.gpus, required=self.required)
            self._boards = [_Board(nvml, board, clock, note, self.processes) for board, note in chosen]
            self.due_s = min((board.due_s for board in self._boards), default=DUE_S)
        except nvml.NVMLError as error:
            self.close()
            why = f"The boards cannot be listed: {error}.{unmeasured(self.gpus)}"
            raise SourceUnavailable(self.name, why, remedy_for(error)) from error
        except BaseException:
            self.close()
            raise
        if not self._boards:
            self.close()
            raise self._no_board()
        if self.at_ticks:
            for board in self._boards:
                board.watch_ticks()
        return [board.device for board in self._boards]

    def _no_board(self) -> SourceUnavailable:
        if self.left_out:
            reasons, self.left_out = self.left_out, []
            remedies = dict.fromkeys(reason.remedy for reason in reasons)
            return SourceUnavailable(self.name, " ".join(reason.why for reason in reasons), " ".join(remedies))
        why = "CUDA_VISIBLE_DEVICES hides every board." if self.gpus == "visible" else "The driver shows no board."
        return SourceUnavailable(self.name, why + unmeasured(self.gpus), 'Check `nvidia-smi -L`, or pass gpus="all".')

    def read(self) -> list[Reading | Failure]:
        """Read every board, each at its counter's next tick."""
        found = run_together([board.looks() for board in self._boards], self._clock)
        return [reading for readings in found for reading in readings]

    def close(self) -> None:
        """Let go of the driver."""
        self._boards = []
        nvml, self._nvml = self._nvml, None
        if nvml is not None:
            stop(nvml)


class _Board:
    """One board: what it offers, and where its reading stands."""

    def __init__(
        self, nvml: ModuleType, board: ListedBoard, clock: Clock, note: str, own_processes: Sequence[int] = ()
    ) -> None:
        self._nvml = nvml
        self._own = own_processes
        self._handle = handle = board.handle
        self._clock = clock
        self._ticks: TickReader | None = None
        self._retry_ns = 0
        self._last_sample_us = 0
        self._offset_ns = clock.unix_ns() - clock.now_ns()
        self._has_counter = self._offers(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        self._has_samples = self._skip_old_samples()
        self._integral = _Integral()
        if not self._has_counter and not self._has_samples:
            with suppress(nvml.NVMLError):  # the reads that follow will say so
                self._integral.add(self._power_now())
        self.due_s = DUE_S if self._has_counter or self._has_samples else POWER_DUE_S
        gain, gain_source = gain_of(board.name, is_counter=self._has_counter)
        self.device = Device(
            label=f"gpu{board.index}",
            name=board.name,
            uuid=board.uuid,
            source="nvml-counter" if self._has_counter else "nvml-power",
            gain=gain,
            gain_source=gain_source,
            tick_s=0.0 if self._has_counter else POWER_DUE_S,
            max_power_w=self._max_power_w(),
            note=" ".join(part for part in (note, self._mig_note(), self._others_note()) if part),
        )

    def watch_ticks(self) -> None:
        if self._has_counter:
            try:
                self._ticks = TickReader(self._counter_uj, self._clock, self.device.uuid)
            except self._nvml.NVMLError:
                self._ticks = None  # it failed just now; the reads that follow will say so

    def looks(self) -> Looks[list[Reading | Failure]]:
        if self._clock.now_ns() < self._retry_ns:
            return []
        try:
            if not self._has_counter:
                return self._read_power()
            if self._ticks is None:
                values = [(self._clock.now_ns(), self._counter_uj())]
            else:
                values = yield from self._ticks.looks()
            samples = self._samples()
            if not samples and end_of(self._clock) is not None:
                with suppress(self._nvml.NVMLError):
                    samples = self._power_now()  # what is left of the last tick is known by the power alone
        except self._nvml.NVMLError as error:
            if isinstance(error, self._nvml.NVMLError_GpuIsLost):
                self._retry_ns = self._clock.now_ns() + RETRY_NS
            return [Failure(self.device.label, f"NVML says: {error}.", remedy_for(error))]
        tick_s = self._ticks.period_s if self._ticks else None
        # Each sample belongs to the first reading at or after it; what is younger than the last goes with the last.
        readings: list[Reading | Failure] = []
        for position, (t_ns, uj) in enumerate(values):
            last = position == len(values) - 1
            mine = tuple(s for s in samples if last or s[0] <= t_ns)
            samples = samples[len(mine) :]
            readings.append(Reading(self.device.label, t_ns, uj, mine, tick_s))
        return readings

    def _read_power(self) -> list[Reading | Failure]:
        samples = self._samples() if self._has_samples else self._power_now()
        if not samples:
            if self._clock.now_ns() - self._integral.t_ns < SILENT_NS:
                return []
            return [Failure(self.device.label, "The driver has no new power samples.", REINSTALL)]
        first = not self._integral.handed_over
        self._integral.add(samples)
        now = Reading(self.device.label, self._integral.t_ns, self._integral.uj, samples)
        self._integral.handed_over = True
        # The first read may come a while after opening: what was used meanwhile is counted from the first sample on.
        return [Reading(self.device.label, self._integral.start_ns, 0), now] if first else [now]

    def _power_now(self) -> tuple[tuple[int, float], ...]:
        watts = self._nvml.nvmlDeviceGetPowerUsage(self._handle) / 1000
        return ((self._clock.now_ns(), watts),)

    def _counter_uj(self) -> int:
        return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) * UJ_PER_MJ

    def _samples(self) -> tuple[tuple[int, float], ...]:
        """The driver's power samples since the last call, on the host's steady clock."""
        if not self._has_samples:
            return ()
        nvml = self._nvml
        now_ns = self._clock.now_ns()
        offset_ns = self._clock.unix_ns() - now_ns
        if abs(offset_ns - self._offset_ns) > STEP_NS:
            # The wall clock was set, and with it the stamps of the samples to come: "newer than the last" moves along.
            self._last_sample_us += (offset_ns - self._offset_ns) // NS_PER_US
        self._offset_ns = offset_ns
        try:
            _, raw = nvml.nvmlDeviceGetSamples(self._handle, nvml.NVML_TOTAL_POWER_SAMPLES, self._last_sample_us)
        except nvml.NVMLError as error:
            if self._has_counter or isinstance(error, nvml.NVMLError_NotFound):
                return ()  # none since; and beside a counter they are only the shape
            raise
        found = sorted((int(s.timeStamp), s.sampleValue.uiVal / 1000) for s in raw)
        # One of the future was stamped before the clock was set back, or by a driver that is confused.
        latest_us = (now_ns + offset_ns + STEP_NS) // NS_PER_US
        found = [(us, w) for us, w in found if self._last_sample_us < us <= latest_us and w <= UNLIKELY_W]
        if found:
            self._last_sample_us = found[-1][0]
        return tuple((us * NS_PER_US - offset_ns, w) for us, w in found)

    def _skip_old_samples(self) -> bool:
        """Whether the driver keeps samples; those older than a second are nobody's business here.

        One that offers them and has none may get some later: that does beside a counter, but nothing can be built on it.
        """
        nvml = self._nvml
        self._last_sample_us = self._clock.unix_ns() // NS_PER_US - 1_000_000
        try:
            nvml.nvmlDeviceGetSamples(self._handle, nvml.NVML_TOTAL_POWER_SAMPLES, self._last_sample_us)
        except nvml.NVMLError_NotFound:
            return self._has_counter
        except nvml.NVMLError:
            return False
        return True

    def _offers(self, call: Callable[[], object]) -> bool:
        """Whether a call works here; a passing fault counts as yes, and the reads that follow will say so."""
        nvml = self._nvml
        try:
            call()
        except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound, nvml.NVMLError_NoPermission):
            return False
        except nvml.NVMLError:
            return True
        return True

    def _max_power_w(self) -> float:
        """Twice the highest power limit that can be set: short peaks above a limit are real."""
        try:
            _, most = self._nvml.nvmlDeviceGetPowerManagementLimitConstraints(self._handle)
        except self._nvml.NVMLError:
            return UNLIKELY_W
        return 2 * most / 1000 or UNLIKELY_W

    def _mig_note(self) -> str:
        try:
            current, _ = self._nvml.nvmlDeviceGetMigMode(self._handle)
        except self._nvml.NVMLError:
            return ""
        return "MIG is on: the counter is the whole board's, with every slice on it." if current else ""

    def _others_note(self) -> str:
        try:
            running = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        except (self._nvml.NVMLError, self._nvml.NVMLLibraryMismatchError):  # the latter from an old driver
            return ""
        own = {os.getpid(), *self._own}
        others = sorted(pid for pid in {process.pid for process in running} - own if not is_below(pid, own))
        if not others:
            return ""
        return f"Shared when it was opened: processes {', '.join(map(str, others[:8]))} were on it; their energy is in."


class _Integral:
    """Power over time as energy: straight lines between samples."""

    def __init__(self) -> None:
        self.start_ns = 0
        self.t_ns = 0
        self.uj = 0
        self.handed_over = False
        self._watts = 0.0

    def add(self, samples: Sequence[tuple[int, float]]) -> None:
        for t_ns, watts in samples:
            if not self.t_ns:
                self.start_ns = t_ns
            elif t_ns > self.t_ns:
                self.uj += round((t_ns - self.t_ns) / NS_PER_S * (watts + self._watts) / 2 * UJ_PER_J)
            if t_ns > self.t_ns:
                self.t_ns, self._watts = t_ns, watts
