"""NVIDIA boards through NVML: the only module that talks to `pynvml`.

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
from importlib import import_module
from types import ModuleType
from typing import Any

from lightning_watt.errors import ArgumentError, SourceUnavailable
from lightning_watt.sources.base import HOST_CLOCK, Clock, Device, Failure, Reading
from lightning_watt.sources.masks import GPU, order_note, visible_gpus
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
REINSTALL = "Reinstall the NVIDIA driver, or check `nvidia-smi`."
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
            UUIDs (`GPU-...` whole or shortened, `MIG-...`). A MIG slice stands for its parent board.
        at_ticks: wait for the counter's tick at each read, which makes its value exact; see `sources.ticks`.

    Example:
        >>> NvmlSource(gpus=[0]).name
        'nvml'
    """

    name = "nvml"

    def __init__(self, gpus: str | Sequence[GPU] = "all", *, at_ticks: bool = True) -> None:
        self.gpus = gpus
        self.at_ticks = at_ticks
        self.due_s = DUE_S
        self._boards: list[_Board] = []
        self._clock: Clock = HOST_CLOCK
        self._nvml: ModuleType | None = None

    def open(self, clock: Clock) -> list[Device]:
        """Find the boards.

        Raises:
            SourceUnavailable: no driver, no board, or none that could be opened.
            ValueError: `gpus` names a board that is not there; the message lists those that are.
        """
        nvml = self._initialise()
        self._clock = clock
        try:
            handles = self._select(nvml)
            self._boards = [_Board(nvml, index, handle, clock, note) for index, handle, note in handles]
            self.due_s = min((board.due_s for board in self._boards), default=DUE_S)
        except nvml.NVMLError as error:
            self.close()
            raise SourceUnavailable(self.name, f"The boards cannot be listed: {error}.", remedy_for(error)) from error
        except BaseException:
            self.close()
            raise
        if not self._boards:
            self.close()
            why = "CUDA_VISIBLE_DEVICES hides every board." if self.gpus == "visible" else "The driver shows no board."
            raise SourceUnavailable(self.name, why, 'Check `nvidia-smi -L`, or pass gpus="all".')
        if self.at_ticks:
            for board in self._boards:
                board.watch_ticks()
        return [board.device for board in self._boards]

    def read(self) -> list[Reading | Failure]:
        """Read every board, each at its counter's next tick."""
        found = run_together([board.looks() for board in self._boards], self._clock)
        return [reading for readings in found for reading in readings]

    def close(self) -> None:
        """Let go of the driver."""
        self._boards = []
        nvml, self._nvml = self._nvml, None
        if nvml is not None:
            try:
                nvml.nvmlShutdown()
            except nvml.NVMLError:
                return  # gone already, which is what was wanted

    def inventory(self) -> list[tuple[int, str, str]]:
        """Index, UUID and name of every board; the source must be open."""
        assert self._nvml is not None, "open the source first"
        return _inventory(self._nvml)

    def _initialise(self) -> ModuleType:
        try:
            pynvml = import_module("pynvml")
        except ImportError as error:
            raise SourceUnavailable(
                self.name, f"pynvml cannot be imported ({error}).", "pip install nvidia-ml-py"
            ) from error
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise SourceUnavailable(self.name, f"NVML does not start: {error}.", remedy_for(error)) from error
        self._nvml = pynvml
        return pynvml

    def _select(self, nvml: ModuleType) -> list[tuple[int, Any, str]]:
        """The wanted boards as (index, handle, note), each once."""
        inventory = _inventory(nvml)
        unsure = ""
        if self.gpus == "all":
            wanted: list[GPU] = [index for index, _, _ in inventory]
        elif self.gpus == "visible":
            # Read now, as CUDA reads it at its first use: what is set after CUDA has begun changes nothing there.
            mask = os.environ.get("CUDA_VISIBLE_DEVICES")
            lost = set(range(nvml.nvmlDeviceGetCount())) - {index for index, _, _ in inventory}
            wanted = [gpu for gpu in visible_gpus(mask, len(inventory) + len(lost)) if gpu not in lost]
            names = [name for _, _, name in inventory]
            unsure = order_note(mask, os.environ.get("CUDA_DEVICE_ORDER"), names)
        elif isinstance(self.gpus, str):
            raise ArgumentError(f'gpus="{self.gpus}" is none of "all", "visible", or a list of indices and UUIDs.')
        else:
            wanted = list(self.gpus)
        chosen: dict[int, tuple[int, Any, str]] = {}
        for gpu in wanted:
            try:
                index, note = _resolve(nvml, gpu, inventory)
            except ArgumentError:
                if self.gpus == "visible":
                    break  # the mask is not our argument: like CUDA, end at the first entry that names no board
                raise
            if self.gpus == "visible" and index in chosen and not str(gpu).startswith("MIG-"):
                return []  # one board by two names: CUDA shows none
            note = " ".join(part for part in (note, unsure) if part)
            chosen.setdefault(index, (index, nvml.nvmlDeviceGetHandleByIndex(index), note))
        return list(chosen.values())


def _inventory(nvml: ModuleType) -> list[tuple[int, str, str]]:
    found = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            found.append((index, _text(nvml.nvmlDeviceGetUUID(handle)), _text(nvml.nvmlDeviceGetName(handle))))
        except nvml.NVMLError:
            continue  # a lost board cannot be chosen; choosing it by name says so
    return found


def _resolve(nvml: ModuleType, gpu: GPU, inventory: Sequence[tuple[int, str, str]]) -> tuple[int, str]:
    """The NVML index of the board that `gpu` names, and a note where the name means a part of it."""
    there = ", ".join(f"{index}: {uuid} ({name})" for index, uuid, name in inventory) or "none"
    if isinstance(gpu, int):
        if any(gpu == index for index, _, _ in inventory):
            return gpu, ""
        raise ArgumentError(f"gpus: there is no board {gpu}. Boards here: {there}.")
    if gpu.startswith("MIG-"):
        try:
            slice_ = nvml.nvmlDeviceGetHandleByUUID(gpu)
            parent = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(slice_)
            uuid = _text(nvml.nvmlDeviceGetUUID(parent))
        except nvml.NVMLError as error:
            # Drivers before 470 named a slice by its board: MIG-GPU-<UUID>/<GPU instance>/<compute instance>.
            uuid = gpu.removeprefix("MIG-").split("/")[0]
            if not any(other == uuid for _, other, _ in inventory):
                raise ArgumentError(f"gpus: no MIG slice {gpu} ({error}). Boards here: {there}.") from error
        index = next(index for index, other, _ in inventory if other == uuid)
        return index, f"The counter of the whole board; {gpu} is one slice of it and shares it."
    prefix = gpu if gpu.startswith("GPU-") else f"GPU-{gpu}"
    matches = [index for index, uuid, _ in inventory if uuid.startswith(prefix)]
    if len(matches) == 1:
        return matches[0], ""
    what = "no board" if not matches else f"{len(matches)} boards"
    raise ArgumentError(f"gpus: {what} with a UUID that begins with {gpu}. Boards here: {there}.")


class _Board:
    """One board: what it offers, and where its reading stands."""

    def __init__(self, nvml: ModuleType, index: int, handle: Any, clock: Clock, note: str) -> None:
        self._nvml = nvml
        self._handle = handle
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
            label=f"gpu{index}",
            name=_text(nvml.nvmlDeviceGetName(handle)),
            uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
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
        others = sorted({process.pid for process in running} - {os.getpid()})
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
