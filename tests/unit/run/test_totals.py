"""The totals of a run: one moment, and everything that is made of it says the same."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lightning_watt import EnergyMeter
from lightning_watt.accounts.ahead import usage_ahead
from lightning_watt.accounts.events import LogPoint, Switch
from lightning_watt.accounts.forecast import LogSpan
from lightning_watt.accounts.ledger import Account, Point
from lightning_watt.run import state
from lightning_watt.run.node_reports import Counted, NodeReport, Part, Share
from lightning_watt.run.other_sessions import WastedWork
from lightning_watt.run.session import Session
from lightning_watt.run.state import RunState
from lightning_watt.run.totals import (
    Place,
    Totals,
    checkpoint_state,
    journal_line,
    node_report,
    record_energy,
    record_epochs,
    record_nodes,
    snapshot_of,
)
from lightning_watt.sam.score import Scoring
from lightning_watt.sources.base import Device
from lightning_watt.testing import FakeClock, ScriptedSource
from tests.unit.settling import settle

J = 1_000_000
S = 1_000_000_000
SCORING = Scoring(5.0, 5.0, "J")
BOARD = Device("gpu0", "a board", "GPU-1", "nvml-counter", host="here")


def a_session(joules: int, name: str = "mine", stage: str = "train") -> Session:
    """One that has used some joules of a board within a second, edges good to 3 and 4 mJ."""
    session = Session(id=name, devices={"gpu0": BOARD})
    session.ledger.open(["gpu0"], Account(stage, 0), Point(0, [0], [3000.0], 0, 0))
    session.ledger.close(Point(S, [joules * J], [4000.0], 10, 80))
    session.epochs.accuracies[Account(stage, 0)] = 0.5
    return session


def a_report(joules: int, number: int = 1) -> NodeReport:
    return NodeReport(
        session="other",
        rank=2,
        node=1,
        host="there",
        number=number,
        labels=["gpu0"],
        stages={"train": Part([joules * J])},
        since=[Share("train", 0)],
        ns=S,
        devices={"gpu0": Device("gpu0", "a board", "GPU-2", "nvml-counter", host="there")},
    )


def wasted(joules: int) -> WastedWork:
    counted = Counted({"gpu0": joules * J}, S)
    return WastedWork("dead", Path("runs/dead"), "killed", {"gpu0": joules * J}, S, {"gpu0": BOARD}, counted)


@pytest.fixture
def whole() -> Session:
    """7 J of its own, 5 J up to the checkpoint, 3 J wasted, 2 J on another node."""
    session = a_session(7)
    assert session.resume(a_session(5, "old").state_dict())
    session.add_earlier({}, [wasted(3)])
    session.take_reports([a_report(2)])
    return session


def test_everything_that_is_made_of_the_totals_has_the_same_sum(whole):
    totals = whole.totals()
    energy, state = record_energy(totals), checkpoint_state(totals)
    assert totals.total_j == energy.total_j == 17.0
    assert {stage: row.joules for stage, row in energy.by_stage.items()} == {"train": 14.0, "wasted": 3.0}
    assert {label: row.joules for label, row in energy.by_device.items()} == {"gpu0": 15.0, "node1/gpu0": 2.0}
    assert [row.label for row in energy.by_device.values()] == ["gpu0", "node1/gpu0"]
    assert journal_line(totals, with_heading=False).total_j == 17.0
    later = Session()
    assert later.resume(state)
    assert later.totals().total_j == 17.0
    assert sum(sum(node.device_uj.values()) for node in record_nodes(totals)) == 9 * J
    assert [(row.stage, row.epoch, row.joules, row.accuracy) for row in record_epochs(totals)] == [("train", 0, 14.0, 0.5)]


def test_own_energy_is_what_is_left_of_the_total(whole):
    record = RunState().to_record(whole, SCORING)
    assert record.energy.total_j is not None
    assert record.energy.total_j - record.resumed_j - record.wasted_j == pytest.approx(7.0 + 2.0)
    assert [lost.session for lost in record.lost] == ["dead"]


def test_a_resume_in_the_middle_of_a_record_is_in_all_of_it_or_in_none(monkeypatch):
    """A record was put together from four takings of the lock once; a resume in between gave it an own energy of -4 J."""
    session, before = a_session(1), a_session(5, "old").state_dict()
    rows = state.record_epochs

    def meanwhile(totals: Totals) -> Any:
        assert session.resume(before)
        return rows(totals)

    monkeypatch.setattr(state, "record_epochs", meanwhile)
    record = RunState().to_record(session, SCORING)
    assert (record.energy.total_j, record.resumed_j, record.wasted_j, record.resumes) == (1.0, 0.0, 0.0, [])
    monkeypatch.undo()
    record = RunState().to_record(session, SCORING)
    assert (record.energy.total_j, record.resumed_j, record.resumes) == (6.0, 5.0, ["old"])


def test_totals_do_not_change_any_more(whole):
    totals = whole.totals()
    before = checkpoint_state(totals)
    whole.ledger.open(["gpu0"], Account("test", 1), Point(2 * S, [0], [0.0], 0, 0))
    whole.ledger.close(Point(3 * S, [9 * J], [0.0], 0, 0))
    whole.take_reports([a_report(4, number=2)])
    whole.epochs.accuracies[Account("test", 1)] = 0.9
    assert checkpoint_state(totals) == before
    assert whole.totals().total_j == 17.0 + 9.0 + 2.0


def test_the_uncertainty_is_of_the_sessions_ends_and_the_boards_scale():
    totals = a_session(100).totals()
    uncertainty = totals.sums().uncertainty
    assert uncertainty.gain_j == pytest.approx(5.0)
    assert uncertainty.total_j >= uncertainty.gain_j
    stage = record_energy(totals).by_stage["train"]
    assert stage.uncertainty_j == pytest.approx((5.0**2 + 0.005**2) ** 0.5)


def test_the_typical_uncertainty_is_by_the_typical_errors_of_the_devices_that_have_one():
    session = a_session(100)
    assert record_energy(session.totals()).typical_j is None
    session.devices = {"gpu0": msgspec.structs.replace(BOARD, gain=0.1, typical_gain=0.03)}
    energy = record_energy(session.totals())
    assert energy.gain_j == pytest.approx(10.0)
    assert energy.typical_j == pytest.approx(math.hypot(3.0, energy.boundary_j))


def test_without_a_device_nothing_is_known_which_is_not_zero():
    energy = record_energy(Session().totals())
    assert (energy.total_j, energy.uncertainty_j, energy.by_device) == (None, None, {})


def test_mixed_provenance_is_said():
    session = a_session(1)
    session.devices["cpu0"] = Device("cpu0", "a CPU", "cpu", "estimate", "estimated")
    assert record_energy(session.totals()).provenance == "mixed"


def test_a_heading_has_what_only_a_first_line_holds():
    session = a_session(1)
    session.place = Place("run", 2, 1)
    totals = session.totals()
    plain, first = journal_line(totals, with_heading=False), journal_line(totals, "failed", with_heading=True)
    assert (plain.devices, plain.run, plain.status) == (None, "", None)
    assert (list(first.devices or {}), first.run, first.rank, first.node, first.status) == (["gpu0"], "run", 2, 1, "failed")
    assert first.pid > 0
    assert [bool(session.line().devices) for _ in range(2)] == [True, False]


def test_what_is_ahead_is_shared_out_by_time_to_the_last_microjoule():
    at = Point(0, [100], [0.0], 1, 8)
    train, check = Account("train", 0), Account("validate", 0)
    edges = [(0, Switch(train, 1, 8)), (2 * S, Switch(check, 3, 24)), (3 * S, Switch(check, 4, 32))]
    found = usage_ahead(at, ["gpu0"], [100 + 100], edges)
    assert [(account.stage, usage.total_uj, usage.batches, usage.samples) for account, usage in found] == [
        ("train", 66, 2, 16),
        ("validate", 34, 1, 8),
    ]


def test_a_running_session_is_ahead_of_what_is_settled_by_its_last_power():
    clock = FakeClock()
    session, meter = Session(id="mine"), EnergyMeter(sources=[ScriptedSource()], clock=clock)
    session.begin(meter, Account("train", 0))
    settle(meter)
    clock.sleep(2)
    settle(meter)
    clock.sleep(1)
    totals = session.totals()
    assert (totals.total_j, totals.now().total_j) == (200.0, 300.0)
    assert totals.until_now().total_uj == 300 * J
    assert sum(node_report(totals).counted.uj.values()) == 300 * J
    assert not node_report(totals).final
    point = LogPoint(step=1, epoch=0, accuracy=0.5, batches=0, samples=0, ahead={})
    assert session.now(point).total_j == 300.0
    assert snapshot_of(totals.sums(), point, {}, LogSpan(0.0, 0, 0), {}, {}).total_j == 200.0
    session.end()
    assert node_report(session.totals()).final
