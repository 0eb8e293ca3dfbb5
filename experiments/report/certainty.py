"""Whether one result is surely better than another, or whether their difference is within its plus or minus. Pure.

What may differ between two results is taken apart: what measuring leaves uncertain, by the library's rule for two runs
(`lightning_watt.record.Uncertain`), and the spread over seeds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from scipy.stats import t as student

from lightning_watt.record import Uncertain

CONFIDENCE: Final = 0.95


@dataclass(frozen=True)
class Estimate:
    """A result's number with what is known about its error. All in one unit.

    Attributes:
        value: the number, the mean over the repetitions.
        boundary: plus or minus of measuring that another run on the same boards would not share.
        whole: plus or minus of measuring, gain error included.
        repeats: the number of each repetition.
        boards: what it was measured with; empty if it is estimated, even in part.
    """

    value: float
    boundary: float = 0.0
    whole: float = 0.0
    repeats: tuple[float, ...] = ()
    boards: frozenset[str] = field(default_factory=frozenset)

    @property
    def plus_minus(self) -> float:
        """Of the value by itself: measuring, and the mean's own error over the repetitions."""
        return math.hypot(self.whole, _of_means(self.repeats, ()))


def on_one_device(estimate: Estimate) -> float:
    """Plus or minus of a value beside others of the same device, whose gain error they share."""
    return math.hypot(estimate.boundary if estimate.boards else estimate.whole, _of_means(estimate.repeats, ()))


def plus_minus_of_difference(first: Estimate, second: Estimate) -> float:
    """Plus or minus of the difference of two estimates: measuring, and the spread over seeds at 95 %.

    A result without repetitions is taken to spread as the other one does; if neither has any, only measuring counts.
    """
    measured = [Uncertain(one.boundary, one.whole, one.boards) for one in (first, second)]
    return math.hypot(measured[0].of_difference(measured[1]), _of_means(first.repeats, second.repeats))


def plus_minus_of_mean(repeats: Sequence[float]) -> float | None:
    """Plus or minus of the mean of some repetitions (Student's t, 95 %); None of a single one.

    Example:
        >>> plus_minus_of_mean([0.9, 0.9, 0.9]), plus_minus_of_mean([0.9])
        (0.0, None)
    """
    return _of_means(repeats, ()) if len(repeats) > 1 else None


def measured_with_all(parts: Iterable[frozenset[str]]) -> frozenset[str]:
    """What a sum or a mean was measured with; empty if any part of it is estimated."""
    parts = list(parts)
    return frozenset().union(*parts) if all(parts) else frozenset()


def ratio(first: Estimate, second: Estimate, rounds: Sequence[float] = (), drift: float = 0.0) -> tuple[float, float] | None:
    """The first by the second, and its plus or minus to first order; None if one of them is zero.

    Args:
        first: the one.
        second: the other.
        rounds: the ratio in each round in which both were measured; empty: their repetitions are not of the same rounds.
        drift: by which share the second may be off against the first because the machine drifted meanwhile.

    Example:
        >>> ratio(Estimate(30.0, 3.0, 3.0), Estimate(10.0))
        (3.0, 0.30000000000000004)
    """
    if not second.value or not first.value:
        return None
    value = first.value / second.value
    one, other = (Uncertain(part.boundary / part.value, part.whole / part.value, part.boards) for part in (first, second))
    if len(rounds) > 1:
        spread = _of_means(rounds, ()) / value
    else:
        spread = math.hypot(*(_of_means(part.repeats, ()) / part.value for part in (first, second)))
    return value, value * math.hypot(one.of_difference(other), spread, drift)


def drift_per_s(series: Iterable[Sequence[tuple[float, float]]]) -> float:
    """By which share of themselves the numbers rise in a second, over their repetitions; 0 if nothing was repeated.

    One that on average came before another, as with an odd number of rounds, has less of the drift.

    Args:
        series: of each number, its repetitions: when, in seconds, and how much.

    Example:
        >>> drift_per_s([[(0.0, 99.0), (2.0, 101.0)], [(1.0, 5.0)]])
        0.01
    """
    products = squares = 0.0
    for one in series:
        if len(one) > 1 and all(math.isfinite(t_s) for t_s, _ in one):
            middle_s, mean = (statistics.fmean(column) for column in zip(*one, strict=True))
            products += sum((t_s - middle_s) * value / mean for t_s, value in one)
            squares += sum((t_s - middle_s) ** 2 for t_s, _ in one)
    return products / squares if squares else 0.0


def came_in_turn(starts_s: Sequence[float], others: Sequence[Sequence[float]]) -> bool:
    """Whether each repetition began after the same number of repetitions of all others: theirs, but for one round.

    Args:
        starts_s: when each repetition began, in seconds.
        others: the same of each of the others.

    Example:
        >>> came_in_turn([1.0, 4.0], [[2.0, 3.0]]), came_in_turn([1.0, 2.0], [[3.0, 4.0]])
        (True, False)
    """
    starts = sorted([(start, True) for start in starts_s] + [(start, False) for other in others for start in other])
    places = [place for place, (_, own) in enumerate(starts) if own]
    return all(place // (len(others) + 1) == turn for turn, place in enumerate(places))


def surely_more(first: Estimate, second: Estimate) -> bool:
    """Whether the first is larger than the second by more than the difference's plus or minus."""
    return first.value - second.value > plus_minus_of_difference(first, second)


def places(estimates: Sequence[Estimate | None], *, high_is_good: bool = True) -> list[tuple[int, int] | None]:
    """The best and the worst place that each may have, 1 the best; None stays None.

    Example:
        >>> places([Estimate(5.0, 1.0, 1.0), Estimate(4.5, 1.0, 1.0), None, Estimate(1.0)])
        [(1, 2), (1, 2), None, (3, 3)]
    """
    known = [one for one in estimates if one is not None]

    def better(first: Estimate, second: Estimate) -> bool:
        return surely_more(first, second) if high_is_good else surely_more(second, first)

    return [
        one and (1 + sum(better(other, one) for other in known), len(known) - sum(better(one, other) for other in known))
        for one in estimates
    ]


def on_the_front(accuracies: Sequence[Estimate], energies: Sequence[Estimate]) -> list[str]:
    """Whether each point is on the Pareto front: "yes", "perhaps" (within the plus or minus), "no".

    A point is surely behind another one that is surely better in both, or that is surely better in one and exactly equal in
    the other. It may be behind one that is not surely worse in either.

    Example:
        >>> on_the_front([Estimate(0.9), Estimate(0.8), Estimate(0.7)], [Estimate(10.0), Estimate(5.0), Estimate(7.0)])
        ['yes', 'yes', 'no']
    """
    found = []
    for i, (accuracy, energy) in enumerate(zip(accuracies, energies, strict=True)):
        others = [n for n in range(len(accuracies)) if n != i]
        surely = any(_behind(accuracy, energy, accuracies[n], energies[n]) for n in others)
        perhaps = any(
            not surely_more(accuracy, accuracies[n])
            and not surely_more(energies[n], energy)
            and (accuracies[n].value, energies[n].value) != (accuracy.value, energy.value)
            for n in others
        )
        found.append("no" if surely else "perhaps" if perhaps else "yes")
    return found


def _behind(accuracy: Estimate, energy: Estimate, other_accuracy: Estimate, other_energy: Estimate) -> bool:
    more, less = surely_more(other_accuracy, accuracy), surely_more(energy, other_energy)
    same_accuracy, same_energy = other_accuracy.value == accuracy.value, other_energy.value == energy.value
    return (more and less) or (more and same_energy) or (less and same_accuracy)


def _of_means(first: Sequence[float], second: Sequence[float]) -> float:
    """Plus or minus of the difference of two means over repetitions (Welch), or of one mean if the second is empty."""
    squares = [(statistics.variance(values), len(values)) for values in (first, second) if len(values) > 1]
    if not squares:
        return 0.0
    if len(squares) == 1 and first and second:
        # The one run spreads as the others do, whose variance is all that is known.
        variance, count = squares[0]
        return _quantile(count - 1) * math.sqrt(variance * (1 + 1 / count))
    parts = [variance / count for variance, count in squares]
    below = sum(part**2 / (count - 1) for part, (_, count) in zip(parts, squares, strict=True))
    return _quantile(sum(parts) ** 2 / below) * math.sqrt(sum(parts)) if below else 0.0


@lru_cache(maxsize=4096)
def _quantile(freedom: float) -> float:
    return float(student.ppf((1 + CONFIDENCE) / 2, freedom))
