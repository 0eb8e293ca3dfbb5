"""The Trainer's schedule, as the forecast and the budget need it: what is still to come, and when that is not known."""

from __future__ import annotations

import math
from datetime import timedelta
from importlib import import_module
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_watt.accounts.forecast import Schedule
from lightning_watt.trainer import facts
from lightning_watt.trainer.base import PACKAGES

LIGHTNING = import_module(next(name for name in PACKAGES if find_spec(name.split(".")[0]) is not None))
Timer = LIGHTNING.callbacks.Timer


def ahead_of(trainer):
    return facts.batches_ahead(trainer, facts.seconds_left(trainer))


def a_trainer(trained: int = 0, steps: int | None = None, **options: Any) -> Any:
    """Five validation batches after each of ten epochs of twenty batches, unless options say otherwise."""
    given: dict[str, Any] = {
        "fit_loop": SimpleNamespace(epoch_loop=SimpleNamespace(total_batch_idx=trained - 1)),
        "num_training_batches": 20,
        "val_check_batch": 20,
        "check_val_every_n_epoch": 1,
        "num_val_batches": [3, 2],
        "max_epochs": 10,
        "max_steps": -1,
        "global_step": trained if steps is None else steps,
        "accumulate_grad_batches": 1,
        "lightning_module": SimpleNamespace(automatic_optimization=True),
        "callbacks": [],
    }
    return SimpleNamespace(**given | options)


@pytest.mark.parametrize(
    ("trainer", "ahead"),
    [
        (a_trainer(), {"train": 200, "validate": 50}),
        (a_trainer(30), {"train": 170, "validate": 45}),
        (a_trainer(200), {"train": 0, "validate": 0}),
        (a_trainer(30, val_check_batch=5), {"train": 170, "validate": 34 * 5}),
        (a_trainer(check_val_every_n_epoch=4), {"train": 200, "validate": 2 * 5}),
        (a_trainer(check_val_every_n_epoch=None, val_check_batch=30), {"train": 200, "validate": 6 * 5}),
        (a_trainer(num_val_batches=[]), {"train": 200}),
        (a_trainer(max_epochs=-1, max_steps=50), {"train": 50, "validate": 2 * 5}),
        (a_trainer(max_epochs=-1, max_steps=12, accumulate_grad_batches=3), {"train": 35, "validate": 5}),
        (a_trainer(max_epochs=2, max_steps=50), {"train": 40, "validate": 2 * 5}),
    ],
)
def test_what_is_still_to_come(trainer, ahead):
    assert ahead_of(trainer) == ahead


@pytest.mark.parametrize("steps_a_batch", [1, 2, 3])
def test_an_optimizer_that_the_module_steps_itself_steps_as_often_as_so_far(steps_a_batch):
    """Lightning counts the steps of all optimizers, so `max_steps` is reached after fewer batches."""
    by_hand = {"lightning_module": SimpleNamespace(automatic_optimization=False), "max_epochs": -1, "max_steps": 60}
    some = a_trainer(4, 4 * steps_a_batch, **by_hand)
    assert ahead_of(some)["train"] == 60 // steps_a_batch - 4
    assert ahead_of(a_trainer(**by_hand)) is None


@pytest.mark.parametrize(
    "options",
    [
        {"max_epochs": -1},
        {"max_epochs": None},
        {"num_training_batches": math.inf, "val_check_batch": math.inf},
        {"num_training_batches": math.inf, "val_check_batch": math.inf, "max_epochs": -1, "max_steps": 50},
        {"_val_check_time_interval": 60.0, "val_check_batch": None},
    ],
    ids=str,
)
def test_an_end_or_a_validation_that_nobody_knows_is_not_nothing(options):
    assert ahead_of(a_trainer(5, **options)) is None


def test_a_stream_s_steps_are_known():
    stream = {"num_training_batches": math.inf, "max_epochs": -1, "max_steps": 50}
    assert ahead_of(a_trainer(5, val_check_batch=10, **stream)) == {"train": 45, "validate": 5 * 5}
    assert ahead_of(a_trainer(5, val_check_batch=math.inf, num_val_batches=[], **stream)) == {"train": 45}


def test_a_limit_of_time_is_an_end():
    timers = [Timer(timedelta(hours=2)), Timer(timedelta(seconds=90)), Timer()]
    trainer = a_trainer(max_epochs=-1, callbacks=timers)
    assert facts.seconds_left(trainer) == 90
    timers[1].on_train_start(trainer, None)
    assert 0 < facts.seconds_left(trainer) < 90
    # Far more than come within it; the pace says how many.
    ahead = ahead_of(trainer)
    assert ahead["train"] / ahead["validate"] == pytest.approx(20 / 5, rel=1e-6)
    assert facts.seconds_left(a_trainer()) is None
    assert facts.seconds_left(a_trainer(callbacks=[Timer()])) is None


def test_the_schedule_of_a_trainer():
    assert facts.schedule(a_trainer(num_val_batches=[3, math.inf])) == Schedule(20, 20, 1, 3)
    through = a_trainer(check_val_every_n_epoch=None, val_check_batch=7)
    assert facts.schedule(through) == Schedule(20, 7, 0, 5)
    by_time = a_trainer(_val_check_time_interval=60.0, val_check_batch=None)
    assert facts.schedule(by_time) == Schedule(20, math.inf, 1, 5)
