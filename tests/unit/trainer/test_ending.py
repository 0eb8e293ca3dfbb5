"""Whether a Trainer has ended without telling us, for every way in which it ends."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lightning_watt.trainer.ending import PATIENCE_S, Abandoned, status_after


class Ours:
    """A callback."""


class Made(SimpleNamespace):
    """What is asked of a Trainer; a namespace alone cannot be referred to weakly."""


def made(status: str, *callbacks: object) -> Made:
    return Made(state=SimpleNamespace(status=status), callbacks=list(callbacks))


def test_a_trainer_that_runs_has_not_ended_even_where_it_took_us_out():
    ours = Ours()
    trainer = made("running", ours)
    asked = Abandoned(trainer, ours, lambda: 0.0)
    assert [asked(), asked()] == [False, False]
    trainer.callbacks = []  # a learning-rate search
    assert [asked(), asked(), asked()] == [False, False, False]


def test_one_that_ended_while_we_were_out_will_not_tell_us():
    ours = Ours()
    asked = Abandoned(trainer := made("interrupted"), ours, lambda: 0.0)
    assert [asked(), asked()] == [False, True]
    assert trainer.callbacks == []


def test_one_that_ended_and_has_us_is_given_time():
    ours, now = Ours(), [0.0]
    trainer = made("interrupted", ours)
    asked = Abandoned(trainer, ours, lambda: now[0])
    assert [asked(), asked()] == [False, False]
    now[0] = PATIENCE_S - 1
    assert not asked()
    trainer.state.status = "running"  # it is fitted again
    assert not asked()
    trainer.state.status, now[0] = "interrupted", 2 * PATIENCE_S
    assert [asked(), asked()] == [False, False]
    now[0] = 3 * PATIENCE_S + 1
    assert asked()


def test_one_that_is_gone_ends_it():
    ours = Ours()
    trainer = made("running", ours)
    asked = Abandoned(trainer, ours)
    assert not asked()
    del trainer
    assert asked()


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (SystemExit(1), "interrupted"),
        (type("SIGTERMException", (Exception,), {})(), "interrupted"),
        (type("TrialPruned", (Exception,), {})(), "interrupted"),
        (type("OwnPruned", (type("TrialPruned", (Exception,), {}),), {})(), "interrupted"),
        (ValueError(), "failed"),
        (MemoryError(), "failed"),
    ],
)
def test_what_stops_a_training_is_no_failure(raised, status):
    assert status_after(raised) == status
