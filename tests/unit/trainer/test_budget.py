"""When a training stops for its budget, by the rates of its batches, and when it says so before."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_watt.errors import WattWarning
from lightning_watt.run.events import LogPoint, Snapshot
from lightning_watt.run.forecast import Forecast, LogSpan, Rate
from lightning_watt.trainer.budget import Budget
from lightning_watt.units import J_PER_KWH
from lightning_watt.warn_once import WarnOnce

BUDGET_J = 100.0


def snapshot(total_j: float, trained: int = 0, forecast: Forecast | None = None) -> Snapshot:
    point = LogPoint(step=1, epoch=0, accuracy=None, batches=trained, samples=0, ahead={}, trained=trained)
    return Snapshot(point, total_j, 0.0, {}, {}, LogSpan(0.0, 0, 0), forecast)


def a_trainer(*, trained: int = 0, validations: tuple[float, ...] = (), speaks: bool = True) -> Any:
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(total_batch_idx=trained - 1))
    printed: list[str] = []
    return SimpleNamespace(
        fit_loop=loop,
        num_val_batches=list(validations),
        is_global_zero=speaks,
        should_stop=False,
        print=printed.append,
        printed=printed,
    )


def rate(joules: float, batches: int) -> Rate:
    made = Rate()
    made.add(joules, batches)
    return made


@pytest.fixture
def budget() -> Budget:
    return Budget(BUDGET_J / J_PER_KWH)


def test_the_batches_that_fit_are_added_to_those_that_were_trained(budget):
    # 60 J are left, 4 J a batch: 15 more.
    assert budget.planned(a_trainer(), snapshot(40.0, trained=10), {"train": rate(40.0, 10)}) == 25
    assert budget.stop_at is None  # only `plan` decides


def test_one_more_validation_is_kept_back(budget):
    rates = {"train": rate(40.0, 10), "validate": rate(6.0, 3)}
    # 60 J less 5 batches of 2 J: 50 J, 12 batches of 4 J. A loader without a length counts nothing.
    trainer = a_trainer(validations=(3, 2, math.inf))
    assert budget.planned(trainer, snapshot(40.0, trained=10), rates) == 22


def test_without_a_rate_nothing_is_planned_until_nothing_is_left(budget):
    assert budget.planned(a_trainer(), snapshot(40.0, trained=10), {}) is None
    assert budget.planned(a_trainer(), snapshot(BUDGET_J, trained=10), {}) == 10


def test_a_used_up_budget_stops_at_the_batch_that_was_trained(budget):
    rates = {"train": rate(40.0, 10), "validate": rate(6.0, 3)}
    assert budget.planned(a_trainer(validations=(5,)), snapshot(101.0, trained=7), rates) == 7
    # Something is left, but less than the validation needs.
    assert budget.planned(a_trainer(validations=(5,)), snapshot(95.0, trained=7), rates) == 7


def test_plan_keeps_the_number(budget):
    budget.plan(a_trainer(), snapshot(0.0, trained=1), {"train": rate(10.0, 1)})
    assert budget.stop_at == 11


def test_it_stops_at_the_planned_batch_and_not_before(budget):
    warn_once = WarnOnce()
    early, due = a_trainer(trained=4), a_trainer(trained=5)
    budget.mind(due, warn_once)  # nothing is planned
    assert not due.should_stop
    budget.stop_at = 5
    budget.mind(early, warn_once)
    assert not early.should_stop
    with pytest.warns(WattWarning, match="used up: the training stops here"):
        budget.mind(due, warn_once)
    assert due.should_stop


def test_every_rank_stops_and_one_warns(budget):
    warn_once, other = WarnOnce(), a_trainer(trained=5, speaks=False)
    budget.stop_at = 5
    budget.mind(other, warn_once)
    assert (other.should_stop, warn_once.said) == (True, {})


def test_a_schedule_that_does_not_fit_is_foretold_once(budget):
    trainer = a_trainer()
    for _ in range(2):
        budget.foretell(trainer, snapshot(1.0, forecast=Forecast(400.0, 10.0)), WarnOnce())
    assert len(trainer.printed) == 1
    assert "the training stops before, after about 25% of that energy" in trainer.printed[0]


@pytest.mark.parametrize("told", [None, Forecast(90.0, 1.0), Forecast(105.0, 10.0), Forecast(400.0, math.inf)])
def test_nothing_is_foretold_while_the_schedule_may_fit(budget, told):
    trainer = a_trainer()
    budget.foretell(trainer, snapshot(1.0, forecast=told), WarnOnce())
    assert trainer.printed == []
    budget.foretell(trainer, snapshot(1.0, forecast=Forecast(400.0, 10.0)), WarnOnce())
    assert len(trainer.printed) == 1
