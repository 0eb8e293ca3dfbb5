"""What a scenario is made of: boards, and the faults that befall them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from lightning_watt.testing.nvml_lab.build import function_names
from lightning_watt.testing.nvml_lab.curve import MW_PER_W, NS_PER_S, Curve, constant

NS_PER_MS = 1_000_000
PPM = 1_000_000
MAX_MIG = 8  # as in scenario.h

FaultKind = Literal[
    "lost",
    "error",
    "hang",
    "reset",
    "jump",
    "stuck",
    "raw",
    "clock_step",
    "sample_time",
    "sample_raw",
]

# NVML return codes, from nvml.h.
GPU_IS_LOST = 15
UNKNOWN = 999

# How each kind is called in the scenario file, and the argument it needs.
_KINDS: dict[str, tuple[str, str | None]] = {
    "lost": ("error", None),
    "error": ("error", None),
    "hang": ("sleep", "delay_ms"),
    "reset": ("reset", None),
    "jump": ("jump", "millijoules"),
    "stuck": ("stuck", None),
    "raw": ("raw", "value"),
    "clock_step": ("clock", "seconds"),
    "sample_time": ("sample_time", None),
    "sample_raw": ("sample_raw", "value"),
}


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong between two moments.

    Args:
        kind: what happens. Calls: "lost" (every call on the board answers GPU_IS_LOST), "error" (`function`
            answers `code`), "hang" (`function` sleeps `delay_ms`, then answers). Energy counter: "reset" (it
            restarts from 0), "jump" (`millijoules` are added, or taken away if negative, never below 0),
            "stuck" (it stands still, then shows the truth again), "raw" (it reads `value`). Samples: "sample_time"
            (time stamp 0), "sample_raw" (`value` in milliwatts). "clock_step": the wall clock, and so every
            later time stamp of this board, steps by `seconds`.
        at_s: when it begins, in seconds after the lab's time zero.
        until_s: when it ends (excluded); None is never. Without meaning for reset, jump and clock_step.
        function: NVML's C symbol, with or without its version suffix; "*" is every function.
        code: the NVML return code of "error".
        delay_ms: milliseconds that each call sleeps.
        millijoules: the jump.
        value: the counter's raw uint64, or the sample's milliwatts.
        seconds: the clock's step; may be negative.

    Example:
        >>> Fault("error", at_s=1, until_s=2, function="nvmlDeviceGetPowerUsage", code=UNKNOWN).at_s
        1
    """

    kind: FaultKind
    at_s: float = 0.0
    until_s: float | None = None
    function: str = "*"
    code: int = UNKNOWN
    delay_ms: float | None = None
    millijoules: int | None = None
    value: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"Unknown fault {self.kind!r}; there are {', '.join(_KINDS)}.")
        needed = _KINDS[self.kind][1]
        if needed is not None and getattr(self, needed) is None:
            raise ValueError(f"A {self.kind!r} fault needs {needed}=...")
        if self.until_s is not None and self.until_s <= self.at_s:
            raise ValueError(f"The fault ends at {self.until_s} s, before it begins at {self.at_s} s.")
        symbol(self.function)

    def line(self) -> str:
        """The scenario line: `fault KIND FROM_NS TO_NS FUNCTION VALUE`."""
        values = {
            "lost": GPU_IS_LOST,
            "error": self.code,
            "hang": round((self.delay_ms or 0) * NS_PER_MS),
            "jump": self.millijoules,
            "raw": self.value,
            "sample_raw": self.value,
            "clock_step": round((self.seconds or 0) * NS_PER_S),
        }
        until_ns = -1 if self.until_s is None else round(self.until_s * NS_PER_S)
        word, value = _KINDS[self.kind][0], values.get(self.kind, 0)
        return f"fault {word} {round(self.at_s * NS_PER_S)} {until_ns} {symbol(self.function)} {value}"


@dataclass(frozen=True, kw_only=True)
class Board:
    """One fake board: what it draws, and how it shows that.

    Args:
        power: watts over time; `constant`, `square`, `steps`, `ramp`.
        name: the product name.
        uuid: "GPU-..."; None gives each board of a lab its own.
        pci_bus_id: "domain:bus:device.function" in hexadecimal; None likewise.
        counter_ms: the energy counter's tick; between ticks it stands still. None: NOT_SUPPORTED.
        counter_phase_ms: when its first tick comes, after time zero.
        counter_lag_ms: how much later than its tick a value can be read.
        counter_gain: the counter reads gain x truth (to 1 ppm).
        counter_start_mj: what it reads at time zero, in millijoules.
        samples_ms: the period of the driver's power samples. None: NOT_SUPPORTED.
        samples_phase_ms: when the first sample is taken, after time zero.
        samples_jitter_ms: each sample comes up to this much late, by a fixed pseudo-random sequence.
        samples_window_ms: a sample is the average over this window that ends at it; 0 is the instant.
        samples_buffer: how many samples the driver keeps.
        stamps: what the samples' time stamps count from: "unix", 1970; "boot", when the machine was started, without the
            time that it slept (a "clock_step" fault is such a sleep, for one that counts it).
        power_usage: whether `nvmlDeviceGetPowerUsage` is supported.
        power_window_ms: its averaging window (1 s on most boards since Ampere); 0 is the instant.
        power_period_ms: how often that sensor (and fields 185, 186) is refreshed; 0 is always.
        sensor_gain: power usage and samples show gain x truth (to 1 ppm); the counter has its own.
        fields: supported field values, of 83 and 191 (energy), 185 (1 s average power), 186 (instant power).
        module_extra_w: what scope 1 (the module) of fields 185, 186 adds to the board. None: NOT_SUPPORTED.
        power_limit_w: the enforced limit.
        power_limits_w: the smallest and the largest limit.
        mig: the number of MIG instances; 0 is a board with MIG off, None one that knows none.
        mig_uuids: their "MIG-..." UUIDs; empty names them after the board.
        pids: processes that run on the board.
        architecture: NVML_DEVICE_ARCH_*; 9 is Hopper.
        compute_capability: the pair that CUDA reports.
        memory_bytes: of which a quarter is in use.
        persistence: whether persistence mode is on.
        virtualization: NVML_GPU_VIRTUALIZATION_MODE_*; 0 none, 2 a vGPU.
        faults: what befalls this board.
    """

    power: Curve = field(default_factory=lambda: constant(100.0))
    name: str = "NVIDIA Lab Board"
    uuid: str | None = None
    pci_bus_id: str | None = None
    counter_ms: float | None = 100.0
    counter_phase_ms: float = 0.0
    counter_lag_ms: float = 0.0
    counter_gain: float = 1.0
    # Not 0: a real counter counts since the driver was loaded.
    counter_start_mj: int = 987_654_321
    samples_ms: float | None = 20.0
    samples_phase_ms: float = 0.0
    samples_jitter_ms: float = 0.0
    samples_window_ms: float = 0.0
    samples_buffer: int = 120
    stamps: Literal["unix", "boot"] = "unix"
    power_usage: bool = True
    power_window_ms: float = 1000.0
    power_period_ms: float = 0.0
    sensor_gain: float = 1.0
    fields: Sequence[int] = (83, 185, 186, 191)
    module_extra_w: float | None = None
    power_limit_w: float = 400.0
    power_limits_w: tuple[float, float] = (100.0, 400.0)
    mig: int | None = None
    mig_uuids: Sequence[str] = ()
    pids: Sequence[int] = ()
    architecture: int = 9
    compute_capability: tuple[int, int] = (9, 0)
    memory_bytes: int = 80 << 30
    persistence: bool = True
    virtualization: int = 0
    faults: Sequence[Fault] = ()

    def __post_init__(self) -> None:
        for name in ("fields", "mig_uuids", "pids", "faults"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not {83, 185, 186, 191}.issuperset(self.fields):
            raise ValueError(f"The lab knows the fields 83, 185, 186 and 191, not {self.fields}.")
        if self.mig_uuids and len(self.mig_uuids) != (self.mig or 0):
            raise ValueError(f"{len(self.mig_uuids)} MIG UUIDs for {self.mig or 0} instances.")
        for name in ("counter_ms", "samples_ms"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0; None takes it away.")
        if (self.mig or 0) > MAX_MIG:
            raise ValueError(f"The lab has room for {MAX_MIG} MIG instances a board, got {self.mig}.")
        for fault in self.faults:
            if not fault.function.startswith(("nvmlDevice", "*")) or "GetCount" in fault.function:
                raise ValueError(f"{fault.function} names no board: give this fault to Lab(faults=...).")

    def lines(self, uuid: str, pci_bus_id: str, mig_uuids: Sequence[str]) -> list[str]:
        """The board's part of the scenario file."""
        numbers = {
            "counter_period_ns": _ns(self.counter_ms),
            "counter_phase_ns": _ns(self.counter_phase_ms),
            "counter_lag_ns": _ns(self.counter_lag_ms),
            "counter_gain_ppm": round(self.counter_gain * PPM),
            "counter_start_mj": self.counter_start_mj,
            "samples_period_ns": _ns(self.samples_ms),
            "samples_phase_ns": _ns(self.samples_phase_ms),
            "samples_jitter_ns": _ns(self.samples_jitter_ms),
            "samples_window_ns": _ns(self.samples_window_ms),
            "samples_buffer": self.samples_buffer,
            "stamps_since_boot": int(self.stamps == "boot"),
            "usage": int(self.power_usage),
            "usage_window_ns": _ns(self.power_window_ms),
            "usage_period_ns": _ns(self.power_period_ms),
            "sensor_gain_ppm": round(self.sensor_gain * PPM),
            **{f"field_{number}": int(number in self.fields) for number in (83, 185, 186, 191)},
            "module_extra_mw": -1 if self.module_extra_w is None else round(self.module_extra_w * MW_PER_W),
            "limit_mw": round(self.power_limit_w * MW_PER_W),
            "limit_min_mw": round(self.power_limits_w[0] * MW_PER_W),
            "limit_max_mw": round(self.power_limits_w[1] * MW_PER_W),
            "mig_mode": -1 if self.mig is None else int(self.mig > 0),
            "architecture": self.architecture,
            "cc_major": self.compute_capability[0],
            "cc_minor": self.compute_capability[1],
            "memory_bytes": self.memory_bytes,
            "persistence": int(self.persistence),
            "virtualization": self.virtualization,
        }
        return [
            "board",
            f"name {self.name}",
            f"uuid {uuid}",
            f"pci {pci_bus_id}",
            *(f"{key} {value}" for key, value in numbers.items()),
            *(f"mig {mig_uuid}" for mig_uuid in mig_uuids),
            *(f"pid {pid}" for pid in self.pids),
            *(f"head {duration_ns} {power_mw}" for duration_ns, power_mw in self.power.head),
            *(f"loop {duration_ns} {power_mw}" for duration_ns, power_mw in self.power.loop),
            *(fault.line() for fault in self.faults),
        ]

    def counter_mj(self, t_ns: int) -> int:
        """What a healthy counter reads `t_ns` after time zero, in millijoules."""
        if self.counter_ms is None:
            raise ValueError("This board has no energy counter (counter_ms=None).")
        phase_ns, period_ns = _ns(self.counter_phase_ms), _ns(self.counter_ms)
        ticks = math.floor((t_ns - _ns(self.counter_lag_ms) - phase_ns) / period_ns)
        true_pj = self.power.energy_pj(ticks * period_ns + phase_ns) if ticks >= 0 else 0
        return self.counter_start_mj + true_pj * round(self.counter_gain * PPM) // PPM // 10**9


@cache
def _symbols() -> dict[str, str]:
    names = {name: name for name in function_names()}
    return {name.removesuffix("_v2").removesuffix("_v3"): name for name in names} | names


def symbol(function: str) -> str:
    """The C symbol behind a name with or without version suffix; "*" stays."""
    if function == "*":
        return function
    if function not in _symbols():
        raise ValueError(f"The NVML lab has no function {function!r}; nvml.c lists what it has.")
    return _symbols()[function]


def _ns(milliseconds: float | None) -> int:
    return round((milliseconds or 0.0) * NS_PER_MS)
