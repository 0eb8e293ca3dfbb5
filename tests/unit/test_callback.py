"""The hooks of a batch touch what they were given at setup, and no failure of ours leaves them."""

from __future__ import annotations

import pickle
import weakref
from typing import Any

import pytest

from lightning_watt import EnergyMeter, WattCallback
from lightning_watt.accounts.batches import Crowd
from lightning_watt.accounts.events import BACKWARD, FORWARD, OPTIMIZER, StepPartStart
from lightning_watt.callback import Callback
from lightning_watt.meter.marks import Mark
from lightning_watt.run.step_parts import PART_HOOKS, hang_hooks
from lightning_watt.testing.doubles import FakeClock, ScriptedSource


class Trainer:
    """Of the name that the hooks know one by."""


def wanting(callback: WattCallback, crowd: Any) -> WattCallback:
    """A callback in a run in which each batch is wanted."""
    hang_hooks(callback, Callback, crowd, callback._run.state.warn_once)
    return callback


def call_parts(callback: WattCallback) -> None:
    callback.on_train_batch_start(Trainer(), None, None, 0)
    callback.on_before_backward(Trainer(), None, None)
    callback.on_before_optimizer_step(Trainer(), None, None)


def test_each_part_of_a_step_is_noted_where_its_hook_is_called_and_only_while_that_is_wanted():
    callback, crowd, noted = WattCallback(), Crowd(), []
    assert all(getattr(WattCallback, name) is getattr(Callback, name) for name in PART_HOOKS)  # Lightning's own, empty
    wanting(callback, crowd)
    crowd.append = noted.append
    call_parts(callback)
    assert [payload for _, payload in noted] == [FORWARD, BACKWARD, OPTIMIZER]
    pickle.dumps(callback)  # they stay where they are
    wanting(callback, None)
    call_parts(callback)
    assert len(noted) == 3


def test_a_subclass_has_its_own_hooks_too_and_is_not_held_by_ours():
    class Own(WattCallback):
        called = 0

        def on_before_backward(self, trainer, pl_module, loss):
            super().on_before_backward(trainer, pl_module, loss)
            type(self).called += 1

    callback, crowd, noted = Own(), Crowd(), []
    crowd.append = noted.append
    call_parts(wanting(callback, crowd))
    assert (Own.called, len(noted)) == (1, 3)
    gone = weakref.ref(callback)
    del callback
    assert gone() is None


def test_a_part_that_cannot_be_noted_is_told_once_and_the_training_goes_on():
    class Failing:
        append = None

        def note(self, part: StepPartStart) -> None:
            raise OSError(part.part)

    callback = wanting(WattCallback(), Failing())
    with pytest.warns(UserWarning, match="^backward failed .*the training goes on"):
        callback.on_before_backward(Trainer(), None, None)
    callback.on_before_backward(Trainer(), None, None)  # a second warning would be an error


class Marker:
    """Not the host's clock."""

    kind = "mine"

    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.noted = clock, []

    def mark(self, payload: Any) -> Any:
        self.noted.append(payload)
        return Mark(self.clock.now_ns(), payload)

    def resolve(self, mark: Any, *, wait: bool = False) -> bool:
        return True


@pytest.mark.parametrize("is_host", [True, False])
def test_a_crowd_notes_in_the_meter_s_own_way_while_it_runs_and_nothing_before_and_after(is_host):
    clock, settled, crowd = FakeClock(), [], Crowd()
    marker = None if is_host else Marker(clock)
    meter = EnergyMeter(sources=[ScriptedSource()], clock=clock, **({} if marker is None else {"marker": marker}))
    crowd.note(FORWARD)
    meter.start(lambda marks: settled.extend(mark.payload for mark in marks))
    crowd.begin(meter)
    crowd.note(BACKWARD)
    crowd.end()
    crowd.note(OPTIMIZER)
    meter.stop()
    assert [payload for payload in settled if payload is not None] == [BACKWARD]
    assert marker is None or BACKWARD in marker.noted
