"""NVIDIA boards through NVML: the source itself; `nvml_boards` finds the boards.

What a board can do is found by calling it. A board with the energy counter is read at the counter's ticks; one without it
falls back to its power, integrated. Either way the driver's own power samples (`nvmlDeviceGetSamples`, about 120 with their
times) give the shape in between, so nothing here polls the driver fast.

Sources: nvml.h (units, return codes, the counter's "since the driver was last reloaded"); the tick of 20 to 100 ms and the
5 % between boards are Yang, Adamek and Armour, SC'24, arXiv 2312.02741.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from operator import itemgetter
from types import ModuleType
from typing import Any

from lightning_watt.errors import SourceUnavailable
from lightning_watt.host import is_below
from lightning_watt.sources.base import HOST_CLOCK, Clock, Device, Failure, Reading, end_of
from lightning_watt.sources.masks import GPU
from lightning_watt.sources.nvidia.gains import gain_of, typical_gain_of
from lightning_watt.sources.nvidia.looks import Looks, Turn, run_together
from lightning_watt.sources.nvidia.samples import UNLIKELY_W, Integral, PowerSamples
from lightning_watt.sources.nvidia.seen import tick_seen_s
from lightning_watt.sources.nvml_boards import (
    HIDDEN,
    NAME,
    REINSTALL,
    ListedBoard,
    choose,
    remedy_for,
    start,
    stop,
    unmeasured,
)
from lightning_watt.sources.ticks import TickReader
from lightning_watt.units import NS_PER_S, UJ_PER_MJ

DUE_S = 1.0
POWER_DUE_S = 0.1
"""A board with neither counter nor samples is known only by asking for its power; ten times a second is gentle."""
RETRY_NS = 30 * NS_PER_S
"""A lost board's calls can be slow; it is asked again this often."""
SILENT_NS = 5 * NS_PER_S
"""Power samples come several times a second; a driver without a new one for this long has stopped."""
NOWHERE = (
    "A virtual GPU tells it on its host alone. On a Jetson, `pip install lightning_watt[zeus]` and pass "
    'sources=[ZeusSource("soc")].'
)
"""What to do about a board of which NVML tells nothing."""


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
        self.left_out = []
        nvml = start(self.gpus)
        try:
            chosen, self.left_out = choose(nvml, self.gpus, required=self.required)
            found = [_Board(nvml, board, clock, note, self.processes) for board, note in chosen]
            self.left_out += [board.reason for board in found if board.reason is not None]
            boards = [board for board in found if board.reason is None]
            if not boards:
                raise self._no_board()
        except nvml.NVMLError as error:
            stop(nvml)
            why = f"The boards cannot be listed: {error}.{unmeasured(self.gpus)}"
            raise SourceUnavailable(self.name, why, remedy_for(error)) from error
        except BaseException:
            stop(nvml)
            raise
        self.close()  # an earlier opening, whose reader hangs in the driver and has not let go of it yet
        self._clock, self._nvml, self._boards = clock, nvml, boards
        self.due_s = min(board.due_s for board in boards)
        if self.at_ticks:
            turn = Turn()
            for board in self._boards:
                board.watch_ticks(turn)
        return [board.device for board in self._boards]

    def _no_board(self) -> SourceUnavailable:
        if self.left_out:
            reasons, self.left_out = self.left_out, []
            remedies = dict.fromkeys(reason.remedy for reason in reasons)
            return SourceUnavailable(self.name, " ".join(reason.why for reason in reasons), " ".join(remedies))
        if self.gpus == "visible" and os.environ.get("CUDA_VISIBLE_DEVICES") is not None:
            remedy = 'Check `nvidia-smi -L`, or pass gpus="all".'
            return SourceUnavailable(self.name, "CUDA_VISIBLE_DEVICES hides every board.", remedy)
        return SourceUnavailable(self.name, "The driver shows no board." + unmeasured(self.gpus), HIDDEN)

    def read(self) -> list[Reading | Failure]:
        """Read every board, each at its counter's next tick."""
        found = run_together([board.looks() for board in self._boards], self._clock)
        return [reading for readings in found for reading in readings]

    def glance(self, labels: Collection[str]) -> None:
        """Look at boards' counters once between two reads; what they show comes with the next `read`.

        Args:
            labels: the boards.
        """
        boards = [board for board in self._boards if board.device.label in labels]
        run_together([board.glance() for board in boards], self._clock)

    def close(self) -> None:
        """Let go of the driver."""
        self._boards = []
        nvml, self._nvml = self._nvml, None
        if nvml is not None:
            stop(nvml)


class _Board:
    """One board: what it offers, and where its reading stands.

    Attributes:
        device: what it is; it can be read if `reason` is None.
        reason: why nothing can be measured of it.
    """

    def __init__(
        self, nvml: ModuleType, board: ListedBoard, clock: Clock, note: str, own_processes: Sequence[int] = ()
    ) -> None:
        self._nvml = nvml
        self._own = own_processes
        self._handle = handle = board.handle
        self._clock = clock
        self._ticks: TickReader | None = None
        self._retry_ns = 0
        self._last_uj = -1
        no_counter = self._refusal(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        self._has_counter = no_counter is None
        self._power = PowerSamples(nvml, handle, clock)
        # One that offers samples and has none may get some later: that does beside a counter, but builds nothing alone.
        self._has_samples = self._power.offered and (self._has_counter or bool(self._power.clock_name))
        self._integral = Integral()
        self._powers: list[tuple[int, float]] = []
        self.reason: SourceUnavailable | None = None
        if no_counter is not None and not self._has_samples:
            no_power = self._refusal(self._begin_integral)
            if no_power is not None:
                self.reason = _unreadable(board, no_counter, no_power)
        self.due_s = DUE_S if self._has_counter or self._has_samples else POWER_DUE_S
        gain, gain_source = gain_of(board.name, is_counter=self._has_counter)
        notes = (note, _denied_note(no_counter), self._stamps_note(), self._mig_note(), self._others_note())
        self.device = Device(
            label=f"gpu{board.index}",
            name=board.name,
            uuid=board.uuid,
            source="nvml-counter" if self._has_counter else "nvml-power",
            gain=gain,
            gain_source=gain_source,
            typical_gain=typical_gain_of(board.name),
            tick_s=tick_seen_s(board.name) if self._has_counter else POWER_DUE_S,
            max_power_w=self._max_power_w(),
            note=" ".join(part for part in notes if part),
            samples_clock=self._power.clock_name if self._has_samples else "",
        )

    def watch_ticks(self, turn: Turn) -> None:
        if self._has_counter:
            try:
                self._ticks = TickReader(self._counter_uj, self._clock, self.device.uuid, turn)
            except self._nvml.NVMLError:
                self._ticks = None  # it failed just now; the reads that follow will say so

    def glance(self) -> Looks[None]:
        if self._ticks is None or self._clock.now_ns() < self._retry_ns:
            return
        with suppress(self._nvml.NVMLError):  # the read that follows will say so
            yield from self._ticks.glance()
            if not self._has_samples:
                self._powers += self._power_now()

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
            samples = self._samples() or tuple(self._powers)
            self._powers.clear()
            stands, self._last_uj = values[-1][1] == self._last_uj, values[-1][1]
            if not samples and (stands or end_of(self._clock) is not None):
                with suppress(self._nvml.NVMLError):
                    # By the power alone it is known what is left of the last tick, and whether a board that does not move
                    # is asleep.
                    samples = self._power_now()
        except self._nvml.NVMLError as error:
            if isinstance(error, self._nvml.NVMLError_GpuIsLost):
                self._retry_ns = self._clock.now_ns() + RETRY_NS
            return [Failure(self.device.label, f"NVML says: {error}.", remedy_for(error))]
        tick_s, blur_s = (self._ticks.period_s, self._ticks.blur_s) if self._ticks else (None, 0.0)
        # Each sample belongs to the first reading at or after it; what is younger than the last goes with the last.
        readings: list[Reading | Failure] = []
        for position, (t_ns, uj) in enumerate(values):
            last = position == len(values) - 1
            cut = len(samples) if last else bisect_right(samples, t_ns, key=itemgetter(0))
            mine, samples = samples[:cut], samples[cut:]
            readings.append(Reading(self.device.label, t_ns, uj, mine, tick_s, blur_s, self._power.clock_name))
        return readings

    def _read_power(self) -> list[Reading | Failure]:
        samples = self._samples() if self._has_samples else self._power_now()
        if not samples:
            if self._clock.now_ns() - self._integral.t_ns < SILENT_NS:
                return []
            return [Failure(self.device.label, "The driver has no new power samples.", REINSTALL)]
        first = not self._integral.handed_over
        self._integral.add(samples)
        clock = self._power.clock_name if self._has_samples else ""
        now = Reading(self.device.label, self._integral.t_ns, self._integral.uj, samples, samples_clock=clock)
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
        try:
            return self._power.read()
        except self._nvml.NVMLError:
            if self._has_counter:
                return ()  # beside a counter they are only the shape
            raise

    def _begin_integral(self) -> None:
        self._integral.add(self._power_now())

    def _refusal(self, call: Callable[[], object]) -> Exception | None:
        """What the driver says of a call that does not work here; of a passing fault the reads that follow will say so."""
        nvml = self._nvml
        try:
            call()
        except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound, nvml.NVMLError_NoPermission) as error:
            refused: Exception = error
            return refused
        except nvml.NVMLError:
            return None
        return None

    def _max_power_w(self) -> float:
        """Twice the highest power limit that can be set: short peaks above a limit are real."""
        try:
            _, most = self._nvml.nvmlDeviceGetPowerManagementLimitConstraints(self._handle)
        except self._nvml.NVMLError:
            return UNLIKELY_W
        return 2 * most / 1000 or UNLIKELY_W

    def _stamps_note(self) -> str:
        if not self._power.strange:
            return ""
        return (
            "When it was opened, the stamp of its newest power sample was of another time by every clock of this machine; "
            "samples are used from the first with one of now on."
        )

    def _mig_note(self) -> str:
        mode = self._asked(lambda: self._nvml.nvmlDeviceGetMigMode(self._handle))
        return "MIG is on: the counter is the whole board's, with every slice on it." if mode and mode[0] else ""

    def _others_note(self) -> str:
        running = self._asked(lambda: self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)) or ()
        own = {os.getpid(), *self._own}
        others = sorted(pid for pid in {process.pid for process in running} - own if not is_below(pid, own))
        if not others:
            return ""
        return f"Shared when it was opened: processes {', '.join(map(str, others[:8]))} were on it; their energy is in."

    def _asked(self, call: Callable[[], Any]) -> Any:
        """What a call answers that only a note is made of; None whatever goes wrong with it."""
        try:
            return call()
        except Exception:  # noqa: BLE001 - an old pynvml fails in ways of its own, and no board is lost for a note's sake
            return None


def _unreadable(board: ListedBoard, no_counter: Exception, no_power: Exception) -> SourceUnavailable:
    """Of a board that NVML lists and tells no energy of: a vGPU, a Jetson, or one that this user may not ask."""
    refusals = (no_power, no_counter)
    denied = next((error for error in refusals if type(error).__name__ == "NVMLError_NoPermission"), None)
    why = (
        f"gpu{board.index} ({board.name}) tells neither its energy nor its power: "
        f"{' and '.join(dict.fromkeys(str(error) for error in reversed(refusals)))}."
    )
    return SourceUnavailable(NAME, why, remedy_for(denied) if denied else NOWHERE, board.uuid)


def _denied_note(no_counter: Exception | None) -> str:
    if no_counter is None or type(no_counter).__name__ != "NVMLError_NoPermission":
        return ""
    return f"Its energy counter may not be read ({no_counter}), so its power is summed up. {remedy_for(no_counter)}"
