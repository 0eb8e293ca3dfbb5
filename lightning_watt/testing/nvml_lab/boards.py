"""What a scenario is made of: boards. `named.py` has those that were measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from lightning_watt.testing.nvml_lab.curve import MW_PER_W, Curve, constant
from lightning_watt.testing.nvml_lab.faults import NS_PER_MS, Fault

PPM = 1_000_000
PJ_PER_MJ = 10**9
MAX_MIG = 8  # as in scenario.h


@dataclass(frozen=True, kw_only=True)
class Board:
    """One fake board: what it draws, and how it shows that.

    Without arguments it is a Tesla V100, as `named.py` has it with other boards that were measured.

    Args:
        power: watts over time; `constant`, `square`, `steps`, `ramp`.
        name: the product name.
        uuid: "GPU-..."; None gives each board of a lab its own.
        pci_bus_id: "domain:bus:device.function" in hexadecimal; None likewise.
        counter_ms: the energy counter's tick; between ticks it stands still. None: NOT_SUPPORTED.
        counter_phase_ms: when its first tick comes, after time zero.
        counter_jitter_ms: each tick comes up to this much late, by a fixed pseudo-random sequence.
        counter_lag_ms: how much later than its tick a value can be read.
        counter_window_ms: 0: the counter adds up the truth. Otherwise each tick adds the mean power over this window before
            it times the time since the last tick, as if a sensor that looks only so long fed the counter. Of no real board
            is it known which.
        counter_lost_ms: each look at the counter makes it lose so long of the time to its next tick, at most nine tenths of
            a tick, in the process that looks: as counters were reported that are polled fast.
        counter_gain: the counter reads gain x truth (to 1 ppm).
        counter_start_mj: what it reads at time zero, in millijoules.
        samples_ms: the period of the driver's power samples. None: NOT_SUPPORTED.
        samples_phase_ms: when the first sample is taken, after time zero.
        samples_jitter_ms: each sample comes up to this much late, by a fixed pseudo-random sequence.
        samples_window_ms: a sample is the average over this window that ends at it; 0 is the instant.
        samples_lag_ms: how much older than its stamp a sample's value is.
        samples_buffer: how many samples the driver keeps.
        stamps: what the samples' time stamps count from: "unix", 1970; "boot", when the machine was started, without the
            time that it slept (a "clock_step" fault is such a sleep, for one that counts it).
        power_usage: whether `nvmlDeviceGetPowerUsage` is supported.
        power_window_ms: its averaging window (1 s on most boards since Ampere); 0 is the instant.
        power_period_ms: how often that sensor (and fields 185, 186) is refreshed; 0 is always.
        power_phase_ms: when it is refreshed first, after time zero.
        sensor_gain: power usage and samples show gain x truth (to 1 ppm); the counter has its own.
        call_ms: how long a call takes on average: 0.7 to 1.3 times this; it answers in the middle of it.
        fields: supported field values, of 83 and 191 (energy), 185 (power over 1 s), 186 (over the samples' window).
        module_extra_w: what scope 1 (the module) of fields 185, 186 adds to the board. None: NOT_SUPPORTED.
        power_limit_w: the enforced limit; None: NOT_SUPPORTED, as are the limits.
        power_limits_w: the smallest and the largest limit.
        mig: the number of MIG instances; 0 is a board with MIG off, None one that knows none.
        mig_uuids: their "MIG-..." UUIDs; empty names them after the board.
        pids: processes that run on the board.
        architecture: NVML_DEVICE_ARCH_*; 5 is Volta.
        compute_capability: the pair that CUDA reports.
        memory_bytes: of which a quarter is in use.
        persistence: whether persistence mode is on.
        virtualization: NVML_GPU_VIRTUALIZATION_MODE_*; 0 none, 2 a vGPU.
        faults: what befalls this board.
    """

    power: Curve = field(default_factory=lambda: constant(100.0))
    name: str = "Tesla V100-SXM2-16GB"
    uuid: str | None = None
    pci_bus_id: str | None = None
    counter_ms: float | None = 20.0
    counter_phase_ms: float = 0.0
    counter_jitter_ms: float = 0.0
    counter_lag_ms: float = 0.0
    counter_window_ms: float = 0.0
    counter_lost_ms: float = 0.0
    counter_gain: float = 1.0
    # Not 0: a real counter counts since the driver was loaded.
    counter_start_mj: int = 987_654_321
    samples_ms: float | None = 20.0
    samples_phase_ms: float = 0.0
    samples_jitter_ms: float = 0.0
    samples_window_ms: float = 10.0
    samples_lag_ms: float = 0.0
    samples_buffer: int = 120
    stamps: Literal["unix", "boot"] = "unix"
    power_usage: bool = True
    power_window_ms: float = 10.0
    power_period_ms: float = 20.0
    power_phase_ms: float = 0.0
    sensor_gain: float = 1.0
    call_ms: float = 0.0
    fields: Sequence[int] = (83, 185, 186, 191)
    module_extra_w: float | None = None
    power_limit_w: float | None = 300.0
    power_limits_w: tuple[float, float] = (100.0, 300.0)
    mig: int | None = None
    mig_uuids: Sequence[str] = ()
    pids: Sequence[int] = ()
    architecture: int = 5
    compute_capability: tuple[int, int] = (7, 0)
    memory_bytes: int = 16 << 30
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
            "counter_jitter_ns": _ns(self.counter_jitter_ms),
            "counter_lag_ns": _ns(self.counter_lag_ms),
            "counter_window_ns": _ns(self.counter_window_ms),
            "counter_lost_ns": _ns(self.counter_lost_ms),
            "counter_gain_ppm": round(self.counter_gain * PPM),
            "counter_start_mj": self.counter_start_mj,
            "samples_period_ns": _ns(self.samples_ms),
            "samples_phase_ns": _ns(self.samples_phase_ms),
            "samples_jitter_ns": _ns(self.samples_jitter_ms),
            "samples_window_ns": _ns(self.samples_window_ms),
            "samples_lag_ns": _ns(self.samples_lag_ms),
            "samples_buffer": self.samples_buffer,
            "stamps_since_boot": int(self.stamps == "boot"),
            "usage": int(self.power_usage),
            "usage_window_ns": _ns(self.power_window_ms),
            "usage_period_ns": _ns(self.power_period_ms),
            "usage_phase_ns": _ns(self.power_phase_ms),
            "call_ns": _ns(self.call_ms),
            "sensor_gain_ppm": round(self.sensor_gain * PPM),
            **{f"field_{number}": int(number in self.fields) for number in (83, 185, 186, 191)},
            "module_extra_mw": -1 if self.module_extra_w is None else round(self.module_extra_w * MW_PER_W),
            "limit_mw": -1 if self.power_limit_w is None else round(self.power_limit_w * MW_PER_W),
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
        period_ns, counted_ns = _ns(self.counter_ms), t_ns - _ns(self.counter_lag_ms)
        tick = (counted_ns - _ns(self.counter_phase_ms)) // period_ns
        while tick >= 0 and self._tick_ns(tick) > counted_ns:
            tick -= 1
        return self.counter_start_mj + self._counted_pj(tick) * round(self.counter_gain * PPM) // PPM // PJ_PER_MJ

    def power_usage_w(self, t_ns: int) -> float:
        """What `nvmlDeviceGetPowerUsage` shows `t_ns` after time zero, in watts."""
        since_ns, period_ns = t_ns - _ns(self.power_phase_ms), _ns(self.power_period_ms)
        seen_ns = t_ns - since_ns % period_ns if period_ns and since_ns > 0 else t_ns
        mean_mw = self._mean_mw(seen_ns, _ns(self.power_window_ms))
        return mean_mw * round(self.sensor_gain * PPM) // PPM / MW_PER_W

    def _tick_ns(self, tick: int) -> int:
        late_ns = _mixed(tick) % max(1, _ns(self.counter_jitter_ms))
        return _ns(self.counter_phase_ms) + tick * _ns(self.counter_ms) + late_ns

    def _counted_pj(self, tick: int) -> int:
        if tick < 0:
            return 0
        if not self.counter_window_ms:
            return self.power.energy_pj(self._tick_ns(tick))
        sums, window_ns = self._summed_pj, _ns(self.counter_window_ms)
        for k in range(len(sums), tick + 1):
            at_ns = self._tick_ns(k)
            sums.append(sums[-1] + self._mean_mw(at_ns, window_ns) * (at_ns - self._tick_ns(k - 1)))
        return sums[tick]

    @cached_property
    def _summed_pj(self) -> list[int]:
        """What a counter with a window has added up by each tick, as far as anybody has asked."""
        return [0]

    def _mean_mw(self, t_ns: int, window_ns: int) -> int:
        from_ns = max(0, t_ns - window_ns)
        if window_ns <= 0 or t_ns <= from_ns:
            return round(float(self.power.power_w(np.asarray(t_ns))) * MW_PER_W)
        return (self.power.energy_pj(t_ns) - self.power.energy_pj(from_ns)) // (t_ns - from_ns)


def _mixed(number: int) -> int:
    """splitmix64, as in scenario.c."""
    z = (number * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def _ns(milliseconds: float | None) -> int:
    return round((milliseconds or 0.0) * NS_PER_MS)
