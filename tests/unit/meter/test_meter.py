"""EnergyMeter used wrongly."""

from __future__ import annotations

import pytest

from lightning_watt import EnergyMeter
from lightning_watt.errors import WattError
from lightning_watt.testing import Board
from lightning_watt.testing.doubles import AbsentSource, FakeClock, ScriptedSource
from tests.unit.meter.made import aged


def test_nothing_to_measure_says_of_each_source_why():
    meter = EnergyMeter(sources=[AbsentSource()])
    with pytest.raises(WattError, match=r"Nothing can be measured\. absent: It is not here\. Buy one\."):
        meter.start()
    assert [reason.source for reason in meter.missing] == ["absent"]


def test_a_board_that_is_not_there_is_the_callers_mistake():
    with aged(Board()).running(), pytest.raises(ValueError, match="no board 3"):
        EnergyMeter(gpus=[3]).start()


@pytest.mark.parametrize("interval", [0, -1.0, float("nan")])
def test_an_interval_that_cannot_be_is_refused(interval):
    with pytest.raises(ValueError, match="above 0"):
        EnergyMeter(interval=interval)


def test_a_meter_runs_once_at_a_time():
    with EnergyMeter(sources=[ScriptedSource()], clock=FakeClock()) as meter, pytest.raises(WattError, match="runs already"):
        meter.start()


def test_a_meter_that_never_ran_has_no_total():
    meter = EnergyMeter(sources=[ScriptedSource()])
    with pytest.raises(WattError, match="not started"):
        _ = meter.joules
    assert meter.stop() is True
    assert meter.devices == ()
