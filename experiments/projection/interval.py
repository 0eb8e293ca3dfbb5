"""From measured rounds to a whole training's joules and seconds, each with a 95 % interval. Pure.

A round is some training batches, a validation, and what lies between: checkpoint, loaders, logging. Each block of rounds
gives a total of its own, so the spread of these totals has everything in it that differs from block to block, also what
training and validation have in common. Neighbouring blocks may be alike; then fewer of them count, as in the method of batch
means (Law and Kelton, "Simulation Modeling and Analysis").
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from scipy.stats import linregress
from scipy.stats import t as student

CONFIDENCE: Final = 0.95
FEWEST_BLOCKS: Final = 3
MOST_ALIKE: Final = 0.9
"""More autocorrelation than this cannot be told from a drift."""
SURE_OF_DRIFT: Final = 0.01
"""The largest p-value of a slope that is called a drift."""


class Use(NamedTuple):
    """Joules, seconds, and the joules that may lie on the wrong side of the edges."""

    joules: float
    seconds: float
    boundary_j: float = 0.0


NOTHING: Final = Use(0.0, 0.0)


@dataclass(frozen=True)
class Round:
    """Some training batches and a validation, or several such rounds one after the other.

    Attributes:
        whole: all of it, from one begin of an epoch to the next.
        train: its counted training batches; the first of a round may be left out, while the loaders' queues are still full.
        validation: its validation batches.
        batches: training batches in it.
        counted: those of them that `train` is of.
        val_batches: validation batches in it.
        rounds: how many rounds it is.
    """

    whole: Use
    train: Use
    validation: Use
    batches: int
    counted: int
    val_batches: int
    rounds: int = 1


class Plan(NamedTuple):
    """The schedule of a whole training, in batches of one device: epochs, validations, and the batches of each."""

    epochs: int
    train_batches: int
    validations: int
    val_batches: int


@dataclass(frozen=True)
class Interval:
    """A number with half the width of its 95 % interval.

    Attributes:
        value: the number.
        plus_minus: half the width.
        autocorrelation: of neighbouring blocks, as far as it was counted.
        drift: by which share of the value the blocks rose or fell from the first to the last; 0 if that may be chance.
    """

    value: float
    plus_minus: float
    autocorrelation: float = 0.0
    drift: float = 0.0


@dataclass(frozen=True)
class Projection:
    """What a whole training would cost.

    Attributes:
        energy: joules. The interval has the blocks' spread and the measurement's edges: it is about what the same devices
            would show for the whole training.
        duration: seconds.
        gain_j: by how many joules more or less the devices' own scales may be off.
        once_j: joules of what comes once, such as set-up and compilation; they are in `energy`.
        blocks: how many totals the spread is of.
    """

    energy: Interval
    duration: Interval
    gain_j: float
    once_j: float
    blocks: int

    @property
    def plus_minus_j(self) -> float:
        """Half the width of the 95 % interval with everything in it, the devices' scales too; joules."""
        return math.hypot(self.energy.plus_minus, self.gain_j)


def project_rounds(
    rounds: Sequence[Round], start: Use, warm_ups: int, plan: Plan, *, gain: float = 0.0, block_s: float = 0.0
) -> Projection:
    """Project a whole training.

    Args:
        rounds: the measured rounds, in order.
        start: from the beginning to the first measured round: set-up, compilation, and the rounds of the warm-up.
        warm_ups: the rounds of the warm-up.
        plan: the whole training.
        gain: the devices' error of scale, as a share.
        block_s: the least seconds of a block.

    Raises:
        ValueError: fewer blocks than a spread needs.
    """
    blocks = merged(rounds, block_s)
    if len(blocks) < FEWEST_BLOCKS:
        raise ValueError(
            f"{len(rounds)} rounds make {len(blocks)} blocks of {block_s:g} s; an interval needs {FEWEST_BLOCKS}. "
            "Measure for longer (phase.max_seconds)."
        )
    ahead = plan.epochs * plan.train_batches / statistics.fmean(block.batches for block in blocks)
    joules, seconds = (
        _mean([_total(block, start, warm_ups, plan, take) for block in blocks], ahead)
        for take in (lambda use: use.joules, lambda use: use.seconds)
    )
    squares = [_boundary(block, warm_ups, plan) ** 2 for block in blocks]
    boundary_j = math.hypot(math.sqrt(math.fsum(squares)) / len(blocks), start.boundary_j)
    energy = Interval(joules.value, math.hypot(joules.plus_minus, boundary_j), joules.autocorrelation, joules.drift)
    once_j = statistics.fmean(_once(block, start, warm_ups, lambda use: use.joules) for block in blocks)
    return Projection(energy, seconds, gain * joules.value, once_j, len(blocks))


def block_ends(seconds: Sequence[float], block_s: float) -> list[int]:
    """After which of some rounds a block is long enough; rounds at the end that fill none belong to the last.

    Args:
        seconds: how long each round is.
        block_s: the least seconds of a block.

    Example:
        >>> block_ends([1.0, 1.0, 1.0, 3.0, 1.0], 2.0)
        [2, 4]
    """
    ends, length = [], 0.0
    for number, more in enumerate(seconds, start=1):
        length += more
        if length >= block_s:
            ends.append(number)
            length = 0.0
    return ends


def merged(rounds: Sequence[Round], block_s: float) -> list[Round]:
    """The rounds as blocks of at least `block_s` seconds."""
    ends = block_ends([one.whole.seconds for one in rounds], block_s)
    starts = [0, *ends[:-1]]
    return [_sum(rounds[start : end if end != ends[-1] else None]) for start, end in zip(starts, ends, strict=False)]


def _sum(rounds: Sequence[Round]) -> Round:
    def of(take: Callable[[Round], Use]) -> Use:
        uses = [take(one) for one in rounds]
        return Use(
            math.fsum(use.joules for use in uses),
            math.fsum(use.seconds for use in uses),
            math.hypot(*(use.boundary_j for use in uses)),
        )

    return Round(
        of(lambda one: one.whole),
        of(lambda one: one.train),
        of(lambda one: one.validation),
        sum(one.batches for one in rounds),
        sum(one.counted for one in rounds),
        sum(one.val_batches for one in rounds),
        sum(one.rounds for one in rounds),
    )


def _total(block: Round, start: Use, warm_ups: int, plan: Plan, take: Callable[[Use], float]) -> float:
    """The whole training as this block alone says it would be."""
    batch = take(block.train) / block.counted
    validation = take(block.validation) / block.val_batches if block.val_batches else 0.0
    between = (take(block.whole) - batch * block.batches - take(block.validation)) / block.rounds
    each_epoch = plan.train_batches * batch + between
    each_validation = plan.val_batches * validation
    return _once(block, start, warm_ups, take) + plan.epochs * each_epoch + plan.validations * each_validation


def _once(block: Round, start: Use, warm_ups: int, take: Callable[[Use], float]) -> float:
    """What the start took besides its rounds."""
    return take(start) - warm_ups * take(block.whole) / block.rounds


def _boundary(block: Round, warm_ups: int, plan: Plan) -> float:
    """Joules by which the edges of a block's windows may shift its total: each by what a joule in it weighs."""
    of_batches = plan.epochs * (plan.train_batches - block.batches / block.rounds) / block.counted
    of_validation = plan.validations * plan.val_batches / block.val_batches if block.val_batches else 0.0
    return math.hypot(
        of_batches * block.train.boundary_j,
        (of_validation - plan.epochs / block.rounds) * block.validation.boundary_j,
        (plan.epochs - warm_ups) / block.rounds * block.whole.boundary_j,
    )


def _mean(values: Sequence[float], ahead: float) -> Interval:
    """The mean of the blocks' totals, as an estimate of what so many blocks ahead will have.

    Its error is that of the mean and the scatter of what is ahead. If neighbouring blocks are alike with correlation r, as
    many blocks tell as much as (1 - r) / (1 + r) of them would that are not.
    """
    count, mean = len(values), statistics.fmean(values)
    off = [value - mean for value in values]
    squares = math.fsum(one**2 for one in off)
    if not squares:
        return Interval(mean, 0.0)
    alike = math.fsum(one * other for one, other in pairwise(off)) / squares
    # The estimate from few values is too low, by about this.
    alike = min(MOST_ALIKE, max(0.0, alike + 1 / count))
    longer = (1 + alike) / (1 - alike)
    # Values that are alike spread less around their own mean.
    variance = squares / max(1.0, count - longer) * longer
    freedom = max(1.0, count / longer - 1)
    plus_minus = student.ppf((1 + CONFIDENCE) / 2, freedom) * math.sqrt(variance * (1 / count + 1 / max(ahead, 1.0)))
    return Interval(mean, float(plus_minus), alike, _drift(values, mean))


def _drift(values: Sequence[float], mean: float) -> float:
    line = linregress(np.arange(len(values)), values)
    return float(line.slope * (len(values) - 1) / mean) if mean and line.pvalue < SURE_OF_DRIFT else 0.0
