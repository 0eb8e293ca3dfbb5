"""NVIDIA boards through NVML: the only module that talks to `pynvml`.

What a board can do is found by calling it. A board with the energy counter is read at the counter's ticks; one without it
falls back to its power, integrated. Either way the driver's own power samples (`nvmlDeviceGetSamples`, about 120 with their
times) give the shape in between, so nothing here polls the driver fast.

Sources: nvml.h (units, return codes, the counter's "since the driver was last reloaded"); the tick of 20 to 100 ms and the
5 % between boards are Yang, Adamek and Armour, SC'24, arXiv 2312.02741.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from lightning_watt.errors import ArgumentError, SourceUnavailable
from lightning_watt.sources.base import HOST_CLOCK, Clock, Device, Failure, Reading
from lightning_watt.sources.masks import GPU, order_note, visible_gpus
from lightning_watt.sources.ticks import Looks, TickReader, run_together
from lightning_watt.units import NS_PER_S, NS_PER_US, UJ_PER_J, UJ_PER_MJ

NAME = "nvml"
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
REINSTALL = "Reinstall the NVIDIA driver, or check `nvidia-smi`."
HIDDEN = "Check `nvidia-smi -L`: a container or the permissions of /dev/nvidia* may hide a board from NVML."
REMEDIES = {
    "LibraryNotFound": "Install the NVIDIA driver; start a container with GPU access (driver capability `utility`).",
    "DriverNotLoaded": "Load the NVIDIA kernel module (`modprobe nvidia`) and check `nvidia-smi`.",
    "NoPermission": "Give this user read access to /dev/nvidia*, or start the container with GPU access.",
    "LibRmVersionMismatch": "The driver was updated under a running kernel module: restart the machine.",
    "GpuIsLost": "The board fell off the bus: see the kernel log for Xid errors and restart the machine.",
    "NotSupported": "This board or its virtualisation does not offer it.",
    "FunctionNotFound": "This driver is too old for it: update the NVIDIA driver.",
}


def remedy_for(error: Exception) -> str:
    """What to do about an NVML error."""
    return REMEDIES.get(type(error).__name__.removeprefix("NVMLError_"), REINSTALL)


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


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
        nvml = self._nvml = _start(self.gpus)
        try:
            chosen, self.left_out = _choose(nvml, self.gpus, required=self.required)
            self._boards = [_Board(nvml, board, clock, note, self.processes) for board, note in chosen]
            self.due_s = min((board.due_s for board in self._boards), default=DUE_S)
        except nvml.NVMLError as error:
            self.close()
            why = f"The boards cannot be listed: {error}.{_unmeasured(self.gpus)}"
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
        return SourceUnavailable(self.name, why + _unmeasured(self.gpus), 'Check `nvidia-smi -L`, or pass gpus="all".')

    def read(self) -> list[Reading | Failure]:
        """Read every board, each at its counter's next tick."""
        found = run_together([board.looks() for board in self._boards], self._clock)
        return [reading for readings in found for reading in readings]

    def close(self) -> None:
        """Let go of the driver."""
        self._boards = []
        nvml, self._nvml = self._nvml, None
        if nvml is not None:
            _stop(nvml)

    def inventory(self) -> list[tuple[int, str, str]]:
        """Index, UUID and name of every board; the source must be open."""
        assert self._nvml is not None, "open the source first"
        return [(board.index, board.uuid, board.name) for board in _inventory(self._nvml)[0]]


def board_uuids(gpus: str | Sequence[GPU], limit_s: float = 10.0) -> list[str]:
    """Which boards a choice means here, without opening them: NVML is started, asked for their names, and shut down.

    Args:
        gpus: as of `NvmlSource`; of a list, the boards that are there.
        limit_s: how long a driver that hangs is waited for.

    Returns:
        The boards' whole UUIDs, a MIG slice's parent's, each once; none where NVML cannot tell. Never raises.

    Example:
        >>> board_uuids([])
        []
    """
    found: list[str] = []
    asking = threading.Thread(
        target=lambda: found.extend(_uuids(gpus)), name="lightning_watt asks for the boards", daemon=True
    )
    asking.start()
    asking.join(limit_s)
    return list(found)


def _uuids(gpus: str | Sequence[GPU]) -> list[str]:
    try:
        nvml = _start(gpus)
    except SourceUnavailable:
        return []
    try:
        chosen, _ = _choose(nvml, gpus, required=False)
    except (ArgumentError, nvml.NVMLError):
        return []
    finally:
        _stop(nvml)
    return [board.uuid for board, _ in chosen]


@dataclass(frozen=True)
class _Listed:
    """A board that NVML lists."""

    index: int
    uuid: str
    name: str
    handle: Any


class _NoBoardError(Exception):
    """A name that means no board, or one that cannot be had."""

    def __init__(self, why: str, remedy: str) -> None:
        super().__init__(why)
        self.why = why
        self.remedy = remedy


def _start(gpus: str | Sequence[GPU]) -> ModuleType:
    try:
        pynvml = import_module("pynvml")
    except ImportError as error:
        why = f"pynvml cannot be imported ({error}).{_unmeasured(gpus)}"
        raise SourceUnavailable(NAME, why, "pip install nvidia-ml-py") from error
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        why = f"NVML does not start: {error}.{_unmeasured(gpus)}"
        raise SourceUnavailable(NAME, why, remedy_for(error)) from error
    return pynvml


def _stop(nvml: ModuleType) -> None:
    with suppress(nvml.NVMLError):  # gone already, which is what was wanted
        nvml.nvmlShutdown()


def _unmeasured(gpus: str | Sequence[GPU]) -> str:
    """What that means for boards that were asked for one by one."""
    return "" if isinstance(gpus, str) else f" The energy of these boards is missing: {', '.join(map(str, gpus))}."


def _choose(
    nvml: ModuleType, gpus: str | Sequence[GPU], *, required: bool
) -> tuple[list[tuple[_Listed, str]], list[SourceUnavailable]]:
    """The wanted boards, each once and with a note; and of every other wanted one why it cannot be had."""
    listed, lost = _inventory(nvml)
    unsure = ""
    if gpus == "all":
        wanted: list[GPU] = sorted([*(board.index for board in listed), *lost])
    elif gpus == "visible":
        # Read now, as CUDA reads it at its first use: what is set after CUDA has begun changes nothing there.
        mask = os.environ.get("CUDA_VISIBLE_DEVICES")
        wanted = visible_gpus(mask, len(listed) + len(lost))
        unsure = order_note(mask, os.environ.get("CUDA_DEVICE_ORDER"), [board.name for board in listed])
    elif isinstance(gpus, str):
        raise ArgumentError(f'gpus="{gpus}" is none of "all", "visible", or a list of indices and UUIDs.')
    else:
        wanted = list(gpus) if listed or lost else []  # without any board no name is wrong
    there = [f"{board.index}: {board.uuid} ({board.name})" for board in listed]
    there += [f"{index}: unreadable ({error})" for index, error in lost.items()]
    chosen: dict[int, tuple[_Listed, str]] = {}
    left_out: dict[GPU, SourceUnavailable] = {}
    for gpu in wanted:
        try:
            board, note = _resolve(nvml, gpu, listed, lost)
        except _NoBoardError as error:
            if gpus == "visible" and isinstance(gpu, str):
                break  # the mask is not our argument: like CUDA, end at the first entry that names no board
            why = f"{error.why} Boards here: {', '.join(there) or 'none'}."
            if required and not isinstance(gpus, str):
                raise ArgumentError(f"gpus: {why}") from error
            left_out[gpu] = SourceUnavailable(NAME, f"The energy of a board is missing: {why}", error.remedy, str(gpu))
            continue
        if gpus == "visible" and board.index in chosen and not str(gpu).startswith("MIG-"):
            return [], []  # one board by two names: CUDA shows none
        chosen.setdefault(board.index, (board, " ".join(part for part in (note, unsure) if part)))
    return list(chosen.values()), list(left_out.values())


def _inventory(nvml: ModuleType) -> tuple[list[_Listed], dict[int, Exception]]:
    """The boards, and by its index what the driver says of each that it counts and does not hand out: a lost one."""
    listed: list[_Listed] = []
    lost: dict[int, Exception] = {}
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            uuid, name = _text(nvml.nvmlDeviceGetUUID(handle)), _text(nvml.nvmlDeviceGetName(handle))
        except nvml.NVMLError as error:
            lost[index] = error
        else:
            listed.append(_Listed(index, uuid, name, handle))
    return listed, lost


def _resolve(nvml: ModuleType, gpu: GPU, listed: Sequence[_Listed], lost: dict[int, Exception]) -> tuple[_Listed, str]:
    """The board that `gpu` names, and a note where the name means a part of it."""
    if isinstance(gpu, int):
        if gpu in lost:
            raise _NoBoardError(f"there is no board {gpu} that answers ({lost[gpu]}).", remedy_for(lost[gpu]))
        for board in listed:
            if board.index == gpu:
                return board, ""
        raise _NoBoardError(f"there is no board {gpu}.", HIDDEN)
    if not gpu.startswith("MIG-"):
        prefix = gpu if gpu.startswith("GPU-") else f"GPU-{gpu}"
        matches = [board for board in listed if board.uuid.startswith(prefix)]
        if len(matches) == 1:
            return matches[0], ""
        if matches:
            raise _NoBoardError(f"{len(matches)} boards with a UUID that begins with {gpu}.", "Give the whole UUID.")
    told: Exception | None = None
    # CUDA tells a slice's UUID, as a board's, without its prefix.
    for name in [gpu] if gpu.startswith(("GPU-", "MIG-")) else [f"GPU-{gpu}", f"MIG-{gpu}"]:
        try:
            uuid = _board_of(nvml, name)
        except nvml.NVMLError as error:
            # Drivers before 470 named a slice by its board: MIG-GPU-<UUID>/<GPU instance>/<compute instance>.
            uuid = name.removeprefix("MIG-").split("/")[0]
            if not isinstance(error, (nvml.NVMLError_NotFound, nvml.NVMLError_InvalidArgument)):
                told = told or error
        for board in listed:
            if board.uuid == uuid:
                return board, f"The counter of the whole board; {name} is one slice of it and shares it."
    if told is not None:
        raise _NoBoardError(f"{gpu} cannot be read ({told}).", remedy_for(told))
    what = "MIG slice" if gpu.startswith("MIG-") else "board with a UUID that begins with"
    raise _NoBoardError(f"no {what} {gpu}.", HIDDEN)


def _board_of(nvml: ModuleType, name: str) -> str:
    """The UUID of the board that a whole UUID names, or a slice's parent board."""
    handle = nvml.nvmlDeviceGetHandleByUUID(name)
    if name.startswith("MIG-"):
        handle = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
    return _text(nvml.nvmlDeviceGetUUID(handle))


class _Board:
    """One board: what it offers, and where its reading stands."""

    def __init__(self, nvml: ModuleType, board: _Listed, clock: Clock, note: str, own_processes: Sequence[int] = ()) -> None:
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
        self.device = Device(
            label=f"gpu{board.index}",
            name=board.name,
            uuid=board.uuid,
            source="nvml-counter" if self._has_counter else "nvml-power",
            tick_s=0.0 if self._has_counter else POWER_DUE_S,
            max_power_w=self._max_power_w(),
            note=" ".join(part for part in (note, self._mig_note(), self._others_note()) if part),
        )

    def watch_ticks(self) -> None:
        if self._has_counter:
            try:
                self._ticks = TickReader(self._counter_uj, self._clock)
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
        except (self._nvml.NVMLError, self._nvml.NVMLLibraryMismatchError):  # the latter where the driver is an old one
            return ""
        others = sorted({process.pid for process in running} - {os.getpid(), *self._own})
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
