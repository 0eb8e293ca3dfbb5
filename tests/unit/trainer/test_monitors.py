"""Callbacks that monitor a tag of ours: they find NaN until it has a value, and EarlyStopping does not count meanwhile."""

from __future__ import annotations

import copy
import math
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_watt.accounts.ledger import Account
from lightning_watt.errors import WattWarning
from lightning_watt.run.session import Session
from lightning_watt.sam.score import Scoring
from lightning_watt.trainer.monitors import Monitors, Tuners, place
from lightning_watt.units import J_PER_KWH
from lightning_watt.warn_once import WarnOnce

SCORING = Scoring(alpha=5.0, beta=5.0, unit="kWh")


class Stops(SimpleNamespace):
    """Has the attributes of EarlyStopping that are read."""


def stops(monitor: str, wait_count: int = 0) -> Stops:
    return Stops(monitor=monitor, wait_count=wait_count, check_finite=True)


def saves(monitor: str | None) -> Any:
    return SimpleNamespace(monitor=monitor, best_k_models={})


def a_trainer(*callbacks: Any, schedulers: tuple[Any, ...] = (), **metrics: float) -> Any:
    computed = {tag: torch.tensor(value) for tag, value in metrics.items()}
    connector = SimpleNamespace(_callback_metrics=computed)
    return SimpleNamespace(callbacks=list(callbacks), lr_scheduler_configs=list(schedulers), _logger_connector=connector)


def metrics(trainer: Any) -> dict[str, float]:
    return {tag: float(value) for tag, value in trainer._logger_connector._callback_metrics.items()}


def begun(trainer: Any, *, used_j: float = 0.0, measures: bool = True) -> list[str]:
    warn_once = WarnOnce()
    with pytest.warns(WattWarning):
        Monitors().begin(trainer, warn_once, SCORING, used_j=used_j, measures=measures)
    return list(warn_once.said.values())


def test_we_move_before_the_first_that_monitors_us():
    ours, bar, one, two = SimpleNamespace(), SimpleNamespace(), saves("watt/sam"), stops("watt_vs_energy/accuracy")
    trainer = a_trainer(bar, one, two, ours)
    place(trainer, ours)
    assert [id(callback) for callback in trainer.callbacks] == [id(bar), id(ours), id(one), id(two)]


def test_we_stay_where_none_monitors_us_or_we_stand_before_it():
    ours = SimpleNamespace()
    for order in ([saves("val_loss"), saves(None), ours], [ours, saves("watt/sam")]):
        trainer = a_trainer(*order)
        place(trainer, ours)
        assert all(found is was for found, was in zip(trainer.callbacks, order, strict=True))


def test_a_tag_without_a_value_is_nan_and_others_are_left():
    trainer = a_trainer(saves("watt/sam"), saves("val_loss"), val_loss=2.0)
    trainer.lr_scheduler_configs = [SimpleNamespace(monitor="watt/power_w")]
    Monitors().fill(trainer)
    found = metrics(trainer)
    assert set(found) == {"watt/sam", "watt/power_w", "val_loss"}
    assert math.isnan(found["watt/sam"])
    assert math.isnan(found["watt/power_w"])
    assert found["val_loss"] == 2.0


def test_a_value_is_not_overwritten():
    trainer = a_trainer(saves("watt/sam"), **{"watt/sam": 0.5})
    Monitors().fill(trainer)
    assert metrics(trainer) == {"watt/sam": 0.5}


def test_what_has_no_value_is_reported_only_where_it_is_late():
    warn_once, trainer = WarnOnce(), a_trainer(saves("watt/sam"))
    Monitors().fill(trainer)
    assert warn_once.said == {}
    with pytest.warns(WattWarning, match="was an accuracy logged"):
        Monitors().fill(trainer, warn_once)
    assert "a checkpoint without a value ranks as the worst" in next(iter(warn_once.said.values()))


@pytest.mark.parametrize("count", [0, 2, -3])
def test_early_stopping_is_held_until_there_is_a_value_and_gets_its_own_back(count):
    early = stops("watt/sam", wait_count=count)
    trainer, monitors = a_trainer(early), Monitors()
    monitors.fill(trainer)
    assert (early.wait_count, early.check_finite) == (min(count, 0) - 2, False)
    early.wait_count += 1  # it has looked
    monitors.fill(trainer)
    assert (early.wait_count, early.check_finite) == (min(count, 0) - 2, False)
    trainer._logger_connector._callback_metrics["watt/sam"] = torch.tensor(0.5)
    monitors.fill(trainer)
    assert (early.wait_count, early.check_finite) == (count, True)


def test_the_end_gives_back_what_was_kept():
    early, monitors = stops("watt/sam", wait_count=1), Monitors()
    monitors.fill(a_trainer(early))
    assert early.wait_count == -2
    monitors.end()
    assert (early.wait_count, early.check_finite) == (1, True)
    early.wait_count = 7
    monitors.end()  # nothing is kept any more
    assert early.wait_count == 7


def test_a_callback_that_counts_nothing_is_not_held():
    other = saves("watt/sam")
    Monitors().fill(a_trainer(other))
    assert not hasattr(other, "wait_count")


def test_a_tag_that_does_not_exist_gets_the_nearest_one():
    (said,) = begun(a_trainer(saves("watt/energy_kw")))
    assert "there is no such tag. Did you mean 'watt/energy_kwh'?" in said


def test_a_tag_of_a_place_exists():
    trainer, warn_once = a_trainer(saves("watt/train/energy_kwh"), saves("watt/gpu0/power_w")), WarnOnce()
    Monitors().begin(trainer, warn_once, SCORING, used_j=0.0, measures=True)
    assert warn_once.said == {}
    assert set(metrics(trainer)) == {"watt/train/energy_kwh", "watt/gpu0/power_w"}


def test_a_run_that_measures_nothing_says_so_at_the_beginning():
    early = stops("watt/energy_kwh")
    (said,) = begun(a_trainer(early), measures=False)
    assert "nothing can be measured here" in said
    assert "an epoch without a value does not count" in said
    assert early.wait_count == -2


def test_sam_below_one_unit_is_reported_and_above_it_is_not():
    (said,) = begun(a_trainer(saves("watt/sam")), used_j=0.5 * J_PER_KWH)
    assert "SAM is undefined until the run has used more than 1 kWh" in said
    warn_once = WarnOnce()
    Monitors().begin(a_trainer(saves("watt/sam")), warn_once, SCORING, used_j=2 * J_PER_KWH, measures=True)
    assert warn_once.said == {}


class LearningRateFinder:
    """Named as Lightning's is; fails if it is told to."""

    def lr_find(self, session: Session, *, fails: bool = False) -> Account:
        if fails:
            raise ZeroDivisionError
        return session.account


def test_a_tuner_s_trial_is_a_stage_and_what_was_before_it_goes_on():
    finder, session, tuners = LearningRateFinder(), Session(account=Account("validate", 3)), Tuners()
    tuners.begin([object(), finder], session, WarnOnce())
    tuners.begin([finder], session, WarnOnce())  # by a second callback of ours: once is enough
    assert finder.lr_find(session) == Account("tune", 3)
    assert session.account == Account("validate", 3)
    with pytest.raises(ZeroDivisionError):
        finder.lr_find(session, fails=True)
    assert session.account == Account("validate", 3)
    tuners.end()
    assert vars(finder) == {}
    assert finder.lr_find(session) == Account("validate", 3)


def test_a_copy_of_a_tuner_has_nothing_of_ours():
    finder, session, tuners = LearningRateFinder(), Session(account=Account("train", 0)), Tuners()
    tuners.begin([finder], session, WarnOnce())
    for other in (copy.deepcopy(finder), pickle.loads(pickle.dumps(finder))):
        assert other.lr_find.__self__ is other
        assert other.lr_find(session) == Account("train", 0)


def test_a_session_that_fails_does_not_reach_the_tuner():
    class Broken(Session):
        def switch(self, account: Account) -> None:
            raise OSError("no room")

    finder, session, tuners = LearningRateFinder(), Broken(), Tuners()
    tuners.begin([finder], session, WarnOnce())
    with pytest.warns(WattWarning, match="no room"):
        assert finder.lr_find(session) == Account("other", 0)
