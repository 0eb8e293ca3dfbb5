"""A session's accounts where somebody looks at them in the middle of a change: a checkpoint saved by a signal handler."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import sleep as wait_a_little
from typing import Any

import pytest

from lightning_watt import EnergyMeter
from lightning_watt.accounts import batches as batches_module
from lightning_watt.accounts.events import BatchEnd, LogPoint, StepPartStart
from lightning_watt.accounts.ledger import Account, Ledger, Point
from lightning_watt.record.schema import BatchRow
from lightning_watt.run.node_reports import Counted, NodeReport, Part, Share
from lightning_watt.run.other_sessions import OtherSessions
from lightning_watt.run.resume import WastedWork
from lightning_watt.run.session import Session
from lightning_watt.run.totals import node_report, record_energy
from lightning_watt.sources.base import Device
from lightning_watt.sources.nvml import NvmlSource
from lightning_watt.testing import Fault, Lab, ReplayClock, constant, named
from lightning_watt.testing.doubles import FakeClock, ScriptedSource
from tests.unit.forking import in_a_child
from tests.unit.settling import settle
from tests.unit.signals import Interruptions, interrupted_by

POINT = LogPoint(step=1, epoch=0, accuracy=None, batches=1, samples=4, ahead={}, trained=1)
BOARD = Device(
    label="gpu0", name="a board", uuid="GPU-1", source="nvml-counter", provenance="measured", gain=0.05, host="here"
)
OLD_J = 5.0


def old_state() -> dict[str, Any]:
    """The state of an earlier session, which used five joules."""
    old = Session(id="old")
    old.ledger.open(["gpu0"], Account("validate", 0), Point(0, [0], [0.0], 0, 0))
    old.ledger.close(Point(10**9, [round(OLD_J * 1e6)], [0.0], 2, 8))
    return old.state_dict()


def a_report() -> NodeReport:
    return NodeReport(
        session="node",
        rank=1,
        node=1,
        host="there",
        labels=["gpu0"],
        stages={"train": Part([7_000_000])},
        since=[Share("train", 0)],
        devices={"gpu0": BOARD},
    )


INTERRUPTIONS = Interruptions()


class LoudLedger(Ledger):
    """A ledger in the middle of whose every step a signal arrives."""

    def __getattribute__(self, name: str) -> Any:
        INTERRUPTIONS.now()
        return super().__getattribute__(name)


class LoudOthers(OtherSessions):
    """Likewise."""

    def __getattribute__(self, name: str) -> Any:
        INTERRUPTIONS.now()
        return super().__getattribute__(name)


@pytest.fixture
def session() -> Iterator[Session]:
    """One that has measured two seconds of a training at 100 W, and goes on."""
    clock = FakeClock()
    session = Session(id="mine", ledger=LoudLedger(), others=LoudOthers())
    meter = EnergyMeter(sources=[ScriptedSource()], clock=clock)
    session.begin(meter, Account("train", 0))
    assert meter.wait_for(meter.mark())
    clock.sleep(2)
    session.tally.batches, session.tally.samples = 1, 4
    session.note(POINT)
    assert meter.wait_for(meter.mark())
    clock.sleep(1)
    yield session
    session.end()


WASTED = WastedWork("old", Path("old"), "killed", {"gpu0": 5_000_000}, 1, {"gpu0": BOARD}, Counted({}))
STEPS: dict[str, Callable[[Session], Any]] = {
    "now": lambda session: session.now(POINT),
    "totals": lambda session: session.totals(),
    "joules": lambda session: session.energy_j,
    "line": lambda session: session.line(),
    "state": lambda session: session.state_dict(),
    "resume": lambda session: session.resume(old_state()),
    "waste": lambda session: session.add_earlier({}, [WASTED]),
    "join": lambda session: session.take_reports([a_report()]),
    "end": lambda session: session.end(),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("step", STEPS)
def test_a_checkpoint_saved_by_a_signal_handler_waits_for_nothing_and_is_whole(session, step):
    """The handler interrupts the thread that holds the session's lock, as Lightning's Slurm requeue does."""
    states: list[dict[str, Any]] = []
    with interrupted_by(lambda: states.append(session.state_dict()), INTERRUPTIONS):
        STEPS[step](session)
    assert INTERRUPTIONS.handled == len(states) > 0
    INTERRUPTIONS.handled = 0
    for state in states:
        later = Session()
        assert later.resume(state)
        total_j = later.others.earlier.total_uj / 1e6
        # 300 J of its own; and of the others all or nothing, which the list of sessions says.
        others_j = {"old": OLD_J, "node": 7.0}
        assert total_j == pytest.approx(300.0 + sum(others_j.get(other, 0.0) for other in state["sessions"]), abs=1e-3)


def test_a_session_whose_owner_is_gone_is_settled_and_ends_as_ever():
    clock, gone, told = FakeClock(), threading.Event(), threading.Event()
    session, found = Session(id="mine"), []

    def over() -> None:
        found.append(session.totals().total_j)
        told.set()

    meter = EnergyMeter(sources=[ScriptedSource()], clock=clock)
    session.begin(meter, Account("train", 0), abandoned=gone.is_set, on_abandoned=over)
    assert meter.wait_for(meter.total.start_mark)
    clock.sleep(2)
    gone.set()
    meter.ask()
    assert told.wait(10)
    assert found == [200.0]
    clock.sleep(3600)
    for _ in range(2):
        assert Session().resume(session.state_dict())
        assert session.end()
    assert session.totals().total_j == 200.0
    assert session.totals().by_stage()["train"].total_uj == 200_000_000
    assert session.totals().all_gaps() == []


def test_a_session_that_ends_itself_when_it_is_told_that_its_owner_is_gone():
    """In the reader's own thread."""
    told = threading.Event()
    session, meter = Session(id="mine"), EnergyMeter(sources=[ScriptedSource()], clock=FakeClock())

    def over() -> None:
        assert session.end()
        told.set()

    session.begin(meter, Account("train", 0), abandoned=lambda: True, on_abandoned=over)
    assert told.wait(10)
    assert session.ledger.account is None


def test_a_run_is_charged_up_to_its_end_and_not_for_the_reading_that_it_waits_for():
    """The reading that was on its way when the run ended came ten seconds later, and shows what was used meanwhile."""
    clock = FakeClock()
    waits, on_its_way = threading.Event(), threading.Event()

    def late() -> None:
        if waits.is_set() and not on_its_way.is_set():
            on_its_way.set()
            while meter.total.end_mark is None:
                wait_a_little(0.001)
            clock.sleep(10)

    session, meter = Session(), EnergyMeter(sources=[ScriptedSource(before_read=late)], clock=clock)
    session.begin(meter, Account("train", 0))
    settle(meter)
    clock.sleep(2)
    waits.set()
    meter.ask()
    assert on_its_way.wait(10)
    assert session.end()
    totals = session.totals()
    assert totals.total_j == pytest.approx(200.0, abs=1e-3)  # two seconds of 100 W
    assert sum(usage.ns for usage in totals.by_stage().values()) == 2 * 10**9


def test_in_a_child_a_session_charges_and_waits_for_nothing(session):
    """Forked where another thread, which the child does not have, holds the lock."""
    holds, go_on = threading.Event(), threading.Event()

    class Slow(OtherSessions):
        @property
        def ledgers(self) -> Any:
            holds.set()
            assert go_on.wait(30)
            return ()

    session.others = Slow()
    other = threading.Thread(target=lambda: session.energy_j)
    other.start()
    assert holds.wait(10)
    session.others = OtherSessions()

    def look() -> list[Any]:
        session.switch(Account("test", 0))
        session.note(POINT)
        return [session.energy_j, session.end(), session.account.stage, node_report(session.totals()).final]

    assert in_a_child(look) == [200.0, True, "test", True]
    go_on.set()
    other.join(10)
    assert session.account.stage == "train"


def test_marks_that_wait_for_a_driver_that_hangs_are_bounded_and_no_stage_is_left_out(monkeypatch):
    """A batch a second at 100 W, six of them in each stage and hundreds while the driver hangs, with parts and log rows."""
    monkeypatch.setattr(batches_module, "MOST_WAITING", 40)
    clock, free, hangs = FakeClock(), threading.Event(), threading.Event()
    rows: list[BatchRow] = []
    session = Session(id="mine")
    session.on_settled = lambda found, _: rows.extend(found)
    meter = EnergyMeter(sources=[ScriptedSource(before_read=lambda: hangs.is_set() and free.wait(30))], clock=clock)

    def train(batches: int) -> None:
        for batch in range(batches):
            session.note(StepPartStart("forward"))
            clock.sleep(1)
            session.tally.batches, session.tally.samples = session.tally.batches + 1, session.tally.samples + 4
            session.note(BatchEnd(session.account, batch, session.tally.batches, session.tally.samples))
            session.note(POINT)

    try:
        session.begin(meter, Account("train", 0))
        settle(meter)
        train(6)
        settle(meter)
        hangs.set()
        meter.ask()
        train(300)
        session.switch(Account("validate", 0))
        train(300)
        session.end_epoch(0.5, 1)
        session.switch(Account("train", 1))
        train(6)
        assert len(meter._run._marks) < 40 + 5
        assert sum("left out" in said for said in meter.complaints) == 1
    finally:
        hangs.clear()
        free.set()
    settle(meter)
    train(6)
    assert session.end()
    by_stage = session.ledger.by_stage()
    assert {stage: usage.batches for stage, usage in by_stage.items() if usage.batches} == {"train": 318, "validate": 300}
    assert by_stage["train"].total_uj == 318 * 100_000_000
    assert by_stage["validate"].total_uj == 300 * 100_000_000
    assert session.epochs.accuracies == {Account("validate", 0): 0.5}
    # Each row that there is, is right: none has the energy of batches that were left out before it.
    assert {row.joules for row in rows} == {100.0}
    assert [row.batch for row in rows if row.epoch == 1] == [1, 2, 3, 4, 5]


def test_what_is_learned_of_a_board_while_it_is_measured_stands_in_the_record_and_in_its_uncertainty():
    """The clock of samples that come late, the counter's period, and that counter and samples differ."""
    clock = ReplayClock()
    age_s = 20.0
    dry = Fault("error", function="nvmlDeviceGetSamples", code=6, at_s=0, until_s=age_s + 5)
    board = named("A100", power=constant(200), counter_gain=0.75, stamps="boot", faults=[dry])
    lab = Lab([board], clock=clock, t0_ns=clock.now_ns() - round(age_s * 1e9))
    session = Session()
    with lab.running(children=False):
        for seconds in (80, 10):  # what the first fit has found stands after the second, which is too short to find it
            session.begin(EnergyMeter(sources=[NvmlSource()], clock=clock), Account("train", 0))
            clock.run_for(seconds)
            session.end()
            energy = record_energy(session.totals())
            device = energy.by_device["gpu0"]
            assert device.counter_over_samples == pytest.approx(0.75, abs=0.005)
            assert device.gain == pytest.approx(1 / 0.75 - 1, abs=0.01)
            assert device.samples_clock == "boottime"
            assert device.tick_s == pytest.approx(0.1, abs=0.002)
            assert energy.gain_j == pytest.approx(device.gain * energy.total_j)
    assert record_energy(Session().totals()).by_device == {}
