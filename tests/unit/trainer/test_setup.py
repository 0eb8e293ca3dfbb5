"""What a run's setup compares between ranks, reports as missing, and measures before the run."""

from __future__ import annotations

import pytest

from lightning_watt import EnergyMeter
from lightning_watt.distributed.ranks import Share
from lightning_watt.errors import SourceUnavailable, WattError
from lightning_watt.settings import Settings
from lightning_watt.testing import AbsentSource, FakeClock, ScriptedSource
from lightning_watt.trainer.setup import compared, is_asked_for, measure_idle, missing_here

NVML = SourceUnavailable("nvml", "There is no driver.", "Install it.")
RAPL = SourceUnavailable("rapl", "It cannot be read.", "Ask for it.")


@pytest.mark.parametrize("own", [{"gpus": [0]}, {"sources": [ScriptedSource()]}, {"idle_s": 3.0}])
def test_ranks_may_differ_in_what_they_read(own):
    assert compared(Settings(**own)) == compared(Settings())


@pytest.mark.parametrize("other", [{"interval": 2.0}, {"alpha": 2.0}, {"record": False}, {"budget_kwh": 1.0}])
def test_ranks_may_not_differ_in_the_rest(other):
    assert compared(Settings(**other)) != compared(Settings())
    assert compared(Settings(**other)) == compared(Settings(**other))


def test_a_board_that_another_rank_uses_is_reported_there():
    mine, theirs, nobodys = (SourceUnavailable("nvml", "It is gone.", "Look.", board) for board in ("A", "B", "C"))
    share = Share(reads=True, reader=0, boards=["A", "B"], mine=["A"])
    assert missing_here([mine, theirs, nobodys, RAPL], share) == [mine, nobodys, RAPL]


@pytest.mark.parametrize(
    ("settings", "boards", "nvml", "rapl"),
    [
        (Settings(), [], False, False),  # a CPU training: a board is not expected
        (Settings(), ["A"], True, False),
        (Settings(gpus="visible"), [], False, False),
        (Settings(gpus="all"), [], True, False),
        (Settings(gpus=[0]), [], True, False),
        (Settings(sources=[ScriptedSource()]), [], True, True),
    ],
)
def test_what_the_user_asked_for_is_reported(settings, boards, nvml, rapl):
    share = Share(reads=True, reader=0, boards=boards, mine=boards)
    assert is_asked_for(NVML, settings, share) == nvml
    assert is_asked_for(RAPL, settings, share) == rapl


def test_idle_power_is_what_was_drawn_while_waiting(monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr("lightning_watt.trainer.setup.sleep", clock.sleep)
    source = ScriptedSource(lambda ns: ns * 30 // 1000, labels=("gpu0", "gpu1"))  # 30 W
    idle = measure_idle(EnergyMeter(sources=[source], clock=clock), 5.0)
    assert idle.seconds == pytest.approx(5.0)
    assert idle.power_w == {"gpu0": pytest.approx(30.0), "gpu1": pytest.approx(30.0)}
    assert (source.open_count, source.closed_count) == (1, 1)


def test_without_a_source_there_is_no_idle_power():
    with pytest.raises(WattError, match="Nothing can be measured"):
        measure_idle(EnergyMeter(sources=[AbsentSource()], clock=FakeClock()), 5.0)
