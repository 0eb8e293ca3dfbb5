"""How much a run will have used at the end of its schedule, with an interval; and whether that fits a budget.

Pure. Training and validation have their own joules a batch, each learnt from the spans between log points. The interval
comes from how much those spans differ among themselves, so it is wide while little has been seen.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from lightning_watt.accounts.ledger import Point, Usage
from lightning_watt.units import joules as to_joules
from lightning_watt.units import seconds

Z_95 = 1.96
"""Standard deviations that hold 95 % of a normal distribution."""
MOST_BATCHES = 10**15
"""No training has more."""


class Schedule(NamedTuple):
    """When a Trainer validates, in training batches since the beginning.

    Attributes:
        per_epoch: training batches of an epoch; infinite if its loader does not know.
        every: a validation comes after every so many of them; infinite if it is not batches that decide.
        in_epochs: they are counted anew in each epoch, and one epoch in so many validates; 0 if they are counted through.
        validation: batches of one validation, as far as its loaders know.

    Example:
        >>> Schedule(per_epoch=10, every=4, in_epochs=1, validation=3).validations(25)  # after 4, 8, 14, 18 and 24
        5
    """

    per_epoch: float
    every: float
    in_epochs: int
    validation: int

    @property
    def is_known(self) -> bool:
        """Whether it says how many validations there are going to be."""
        return not self.validation or math.isfinite(self.every)

    def validations(self, trained: int) -> int:
        """Validations until so many training batches, one after the last of them included."""
        if not self.validation or not math.isfinite(self.every):
            return 0
        if not self.in_epochs or not math.isfinite(self.per_epoch):
            return int(trained // self.every)
        epochs, rest = divmod(max(0, trained), int(self.per_epoch))
        inside = int(rest // self.every) if (epochs + 1) % self.in_epochs == 0 else 0
        return int(epochs // self.in_epochs) * int(self.per_epoch // self.every) + inside

    def validates_at(self, trained: int) -> bool:
        """Whether a training that is stopped after so many batches validates once more."""
        if not self.in_epochs or not math.isfinite(self.per_epoch):
            return True
        return (max(0, trained - 1) // int(self.per_epoch) + 1) % self.in_epochs == 0

    def batches_of(self, steps: int, trained: int, accumulate: int) -> int:
        """Training batches until so many more optimizer steps, each over `accumulate` batches or what an epoch's end leaves.

        Example:
            >>> Schedule(20, 20, 1, 0).batches_of(12, trained=0, accumulate=3)  # seven steps an epoch
            35
        """
        if not math.isfinite(self.per_epoch):
            return (trained // accumulate + steps) * accumulate - trained
        per_epoch = int(self.per_epoch)
        done = trained % per_epoch
        # From the beginning of this epoch on.
        epochs, steps = divmod(done // accumulate + steps, math.ceil(per_epoch / accumulate))
        return epochs * per_epoch + steps * accumulate - done


class Forecast(NamedTuple):
    """Joules at the end of the schedule, and half the width of the 95 % interval."""

    joules: float
    plus_minus_j: float


@dataclass
class Rate:
    """Joules a batch, from spans of batches: a running mean weighted by batches, and its spread (Welford, West 1979).

    Example:
        >>> rate = Rate()
        >>> rate.add(30.0, 10), rate.add(50.0, 10)
        (None, None)
        >>> rate.mean
        4.0
    """

    batches: int = 0
    spans: int = 0
    mean: float = math.nan
    _spread: float = field(default=0.0, repr=False)

    def add(self, joules: float, batches: int) -> None:
        """Take a span of batches; one without batches says nothing."""
        if batches <= 0:
            return
        self.batches += batches
        self.spans += 1
        rate = joules / batches
        before = rate if self.spans == 1 else self.mean
        self.mean = before + (rate - before) * batches / self.batches
        self._spread += batches * (rate - before) * (rate - self.mean)

    @property
    def variance(self) -> float:
        """Variance of one batch's joules around the mean, as far as the spans show it; infinite from one span."""
        if self.spans < 2:
            return math.inf
        # A span of n batches has a variance of one batch's over n, so the weighted spread estimates one batch's.
        return self._spread / (self.spans - 1)


def within(ahead: Mapping[str, int], left_s: float, by_stage: Mapping[str, Usage]) -> dict[str, int]:
    """What of the batches ahead comes within the time that is left, at the pace so far.

    Args:
        ahead: batches still to come, by stage.
        left_s: seconds that are left.
        by_stage: what each stage used so far.

    Example:
        >>> within({"train": 100}, 5.0, {"train": Usage(ns=2 * 10**9, batches=20)})
        {'train': 50}
    """
    pace_s = {stage: seconds(usage.ns) / usage.batches for stage, usage in by_stage.items() if usage.batches}
    needed_s = sum(batches * pace_s.get(stage, 0.0) for stage, batches in ahead.items())
    if needed_s <= left_s:
        return dict(ahead)
    share = max(0.0, left_s) / needed_s if needed_s else 0.0  # the time can be over before anything is known
    # A training that is stopped is validated once more.
    return {
        stage: int(batches * share) if stage == "train" else math.ceil(batches * share) for stage, batches in ahead.items()
    }


def forecast(spent_j: float, ahead: Mapping[str, int] | None, rates: dict[str, Rate]) -> Forecast | None:
    """Joules at the end of the schedule.

    Args:
        spent_j: joules so far, all stages.
        ahead: batches still to come, by stage; None if that is not known.
        rates: joules a batch, by stage.

    Returns:
        The forecast; None without an end, or if a stage that is still to come has not been seen yet. A stage that has been
        seen in one span only (the first validation) is taken to scatter as much, for its size, as the others do; if no
        stage has been seen in two, the interval is infinite.

    Example:
        >>> rate = Rate()
        >>> rate.add(30.0, 10), rate.add(50.0, 10)
        (None, None)
        >>> forecast(80.0, {"train": 20}, {"train": rate}).joules
        160.0
    """
    if ahead is None:
        return None
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
    """Variance of one batch's joules; if a stage does not show its own, the relative one of the others."""
    if rate.spans >= 2:
        return rate.variance
    relative = [other.variance / other.mean**2 for other in rates.values() if other.spans >= 2 and other.mean > 0]
    return max(relative) * rate.mean**2 if relative else math.inf


def batches_that_fit(
    left_j: float, batch_j: float, validation_j: float = 0.0, validations: Callable[[int], int] = lambda batches: 0
) -> int | None:
    """How many more batches fit into what is left of a budget; None if that is not known and something is left.

    Args:
        left_j: joules that are left.
        batch_j: joules of one training batch.
        validation_j: joules of one validation.
        validations: how many validations come if the training stops so many batches from now; it never falls.

    Example:
        >>> batches_that_fit(10.0, 4.0), batches_that_fit(-0.1, 4.0), batches_that_fit(10.0, 0.0)
        (2, 0, None)
        >>> batches_that_fit(100.0, 1.0, 30.0, lambda batches: 1 + batches // 20)  # two fit in, until the 40th batch
        39
    """
    if left_j <= 0:
        return 0
    if batch_j <= 0:
        return None
    most = int(min(left_j / batch_j, MOST_BATCHES))
    fitting = bisect_right(range(most + 1), left_j, key=lambda n: n * batch_j + validations(n) * validation_j)
    return max(0, fitting - 1)


class LogSpan(NamedTuple):
    """What lies between two log rows of one stage: joules, batches and samples; all zero if no batch ended.

    No samples stand for samples that are not known.
    """

    joules: float
    batches: int
    samples: int


@dataclass
class LogSpans:
    """The stages' last rows.

    By the stage's own account, so that a validation in between does not cut a span of training in two.

    Attributes:
        rates: joules a batch by stage, for the forecast.
        whole_of_own: by stage, all nodes' energy over this one's, as of the others' last reports; None if this is the
            only one.
    """

    rates: dict[str, Rate] = field(default_factory=dict)
    whole_of_own: dict[str, float] | None = None

    def __post_init__(self) -> None:
        self._from: dict[str, tuple[int, int, int]] = {}
        self._logged: Point | None = None  # the last log row of the stage, or the stage's beginning

    def begin(self, at: Point | None) -> None:
        """A stage begins here; None if it is not known yet where."""
        self._logged = at

    def mean_power_w(self, at: Point, labels: Sequence[str], tick_s: float) -> dict[str, float]:
        """Watts by device since the last log row, or nothing if that is too short.

        Args:
            at: where the next row is.
            labels: the devices.
            tick_s: the longest update period of their counters, seconds. Over less than this a mean is the noise of the
                edges, so the span goes on to the next row.
        """
        before = self._logged or at
        passed_s = seconds(at.t_ns - before.t_ns)
        if passed_s <= tick_s:
            return {}
        self._logged = at
        pairs = zip(labels, at.energy_uj, before.energy_uj, strict=True)
        return {label: to_joules(int(uj) - int(was)) / passed_s for label, uj, was in pairs}

    def expect_others(self, many: bool) -> None:
        """Note whether other nodes measure too; until they have reported, a batch's energy is not known."""
        self.whole_of_own = (self.whole_of_own or {}) if many else None

    def take_nodes(self, own: Mapping[str, Usage], nodes: Mapping[str, Usage]) -> None:
        """Take what the other nodes have reported: a batch's energy is all nodes', and only the own one is known at once.

        Args:
            own: what this session used by stage.
            nodes: what the other nodes used by stage.
        """
        self.whole_of_own = {
            stage: 1 + (nodes[stage].total_uj if stage in nodes else 0) / usage.total_uj
            for stage, usage in own.items()
            if usage.total_uj > 0
        }

    def cut(self, stage: str, usage: Usage) -> LogSpan:
        """Give what a stage has used since its last row.

        Args:
            stage: the stage.
            usage: what it has used so far.
        """
        standing = (usage.total_uj, usage.batches, usage.samples)
        uj, batches, samples = (now - was for now, was in zip(standing, self._from.get(stage, (0, 0, 0)), strict=True))
        if batches > 0:
            self._from[stage] = standing
        if self.whole_of_own is not None:
            if stage not in self.whole_of_own:  # a batch's energy is all nodes'; before their reports it is not known
                return LogSpan(0.0, 0, 0)
            uj = round(uj * self.whole_of_own[stage])
        if batches > 0:
            self.rates.setdefault(stage, Rate()).add(to_joules(uj), batches)
        return LogSpan(to_joules(uj), batches, samples if usage.samples else 0)

    def known_rates(self, by_stage: Mapping[str, Usage]) -> dict[str, Rate]:
        """Joules a batch by stage; before the first validation, those of the sanity check stand for its."""
        check = by_stage.get("sanity_check")
        if "validate" in self.rates or check is None or not check.batches:
            return self.rates
        stand_in = Rate()
        stand_in.add(to_joules(check.total_uj), check.batches)
        return {**self.rates, "validate": stand_in}
