"""EnergyMeter used wrongly."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lightning_watt import EnergyMeter
from lightning_watt.errors import WattError
from lightning_watt.sources import NvmlSource
from lightning_watt.sources.rapl import RaplSource
from lightning_watt.testing import Board
from lightning_watt.testing.doubles import AbsentSource, FakeClock, ScriptedSource
from lightning_watt.warn_once import OF_THE_PROCESS
from tests.unit.meter.made import aged
from tests.unit.powercap import zone


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
    with pytest.raises(WattError, match="never started"):
        _ = meter.joules
    assert meter.stop() is True
    assert meter.devices == ()


# ---- several processes ----


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """What is said from now on, by local rank 1 of two, on a machine whose packages are in `tmp_path`."""
    monkeypatch.setattr("lightning_watt.sources.discover.RaplSource", lambda **_: RaplSource(tmp_path))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    OF_THE_PROCESS.said.clear()
    sentences: list[str] = []
    monkeypatch.setattr(warnings, "warn", lambda sentence, *_, **__: sentences.append(str(sentence)))
    yield sentences
    OF_THE_PROCESS.said.clear()


def measure(**options: Any) -> None:
    with aged(Board(), Board()).running(), EnergyMeter(**options):
        pass


def test_a_meter_of_a_rank_that_counts_what_others_count_says_so_once(said):
    measure()
    measure(gpus="all")
    [sentence] = said
    assert "local rank 1 of 2 processes, and its EnergyMeter reads gpu0, gpu1" in sentence
    assert "Measure in one rank of each machine (LOCAL_RANK 0)" in sentence


def test_the_first_rank_of_a_machine_is_the_one_that_is_to_measure(said, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    measure()
    assert said == []


def test_a_rank_of_its_own_board_counts_nothing_twice(said):
    measure(sources=[NvmlSource([1])])
    measure(processes=[12345])  # of a caller who shares the devices out
    measure(gpus=[1])
    assert said == []


def test_an_estimate_is_of_each_rank_alone(said):
    measure(gpus=[])
    assert said == []


def test_a_package_is_counted_by_every_rank_whatever_its_boards(said, tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0")
    measure(gpus=[1])
    [sentence] = said
    assert "its EnergyMeter reads cpu0. " in sentence
