"""How much a run will have used at the end of its schedule, with an interval; and whether that fits a budget.

Pure. Training and validation have their own joules a batch, each learnt from the stretches between log points. The interval
comes from how much those stretches differ among themselves, so it is wide while little has been seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

Z_95 = 1.96
"""Standard deviations that hold 95 % of a normal distribution."""


class Forecast(NamedTuple):
    """Joules at the end of the schedule, and half the width of the 95 % interval."""

    joules: float
    plus_minus_j: float


@dataclass
class Rate:
    """Joules a batch, from stretches of batches: a running mean weighted by batches, and its spread (Welford, West 1979).

    Example:
        >>> rate = Rate()
        >>> rate.add(30.0, 10), rate.add(50.0, 10)
        (None, None)
        >>> rate.mean
        4.0
    """

    batches: int = 0
    stretches: int = 0
    mean: float = math.nan
    _spread: float = field(default=0.0, repr=False)

    def add(self, joules: float, batches: int) -> None:
        """Take a stretch of batches; one without batches says nothing."""
        if batches <= 0:
            return
        self.batches += batches
        self.stretches += 1
        rate = joules / batches
        before = rate if self.stretches == 1 else self.mean
        self.mean = before + (rate - before) * batches / self.batches
        self._spread += batches * (rate - before) * (rate - self.mean)

    @property
    def variance(self) -> float:
        """Variance of one batch's joules around the mean, as far as the stretches show it; infinite from one stretch."""
        if self.stretches < 2:
            return math.inf
        # A stretch of n batches has a variance of one batch's over n, so the weighted spread estimates one batch's.
        return self._spread / (self.stretches - 1)


def forecast(spent_j: float, ahead: dict[str, int], rates: dict[str, Rate]) -> Forecast | None:
    """Joules at the end of the schedule.

    Args:
        spent_j: joules so far, all stages.
        ahead: batches still to come, by stage.
        rates: joules a batch, by stage.

    Returns:
        The forecast; None where a stage that is still to come has not been seen yet. A stage that has been seen in one
        stretch only (the first validation) is taken to scatter as much, for its size, as the others do; where no stage
        has been seen in two, the interval is infinite.

    Example:
        >>> rate = Rate()
        >>> rate.add(30.0, 10), rate.add(50.0, 10)
        (None, None)
        >>> forecast(80.0, {"train": 20}, {"train": rate}).joules
        160.0
    """
    total, variance = spent_j, 0.0
    for stage, batches in ahead.items():
        if batches <= 0:
            continue
        rate = rates.get(stage)
        if rate is None or not rate.batches:
            return None
        total += batches * rate.mean
        # The mean's own error, and the scatter of the batches to come.
        variance += _variance(rate, rates) * (batches**2 / rate.batches + batches)
    return Forecast(total, Z_95 * math.sqrt(variance))


def _variance(rate: Rate, rates: dict[str, Rate]) -> float:
    """Variance of one batch's joules; where a stage does not show its own, by the others' relative one."""
    if rate.stretches >= 2:
        return rate.variance
    relative = [other.variance / other.mean**2 for other in rates.values() if other.stretches >= 2 and other.mean > 0]
    return max(relative) * rate.mean**2 if relative else math.inf


def batches_that_fit(left_j: float, batch_j: float) -> int | None:
    """How many more batches fit into what is left of a budget; None where nobody knows, as long as there is something.

    Example:
        >>> batches_that_fit(10.0, 4.0), batches_that_fit(-0.1, 4.0), batches_that_fit(10.0, 0.0)
        (2, 0, None)
    """
    if left_j <= 0:
        return 0
    return math.floor(left_j / batch_j) if batch_j > 0 else None
