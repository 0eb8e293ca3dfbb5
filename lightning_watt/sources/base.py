"""What a source of energy readings is: the protocol, and the plain values that it hands over."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import msgspec

Word = Annotated[str, msgspec.Meta(max_length=256)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Provenance = Literal["measured", "estimated"]
CPU_SHARE = "cpu-share"
"""`sources` in one word: as "auto", but of what RAPL measures only this job's share by processor time."""


class Clock(Protocol):
    """The host's clocks, passed in so that tests can own the time."""

    def now_ns(self) -> int:
        """Nanoseconds of a clock that never steps."""

    def unix_ns(self) -> int:
        """Nanoseconds since 1970, which may step."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


def end_of(clock: Clock) -> int | None:
    """When the last reading has to be there; None while the measurement goes on, or its clock knows of no end."""
    return getattr(clock, "ends_ns", None)


def boot_ns(clock: Clock) -> int:
    """Nanoseconds since the machine was started, sleep included; a clock that knows of no sleep tells its own time."""
    ns: int = getattr(clock, "boot_ns", clock.now_ns)()
    return ns


class HostClock:
    """The machine's own clocks: CLOCK_MONOTONIC for durations, CLOCK_REALTIME and CLOCK_BOOTTIME for what others stamped."""

    now_ns = staticmethod(time.monotonic_ns)
    unix_ns = staticmethod(time.time_ns)
    boot_ns = staticmethod(
        partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic_ns
    )
    sleep = staticmethod(time.sleep)


HOST_CLOCK = HostClock()


class Device(msgspec.Struct, frozen=True):
    """Something whose energy is read; the same value stands in journals, checkpoints and records.

    Attributes:
        label: its name in tags and records: `gpu0`, `cpu0`, `dram0`.
        name: what a person calls it: `NVIDIA H100`.
        uuid: its identity on this host; the same device is counted once by it.
        source: where the numbers come from: `nvml-counter`, `nvml-power`, `rapl`, `estimate`, or an adapter's name.
        provenance: whether the numbers are measured or estimated.
        tick_s: seconds between two updates of the counter, as far as known before it was watched.
        gain: relative error of scale, the same in every reading of this device (0.05 is 5 %).
        max_power_w: more than this cannot be drawn; a reading that says so is refused.
        always_draws: the device draws power whenever it is on, so a counter that stands still is a fault.
        note: one sentence for the record: shared with others, MIG parent, and the like.
        host: the host that it is on; a source leaves this empty, the run fills it in.
        gain_source: who found that gain, and of what; empty if nobody has said.
        typical_gain: the relative error that was typical where the like was checked with a meter; 0 if only `gain` is known.
        samples_clock: the clock that its driver stamps power samples by, as far as known: `realtime`, `boottime` or
            `monotonic`.
        counter_over_samples: the counter's energy over that of the driver's power samples, over the run; None without
            samples, and before a minute of them.
    """

    label: str
    name: str
    uuid: str
    source: str
    provenance: Provenance = "measured"
    tick_s: float = 0.0
    gain: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.05
    max_power_w: float = 10_000.0
    always_draws: bool = True
    note: str = ""
    host: str = ""
    gain_source: str = ""
    samples_clock: str = ""
    typical_gain: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.0
    counter_over_samples: NotNegative | None = None

    def but(self, **changes: Any) -> Device:
        """The same device, and these fields of it as they are now."""
        return msgspec.structs.replace(self, **changes)

    def __repr__(self) -> str:
        used = f"{self.joules:.4g} J, " if hasattr(self, "joules") else ""
        return (
            f"<{self.label or type(self).__name__}: {self.name}, {used}{self.source}, {self.provenance}, ± {self.gain:.0%}>"
        )


def devices_from(raw: Mapping[str, Any]) -> dict[str, Device]:
    """Devices by label, from the plain values that a journal or a checkpoint holds.

    Raises:
        msgspec.ValidationError: they are none.
    """
    plain = msgspec.convert(raw, dict[Word, dict[str, Any]])
    # An infinite number is null in a file: then the default stands.
    known = {label: {key: value for key, value in fields.items() if value is not None} for label, fields in plain.items()}
    return {label: msgspec.convert({**fields, "label": label}, Device) for label, fields in known.items()}


UNREAD = "it had not been read yet"
"""Why a gap is one that a run begins with, before a device's first reading."""


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """A time whose energy a counter lost.

    Attributes:
        device: the device's label.
        seconds: how long it is.
        joules: what the last known power comes to over it: charged, or missing if `why` says so. All of it is uncertain.
        why: what the counter did.
    """

    device: str
    seconds: NotNegative
    joules: NotNegative
    why: str

    @property
    def beyond_edges_j(self) -> float:
        """Joules by which a run's total may be off because of it, beside what the run's own edges say."""
        return 0.0 if self.why == UNREAD else self.joules


@dataclass(frozen=True)
class Reading:
    """One look at a device's counter.

    Attributes:
        label: the device's label.
        t_ns: the time (of `Clock.now_ns`) that the counter's value stands for.
        energy_uj: the counter, microjoules since some fixed moment.
        power: samples of the power since the last reading, as `(t_ns, watts)`, oldest first; may be empty.
        tick_s: the counter's update period in seconds, if it was watched.
        blur_s: where it was watched, by how much `t_ns` may still be off, seconds: a look at the counter takes a while.
        samples_clock: the clock that `power` was stamped by, if it is known by now; as in `Device`.
    """

    label: str
    t_ns: int
    energy_uj: int
    power: tuple[tuple[int, float], ...] = ()
    tick_s: float | None = None
    blur_s: float = 0.0
    samples_clock: str = ""


@dataclass(frozen=True)
class Failure:
    """A device that could not be read this time.

    Attributes:
        label: the device's label.
        why: what happened.
        remedy: what to do about it.
    """

    label: str
    why: str
    remedy: str


@runtime_checkable
class EnergySource(Protocol):
    """Where energy readings come from.

    A source is opened, read from one thread only, and closed; it may then be opened again. Where a driver
    hangs beyond the end of a measurement, the next one opens it before that: `open` begins anew, and `close` comes once.
    `open` raises `SourceUnavailable`; `read` never raises for a device that fails, it returns a `Failure` for it.

    Attributes:
        name: the source's name.
        due_s: the longest time between two reads that this source bears, seconds.
    """

    name: str
    due_s: float

    def open(self, clock: Clock) -> Sequence[Device]:
        """Find the devices and take hold of them.

        Raises:
            SourceUnavailable: nothing can be read here; says why and what to do.
        """

    def read(self) -> Sequence[Reading | Failure]:
        """Read every device once; several readings a device are allowed, oldest first."""

    def close(self) -> None:
        """Let go of everything; never raises."""


def is_source(value: object) -> bool:
    """Whether this is a source, and not its class or its name."""
    return isinstance(value, EnergySource) and not isinstance(value, type)
