"""Whether a counter and the power samples beside it tell the same energy, also while it is read often. Pure.

Nobody has published how far an energy counter is off, and some were reported to rise by less while they are read many times
a second (RTX 4090 and 5060 Ti; refuted for B300 and A10G). The samples are another witness of the same board: the two are
compared minute by minute, and minutes of many reads with those of few.
"""

from __future__ import annotations

from typing import NamedTuple

from lightning_watt.sources.base import Device

MINUTE_S = 60.0
"""Over less, a load that beats with the sensor may make them differ."""
BEYOND = 0.1
"""Over a minute, power sensors are no further than this off a meter, but for one (`sources/nvidia/gains.py`)."""
LOST = 0.05
"""A counter that rises by so much less while it is read often is not read often any more."""
ALIKE = 0.25
"""Minutes are compared if their mean powers differ by no more: a sensor's line also has an offset."""
SOME = 0.1
"""A minute of many reads may have so much of few, and one of few so much of many."""
SILENT_S = 5.0
"""A minute of few reads without samples for this long will not come."""
SURE = 0.01
"""A difference between them is known to this: a load changes between two samples."""
TINY, MOST_OFF = 1e-3, 10.0
OFTEN = 2
"""After so many minutes of many reads comes one of few; after twice as many, if that was not alike."""


class _Sum(NamedTuple):
    """Seconds, joules by the counter, joules by the samples, and seconds in which the counter was read often."""

    seconds: float = 0.0
    counter_j: float = 0.0
    samples_j: float = 0.0
    often_s: float = 0.0

    def and_then(self, other: _Sum) -> _Sum:
        return _Sum(
            self.seconds + other.seconds,
            self.counter_j + other.counter_j,
            self.samples_j + other.samples_j,
            self.often_s + other.often_s,
        )

    @property
    def ratio(self) -> float:
        return self.counter_j / self.samples_j

    def is_like(self, other: _Sum) -> bool:
        mine, its = self.samples_j / self.seconds, other.samples_j / other.seconds
        return abs(mine - its) <= ALIKE * min(mine, its)


class Agreement:
    """One device's counter beside its power samples, over a run.

    Attributes:
        doubt: why the counter is doubted, in a sentence without its device; empty as long as it is not.

    Example:
        >>> agreement = Agreement()
        >>> for _ in range(60):
        ...     _ = agreement.take(1.0, 80.0, 100.0, often=False)
        >>> agreement.ratio, agreement.doubt.split(":")[0]
        (0.8, 'over a minute its energy counter rose by 20% less than its power samples add up to')
    """

    def __init__(self) -> None:
        self.doubt = ""
        self._all, self._minute = _Sum(), _Sum()
        self._often: _Sum | None = None
        self._seldom: _Sum | None = None
        self._often_minutes, self._wanted = 0, OFTEN
        self._lost = self._silent_s = 0.0

    def take(self, seconds: float, counter_j: float, samples_j: float, *, often: bool) -> bool:
        """Compare them over a stretch.

        Args:
            seconds: how long it is.
            counter_j: joules by the counter.
            samples_j: joules by the samples; 0 if they do not tell.
            often: the counter is read several times a second.

        Returns:
            Whether a minute is full, after which the rest here may differ.
        """
        self._silent_s = 0.0 if samples_j > 0 else self._silent_s + seconds
        if samples_j <= 0:
            if self._silent_s > SILENT_S and not self.may_be_read_often:
                self._wanted = 0  # a board that is asked for its power only while it is read often: it cannot be compared
            return False
        minute = self._minute.and_then(_Sum(seconds, counter_j, samples_j, seconds if often else 0.0))
        if minute.seconds < MINUTE_S:
            self._minute = minute
            return False
        self._all, self._minute = self._all.and_then(minute), _Sum()
        off = minute.ratio - 1
        if abs(off) > BEYOND and not self.doubt:
            self.doubt = (
                f"over a minute its energy counter rose by {abs(off):.0%} {'more' if off > 0 else 'less'} than its power "
                "samples add up to: one of them is wrong, or the load keeps step with the sensor"
            )
        self._compare(minute)
        return True

    def _compare(self, minute: _Sum) -> None:
        """A minute of many reads with one of few."""
        if minute.often_s < SOME * minute.seconds:
            self._seldom, self._often_minutes = minute, 0
        elif minute.often_s > (1 - SOME) * minute.seconds:
            self._often = minute
            self._often_minutes += 1
        if self._often is None or self._seldom is None:
            return
        if not self._often.is_like(self._seldom):
            if minute is self._seldom:
                self._wanted *= 2
            return
        lost = 1 - self._often.ratio / self._seldom.ratio
        self._lost, self._wanted = max(self._lost, lost), 0
        if lost > LOST and not self.doubt:
            self.doubt = (
                f"its energy counter rose by {lost:.0%} less, beside its power samples, while it was read several times a "
                "second than while it was read once"
            )

    @property
    def ratio(self) -> float | None:
        """The counter's energy over the samples', over the run's whole minutes; None before the first."""
        return self._all.ratio if self._all.seconds else None

    @property
    def may_be_read_often(self) -> bool:
        """Whether nothing speaks against it, and no minute of few reads is wanted for comparison."""
        return not self.doubt and (self._wanted == 0 or self._often_minutes < self._wanted)

    def told_of(self, device: Device) -> Device:
        """The device with what is known of it here; its gain is no less than by how much the two differ.

        Args:
            device: as it was opened.
        """
        if self.ratio is None:
            return device
        ratio = round(self.ratio, 3)
        off = max(abs(1 / max(ratio, TINY) - 1), 1 / max(1 - self._lost, TINY) - 1 if self._lost > LOST else 0.0)
        off = min(round(off, 3), MOST_OFF)
        why = f"its counter and its power samples differ by {off:.1%}"
        return device.but(
            counter_over_samples=ratio,
            gain=off + SURE if off > device.gain else device.gain,
            typical_gain=max(device.typical_gain, off) if device.typical_gain else 0.0,
            gain_source=why if off > device.gain else device.gain_source,
        )


def measured_again(before: Device | None, now: Device) -> Device:
    """A device that an earlier measurement of the same run knew too: what spoke against its counter there still stands.

    Args:
        before: as the earlier one knew it; None if there was none, and another device if its label meant another.
        now: as the later one knows it.
    """
    if before is None or before.uuid != now.uuid or before.counter_over_samples is None:
        return now
    if now.counter_over_samples is not None and now.gain >= before.gain:
        return now
    return now.but(
        counter_over_samples=before.counter_over_samples,
        gain=before.gain,
        typical_gain=before.typical_gain,
        gain_source=before.gain_source,
    )
