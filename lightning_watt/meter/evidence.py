"""How far a counter confirms the power samples beside it, and how far a curve between two of its readings may be off. Pure.

At each reading, two neighbouring stretches of the counter are known. Their sum, split by time or by the samples, is compared
with what the counter says of each: so the samples' shape is trusted as far as it foretold the counter, and what it did not
foretell is the uncertainty of a point between two readings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_watt.meter.shape import spread_j2
from lightning_watt.units import NS_PER_S

KEEP = 0.96
"""What a test weighs after the next one: about 25 tests count."""
FEW = 2.0
EXPECTED = 0.02
"""Before there are tests, the samples count as right to this share of the energy, by as much as `FEW` tests."""
LONGEST_S = 3.0
"""A longer stretch says nothing of the shape of a second."""
# Fitted on replays of recorded boards and of square waves: truth inside in 95 % of windows.
MISSED, FINE, UNSEEN, JUMP = 2.5, 0.6, 0.2, 0.25
BELIEVED, ENOUGH = 0.9, 4
"""Samples that are trusted less than this, by so many tests, leave too much between two readings a second apart."""
MISSES, MISSES_MUCH = 1.0, 8.0
"""They do not if what they miss is no more than what is expected of good ones: closer readings would show no more. Flat
samples foretell nothing wrong and may still miss everything: those that miss so much leave too much too."""
SLOW_S = 0.25
"""What is missed by so much may go the same way for longer than the tests, as where a load alternates once a second."""
UNIT_S = 0.8
"""Stretches of about a second together, beside those of a tick: what is missed adds up over a second, or it does not."""
UNEVEN_S = 0.012
"""Ticks that come evenly are known better than this, also through slow calls."""
SURE = 16.0
"""So many times less than by the shape's rule samples vary that foretell the counter; fitted on replays of uneven ticks."""
HALF_S = 600.0
"""The ratio of counter and samples forgets half in this time."""
BEAT_S, COARSE_S = 3.0, 0.1
"""The longest beat of a load with a sensor that is thought of where no counter is beside it, for samples this far apart; the
denser they are, the fewer loads beat with them."""
TINY_J2 = 1e-12
MOST_LAG_S = 0.1
"""Samples that are older than this were seen through a long window, and moving them does not make them sharper."""
SLOWLY, FEWEST, CAREFUL = 0.99, 6.0, 4.0
"""A sensor's lag does not change: about 100 stretches count, so many at least, and its doubt (s^2) so many times."""


class Stretch(NamedTuple):
    """What is between two readings.

    Attributes:
        start_ns, end_ns: its ends.
        power_w: its mean power.
        missed_j: what was missed by the tests, as far as it bears on the middle of this stretch.
        fine_j: how far the samples' own steps may lie elsewhere between two samples.
        spacing_s: how far apart these are; a swing within that shows nowhere.
        trust: the share of their shape that the counter confirms; 0 without samples.
        blind_j: what may be hidden at its readings too, where these are only the samples' sum.
    """

    start_ns: int
    end_ns: int
    power_w: float
    missed_j: float
    fine_j: float
    spacing_s: float
    trust: float
    blind_j: float


class _Part(NamedTuple):
    """A stretch, or several together: seconds, joules by the counter, joules by the samples, and their uncertainty (J^2)."""

    seconds: float
    joules: float
    by_samples_j: float
    spread_j2: float

    def and_then(self, other: _Part) -> _Part:
        return _Part(
            self.seconds + other.seconds,
            self.joules + other.joules,
            self.by_samples_j + other.by_samples_j,
            self.spread_j2 + other.spread_j2,
        )


class _Tests:
    """Tests of the samples by neighbouring parts of one length; old ones fade."""

    def __init__(self) -> None:
        self.count = self._noise = 0.0
        self._aa = self._ab = self._bb = self._scale = self._prior = 0.0
        self._before: _Part | None = None

    def take(self, new: _Part) -> None:
        before, self._before = self._before, new
        if before is None or max(new.seconds, before.seconds) > LONGEST_S:
            return
        both = before.and_then(new)
        share = new.seconds / both.seconds
        by_time_j = both.joules * share
        known_j, told_j = new.joules - by_time_j, 0.0
        if min(new.by_samples_j, before.by_samples_j) > 0:
            told_j = both.joules * new.by_samples_j / both.by_samples_j - by_time_j
        scale_s = share * before.seconds
        least_j2 = (EXPECTED * both.joules / both.seconds * scale_s) ** 2
        spread_j2 = new.spread_j2 * (1 - share) ** 2 + before.spread_j2 * share**2
        weight = 1 / (spread_j2 + least_j2 + TINY_J2)
        self._aa = KEEP * self._aa + weight * known_j**2
        self._ab = KEEP * self._ab + weight * known_j * told_j
        self._bb = KEEP * self._bb + weight * told_j**2
        self._noise = KEEP * self._noise + (weight * spread_j2 if told_j else 0.0)
        self.count = KEEP * self.count + 1
        self._scale = KEEP * self._scale + scale_s
        self._prior = weight * least_j2

    def interrupt(self) -> None:
        self._before = None

    @property
    def foretold(self) -> float:
        """The share of the samples' shape that foretells the counter best."""
        return self._share(self._bb)

    @property
    def trust(self) -> float:
        """The same where they are sure of themselves: what they may be off where they change makes them foretell less."""
        return self._share(max(self._bb - self._noise, self._bb / 2))

    def _share(self, told: float) -> float:
        return min(1.0, max(0.0, (self._ab + self._prior) / (told + self._prior))) if self._bb else 1.0

    @property
    def scale_s(self) -> float:
        return self._scale / self.count if self.count else 0.0

    def excess(self, trust: float) -> float:
        """By how much more the samples miss, squared, than where they differ says."""
        rest = max(0.0, self._aa - 2 * trust * self._ab + trust**2 * self._bb)
        return (rest + FEW) / (self.count + FEW)


class Evidence:
    """Tests of one device's samples by its counter: by its single ticks, and over about a second; old tests fade."""

    def __init__(self) -> None:
        self._near, self._far, self._lag = _Tests(), _Tests(), Lag()
        self._unit = _Part(0.0, 0.0, 0.0, 0.0)
        self._counter_j = self._samples_j = 0.0

    def take(self, seconds: float, joules: float, by_samples_j: float, spread_j2: float, change_w: float = 0.0) -> None:
        """Test the samples by a stretch and those before it.

        Args:
            seconds: how long it is.
            joules: what the counter says of it.
            by_samples_j: what the samples say; 0 without any.
            spread_j2: how uncertain that is because of when the samples changed, J^2.
            change_w: by how much their power changes from its begin to its end; 0 also where they do not tell.
        """
        if change_w and joules > 0 and self.ratio > 0:
            self._lag.take(change_w, joules / self.ratio - by_samples_j)
        part = _Part(seconds, joules, by_samples_j, spread_j2)
        if by_samples_j > 0:
            fade = 0.5 ** (seconds / HALF_S)
            self._counter_j = fade * self._counter_j + joules
            self._samples_j = fade * self._samples_j + by_samples_j
        self._near.take(part)
        self._unit = self._unit.and_then(part)
        if self._unit.seconds >= UNIT_S:
            self._far.take(self._unit)
            self._unit = _Part(0.0, 0.0, 0.0, 0.0)

    def interrupt(self) -> None:
        """What comes next is not compared with what was: the counter has lost something in between."""
        self._near.interrupt()
        self._far.interrupt()
        self._unit = _Part(0.0, 0.0, 0.0, 0.0)

    @property
    def ratio(self) -> float:
        """The counter's energy over the samples'; 1 without any."""
        return self._counter_j / self._samples_j if self._samples_j else 1.0

    @property
    def lag_s(self) -> float:
        """By how much the samples are older than their stamps, seconds."""
        return self._lag.seconds

    @property
    def trust(self) -> float:
        """The share of the samples' shape that the counter confirms, 0 to 1; 1 before the first test."""
        return self._near.trust

    @property
    def scale_s(self) -> float:
        """The time scale of the tests, seconds."""
        return self._near.scale_s

    @property
    def is_short(self) -> bool:
        """Whether the tests have shown that the samples miss what is between them."""
        foretold = self._near.foretold
        if self._near.count < ENOUGH:
            return False
        misses = max(self._near.excess(foretold), self._far.excess(foretold) if self._far.count else 1.0)
        return misses > (MISSES if foretold < BELIEVED else MISSES_MUCH)

    def missed_j(self, seconds: float, power_w: float, spread_j2: float) -> float:
        """Joules by which a point in the middle of a stretch is typically missed."""
        foretold = self._near.foretold
        near, far = self._near.excess(foretold), self._far.excess(foretold) if self._far.count else 1.0
        # By the tests as they were: a part of `seconds`, beside others like it.
        expected_j2 = spread_j2 + (EXPECTED * power_w * seconds / 2) ** 2
        scale_s = self.scale_s if near < MISSES_MUCH else max(self.scale_s, SLOW_S)
        tick_j2 = expected_j2 * min(1.0, 2 * scale_s / seconds)
        return math.sqrt(max(near * tick_j2, far * expected_j2)) / 2


class Lag:
    """By how much power samples are older than their stamps, by a counter beside them.

    A sensor shows what it saw up to its stamp, often a mean over its window, so that a step of the load comes late in the
    samples. Then the counter has already risen by more than they say where their power is rising, and by less where it
    falls: by the lag times the change. That is a line through the origin, and its slope is the lag.

    Attributes:
        seconds: the lag, as far as it is sure; 0 before that.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._xx = self._xy = self._yy = self._count = 0.0

    def take(self, change_w: float, ahead_j: float) -> None:
        """Learn from a stretch between two readings.

        Args:
            change_w: by how much the samples' power changes from its begin to its end.
            ahead_j: by how much the counter rose more than they say, moved by the lag that was known so far, on their scale.
        """
        y = ahead_j + self.seconds * change_w
        self._xx = SLOWLY * self._xx + change_w**2
        self._xy = SLOWLY * self._xy + change_w * y
        self._yy = SLOWLY * self._yy + y**2
        self._count = SLOWLY * self._count + 1
        if self._count < FEWEST or not self._xx:
            return
        slope_s = self._xy / self._xx
        doubt_s2 = max(0.0, self._yy - slope_s * self._xy) / self._count / self._xx
        sure = slope_s**2 / (slope_s**2 + CAREFUL * doubt_s2) if slope_s else 0.0
        self.seconds = min(MOST_LAG_S, max(0.0, sure * slope_s))


class Timing:
    """When a tick was that two looks saw, of which one was long before it: also by the samples since the last.

    A tick that came as expected is known from the looks alone. Where ticks are uneven, the two times are weighed by how sure
    they are, as in a Kalman filter.

    Attributes:
        blur_s: by how much the last reading's time may be off, seconds.
    """

    def __init__(self, blur_s: float) -> None:
        self.blur_s = blur_s
        self._before_s2 = self._looked_s2 = blur_s**2 / 3

    def looked(self, blur_s: float) -> bool:
        """Whether the samples may know better than looks that are good to `blur_s`."""
        self.blur_s, self._before_s2, self._looked_s2 = blur_s, self._looked_s2, blur_s**2 / 3
        return blur_s > UNEVEN_S

    def late_s(self, t_s: NDArray[np.float64], watts: NDArray[np.float64], rise_j: float, spacing_s: float) -> float:
        """By how much later a reading's tick was than the looks say, seconds.

        Args:
            t_s: the reading before and this one, and the samples between them, seconds since the first.
            watts: the power by the samples at each, scaled by the counter's ratio to them.
            rise_j: the counter's energy between the two.
            spacing_s: how far apart samples are.
        """
        power_w, told_j = rise_j / float(t_s[-1]), float(np.sum(np.diff(t_s) * (watts[1:] + watts[:-1]) / 2))
        spread = float(spread_j2(t_s, watts, power_w, spacing_s).sum()) / SURE
        told_s2 = self._before_s2 + spread / power_w**2
        share = self._looked_s2 / (self._looked_s2 + told_s2)
        late_s, most_s = share * (rise_j - told_j) / max(power_w, float(watts[-1])), self.blur_s
        self._looked_s2 = share * told_s2
        return min(most_s, max(-most_s, late_s))


class Blind:
    """What samples alone may hide: a load whose beat with the sensor looks like a slow swing.

    No counter tells a swing of some seconds from such a beat. So either may be true: what the samples show, or the flat
    power that is their mean over those seconds.
    """

    def __init__(self) -> None:
        self._t_s: list[float] = [0.0]
        self._j: list[float] = [0.0]

    def take(self, t_s: NDArray[np.float64], watts: NDArray[np.float64], spacing_s: float) -> float:
        """How far apart these two may be after this stretch, joules; arguments as in `shape`."""
        dt = np.diff(t_s)
        self._t_s += (self._t_s[-1] + t_s[1:]).tolist()
        self._j += (self._j[-1] + np.cumsum(dt * (watts[1:] + watts[:-1]) / 2)).tolist()
        first = int(np.searchsorted(np.asarray(self._t_s), self._t_s[-1] - BEAT_S - float(t_s[-1])))
        del self._t_s[:first], self._j[:first]
        t, e = np.asarray(self._t_s), np.asarray(self._j)
        self._t_s, self._j = (t - t[0]).tolist(), (e - e[0]).tolist()
        off = e - np.interp(t, t[[0, -1]], e[[0, -1]])
        return float(off.max() - off.min()) * min(1.0, spacing_s / COARSE_S)


def edge_j(
    stretches: Sequence[Stretch], t_ns: NDArray[np.int64], before: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How far the curve may be off at each of the given times, joules, and the power around them, watts.

    Args:
        stretches: what is between the readings.
        t_ns: the times.
        before: the share of what is uncertain in each time's stretch that lies before it.
    """
    rows = np.asarray(stretches, dtype=np.float64)
    start = np.asarray([one.start_ns for one in stretches], dtype=np.int64)
    at = np.maximum(start.searchsorted(t_ns, side="right") - 1, 0)
    step_w = np.zeros(len(rows) + 1)
    step_w[1:-1] = np.abs(rows[1:, 2] - rows[:-1, 2])
    jump_w = np.maximum(step_w[:-1], step_w[1:])[at]
    start_ns, end_ns, power_w, missed_j, fine_j, spacing_s, trust, blind_j = rows[at].T
    length_s = (end_ns - start_ns) / NS_PER_S
    x_s = np.minimum(np.maximum((t_ns - start[at]) / NS_PER_S, 0), length_s)
    shape = (MISSED * missed_j) ** 2 * np.sqrt(4 * before * (1 - before))
    inside = 4 * x_s * (length_s - x_s) / length_s**2
    jump = (1 - trust) * inside * (JUMP * jump_w * np.minimum(spacing_s, length_s)) ** 2
    squares = shape + jump + (UNSEEN * power_w * spacing_s) ** 2 + (FINE * fine_j) ** 2
    near_j = (power_w + jump_w) * np.minimum(x_s, length_s - x_s)
    near_j = np.where(blind_j > 0, np.inf, near_j)
    return np.hypot(np.minimum(np.sqrt(squares), near_j), blind_j), power_w
