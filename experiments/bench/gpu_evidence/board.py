"""One NVIDIA board through pynvml, and what this machine is: the calls whose behaviour is to be found out."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

from lightning_watt.sources.base import HOST_CLOCK, boot_ns
from lightning_watt.sources.nvidia.samples import BOOTTIME, MONOTONIC, PowerSamples

POWER_SAMPLES = 0
"""`NVML_TOTAL_POWER_SAMPLES` of nvml.h."""
PACKAGES = ("torch", "pytorch-lightning", "lightning", "torchvision", "timm", "nvidia-ml-py", "numpy", "zeus", "hydra-core")


class NoBoardError(RuntimeError):
    """There is no board to measure; the message gives the reason and the remedy."""


@dataclass(frozen=True)
class Field:
    """One answer of `nvmlDeviceGetFieldValues`.

    Attributes:
        code: its own NVML return code; 0 is success.
        stamp_us: its time stamp, microseconds since 1970.
        latency_us: how long the answer took, by the driver's own account.
        value: the number, in the field's own unit (mJ, mW).
    """

    code: int
    stamp_us: int
    latency_us: int
    value: int


class Board:
    """One board.

    Args:
        nvml: pynvml, initialised.
        index: NVML's index of the board.
    """

    def __init__(self, nvml: ModuleType, index: int) -> None:
        self.nvml = nvml
        self.index = index
        self.handle = nvml.nvmlDeviceGetHandleByIndex(index)
        self.name = text(nvml.nvmlDeviceGetName(self.handle))
        self.uuid = text(nvml.nvmlDeviceGetUUID(self.handle))

    def counter_mj(self) -> int:
        """The energy counter, millijoules."""
        return int(self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle))

    def power_mw(self) -> int:
        """`nvmlDeviceGetPowerUsage`, milliwatts."""
        return int(self.nvml.nvmlDeviceGetPowerUsage(self.handle))

    def fields(self, numbers: Sequence[int]) -> list[Field]:
        """Field values in one call; each has its own return code."""
        found = self.nvml.nvmlDeviceGetFieldValues(self.handle, list(numbers))
        return [Field(int(f.nvmlReturn), int(f.timestamp), int(f.latencyUsec), _value(self.nvml, f)) for f in found]

    def samples(self, after_us: int = 0) -> list[tuple[int, int]]:
        """The driver's power samples younger than `after_us`, as (microseconds of `now_us`, milliwatts), oldest first.

        Raises:
            NVMLError: any error of pynvml except NOT_FOUND, which gives an empty list.
        """
        try:
            _, raw = self.nvml.nvmlDeviceGetSamples(self.handle, POWER_SAMPLES, after_us)
        except self.nvml.NVMLError_NotFound:
            return []
        return sorted((int(s.timeStamp), int(s.sampleValue.uiVal)) for s in raw)

    @cached_property
    def samples_clock(self) -> str:
        """The clock of the samples' stamps: `realtime`, `boottime` or `monotonic`; empty if none fits."""
        return PowerSamples(self.nvml, self.handle, HOST_CLOCK).clock_name

    def now_us(self) -> int:
        """Microseconds by the clock of the samples' stamps."""
        clocks = {BOOTTIME: lambda: boot_ns(HOST_CLOCK), MONOTONIC: time.monotonic_ns}
        return clocks.get(self.samples_clock, time.time_ns)() // 1000

    def about(self) -> dict[str, Any]:
        """The board's own data; an entry that it does not answer holds the reason as text."""
        nvml, handle = self.nvml, self.handle
        asked: dict[str, Any] = {
            "driver": lambda: text(nvml.nvmlSystemGetDriverVersion()),
            "power_limit_w": lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000,
            "persistence_mode": lambda: int(nvml.nvmlDeviceGetPersistenceMode(handle)),
            "mig_mode": lambda: int(nvml.nvmlDeviceGetMigMode(handle)[0]),
            "virtualization": lambda: int(nvml.nvmlDeviceGetVirtualizationMode(handle)),
            "compute_capability": lambda: list(nvml.nvmlDeviceGetCudaComputeCapability(handle)),
            "temperature_c": lambda: int(nvml.nvmlDeviceGetTemperature(handle, 0)),
        }
        return {"gpu": self.name, "uuid": self.uuid, "index": self.index} | {
            name: _ask(nvml, call) for name, call in asked.items()
        }


@contextmanager
def open_board(index: int | None = None, uuid: str | None = None) -> Iterator[Board]:
    """Initialise NVML and take one board.

    Args:
        index: NVML's index; None: the one with `uuid`, or else the first.
        uuid: a board's UUID, such as CUDA's first device has.

    Raises:
        NoBoardError: pynvml, the driver or the board is missing.
    """
    try:
        import pynvml
    except ImportError as error:
        raise NoBoardError(f"pynvml cannot be imported ({error}): pip install nvidia-ml-py") from error
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise NoBoardError(f"NVML does not start ({error}): this needs an NVIDIA driver; see `nvidia-smi`.") from error
    try:
        count = pynvml.nvmlDeviceGetCount()
        if not count or (index or 0) >= count:
            raise NoBoardError(f"NVML shows {count} boards, so there is none with index {index or 0}; see `nvidia-smi -L`.")
        boards = [Board(pynvml, i) for i in ([index] if index is not None else range(count))]
        yield next((board for board in boards if board.uuid == uuid), boards[0])
    finally:
        pynvml.nvmlShutdown()


def machine() -> dict[str, Any]:
    """The machine and the versions."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": versions,
        "commit": _commit(),
        "when": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }


def text(value: str | bytes) -> str:
    """Older pynvml answers in bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _value(nvml: ModuleType, field: Any) -> int:
    value = field.value
    by_type = {
        nvml.NVML_VALUE_TYPE_DOUBLE: value.dVal,
        nvml.NVML_VALUE_TYPE_UNSIGNED_INT: value.uiVal,
        nvml.NVML_VALUE_TYPE_UNSIGNED_LONG: value.ulVal,
        nvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: value.ullVal,
    }
    return int(by_type.get(int(field.valueType), value.ullVal)) if field.nvmlReturn == 0 else 0


def _ask(nvml: ModuleType, call: Any) -> Any:
    try:
        return call()
    except (nvml.NVMLError, AttributeError) as error:
        return f"not answered: {error}"


def _commit() -> str | None:
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
