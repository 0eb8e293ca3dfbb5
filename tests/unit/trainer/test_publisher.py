"""What a publisher gives to a Trainer: metrics, the progress bar, the plan of a budget; once each."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_watt.accounts.events import LogPoint, Snapshot
from lightning_watt.accounts.forecast import LogSpan
from lightning_watt.accounts.ledger import Account, Point
from lightning_watt.run.session import Session
from lightning_watt.run.state import RunState
from lightning_watt.sam.score import Scoring
from lightning_watt.sources.base import Device
from lightning_watt.trainer.publisher import Publisher, for_bar

SCORING = Scoring(5.0, 5.0, "J")
POINT = LogPoint(step=7, epoch=1, accuracy=0.5, batches=10, samples=80, ahead={}, trained=10)


def a_trainer(world_size: int = 1, *, is_global_zero: bool = True) -> SimpleNamespace:
    epoch_loop = SimpleNamespace(total_batch_idx=9, _batches_that_stepped=7)
    return SimpleNamespace(
        world_size=world_size,
        is_global_zero=is_global_zero,
        global_step=7,
        loggers=[Logger()],
        num_val_batches=[],
        num_training_batches=100,
        check_val_every_n_epoch=1,
        should_stop=False,
        state=SimpleNamespace(fn="fit"),
        progress_bar_callback=object(),
        fit_loop=SimpleNamespace(epoch_loop=epoch_loop),
        _logger_connector=SimpleNamespace(_callback_metrics={}, _progress_bar_metrics={}),
    )


class Logger:
    def __init__(self) -> None:
        self.rows: list[tuple[dict[str, float], int]] = []
        self.saved = 0

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.rows.append((metrics, step))

    def save(self) -> None:
        self.saved += 1


def a_session(rows: int = 1) -> Session:
    """One that has used 100 J in ten batches, and has rows to be logged."""
    session = Session(devices={"gpu0": Device("gpu0", "a board", "GPU-1", "nvml-counter")})
    session.ledger.open(["gpu0"], Account("train", 0), Point(0, [0], [0.0], 0, 0))
    session.ledger.close(Point(10**9, [100_000_000], [0.0], 10, 80))
    session.spans.cut("train", session.ledger.by_stage()["train"])
    snapshot = Snapshot(POINT, 100.0, 5.0, {"train": 100.0}, {"gpu0": 250.0}, LogSpan(100.0, 10, 80))
    session.ready.extend([snapshot] * rows)
    session.news = True
    return session


def metrics(trainer: Any) -> dict[str, float]:
    return {tag: float(value) for tag, value in trainer._logger_connector._callback_metrics.items()}


def test_what_was_settled_is_logged_once_and_given_to_the_trainer():
    trainer, session, publisher = a_trainer(), a_session(rows=2), Publisher(SCORING, None)
    for _ in range(2):
        publisher.catch_up(trainer, session, RunState())
    (logger,) = trainer.loggers
    steps = [step for row, step in logger.rows if "watt/energy_kwh" in row]
    assert (steps, logger.saved, session.news, len(session.ready)) == ([7, 7], 1, False, 0)
    assert metrics(trainer)["watt/energy_kwh"] * 3.6e6 == pytest.approx(100.0)
    assert {name: str(value) for name, value in trainer._logger_connector._progress_bar_metrics.items()} == {"watt": "100 J"}


@pytest.mark.parametrize(
    ("power_w", "energy_j", "shown"),
    [(0.0, 0.0, None), (0.0, 0.00234, "0.00234 J"), (42.345, 12.3456, "42.3 W, 12.3 J"), (1234.0, 7.2e6, "1230 W, 2 kWh")],
)
def test_a_bar_shows_what_is_known_with_its_digits_and_unit(power_w, energy_j, shown):
    found = for_bar(power_w, energy_j)
    assert [str(value) for value in found.values()] == ([shown] if shown else [])
    for value in found.values():
        assert f"{value:.3f}" == f"{copy.deepcopy(value):.3g}" == shown
        assert value * 2 == 2 * power_w  # a bar of the user's own may reckon with what it finds


def test_only_rank_zero_logs_and_several_ranks_are_given_nothing_in_between():
    other, zero = a_trainer(2, is_global_zero=False), a_trainer(2)
    for trainer in (other, zero):
        Publisher(SCORING, None).catch_up(trainer, a_session(), RunState())
    assert other.loggers[0].rows == []
    assert zero.loggers[0].rows != []
    assert metrics(other) == metrics(zero) == {}


def test_the_budget_is_planned_from_what_is_known():
    trainer, publisher = a_trainer(), Publisher(SCORING, budget_kwh=150 / 3.6e6)
    publisher.publish(trainer, a_session(), RunState(), lambda: POINT)
    assert publisher.budget is not None
    assert publisher.budget.stop_at == 15  # 50 J are left, at 10 J a batch, after ten batches
    assert not trainer.should_stop


@pytest.mark.parametrize(("ranks", "by_time", "stop_at"), [(1, None, 12), (1, 60.0, 15), (2, None, 15)])
def test_a_plan_of_settled_batches_is_kept_where_it_says_more_than_the_last_known_power(ranks, by_time, stop_at):
    """Alone, unless validations come whenever their time has come: then the plan did not know of this one."""
    trainer, publisher = a_trainer(ranks), Publisher(SCORING, budget_kwh=150 / 3.6e6)
    trainer._val_check_time_interval = by_time
    publisher.budget.stop_at = 12
    publisher.publish(trainer, a_session(), RunState(), lambda: POINT)
    assert publisher.budget.stop_at == stop_at


def test_a_moment_s_values_are_given_and_a_used_up_budget_stops():
    trainer, session = a_trainer(), a_session()
    publisher = Publisher(SCORING, budget_kwh=90 / 3.6e6)
    with pytest.warns(match="budget .* is used up"):
        publisher.publish(trainer, session, RunState(), lambda: POINT)
    assert trainer.should_stop
    assert metrics(trainer)["watt/sam_shifted"] == pytest.approx(5 * 0.5**5 / 2.0413927)


def test_another_rank_s_budget_takes_the_place_of_the_own_one():
    publisher = Publisher(SCORING, 1.0)
    own = publisher.budget
    publisher.set_budget(1.0)
    assert publisher.budget is own
    publisher.set_budget(None)
    assert publisher.budget is None
