"""The hooks of a batch touch what they were given at setup, and no failure of ours leaves them."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_watt import EnergyMeter, WattCallback
from lightning_watt.accounts.batches import Crowd
from lightning_watt.accounts.events import BACKWARD, FORWARD, OPTIMIZER, StepPartStart
from lightning_watt.callback import Callback
from lightning_watt.meter.marks import Mark
from lightning_watt.testing.doubles import FakeClock, ScriptedSource

PART_HOOKS = ("on_train_batch_start", "on_before_backward", "on_before_optimizer_step")


class Trainer:
    """Of the name that the hooks know one by."""


def test_each_part_of_a_step_is_noted_where_its_hook_is_called():
    callback, noted = WattCallback(), []
    for name in PART_HOOKS:
        getattr(callback, name)(Trainer(), None, None)
    assert callback._note_part is None
    callback._note_part = noted.append
    for name in PART_HOOKS:
        getattr(callback, name)(Trainer(), None, None)
        assert getattr(WattCallback, name).__name__ == name
        assert getattr(WattCallback, name) is not getattr(Callback, name)
    assert noted == [FORWARD, BACKWARD, OPTIMIZER]


def test_a_part_that_cannot_be_noted_is_told_once_and_the_training_goes_on():
    def failing(part: StepPartStart) -> None:
        raise OSError(part.part)

    callback = WattCallback()
    callback._note_part = failing
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
