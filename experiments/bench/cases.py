"""The boards that `fidelity` measures, and what was measured on each."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_watt.testing import Board, Curve, square, steps

HIGH_W, LOW_W = 300.0, 80.0
SECONDS = 12.0
MIXED_LENGTH_S = 60.0
LEVELS_W = (60.0, 320.0)
LEVEL_S = 0.4


@dataclass
class Case:
    """One board: how its power changes, how its counter ticks, and whether its driver keeps samples.

    Attributes:
        changes: "0.4 s", "2 s" or "each batch": a square wave whose half periods are heavy and light work in turn;
            "at random": each batch is heavy or light by chance; "levels": another power every 0.4 s.
        counter_ms: the counter's update period.
        samples: whether the driver keeps power samples.
    """

    changes: str
    counter_ms: int
    samples: bool

    def board(self, batch_s: float) -> Board:
        """The board."""
        return Board(
            power=self.power(batch_s),
            counter_ms=self.counter_ms,
            counter_phase_ms=self.counter_ms // 3,
            samples_ms=20 if self.samples else None,
            samples_phase_ms=7,
        )

    def power(self, batch_s: float) -> Curve:
        """Its power over time."""
        chance = random.Random(0)
        if self.changes == "at random":
            return steps([(batch_s, chance.choice((HIGH_W, LOW_W))) for _ in range(round(2 * MIXED_LENGTH_S / batch_s))])
        if self.changes == "levels":
            return steps([(LEVEL_S, chance.uniform(*LEVELS_W)) for _ in range(round(2 * SECONDS / LEVEL_S))])
        half_s = {"0.4 s": 0.405, "2 s": 2.0, "each batch": batch_s}[self.changes]
        return square(HIGH_W, LOW_W, 2 * half_s)


@dataclass
class Result:
    """What came out for one board and batch length; joules, one value a batch, but for the last two.

    Attributes:
        begins_s: when each batch begins, seconds after the first.
        seconds: how long each takes.
        true_j: what it truly used.
        ours_j: the meter's joules.
        stated_j: plus or minus of that.
        raw_j: the counter's difference between its two ends.
        epoch_j: all batches together, by the meter.
        epoch_true_j: in truth.
    """

    case: Case
    batch_s: float
    begins_s: NDArray[np.float64]
    seconds: NDArray[np.float64]
    true_j: NDArray[np.float64]
    ours_j: NDArray[np.float64]
    stated_j: NDArray[np.float64]
    raw_j: NDArray[np.float64]
    epoch_j: float
    epoch_true_j: float

    @property
    def error(self) -> float:
        """Mean absolute error of a batch, relative to the mean batch."""
        return float(np.abs(self.ours_j - self.true_j).mean() / self.true_j.mean())

    @property
    def raw_error(self) -> float:
        """Mean absolute error of a batch by the raw counter reads, relative to the mean batch."""
        return float(np.abs(self.raw_j - self.true_j).mean() / self.true_j.mean())

    @property
    def raw_zeros(self) -> float:
        """Share of batches in which the raw counter reads 0 J."""
        return float((self.raw_j == 0).mean())

    @property
    def within(self) -> float:
        """Share of batches whose truth lies within the stated uncertainty."""
        return float((np.abs(self.ours_j - self.true_j) <= self.stated_j).mean())

    @property
    def epoch_error(self) -> float:
        """Error of the epoch's total."""
        return self.epoch_j / self.epoch_true_j - 1
