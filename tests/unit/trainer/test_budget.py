"""When a training stops for its budget, by what its batches used, and what it says then and before."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_watt.accounts.events import LogPoint, Moment, Snapshot
from lightning_watt.accounts.forecast import Forecast, LogSpan
from lightning_watt.accounts.ledger import Account, Point, Usage
from lightning_watt.errors import WattWarning
from lightning_watt.run.session import Session
from lightning_watt.trainer.budget import Budget, Spent
from lightning_watt.units import J_PER_KWH, NS_PER_S, UJ_PER_J
from lightning_watt.warn_once import WarnOnce

BUDGET_J = 100.0


def snapshot(total_j: float, forecast: Forecast | None = None) -> Snapshot:
    point = LogPoint(step=1, epoch=0, accuracy=None, batches=0, samples=0, ahead={})
    return Snapshot(point, total_j, 0.0, {}, {}, LogSpan(0.0, 0, 0), forecast)


def a_trainer(
    *,
    trained: int = 0,
    validations: tuple[float, ...] = (),
    per_epoch: int = 1000,
    speaks: bool = True,
    ranks: int = 1,
    **minimum: int,
) -> Any:
    """One that validates at the end of each epoch; with a minimum of epochs or steps it may not stop yet."""
    printed: list[str] = []
    return SimpleNamespace(
        fit_loop=SimpleNamespace(
            epoch_loop=SimpleNamespace(total_batch_idx=trained - 1),
            min_epochs=minimum.get("min_epochs", 0),
            min_steps=minimum.get("min_steps"),
            _can_stop_early=not minimum,
        ),
        num_training_batches=per_epoch,
        val_check_batch=per_epoch,
        check_val_every_n_epoch=1,
        num_val_batches=list(validations),
        world_size=ranks,
        is_global_zero=speaks,
        should_stop=False,
        sanity_checking=False,
        _active_loop=SimpleNamespace(_data_fetcher=SimpleNamespace(done=False, batches=[])),
        print=printed.append,
        printed=printed,
    )


def spent(
    total_j: float, trained: int, batch_j: float = 4.0, validation_batch_j: float = 2.0, batch_s: float = 1.0
) -> Spent:
    return Spent(trained, total_j, batch_j, batch_s, trained * batch_s, validation_batch_j)


class NotedSession(Session):
    """One whose moments wait in a list until the test settles them."""

    def __init__(self, **used: tuple[float, int]) -> None:
        super().__init__()
        self.noted: list[tuple[Moment, bool]] = []
        for stage, (joules, batches) in used.items():
            self.use(joules, batches, stage=stage)

    def note(self, payload: Any, *, ask: bool = False) -> None:
        self.noted.append((payload, ask))

    def use(self, joules: float, batches: int, *, seconds: float = 1.0, stage: str = "train") -> None:
        """Use so much in so many batches."""
        self.ledger.add(
            Account(stage, 0), Usage({"gpu0": round(joules * UJ_PER_J)}, round(seconds * NS_PER_S), batches, batches)
        )

    def settle(self) -> list[bool]:
        """Settle what was noted. Returns whether a reading was asked for with each."""
        noted, self.noted = self.noted, []
        for moment, _ in noted:
            moment.take(self.totals())
        return [ask for _, ask in noted]


@pytest.fixture
def budget() -> Budget:
    return Budget(BUDGET_J / J_PER_KWH)


# -- the plan --


def test_the_batches_that_fit_are_added_to_those_that_were_trained(budget):
    budget.plan(a_trainer(), spent(40.0, trained=10))  # 60 J are left, 4 J a batch: 15 more
    assert budget.stop_at == 25


def test_one_more_validation_is_kept_back(budget):
    # 60 J less 5 batches of 2 J: 50 J, 12 batches of 4 J. A loader without a length counts nothing.
    budget.plan(a_trainer(validations=(3, 2, math.inf)), spent(40.0, trained=10))
    assert budget.stop_at == 22


def test_the_validations_of_the_schedule_are_paid_too(budget):
    # 56 J after 11 batches: nine of 4 J and the validation of 10 J after the 20th leave 10 J, which are the next one's.
    trainer = a_trainer(validations=(5,), per_epoch=20)
    budget.plan(trainer, spent(44.0, trained=11))
    assert budget.stop_at == 20
    budget.plan(trainer, spent(30.0, trained=11))  # 70 J are enough for both validations and 12 batches
    assert budget.stop_at == 23


def test_the_validation_that_follows_the_batch_itself_is_still_to_be_paid(budget):
    trainer, at = a_trainer(validations=(5,), per_epoch=10), spent(60.0, trained=10)
    budget.plan(trainer, at)  # 40 J less this validation and the last one
    assert budget.stop_at == 15
    session = NotedSession(train=(60.0, 10), validate=(10.0, 5))
    assert budget.planned_now(a_trainer(trained=10, validations=(5,), per_epoch=10), session.totals()) == 13


def test_an_epoch_that_does_not_validate_keeps_nothing_back(budget):
    trainer = a_trainer(validations=(5,), per_epoch=20)
    trainer.check_val_every_n_epoch = 2
    budget.plan(trainer, spent(40.0, trained=5))
    assert budget.stop_at == 20  # in the second epoch it would need 10 J more than the 0 J that are left


def test_without_a_rate_nothing_is_planned_until_nothing_is_left(budget):
    budget.plan(a_trainer(), spent(40.0, trained=10, batch_j=0.0))
    assert budget.stop_at is None
    budget.plan(a_trainer(), spent(BUDGET_J, trained=10, batch_j=0.0))
    assert budget.stop_at == 10


def test_a_used_up_budget_stops_at_the_batch_that_was_trained(budget):
    trainer = a_trainer(validations=(5,))
    budget.plan(trainer, spent(101.0, trained=7))
    assert budget.stop_at == 7
    budget.plan(trainer, spent(95.0, trained=7))  # something is left, but less than the validation needs
    assert budget.stop_at == 7


def test_what_a_validation_uses_is_known_from_the_sanity_check_s_later_batches():
    warm_up = Usage({"gpu0": 50 * UJ_PER_J}, batches=1)
    check = Usage({"gpu0": 56 * UJ_PER_J}, batches=3)
    train, validate = Usage({"gpu0": 40 * UJ_PER_J}, batches=8), Usage({"gpu0": 10 * UJ_PER_J}, batches=10)
    of = lambda **stages: Spent.of(8, stages, warm_up)  # noqa: E731
    assert of(sanity_check=check, train=train).validation_batch_j == 3.0
    assert of(sanity_check=check, train=train, validate=validate).validation_batch_j == 1.0
    # One batch alone, or no sanity check: a training batch bounds it.
    assert of(sanity_check=warm_up, train=train).validation_batch_j == 5.0
    assert of(train=train).validation_batch_j == 5.0
    assert of(sanity_check=check, train=train).total_j == 96.0


# -- after every batch --


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_reading_or_a_meeting_comes_after_the_first_batch_and_then_doubling(budget, ranks):
    session = NotedSession()
    met = [n for n in range(1, 40) if budget.end_batch(a_trainer(trained=n, ranks=ranks), session, WarnOnce())]
    asked = [moment.batches for moment, ask in session.noted if ask]
    assert (met, len(asked)) == (([], 6) if ranks == 1 else ([1, 2, 4, 8, 16, 32], 0))
    budget.begin()
    assert budget.end_batch(a_trainer(trained=40, ranks=2), session, WarnOnce())
    assert not budget.end_batch(a_trainer(trained=41, ranks=1), None, WarnOnce())  # nothing is measured here


def test_several_ranks_meet_before_they_stop(budget):
    budget.stop_at = 45
    budget._batches = 40
    met = [n for n in range(41, 47) if budget.end_batch(a_trainer(trained=n, ranks=2), None, WarnOnce())]
    assert met == [45, 46]


def test_it_follows_what_is_settled_and_has_one_moment_under_way(budget):
    session, warn_once = NotedSession(), WarnOnce()
    for trained in range(1, 6):
        session.use(4.0, 1)
        budget.end_batch(a_trainer(trained=trained), session, warn_once)
    assert budget.stop_at is None
    assert session.settle() == [True, True, True]  # after 1, 2 and 4
    for trained in (6, 7):
        budget.end_batch(a_trainer(trained=trained), session, warn_once)
    assert budget.stop_at == 4 + 20  # 20 J were settled with the last of them
    assert session.settle() == [False]


def test_it_stops_at_the_planned_batch_and_not_before(budget):
    warn_once, session = WarnOnce(), NotedSession()
    early, due = a_trainer(trained=4), a_trainer(trained=5)
    budget.mind(due, session, warn_once)  # nothing is planned
    assert not due.should_stop
    budget.stop_at = 5
    budget.mind(early, session, warn_once)
    assert not early.should_stop
    with pytest.warns(WattWarning, match="used up: the training stops here"):
        budget.mind(due, session, warn_once)
    assert due.should_stop


def test_every_rank_stops_and_one_warns(budget):
    warn_once, other = WarnOnce(), a_trainer(trained=5, speaks=False)
    budget.stop_at = 5
    budget.mind(other, None, warn_once)
    assert (other.should_stop, warn_once.said) == (True, {})


def test_first_batches_that_take_long_do_not_end_the_training(budget):
    """The first one compiles: 30 J in ten seconds, so that the plan is due two batches later. Those take 0.1 s each."""
    session, warn_once = NotedSession(), WarnOnce()
    session.use(30.0, 1, seconds=10.0)
    budget.end_batch(a_trainer(trained=1), session, warn_once)
    session.settle()
    for trained in (2, 3):
        session.use(0.3, 1, seconds=0.1)
        budget.end_batch(a_trainer(trained=trained), session, warn_once)
    assert warn_once.said == {}
    assert session.settle() == [True, True]  # so a reading is asked for, beside that of the second batch
    session.use(0.3, 1, seconds=0.1)
    budget.end_batch(a_trainer(trained=4), session, warn_once)
    assert budget.stop_at == 3 + 6  # 69.4 J, at 10.2 J a batch


def test_batches_as_long_as_those_before_are_not_looked_at_again(budget):
    session, warn_once = NotedSession(), WarnOnce()
    session.use(45.0, 1, seconds=1.0)
    budget.end_batch(a_trainer(trained=1), session, warn_once)
    session.settle()
    session.use(45.0, 1, seconds=0.6)
    stopped = a_trainer(trained=2)
    with pytest.warns(WattWarning, match="the training stops here"):
        budget.end_batch(stopped, session, warn_once)
    assert stopped.should_stop


@pytest.mark.parametrize(("minimum", "said"), [({"min_epochs": 3}, "min_epochs=3"), ({"min_steps": 7}, "min_steps=7")])
def test_what_the_trainer_does_not_let_us_stop_is_said_once(budget, minimum, said):
    session, warn_once = NotedSession(), WarnOnce()
    budget.stop_at = 5
    held = a_trainer(trained=5, **minimum)
    with pytest.warns(WattWarning, match=f"the Trainer's {said} makes it go on until then. Lower that"):
        budget.end_batch(held, session, warn_once)
    noted = len(session.noted)
    held.should_stop = False
    budget.end_batch(held, session, warn_once)
    assert (held.should_stop, len(session.noted)) == (True, noted)  # it stops as soon as it may
    assert "stops here" not in " ".join(warn_once.said.values())


def test_the_first_batch_of_a_sanity_check_is_told_apart(budget):
    session = NotedSession(sanity_check=(50.0, 1))
    checks = a_trainer()
    checks.sanity_checking = True
    for _ in range(2):
        budget.end_check_batch(checks, session, WarnOnce())
    budget.begin()
    assert session.settle() == [True]
    session.use(2.0, 1, stage="sanity_check")
    session.use(40.0, 10)
    budget.end_batch(a_trainer(trained=10, validations=(2,)), session, WarnOnce())
    session.settle()
    budget.end_batch(a_trainer(trained=10, validations=(2,)), session, WarnOnce())
    assert budget.stop_at == 10 + 1  # 8 J are left, 4 of them for the validation


# -- the first validation --


def test_a_first_validation_that_uses_more_than_is_left_ends(budget):
    session, warn_once = NotedSession(train=(60.0, 15)), WarnOnce()
    trainer = a_trainer(trained=15, validations=(100,), per_epoch=15)
    budget.stop_at = 20
    asked = []
    for batch in range(1, 14):
        session.use(3.0, 1, stage="validate")
        budget.end_check_batch(trainer, session, warn_once)
        asked += [batch] * len(session.settle())
    with pytest.warns(WattWarning, match="in the middle of the first validation: it ends after 14 of its 100 batches"):
        budget.end_check_batch(trainer, session, warn_once)
    assert trainer._active_loop._data_fetcher.done
    assert asked == [1, 4, 10, 13]  # what was settled is seen a batch later
    assert (trainer.should_stop, budget.stop_at) == (True, None)


@pytest.mark.parametrize(
    "why",
    ["it fits", "almost all of it is over", "the run that is resumed had one", "several ranks", "a minimum of epochs"],
)
def test_a_validation_that_is_not_cut(budget, why):
    session, warn_once = NotedSession(train=(90.0, 15)), WarnOnce()
    trainer = a_trainer(validations=(5 if why == "almost all of it is over" else 100,), ranks=1 + (why == "several ranks"))
    if why == "a minimum of epochs":
        trainer.fit_loop.min_epochs, trainer.fit_loop._can_stop_early = 3, False
    if why == "the run that is resumed had one":
        session.use(1.0, 4, stage="validate")
    for _ in range(5 if why == "almost all of it is over" else 20):
        session.use(0.1 if why == "it fits" else 3.0, 1, stage="validate")
        budget.end_check_batch(trainer, session, warn_once)
        session.settle()
    assert warn_once.said == {}
    assert not trainer._active_loop._data_fetcher.done
    assert not trainer.should_stop


def test_a_later_validation_is_not_watched(budget):
    session, trainer = NotedSession(train=(10.0, 5)), a_trainer(trained=5, validations=(4,), per_epoch=5)
    for _ in range(4):
        session.use(1.0, 1, stage="validate")
        budget.end_check_batch(trainer, session, WarnOnce())
    assert session.settle() == [True]  # the first batch's, which nobody has read yet
    budget.end_batch(trainer, session, WarnOnce())
    session.settle()
    budget.end_check_batch(trainer, session, WarnOnce())
    assert session.settle() == []


def test_what_is_said_at_the_stop_tells_of_the_validation_that_follows(budget):
    def said(left_j: float, validations: tuple[float, ...] = (5,)) -> str:
        budget.begin()
        budget._planned_from, budget.stop_at = spent(BUDGET_J - left_j, trained=5), 5
        warn_once = WarnOnce()
        with pytest.warns(WattWarning, match="the training stops here"):
            budget.mind(a_trainer(trained=5, validations=validations), None, warn_once)
        return warn_once.said["the budget is used up"].partition("kWh is used up")[2]

    assert said(12.0) == ", but for one more validation: the training stops here."
    assert said(12.0, ()) == ": the training stops here."
    missing = "and one more validation, which Lightning adds, needs about 2.2e-06 kWh more than is left"
    assert said(2.0) == f", {missing}: the training stops here."


def test_the_points_of_a_real_session_are_settled_by_its_reader():
    """A moment is charged up to itself, and no further."""
    session, taken = Session(), []
    session.ledger.open(["gpu0"], Account("train", 0), Point(0, [0], [0.0], 0, 0))
    session.ledger.charge(Point(NS_PER_S, [7 * UJ_PER_J], [0.0], 3, 12))
    Moment(3, 12, taken.append).take(session.totals())
    assert Spent.of(3, taken[0].by_stage()) == Spent(
        3, 7.0, pytest.approx(7 / 3), pytest.approx(1 / 3), 1.0, pytest.approx(7 / 3)
    )


# -- what is said --


def test_a_schedule_that_does_not_fit_is_foretold_once(budget):
    trainer = a_trainer()
    for _ in range(2):
        budget.foretell(trainer, snapshot(1.0, forecast=Forecast(400.0, 10.0)))
    assert len(trainer.printed) == 1
    assert "the training stops before, after about 25% of that energy." in trainer.printed[0]


def test_what_is_foretold_says_what_the_trainer_does_not_let_us_stop(budget):
    trainer = a_trainer(min_epochs=3)
    budget.foretell(trainer, snapshot(1.0, forecast=Forecast(400.0, 10.0)))
    assert trainer.printed[0].endswith("of that energy, but not before the Trainer's min_epochs=3.")


@pytest.mark.parametrize("told", [None, Forecast(90.0, 1.0), Forecast(105.0, 10.0), Forecast(400.0, math.inf)])
def test_nothing_is_foretold_while_the_schedule_may_fit(budget, told):
    trainer = a_trainer()
    budget.foretell(trainer, snapshot(1.0, forecast=told))
    assert trainer.printed == []
    budget.foretell(trainer, snapshot(1.0, forecast=Forecast(400.0, 10.0)))
    assert len(trainer.printed) == 1
