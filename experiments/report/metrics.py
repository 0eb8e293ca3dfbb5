"""The report's scores: numbers in, numbers out. Energy is in joules unless a name has another unit; accuracy in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import linregress

from lightning_watt import sustainable_accuracy
from lightning_watt.units import J_PER, EnergyUnit, kwh

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SamSettings:
    """SAM's parameters.

    Attributes:
        alpha: how much accuracy counts.
        beta: scale.
        unit: the unit of E in the equation.
    """

    alpha: float = 5.0
    beta: float = 5.0
    unit: EnergyUnit = "kWh"


@dataclass(frozen=True)
class Amount:
    """A number and its plus or minus; None if unknown."""

    value: float
    plus_minus: float | None = None


def scaled(largest_j: float) -> tuple[float, EnergyUnit]:
    """The unit that suits an axis, and how many joules it has."""
    units: tuple[EnergyUnit, ...] = ("kWh", "Wh")
    for unit in units:
        if largest_j >= 0.5 * J_PER[unit]:
            return J_PER[unit], unit
    return 1.0, "J"


def sam(accuracy: float | None, joules: float | None, settings: SamSettings, *, shifted: bool = False) -> float | None:
    """SAM of an accuracy and an energy; None if it is undefined or something is missing.

    Source: arXiv 2310.06522; the shifted form is `lightning_watt`'s.

    Example:
        >>> round(sam(0.8, 100 * 3.6e6, SamSettings()), 6), sam(0.8, 0.5 * 3.6e6, SamSettings())
        (0.8192, None)
    """
    if accuracy is None or joules is None:
        return None
    alpha, beta, unit = settings.alpha, settings.beta, settings.unit
    score = sustainable_accuracy(accuracy, kwh(joules), alpha=alpha, beta=beta, unit=unit, shifted=shifted)
    return score if math.isfinite(score) else None


def sam_amount(
    accuracy: float | None,
    joules: float | None,
    uncertainty_j: float | None,
    settings: SamSettings,
    *,
    shifted: bool = False,
) -> Amount | None:
    """SAM with half its range over the energy's uncertainty; no range if one end lies at or below the pole."""
    score = sam(accuracy, joules, settings, shifted=shifted)
    if score is None or joules is None:
        return None
    if uncertainty_j is None:
        return Amount(score)
    low = sam(accuracy, joules + uncertainty_j, settings, shifted=shifted)
    high = sam(accuracy, max(0.0, joules - uncertainty_j), settings, shifted=shifted)
    return Amount(score, None if low is None or high is None else (high - low) / 2)


def sam_equation(accuracy: float, energy: Floats, alpha: float, beta: float) -> Floats:
    """What the bare equation gives on both sides of its pole, to be drawn; below 1 unit it is negative and no score.

    Args:
        accuracy: in [0, 1].
        energy: in SAM's unit, positive.
        alpha: SAM's.
        beta: SAM's.
    """
    with np.errstate(divide="ignore"):
        return np.asarray(beta * accuracy**alpha / np.log10(energy))


def in_unit(joules: float, unit: EnergyUnit) -> float:
    """Joules in one of SAM's units."""
    return joules / J_PER[unit]


def net_score(accuracy: float | None, params: float | None, gflops: float | None) -> float | None:
    """NetScore: `20 log10(a^2 / sqrt(params * macs))`, a in percent, parameters in millions, multiply-adds in 10^9.

    The units only add a constant, so ranks don't depend on them. A multiply-add is two of the record's operations.

    Source: Wong, "NetScore: Towards Universal Metrics for Large-scale Performance Analysis of Deep Neural Networks for
    Practical On-Device Edge Usage", arXiv 1806.05512, with its alpha = 2, beta = gamma = 0.5.

    Example:
        >>> round(net_score(0.7613, 25.56e6, 8.18), 2)
        55.07
    """
    if not accuracy or not params or not gflops:
        return None
    return 20 * math.log10((100 * accuracy) ** 2 / math.sqrt(params / 1e6 * gflops / 2))


def pareto_ranks(accuracies: Sequence[float], energies: Sequence[float]) -> list[int]:
    """The Pareto front that each point lies on: 1 is the best, 2 the front once the first is taken away.

    A point lies behind another that is at least as accurate with at most its energy, and better in one of the two.

    Example:
        >>> pareto_ranks([0.9, 0.8, 0.7], [10, 5, 7])
        [1, 1, 2]
    """
    # In order of rising energy, a point's front is the first whose accuracy so far does not reach its own.
    order = sorted(range(len(accuracies)), key=lambda i: (energies[i], -accuracies[i]))
    best: list[tuple[float, float]] = []
    ranks = [0] * len(accuracies)
    for i in order:
        point = (accuracies[i], energies[i])
        front = next((n for n, top in enumerate(best) if top[0] < point[0] or top == point), len(best))
        best[front : front + 1] = [point]
        ranks[i] = front + 1
    return ranks


def ranks(scores: Sequence[float | None], *, high_is_good: bool = True) -> list[int | None]:
    """Place of each score, 1 the best; equal scores share a place; None stays None.

    Example:
        >>> ranks([3.0, None, 5.0, 3.0])
        [2, None, 1, 2]
    """
    known = sorted((score for score in scores if score is not None), reverse=high_is_good)
    places: dict[float, int] = {}
    for place, score in enumerate(known, start=1):
        places.setdefault(score, place)
    return [None if score is None else places[score] for score in scores]


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's tau-a: 1 if two orders agree in every pair, -1 if they disagree in every pair; None below two.

    Example:
        >>> kendall_tau([1, 2, 3], [1, 3, 2])
        0.3333333333333333
    """
    if len(first) < 2:
        return None
    a, b = (np.sign(np.subtract.outer(np.asarray(values), np.asarray(values))) for values in (first, second))
    return float((a * b).sum() / (len(first) * (len(first) - 1)))


@dataclass(frozen=True)
class Fit:
    """A least-squares fit, `y = start + slope x`, or `y = exp(start + slope x)` if `exponential`.

    Attributes:
        slope: a unit of x.
        start: at x = 0.
        r2: share of the variance that it explains; of ln y if `exponential`.
        p: how likely points without any slope would lie as steeply (Wald's test).
        exponential: whether the line was laid through ln y.
    """

    slope: float
    start: float
    r2: float
    p: float
    exponential: bool = False

    @property
    def is_sure(self) -> bool:
        """Whether there is a slope, at 95 %."""
        return self.p < 0.05

    def at(self, x: Floats) -> Floats:
        """The fit's values."""
        line = self.start + self.slope * x
        return np.exp(line) if self.exponential else line

    @property
    def doubling(self) -> float | None:
        """By how much x grows while y doubles; None if it doesn't grow exponentially."""
        return math.log(2) / self.slope if self.exponential and self.slope > 0 else None


def fit(x: Sequence[float], y: Sequence[float], *, exponential: bool = False) -> Fit | None:
    """Fit a line, or an exponential through a line in ln y; None below three different x, or if all y are equal.

    Two points, or two years, always lie on a line, so a fit through them has no meaning.

    Example:
        >>> round(fit([1, 2, 3], [2, 4, 8], exponential=True).doubling, 6)
        1.0
    """
    xs, ys = np.asarray(x, float), np.asarray(y, float)
    if exponential and (ys <= 0).any():
        return None
    ys = np.log(ys) if exponential else ys
    if len(set(x)) < 3 or np.ptp(ys) == 0:
        return None
    line = linregress(xs, ys)
    return Fit(float(line.slope), float(line.intercept), float(line.rvalue**2), float(line.pvalue), exponential)


def break_even(train_j: tuple[float, float], per_sample_j: tuple[float, float]) -> float | None:
    """After how many inferences the first model has repaid its dearer training by cheaper inference.

    Args:
        train_j: joules of training of the first and of the second.
        per_sample_j: joules an inference of the first and of the second.

    Returns:
        The number of inferences; 0 if the first is not dearer to train; None if it is not cheaper to run.

    Example:
        >>> break_even((100.0, 40.0), (0.25, 0.5))
        240.0
    """
    saved = per_sample_j[1] - per_sample_j[0]
    if saved <= 0:
        return None
    return max(0.0, (train_j[0] - train_j[1]) / saved)
