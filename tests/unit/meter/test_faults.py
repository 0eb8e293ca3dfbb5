"""EnergyMeter and boards that fail, and sources that misbehave on a clock that stands still."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import numpy as np
import pynvml
import pytest

from lightning_watt import EnergyMeter
from lightning_watt.errors import WattError
from lightning_watt.meter.curves import STALE_S
from lightning_watt.meter.marks import Mark
from lightning_watt.sources.base import Failure, Reading
from lightning_watt.sources.nvml import NvmlSource
from lightning_watt.testing import Board, Fault, constant
from lightning_watt.testing.doubles import UNIX_NS, FakeClock, S, ScriptedSource
from tests.unit.lab_boards import machine
from tests.unit.meter.made import aged, on_all_boards, readers
from tests.unit.opened_lab import refused

ENERGY = "nvmlDeviceGetTotalEnergyConsumption"


# ---- boards that fail ----


def test_a_lost_board_is_said_once_and_the_other_goes_on():
    lab = aged(Board(power=constant(200)), Board(power=constant(300), faults=[Fault("lost", at_s=11.5)]))
    with lab.running(), on_all_boards(interval=0.3) as meter:
        time.sleep(2.0)
        with meter.window("after") as after:
            time.sleep(0.3)
        assert after.by_device["gpu0"] == pytest.approx(
            lab.true_joules(0, after.start_mark.t_ns, after.end_mark.t_ns), rel=0.1
        )
        assert after.by_device["gpu1"] == 0
    known = meter.total.by_device["gpu1"]
    until_lost = lab.true_joules(1, meter.total.start_mark.t_ns, lab.t0_ns + round(11.5 * S))
    assert until_lost - 300 * 0.6 <= known <= until_lost + 300 * 0.02  # all but what followed the last good reading
    assert meter.total.by_device["gpu0"] == pytest.approx(
        lab.true_joules(0, meter.total.start_mark.t_ns, meter.total.end_mark.t_ns), rel=0.01
    )
    [complaint] = meter.complaints
    assert complaint.startswith("gpu1 could not be read, so its energy is missing")
    assert "Xid" in complaint


def test_a_reset_counter_is_bridged_and_said_once():
    lab = aged(Board(power=constant(250), faults=[Fault("reset", at_s=11.0)]))
    with lab.running(), on_all_boards(interval=0.3) as meter:
        time.sleep(2.0)
    truth = lab.true_joules(0, meter.total.start_mark.t_ns, meter.total.end_mark.t_ns)
    assert meter.joules == pytest.approx(truth, rel=0.03)
    [gap] = meter.gaps
    assert gap.device == "gpu0"
    assert gap.joules == pytest.approx(250 * gap.seconds, rel=0.05)
    [complaint] = meter.complaints
    assert "went backwards" in complaint


def test_a_driver_that_hangs_does_not_hold_up_who_marks():
    """The reader sits in a call of a second; marks go on meanwhile, because pynvml lets go of the interpreter."""
    lab = aged(Board(faults=[Fault("hang", at_s=10.6, until_s=12.0, function=ENERGY, delay_ms=1000)]))
    with lab.running(), on_all_boards(interval=0.1) as meter:
        time.sleep(max(0.0, 10.8 - (time.monotonic_ns() - lab.t0_ns) / S))
        marks = []
        while time.monotonic_ns() - lab.t0_ns < 11.6 * S:
            marks.append(meter.mark())
            time.sleep(0.005)
        assert np.diff([mark.t_ns for mark in marks]).max() < 0.5 * S
    assert marks[-1].energy_uj is not None
    used = int(marks[-1].energy_uj[0] - marks[0].energy_uj[0]) / 1e6
    assert used == pytest.approx(lab.true_joules(0, marks[0].t_ns, marks[-1].t_ns), rel=0.1, abs=10)


# ---- sources that misbehave, on a clock that stands still ----


@pytest.mark.parametrize("good_reads", [0, 1])
def test_a_source_that_blocks_holds_up_neither_marks_nor_the_end(good_reads):
    free, clock, reads = threading.Event(), FakeClock(), []

    def block() -> None:
        reads.append(clock.t_ns)
        if len(reads) > good_reads:
            free.wait(30)

    source = ScriptedSource(before_read=block)
    meter = EnergyMeter(sources=[source], clock=clock).start()
    try:
        assert meter.wait_for(meter.total.start_mark, limit_s=10 if good_reads else 0.05) == bool(good_reads)
        clock.sleep(1)
        with meter.window("work") as window:
            clock.sleep(1)
        marks = [meter.mark(i) for i in range(100)]
        assert not meter.wait_for(marks[-1], limit_s=0.05)
        assert meter.stop(limit_s=0.05) is False
        [complaint] = meter.complaints
        assert "did not answer for 0.05 s" in complaint
        with pytest.raises(WattError, match="window 'work' is not known"):
            _ = window.joules  # which is not zero
        assert "Window('work'" in repr(window)
    finally:
        free.set()
    for reader in readers():
        reader.join(10)
    assert source.closed_count == 1


def test_a_reader_that_comes_back_late_takes_the_source_from_no_other_meter():
    """Two Trainers with `sources=[source]`: the first's driver hangs beyond its end, and answers while the second runs."""
    free, inside, late = threading.Event(), threading.Event(), []

    class Hangs(NvmlSource):
        def read(self):
            if threading.current_thread() in late:
                inside.set()
                free.wait(30)
            return super().read()

    with machine(Board(power=constant(200), counter_ms=10)) as lab:
        source = Hangs("all")
        first = EnergyMeter(sources=[source]).start()
        assert first.wait_for(first.mark())
        late += readers()
        first.ask()
        assert inside.wait(10)
        assert first.stop(limit_s=0.05) is False
        with EnergyMeter(sources=[source]) as second:
            start = second.mark()
            assert second.wait_for(start)
            free.set()
            late[0].join(10)
            assert not late[0].is_alive()
            time.sleep(0.3)
            end = second.mark()
            assert second.wait_for(end)
        truth = lab.true_joules(0, start.t_ns, end.t_ns)
        assert int(end.energy_uj[0] - start.energy_uj[0]) / 1e6 == pytest.approx(truth, rel=0.1)
        assert (second.gaps, list(second.complaints)) == ([], [])
        refused(pynvml.NVML_ERROR_UNINITIALIZED, pynvml.nvmlDeviceGetCount)  # each opening has let go of NVML


def test_a_restart_after_a_driver_that_hung_is_a_run_of_its_own():
    """What the old run's reader still brings does not enter the new run, and that reader ends."""
    free, clock, opened = threading.Event(), FakeClock(), []

    class Hangs(ScriptedSource):
        def open(self, clock):
            opened.append(clock.now_ns())
            return super().open(clock)

        def read(self):
            if len(opened) == 1:
                free.wait(30)
                return [Reading("gpu0", clock.now_ns(), 10**15)]
            return super().read()

    meter = EnergyMeter(sources=[Hangs()], clock=clock).start()
    [old] = readers()
    clock.sleep(5)
    assert meter.stop(limit_s=0.05) is False
    meter.start()
    assert meter.wait_for(meter.mark())
    clock.sleep(1)
    free.set()
    old.join(10)
    assert not old.is_alive()
    clock.sleep(1)
    assert meter.stop()
    assert meter.joules == pytest.approx(200)
    assert meter.gaps == []
    assert len(meter.complaints) == 1  # of the old run's end


def test_a_meter_can_be_used_again():
    clock, source = FakeClock(), ScriptedSource()
    meter = EnergyMeter(sources=[source], clock=clock)
    for seconds in (3, 7):
        with meter:
            assert meter.wait_for(meter.mark())
            clock.sleep(seconds)
        assert meter.joules == pytest.approx(100 * seconds)
        assert meter.total.seconds == seconds
        meter.mark("after the end, for nobody")
    assert (source.open_count, source.closed_count) == (2, 2)
    assert meter.stop() is True


def test_marks_reach_the_listener_once_in_order_and_settled():
    heard: list[Mark] = []
    clock = FakeClock()
    meter = EnergyMeter(sources=[ScriptedSource(labels=("gpu0", "gpu1"))], clock=clock)
    meter.start(heard.extend)
    for i in range(500):
        meter.mark(i)
        clock.sleep(0.01)
    assert meter.wait_for(meter.mark("last"))
    meter.stop()
    assert [mark.payload for mark in heard if isinstance(mark.payload, int)] == list(range(500))
    assert len({id(mark) for mark in heard}) == len(heard)
    assert [mark.t_ns for mark in heard] == sorted(mark.t_ns for mark in heard)
    energy = np.stack([mark.energy_uj for mark in heard])
    assert energy.shape == (len(heard), 2)
    assert (np.diff(energy, axis=0) >= 0).all()
    assert not meter._run._marks


def test_a_listener_that_fails_is_said_and_hears_the_next():
    heard = []

    def listen(marks):
        heard.append([mark.payload for mark in marks])
        if len(heard) == 1:
            raise RuntimeError("no disk")

    clock = FakeClock()
    meter = EnergyMeter(sources=[ScriptedSource()], clock=clock).start(listen)
    assert meter.wait_for(meter.mark("one"))
    clock.sleep(1)
    mark = meter.mark("two")
    assert meter.wait_for(mark)
    meter.stop()
    assert "two" in [payload for payloads in heard for payload in payloads]
    assert ["no disk" in complaint for complaint in meter.complaints] == [True]


def test_a_source_that_raises_does_not_stop_the_others():
    class Broken(ScriptedSource):
        def read(self):
            raise ZeroDivisionError("oops")

    class Talkative(ScriptedSource):
        def read(self):
            return [*super().read(), Reading("gpu9", self.clock.now_ns(), 5), Failure("gpu8", "Lost.", "Look for it.")]

    clock = FakeClock()
    sources = [Broken(name="broken"), Talkative(labels=("gpu1",), name="talkative"), ScriptedSource(labels=("gpu2",))]
    with EnergyMeter(sources=sources, clock=clock) as meter:
        with meter.window("work") as window:
            assert meter.wait_for(meter.mark())
            clock.sleep(2)
        assert window.by_device == {"gpu1": pytest.approx(200), "gpu2": pytest.approx(200)}
    assert [s.closed_count for s in sources] == [1, 1, 1]
    assert sum("ZeroDivisionError" in complaint for complaint in meter.complaints) == 1
    assert sum("gpu9" in complaint for complaint in meter.complaints) == 1


class Nonsense(ScriptedSource):
    """Hands over what it is told to; an exception is raised."""

    def __init__(self, what: Any) -> None:
        super().__init__(name="mine", labels=("gpu9",))
        self.what = what

    def read(self) -> Any:
        if isinstance(self.what, BaseException):
            raise self.what
        return self.what


@pytest.mark.parametrize(
    "what",
    [
        None,
        7,
        [{"label": "gpu9"}],
        SystemExit(3),
        GeneratorExit(),
        [Reading("gpu9", 50 * S, float("nan"))],  # type: ignore[arg-type]
        [Reading("gpu9", 50 * S, "12")],  # type: ignore[arg-type]
        [Reading("gpu9", 50 * S, 2**70)],
        [Reading("gpu9", UNIX_NS, 5)],
        [Reading("gpu9", 50 * S, 5, power=None)],  # type: ignore[arg-type]
    ],
    ids=lambda what: type(what[0] if isinstance(what, list) else what).__name__,
)
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_a_source_of_nonsense_takes_nobody_with_it_and_is_told_once(what, first):
    clock, good = FakeClock(), ScriptedSource(labels=("gpu0",))
    sources = [Nonsense(what), good] if first else [good, Nonsense(what)]
    with EnergyMeter(sources=sources, clock=clock) as meter, meter.window("work") as window:
        for _ in range(3):
            assert meter.wait_for(meter.mark())
            clock.sleep(2)
    assert window.by_device == {"gpu0": 600.0}  # to the last digit, and the other has no row
    [complaint] = meter.complaints
    assert complaint.startswith("gpu9 could not be read, so its energy is missing from now on: mine ")
    assert [source.closed_count for source in sources] == [1, 1]


def test_readings_of_another_clock_do_not_run_away_with_the_total():
    """All that there is, is stamped by the wall clock: nothing is known then, which is neither zero nor gigajoules."""
    clock = FakeClock()

    class WallClock(ScriptedSource):
        def read(self):
            return [Reading("gpu0", clock.unix_ns(), clock.t_ns // 10)]

    with EnergyMeter(sources=[WallClock()], clock=clock) as meter:
        assert meter.wait_for(meter.mark())
        clock.sleep(5)
    with pytest.raises(WattError, match=r"no device has been read.*`clock\.now_ns\(\)`, and not with `time\.time_ns\(\)`"):
        _ = meter.joules


def test_a_source_cannot_speak_for_anothers_device():
    class Liar(ScriptedSource):
        def read(self):
            return [*super().read(), Reading("gpu0", self.clock.now_ns(), 10**12)]

    clock = FakeClock()
    with EnergyMeter(sources=[ScriptedSource(), Liar(labels=("gpu1",))], clock=clock) as meter:
        assert meter.wait_for(meter.mark())
        clock.sleep(2)
    assert meter.total.by_device == {"gpu0": 200.0, "gpu1": 200.0}
    assert meter.gaps == []
    assert ["gpu0, which it had not announced" in complaint for complaint in meter.complaints] == [True]


@pytest.mark.parametrize("error", [ZeroDivisionError("stuck"), SystemExit(3)], ids=["Exception", "SystemExit"])
def test_a_source_that_raises_when_it_is_closed_keeps_no_other_open(error):
    class Sticks(ScriptedSource):
        def close(self):
            raise error

    clock, others = FakeClock(), [ScriptedSource(labels=("gpu1",)), ScriptedSource(labels=("gpu2",))]
    meter = EnergyMeter(sources=[others[0], Sticks(name="sticks"), others[1]], clock=clock).start()
    assert meter.wait_for(meter.mark())
    clock.sleep(1)
    assert meter.stop()
    assert [source.closed_count for source in others] == [1, 1]
    assert sum(meter.total.by_device.values()) == 300.0
    [complaint] = meter.complaints
    assert complaint.startswith(f"sticks raised {error!r} when it was closed")


def test_a_listener_and_a_log_that_end_the_thread_do_not_end_the_reading():
    class Broken(logging.Handler):
        def emit(self, record):
            raise SystemExit(4)

    def listen(marks):
        raise SystemExit(5)

    clock, handler = FakeClock(), Broken()
    logging.getLogger("lightning_watt").addHandler(handler)
    try:
        meter = EnergyMeter(sources=[ScriptedSource()], clock=clock).start(listen)
        for _ in range(2):
            assert meter.wait_for(meter.mark())
            clock.sleep(1)
        meter.stop()
    finally:
        logging.getLogger("lightning_watt").removeHandler(handler)
    assert meter.joules == 200.0
    assert ["SystemExit(5)" in complaint for complaint in meter.complaints] == [True]


def test_a_device_that_comes_back_counts_what_it_used_meanwhile():
    clock, lost = FakeClock(), threading.Event()

    class Flickers(ScriptedSource):
        def read(self):
            return [Failure("gpu0", "Gone.", "Wait.")] if lost.is_set() else super().read()

    with EnergyMeter(sources=[Flickers(), ScriptedSource(labels=("gpu1",))], clock=clock) as meter:
        assert meter.wait_for(meter.mark())
        lost.set()
        clock.sleep(60)
        during = meter.mark()
        assert meter.wait_for(during)  # nothing waits for the lost
        lost.clear()
        clock.sleep(1)
    assert meter.total.by_device == {"gpu0": pytest.approx(6100), "gpu1": pytest.approx(6100)}
    assert len(meter.complaints) == 1


def test_a_device_that_was_never_read_used_nobody_knows_what():
    class Dead(ScriptedSource):
        def read(self):
            return [Failure("gpu0", "Gone.", "Wait.")]

    clock = FakeClock()
    with EnergyMeter(sources=[Dead()], clock=clock) as meter, meter.window("work") as window:
        clock.sleep(1)
    with pytest.raises(WattError, match=r"window 'work' is not known: no device has been read\. gpu0 could not be read"):
        _ = window.joules
    assert "Window('work', open" in repr(window)


@pytest.mark.parametrize("others", [(), ("gpu1",)])
def test_a_counter_that_stands_still_is_said_and_holds_nobody_up(others):
    clock = FakeClock()
    sources = [ScriptedSource(lambda ns: min(ns, S) // 10), *(ScriptedSource(labels=(label,)) for label in others)]
    with EnergyMeter(sources=sources, clock=clock) as meter:
        assert meter.wait_for(meter.mark())
        clock.sleep(1)
        assert meter.wait_for(meter.mark())
        clock.sleep(STALE_S + 1)
        for _ in range(2):
            mark = meter.mark()
            assert meter.wait_for(mark)
            clock.sleep(1)
        assert mark.energy_uj is not None
        still_uj, *moving_uj = mark.energy_uj.tolist()
        assert still_uj == 10**8  # what it had shown
        assert moving_uj == [pytest.approx(100e6 * (STALE_S + 3)) for _ in others]
    assert sum("stands still" in complaint for complaint in meter.complaints) == 1


def test_what_is_used_now_goes_on_at_the_last_power():
    clock = FakeClock()
    with EnergyMeter(sources=[ScriptedSource()], clock=clock) as meter:
        assert meter.wait_for(meter.mark())
        clock.sleep(2)
        assert meter.wait_for(meter.mark())
        assert meter.power_now_w() == [pytest.approx(100)]
        assert meter.frontier_ns <= clock.t_ns
        reached = meter.frontier_ns
        clock.t_ns += S
        [now_uj] = meter.energy_now_uj()
        assert now_uj == pytest.approx(300e6)
        assert reached <= meter.frontier_ns


def test_an_open_window_tells_what_was_used_up_to_now():
    clock = FakeClock()
    with EnergyMeter(sources=[ScriptedSource()], clock=clock) as meter, meter.window("open") as window:
        assert "open" in repr(window)
        assert meter.wait_for(meter.mark())
        clock.sleep(2)
        assert window.joules == pytest.approx(200)
        clock.sleep(1)
        assert window.joules == pytest.approx(300)
        assert window.seconds == 3


def test_a_window_closes_where_its_work_fails():
    def work() -> None:
        assert meter.wait_for(meter.mark())
        clock.sleep(2)
        raise KeyError

    clock = FakeClock()
    with EnergyMeter(sources=[ScriptedSource()], clock=clock) as meter:
        with pytest.raises(KeyError), meter.window("work") as window:
            work()
        clock.sleep(5)
        assert window.joules == pytest.approx(200)


def test_a_terminal_shows_what_was_used():
    clock = FakeClock()
    meter = EnergyMeter(sources=[ScriptedSource()], clock=clock)
    assert repr(meter) == "EnergyMeter(nothing has been measured yet)"
    with meter:
        assert meter.wait_for(meter.total.start_mark)
        clock.sleep(2)
        assert meter.wait_for(meter.mark())
        assert repr(meter) == "EnergyMeter(gpu0: 200 J so far)"
    assert repr(meter) == "EnergyMeter(gpu0: 200 J in all)"


def test_a_counter_slower_than_the_watch_is_not_taken_for_a_fast_one():
    """It ticks every 1.2 s, so a reading may be that old; the truth is inside the plus or minus."""
    lab = aged(Board(power=constant(200), counter_ms=1200, samples_ms=None))
    with lab.running(), on_all_boards(interval=0.2) as meter:
        time.sleep(3)
    assert meter.ticks_s["gpu0"] > 0.8
    truth = lab.true_joules(0, meter.total.start_mark.t_ns, meter.total.end_mark.t_ns)
    assert abs(meter.joules - truth) <= meter.total.boundary_j
