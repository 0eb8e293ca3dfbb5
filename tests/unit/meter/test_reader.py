"""The reader's thread: signal handlers, a meter that nobody stops, forks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import count
from types import SimpleNamespace
from typing import Any
from weakref import ref

import pytest

from lightning_watt import EnergyMeter
from lightning_watt.errors import WattError
from lightning_watt.host import tell_of_forks
from lightning_watt.meter import reader as reading
from lightning_watt.meter.latch import Latch
from lightning_watt.meter.timeline import Timeline
from lightning_watt.testing.doubles import FakeClock, ScriptedSource
from tests.unit.forking import in_a_child
from tests.unit.meter.made import readers
from tests.unit.signals import Interruptions, interrupted_at, interrupted_by


def test_many_moments_that_would_like_a_reading_get_one_an_interval(monkeypatch):
    now_s, asked = iter(count(0.0, 0.01)), []  # an edge each 10 ms
    with EnergyMeter(sources=[ScriptedSource()], interval=1.0) as meter, monkeypatch.context() as patch:
        patch.setattr(reading, "monotonic", lambda: next(now_s))
        patch.setattr(meter._run, "ask", lambda: asked.append(1))
        for _ in range(1000):
            meter.ask(seldom=True)
        seldom = len(asked)
        meter.ask()
    # Each looks at the clock once, and once more where it asks.
    assert reading.FIRST_ASKS + 6 < seldom < reading.FIRST_ASKS + 11
    assert len(asked) == seldom + 1


# ---- signal handlers, which run in the middle of anything that the main thread does ----


@pytest.mark.timeout(30)
def test_a_signal_handler_may_ask_a_meter_that_is_being_asked(monkeypatch):
    """Interrupted where it holds its lock."""
    interruptions, answers = Interruptions(), []
    known = Timeline.energy_now_uj

    def loudly(line, now_ns, *, goes_on):
        interruptions.now()
        return known(line, now_ns, goes_on=goes_on)

    monkeypatch.setattr(Timeline, "energy_now_uj", loudly)
    clock = FakeClock()
    with EnergyMeter(sources=[ScriptedSource()], clock=clock) as meter:
        assert meter.wait_for(meter.mark())
        clock.sleep(2)
        with interrupted_by(lambda: answers.append(meter.energy_now_uj()), interruptions):
            assert meter.energy_now_uj() == [0]
    assert answers == [[0]]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("called", ["ask", "stop"])
def test_a_signal_handler_may_stop_a_meter_at_every_line_of_being_asked_or_stopped(called):
    clock = FakeClock()
    line, reached = 0, True
    while reached:  # one line later each time, in whatever module, until there is none left
        source = ScriptedSource()
        meter = EnergyMeter(sources=[source], clock=clock).start()
        assert meter.wait_for(meter.total.start_mark)
        clock.sleep(2)
        with interrupted_at(line, meter.stop) as seen:
            getattr(meter, called)()
        reached = seen.handled > 0
        assert meter.stop()
        assert readers() == []
        assert list(meter.complaints) == []
        assert meter.joules == 200.0
        assert source.closed_count == 1
        line += 1
    assert line > 5


def test_the_end_waits_for_the_stop_and_for_no_pause(monkeypatch):
    """What keeps two reads apart is a wait that the stop ends, and no sleep."""
    slept, waited = [], []
    monkeypatch.setattr(reading, "MIN_READ_GAP_S", 3600.0)
    monkeypatch.setattr(time, "sleep", lambda s: slept.append(threading.current_thread().name))
    wait = Latch.wait

    def noted(latch, limit_s=None):
        if limit_s and limit_s > 600:
            waited.append(threading.current_thread().name)
            between.set()
        return wait(latch, limit_s)

    between = threading.Event()
    monkeypatch.setattr(Latch, "wait", noted)
    clock = FakeClock()
    meter = EnergyMeter(sources=[ScriptedSource()], clock=clock).start()
    assert meter.wait_for(meter.total.start_mark)
    meter.ask()
    assert between.wait(10)  # it is asked, and may not read again for an hour
    clock.sleep(2)
    assert meter.stop()
    assert meter.joules == 200.0
    assert waited == ["lightning_watt reader"]
    assert slept == []


# ---- a meter that nobody stops ----


def test_an_abandoned_meter_reads_once_more_settles_and_ends_by_itself():
    gone, told, settled = threading.Event(), threading.Event(), []
    clock, source, heard = FakeClock(), ScriptedSource(), []

    def over() -> None:
        settled.append((meter.total.joules, source.closed_count, threading.current_thread().name))
        assert meter.stop()  # from its own thread
        told.set()

    meter = EnergyMeter(sources=[source], clock=clock)
    meter.start(heard.extend, abandoned=gone.is_set, on_abandoned=over)
    assert meter.wait_for(meter.total.start_mark)
    meter.mark("work")
    clock.sleep(2)
    gone.set()
    meter.ask()
    assert told.wait(10)
    assert settled == [(200.0, 1, "lightning_watt reader")]
    for reader in readers():
        reader.join(10)
    assert readers() == []
    assert [mark.payload for mark in heard if mark.payload] == ["work"]
    clock.sleep(60)
    assert meter.energy_now_uj() == [200_000_000]  # nothing is made up for the time after
    for _ in range(2):
        assert meter.stop()
    assert (meter.joules, source.closed_count, len(settled)) == (200.0, 1, 1)
    assert list(meter.complaints) == []


def test_a_reader_that_is_told_to_end_ends_as_if_abandoned():
    """As test suites do with a daemon thread that was left running and has a `stop`; Lightning's own does."""
    clock, source, over = FakeClock(), ScriptedSource(), threading.Event()
    meter = EnergyMeter(sources=[source], clock=clock).start(on_abandoned=over.set)
    assert meter.wait_for(meter.total.start_mark)
    clock.sleep(2)
    (reader,) = readers()
    reader.stop()
    assert not reader.is_alive()
    assert over.is_set()
    assert (meter.joules, source.closed_count) == (200.0, 1)
    assert meter.stop()


def test_a_meter_that_was_abandoned_can_be_used_again():
    clock, told = FakeClock(), threading.Event()
    meter = EnergyMeter(sources=[ScriptedSource()], clock=clock)
    meter.start(abandoned=lambda: True, on_abandoned=told.set)
    assert told.wait(10)
    for reader in readers():
        reader.join(10)
    with meter:
        assert meter.wait_for(meter.total.start_mark)
        clock.sleep(3)
    assert meter.joules == 300.0


@pytest.mark.parametrize("error", [ZeroDivisionError("oops"), SystemExit(3)], ids=["Exception", "SystemExit"])
def test_an_owner_that_fails_when_it_is_asked_or_told_stops_nothing_else(caplog, error):
    asked, told = [], threading.Event()

    def abandoned() -> bool:
        asked.append(None)
        if len(asked) == 1:
            raise error
        return True

    def over() -> None:
        told.set()
        raise error

    clock, source = FakeClock(), ScriptedSource()
    meter = EnergyMeter(sources=[source], clock=clock)
    meter.start(abandoned=abandoned, on_abandoned=over)
    meter.ask()
    assert told.wait(10)
    assert meter.stop()
    assert source.closed_count == 1
    assert [record.getMessage() for record in caplog.records] == [
        "the reader failed",
        "the end of an abandoned measurement failed",
    ]


def test_a_stop_while_the_owner_closes_waits_for_it():
    closing, go_on, closed = threading.Event(), threading.Event(), []

    def over() -> None:
        closing.set()
        assert go_on.wait(10)
        closed.append(True)

    meter = EnergyMeter(sources=[ScriptedSource()], clock=FakeClock()).start(abandoned=lambda: True, on_abandoned=over)
    assert closing.wait(10)
    stopper = threading.Thread(target=lambda: closed.append(meter.stop()))
    stopper.start()
    go_on.set()
    stopper.join(10)
    assert closed == [True, True]


def test_a_driver_that_hangs_in_the_last_reading_of_an_abandoned_meter_is_not_waited_for():
    """`stop` gives it up, and so what was to be told when all is settled is told to nobody."""
    clock, free, hangs, reads, told = FakeClock(), threading.Event(), threading.Event(), [], []

    def block() -> None:
        reads.append(None)
        if len(reads) == 2:
            hangs.set()
            free.wait(30)

    source = ScriptedSource(before_read=block)
    meter = EnergyMeter(sources=[source], clock=clock)
    meter.start(abandoned=lambda: True, on_abandoned=lambda: told.append(True))
    try:
        assert hangs.wait(10)
        assert meter.stop(limit_s=0.05) is False
        assert meter.stop() is True
    finally:
        free.set()
    for reader in readers():
        reader.join(10)
    assert (told, source.closed_count) == ([], 1)
    assert ["did not answer for 0.05 s" in complaint for complaint in meter.complaints] == [True]


def test_a_driver_that_answers_late_lets_an_abandoned_meter_end_all_the_same():
    clock, free, gone, told = FakeClock(), threading.Event(), threading.Event(), threading.Event()
    source = ScriptedSource(before_read=lambda: free.wait(30))
    EnergyMeter(sources=[source], clock=clock).start(abandoned=gone.is_set, on_abandoned=told.set)
    gone.set()
    assert readers()
    free.set()
    assert told.wait(10)
    assert source.closed_count == 1


# ---- forks ----


@pytest.fixture
def held_up(monkeypatch) -> Iterator[SimpleNamespace]:
    """Holds a meter's reader up at its second reading, with the meter's lock, for as long as the test wants."""
    state = SimpleNamespace(inside=threading.Event(), go_on=threading.Event(), readings=0)
    add = Timeline.add

    def slowly(line, reading):
        state.readings += 1
        if state.readings == 2:
            state.inside.set()
            assert state.go_on.wait(30)
        return add(line, reading)

    monkeypatch.setattr(Timeline, "add", slowly)
    yield state
    state.go_on.set()


def in_the_middle_of_a_reading(held_up: SimpleNamespace) -> tuple[FakeClock, ScriptedSource, EnergyMeter]:
    """A meter two seconds after its start, whose reader holds the lock."""
    clock, source = FakeClock(), ScriptedSource()
    meter = EnergyMeter(sources=[source], clock=clock).start()
    assert meter.wait_for(meter.total.start_mark)
    clock.sleep(2)
    meter.ask()
    assert held_up.inside.wait(10)
    return clock, source, meter


def test_in_a_child_the_meter_has_stopped_and_nothing_is_waited_for(held_up):
    """Forked where the reader, which the child does not have, holds the lock."""
    clock, source, meter = in_the_middle_of_a_reading(held_up)

    def ask() -> list[Any]:
        stopped = [meter.wait_for(meter.mark()), meter.stop()]
        with pytest.raises(WattError, match="not known"):
            _ = meter.joules
        known = meter.total.start_mark.energy_uj.tolist()
        return [*stopped, meter.energy_now_uj(), len(meter.devices), source.closed_count, known]

    assert in_a_child(ask) == [False, True, [0], 1, 0, [0]]
    assert in_a_child(lambda: measured_anew(clock)) == 300.0
    held_up.go_on.set()
    clock.sleep(1)
    assert meter.stop()
    assert (meter.joules, source.closed_count) == (300.0, 1)


def measured_anew(clock: FakeClock) -> float:
    with EnergyMeter(sources=[ScriptedSource()], clock=clock) as meter:
        assert meter.wait_for(meter.total.start_mark)
        clock.sleep(3)
    return meter.joules


def test_a_meter_is_started_anew_in_a_child(held_up):
    """The same object, its old reader held up in the parent."""
    clock, _, meter = in_the_middle_of_a_reading(held_up)

    def again() -> float:
        with meter:
            assert meter.wait_for(meter.total.start_mark)
            clock.sleep(4)
        return meter.joules

    assert in_a_child(again) == 400.0
    held_up.go_on.set()
    assert meter.stop()
    assert meter.joules == 200.0


def test_a_child_is_told_of_what_lives_and_of_nothing_else():
    class Told:
        def __init__(self) -> None:
            self.told = 0
            tell_of_forks(self)

        def __hash__(self) -> int:
            raise TypeError("unhashable")

        def forked(self) -> None:
            self.told += 1

    kept, dropped = Told(), Told()
    there = ref(dropped)
    del dropped
    assert there() is None
    assert in_a_child(lambda: kept.told) == 1
    assert kept.told == 0
