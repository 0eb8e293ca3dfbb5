"""The door that everything from a source passes: what is no device or no reading ends here, and the other sources go on.

A source may be the user's own, so nothing is taken on trust: it may raise whatever it likes, return whatever it likes, and
stamp its readings with another clock. Each reading is checked; what is no reading becomes a `Failure` of its device.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from numbers import Real
from typing import Any

from lightning_watt.errors import SourceUnavailable, shown
from lightning_watt.host import keep, tell_of_forks
from lightning_watt.sources.base import Clock, Device, EnergySource, Failure, Reading
from lightning_watt.units import nanoseconds, seconds

MAX_READINGS = 100_000
"""More than this from one read is taken for a source that never ends."""
BEYOND = 2**63
"""Counters and clocks are 64 bits wide, here and in every file."""
AHEAD_NS = nanoseconds(1.0)
"""A driver's stamps may run ahead of the host's clock a little; by more than this they are another clock's."""
BEHIND_NS = nanoseconds(3600.0)
"""A slow counter may show what it was long ago; what is this much older than the measurement is another clock's too."""
MOST_TICK_S = 86_400.0
MOST_GAIN = 1e6
AUTHOR = "Report it to its author."
CLOCK = "Stamp readings with the clock that `open` is given, `clock.now_ns()`, and not with `time.time_ns()`."


def take_up(source: EnergySource, clock: Clock) -> Any:
    """Open a source for one more measurement, which lets go of it with `let_go`.

    Returns:
        What its `open` returned.
    """
    hold = _holds.take(source)
    try:
        found = source.open(clock)
    except BaseException:
        let_go(source)  # which closes only what an earlier measurement has left open
        raise
    hold.is_open = True
    return found


def devices_of(source: EnergySource, found: Any) -> list[Device]:
    """What a source's `open` returned, checked.

    Raises:
        SourceUnavailable: something in it is no device, or the source's `due_s` is no time.
    """
    devices = list(islice(found, MAX_READINGS)) if isinstance(found, Iterable) else [found]
    for device in devices:
        if not isinstance(device, Device):
            raise SourceUnavailable(source.name, f"It opened {_kind(device)} for a `Device`.", AUTHOR)
        if why := _what_is_wrong_with(device):
            raise SourceUnavailable(source.name, f"It opened a device whose {why}.", AUTHOR)
    labels = [device.label for device in devices]
    twice = {label for label in labels if labels.count(label) > 1}
    if twice:
        raise SourceUnavailable(source.name, f"It opened more than one device named {min(twice)}.", AUTHOR)
    if not (_number(source.due_s) or 0.0) > 0:
        why = f"Its `due_s`, the seconds between two reads, is {shown(source.due_s)}."
        raise SourceUnavailable(source.name, why, AUTHOR)
    return devices


def readings_of(source: EnergySource, labels: Collection[str], clock: Clock, since_ns: int) -> list[Reading | Failure]:
    """Read a source once; whatever it does, this returns.

    Args:
        source: the source.
        labels: its devices.
        clock: the clock that its readings should be stamped by.
        since_ns: when the measurement began on it.

    Returns:
        The readings, in whole numbers, and a `Failure` for every device whose reading is none. What belongs to no reading
        is a failure of the devices that had none this time.
    """
    found: list[Reading | Failure] = []
    wrong: Failure | None = None
    try:
        returned: Any = source.read()
        if not isinstance(returned, Iterable):
            returned = [returned]
        for one in islice(returned, MAX_READINGS):
            checked = _checked(one, source.name, (since_ns - BEHIND_NS, clock.now_ns() + AHEAD_NS))
            if checked.label:
                found.append(checked)
            elif isinstance(checked, Failure):
                wrong = checked
    except BaseException as error:  # noqa: BLE001 - also SystemExit, which would end the reader's thread without a word
        wrong = Failure("", f"{source.name} raised {shown(error)}.", AUTHOR)
    if wrong is not None:
        had = {one.label for one in found}
        found += [Failure(label, wrong.why, wrong.remedy) for label in labels if label not in had]
    return found


def glance_at(source: EnergySource, labels: Collection[str]) -> None:
    """Let a source that can do it look at some devices between two reads; of what goes wrong, the next read will say."""
    glance = getattr(source, "glance", None)
    if callable(glance):
        with suppress(Exception):
            glance(labels)


def let_go(source: EnergySource) -> str:
    """Close a source, unless another measurement has it open. Returns a sentence if that failed, otherwise an empty text."""
    try:
        _holds.drop(source)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - as above; the others are still to be closed
        return f"{source.name} raised {shown(error)} when it was closed, and may still hold its driver. {AUTHOR}"
    return ""


@dataclass
class _Hold:
    """A source, and how many measurements have it open or are opening it."""

    source: EnergySource  # so that its `id` is nobody else's meanwhile
    holders: int = 0
    is_open: bool = False
    closing: Any = field(default_factory=threading.RLock)


class _Holds:
    """Who has which source open. Only the last one that lets go of a source closes it.

    A driver that hangs keeps a measurement's thread beyond its end, and the next one may have opened the same source by the
    time that this thread lets go: a callback with `sources=[source]` in a second Trainer, for instance.
    """

    def __init__(self) -> None:
        self._begin_anew()
        tell_of_forks(self)

    def forked(self) -> None:
        """In a child: the parent's threads, which would let go, are not here."""
        keep(self._holds)
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._lock = threading.RLock()  # a signal handler may stop a meter in the middle of this
        self._holds: dict[int, _Hold] = {}

    def take(self, source: EnergySource) -> _Hold:
        with self._lock:
            hold = self._holds.setdefault(id(source), _Hold(source))
            hold.holders += 1
        with hold.closing:  # who is closing it just now has done so before it is opened again
            return hold

    def drop(self, source: EnergySource) -> None:
        with self._lock:
            hold = self._holds.get(id(source))
        if hold is None:  # it was not taken up here
            source.close()
            return
        with hold.closing:
            with self._lock:
                hold.holders -= 1
                is_last = hold.holders == 0
            try:
                if is_last and hold.is_open:
                    hold.is_open = False
                    source.close()
            finally:
                with self._lock:
                    if hold.holders == 0:
                        self._holds.pop(id(source), None)


_holds = _Holds()


def _checked(one: Any, name: str, times_ns: tuple[int, int]) -> Reading | Failure:
    """It itself, in whole numbers; or a failure, without a label if the device is not known."""
    if isinstance(one, Failure) and all(isinstance(text, str) for text in (one.label, one.why, one.remedy)):
        return one
    if not isinstance(one, Reading) or not isinstance(one.label, str):
        return Failure("", f"{name} returned {_kind(one)} for a `Reading`.", AUTHOR)
    t_ns, energy_uj, (oldest_ns, latest_ns) = _whole(one.t_ns), _whole(one.energy_uj), times_ns
    if energy_uj is None:
        return Failure(one.label, f"{name} returned {shown(one.energy_uj)}, which is no number of microjoules.", AUTHOR)
    if t_ns is None:
        return Failure(one.label, f"{name} stamped a reading with {shown(one.t_ns)}, which is no time.", AUTHOR)
    if not oldest_ns <= t_ns <= latest_ns:
        off_s = seconds(t_ns - (latest_ns if t_ns > latest_ns else oldest_ns))
        where = "to come" if off_s > 0 else "long past"
        return Failure(one.label, f"{name} stamped a reading with a time {where}, by {abs(off_s):.4g} s.", CLOCK)
    tick_s = None if one.tick_s is None else _number(one.tick_s)
    if one.tick_s is not None and (tick_s is None or not 0 <= tick_s <= MOST_TICK_S):
        return Failure(one.label, f"{name} returned {shown(one.tick_s)} for its counter's period.", AUTHOR)
    blur_s = _number(one.blur_s)
    if blur_s is None or not 0 <= blur_s <= MOST_TICK_S:
        return Failure(one.label, f"{name} returned {shown(one.blur_s)} for how far its times may be off.", AUTHOR)
    try:
        power = _plain_samples(one.power, times_ns)
    except Exception as error:  # noqa: BLE001 - it may hold anything
        return Failure(one.label, f"{name} returned power samples that are none ({shown(error)}).", AUTHOR)
    clock = one.samples_clock if type(one.samples_clock) is str else ""  # a word for the record, and no more
    return Reading(one.label, t_ns, energy_uj, power, tick_s, blur_s, clock)


def _plain_samples(power: Any, times_ns: tuple[int, int]) -> tuple[tuple[int, float], ...]:
    """Samples in whole nanoseconds and finite watts. They give the curve its shape and no energy: others are left out."""
    oldest_ns, latest_ns = times_ns
    if type(power) is tuple and len(power) < MAX_READINGS:
        # Nearly always nothing is wrong with them; there are fifty in a second of some boards, so they are kept as they are.
        fine = [
            one
            for one in power
            if type(one) is tuple
            and len(one) == 2
            and type(one[0]) is int
            and type(one[1]) is float
            and oldest_ns <= one[0] <= latest_ns
            and -math.inf < one[1] < math.inf
        ]
        if len(fine) == len(power):
            return power
    samples = [(_whole(at_ns), _number(watts)) for at_ns, watts in islice(power, MAX_READINGS)]
    return tuple((at, w) for at, w in samples if at is not None and w is not None and oldest_ns <= at <= latest_ns)


def _what_is_wrong_with(device: Device) -> str:
    for name in ("label", "name", "uuid", "source", "note", "gain_source", "samples_clock"):
        text = getattr(device, name)
        if not isinstance(text, str) or not (text or name in ("note", "gain_source", "samples_clock")):
            return f"{name} is {shown(text)}"
    if device.provenance not in ("measured", "estimated"):
        return f"provenance is {shown(device.provenance)}"
    for name, most in (("tick_s", MOST_TICK_S), ("gain", MOST_GAIN), ("max_power_w", math.inf)):
        value = getattr(device, name)
        number = math.inf if value == math.inf else _number(value)
        if number is None or not 0 <= number <= most:
            return f"{name} is {shown(value)}"
    return ""


def _number(value: Any) -> float | None:
    """A finite number; None for everything else, which a truth value is too."""
    if type(value) is float:  # nearly always, and a reading has dozens of them
        return value if math.isfinite(value) else None
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except (ArithmeticError, TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _whole(value: Any) -> int | None:
    """A whole number of 64 bits; None if it is none."""
    if type(value) is int:
        number = value
    elif _number(value) is None:
        return None
    else:
        number = int(value)  # not by way of a float, which a big NumPy integer would lose digits in
    return number if -BEYOND < number < BEYOND else None


def _kind(value: Any) -> str:
    return "None" if value is None else f"an object of type `{type(value).__name__}`"
