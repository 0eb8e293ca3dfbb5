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

from lightning_watt.units import NS_PER_S

KEEP = 0.96
"""What a test weighs after the next one: about 25 tests count."""
FEW = 2.0
EXPECTED = 0.02
"""Before there are tests, the samples count as right to this share of the energy, by as much as `FEW` tests."""
LONGEST_S = 3.0
"""A longer stretch says nothing of the shape of a second."""
# Fitted on replays of recorded boards and of square waves: truth inside in 95 % of windows.
MISSED, FINE, UNSEEN, JUMP = 2.5, 0.6, 0.18, 0.25
LONGER = 0.7
"""How what was missed grows with the length of a stretch: between a random walk's 0.5 and a drift's 1."""


class Stretch(NamedTuple):
    """What is between two readings: its ends (ns), mean power (W), and what was missed by the tests (J).

    `fine_j` is how far the samples' own steps may lie elsewhere between two samples, and `spacing_s` is how far apart
    these are; a swing within that shows nowhere.
    """

    start_ns: int
    end_ns: int
    power_w: float
    missed_j: float
    fine_j: float
    spacing_s: float


class Evidence:
    """Tests of one device's samples by its counter; old tests fade."""

    def __init__(self) -> None:
        self._aa = self._ab = self._bb = self._count = self._scale = self._prior = 0.0
        self._before: tuple[float, float, float] | None = None

    def take(self, seconds: float, joules: float, by_samples_j: float) -> None:
        """Test the samples by two neighbouring stretches.

        Args:
            seconds: how long the newer one is.
            joules: what the counter says of it.
            by_samples_j: what the samples say; 0 without any.
        """
        before, self._before = self._before, (seconds, joules, by_samples_j)
        if before is None or max(seconds, before[0]) > LONGEST_S:
            return
        both_s, both_j, both_samples_j = seconds + before[0], joules + before[1], by_samples_j + before[2]
        by_time_j = both_j * seconds / both_s
        known_j = joules - by_time_j
        told_j = both_j * by_samples_j / both_samples_j - by_time_j if min(by_samples_j, before[2]) > 0 else 0.0
        scale_s = seconds * before[0] / both_s
        self._aa = KEEP * self._aa + known_j**2
        self._ab = KEEP * self._ab + known_j * told_j
        self._bb = KEEP * self._bb + told_j**2
        self._count = KEEP * self._count + 1
        self._scale = KEEP * self._scale + scale_s
        self._prior = (EXPECTED * both_j / both_s * scale_s) ** 2

    def interrupt(self) -> None:
        """What comes next is not compared with what was: the counter has lost something in between."""
        self._before = None

    @property
    def trust(self) -> float:
        """The share of the samples' shape that the counter confirms, 0 to 1; 1 before the first test."""
        if not self._bb:
            return 1.0
        return min(1.0, max(0.0, (self._ab + self._prior) / (self._bb + self._prior)))

    @property
    def scale_s(self) -> float:
        """The time scale of the tests, seconds."""
        return self._scale / self._count if self._count else 0.0

    def missed_j(self, seconds: float, power_w: float) -> float:
        """Joules by which a point in the middle of a stretch is typically missed."""
        trust, scale_s = self.trust, self.scale_s or seconds / 4
        rest = max(0.0, self._aa - 2 * trust * self._ab + trust**2 * self._bb)
        typical = math.sqrt((rest + FEW * (EXPECTED * power_w * scale_s) ** 2) / (self._count + FEW))
        return float(typical * max(LONGER, seconds / 4 / scale_s) ** LONGER)


def edge_j(stretches: Sequence[Stretch], t_ns: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How far the curve may be off at each of the given times, joules, and the power around them, watts."""
    rows = np.asarray(stretches, dtype=np.float64)
    start = np.asarray([one.start_ns for one in stretches], dtype=np.int64)
    at = np.clip(np.searchsorted(start, t_ns, side="right") - 1, 0, len(start) - 1)
    step_w = np.abs(np.diff(rows[:, 2], prepend=rows[0, 2], append=rows[-1, 2]))
    jump_w = np.maximum(step_w[:-1], step_w[1:])[at]
    end_ns, power_w, missed_j, fine_j, spacing_s = rows[at, 1], rows[at, 2], rows[at, 3], rows[at, 4], rows[at, 5]
    length_s = (end_ns - rows[at, 0]) / NS_PER_S
    x_s = np.clip((t_ns - start[at]) / NS_PER_S, 0, length_s)
    inside = 4 * x_s * (length_s - x_s) / length_s**2
    shape = inside * ((MISSED * missed_j) ** 2 / np.sqrt(np.maximum(inside, 1e-12)))
    jump = inside * (JUMP * jump_w * np.minimum(spacing_s, length_s)) ** 2
    squares = shape + jump + (UNSEEN * power_w * spacing_s) ** 2 + (FINE * fine_j) ** 2
    near_j = (power_w + jump_w) * np.minimum(x_s, length_s - x_s)
    return np.minimum(np.sqrt(squares), near_j), power_w
