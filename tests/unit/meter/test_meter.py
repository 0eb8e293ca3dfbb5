"""EnergyMeter against the truth of the lab, and against sources that misbehave."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from weakref import ref

import numpy as np
import pynvml
import pytest

from lightning_watt import EnergyMeter
from lightning_watt.errors import WattError
from lightning_watt.host import tell_of_forks
from lightning_watt.meter.curves import STALE_S
from lightning_watt.meter.marks import Mark
from lightning_watt.meter.reader import Latch
from lightning_watt.meter.timeline import Timeline
from lightning_watt.sources.base import Failure, Reading
from lightning_watt.sources.nvml import NvmlSource
from lightning_watt.testing import Board, Fault, Lab, constant, ramp, square
from lightning_watt.testing.doubles import UNIX_NS, AbsentSource, FakeClock, S, ScriptedSource
from tests.unit.forking import in_a_child
from tests.unit.signals import Interruptions, interrupted_at, interrupted_by

ENERGY = "nvmlDeviceGetTotalEnergyConsumption"


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("lightning_watt")]


@pytest.fixture(autouse=True)
def no_reader_is_left() -> Iterator[None]:
    yield
    for thread in readers():
        thread.join(10)
    assert readers() == []


def aged(*boards: Board, age_s: float = 10.0) -> Lab:
    return Lab(boards, t0_ns=time.monotonic_ns() - round(age_s * S))


def on_all_boards(**arguments) -> EnergyMeter:
    return EnergyMeter(sources=[NvmlSource("all")], **arguments)


# ---- against the truth ----

BOARDS = {
    "100 ms counter and samples": Board(power=square(300, 80, 0.81)),
    "20 ms counter and samples": Board(power=square(320, 60, 0.53), counter_ms=20, counter_phase_ms=7),
    "100 ms counter, no samples": Board(power=ramp(80, 300, 16), samples_ms=None, counter_phase_ms=40),
    "samples, no counter": Board(power=square(250, 90, 0.67), counter_ms=None),
    "power only": Board(power=ramp(100, 300, 20), counter_ms=None, samples_ms=None, power_window_ms=0),
}
WITH_COUNTER = [kind for kind, board in BOARDS.items() if board.counter_ms]
SHAPED = [kind for kind, board in BOARDS.items() if board.samples_ms]


@pytest.fixture(scope="module")
def run() -> SimpleNamespace:
    """One measured run of a little over three seconds on all kinds of boards: its windows, and what they truly used."""
    lab = aged(*BOARDS.values())
    windows = {}
    with lab.running(), on_all_boards() as meter:
        with meter.window("whole") as windows["whole"]:
            with meter.window("first") as windows["first"]:
                time.sleep(0.83)
            with meter.window("second") as windows["second"], meter.window("inner") as windows["inner"]:
                time.sleep(1.21)
            time.sleep(1.1)
        read_while_running = windows["inner"].joules
    windows["total"] = meter.total

    def truth(name: str, kind: str) -> float:
        window = windows[name]
        assert window.end_mark is not None
        return lab.true_joules(list(BOARDS).index(kind), window.start_mark.t_ns, window.end_mark.t_ns)

    def told(name: str, kind: str) -> float:
        return windows[name].by_device[f"gpu{list(BOARDS).index(kind)}"]

    return SimpleNamespace(
        meter=meter, windows=windows, truth=truth, told=told, lab=lab, read_while_running=read_while_running
    )


@pytest.mark.parametrize("kind", WITH_COUNTER)
def test_a_counters_total_is_within_half_a_percent(run, kind):
    assert run.told("total", kind) == pytest.approx(run.truth("total", kind), rel=0.005)


@pytest.mark.parametrize("kind", [kind for kind in BOARDS if kind not in WITH_COUNTER])
def test_integrated_power_is_within_two_percent(run, kind):
    assert run.told("total", kind) == pytest.approx(run.truth("total", kind), rel=0.02)


@pytest.mark.parametrize("kind", SHAPED)
@pytest.mark.parametrize("name", ["whole", "first", "second", "inner"])
def test_samples_give_windows_their_share(run, kind, name):
    # A window's edge is at most a sample off.
    assert run.told(name, kind) == pytest.approx(run.truth(name, kind), rel=0.01, abs=0.02 * 320)


@pytest.mark.parametrize("name", ["whole", "first", "second", "inner"])
def test_the_uncertainty_holds_the_truth(run, name):
    window = run.windows[name]
    truth = sum(run.truth(name, kind) for kind in BOARDS)
    assert abs(window.joules - truth) <= window.uncertainty_j
    assert window.uncertainty_j == pytest.approx(np.hypot(window.boundary_j, window.gain_j))
    assert window.gain_j == pytest.approx(0.05 * window.joules)
    assert 0 < window.boundary_j < 0.2 * window.joules


def test_the_ticks_were_watched(run):
    ticks = {kind: run.meter.ticks_s[f"gpu{i}"] for i, kind in enumerate(BOARDS)}
    assert ticks["100 ms counter and samples"] == pytest.approx(0.1, rel=0.05)
    assert ticks["100 ms counter, no samples"] == pytest.approx(0.1, rel=0.05)
    assert ticks["20 ms counter and samples"] == pytest.approx(0.02, rel=0.1)


def test_windows_nest(run):
    first, second, inner, whole = (run.windows[name] for name in ("first", "second", "inner", "whole"))
    assert inner.joules == pytest.approx(second.joules, rel=1e-3)
    assert first.joules + second.joules < whole.joules < run.windows["total"].joules
    assert whole.seconds == pytest.approx(0.83 + 1.21 + 1.1, rel=0.2)
    assert whole.kwh == whole.joules / 3.6e6
    assert sum(whole.by_device.values()) == pytest.approx(whole.joules)


def test_a_window_can_be_read_while_the_meter_runs(run):
    assert run.read_while_running == run.windows["inner"].joules


def test_the_total_is_the_meters(run):
    assert run.meter.joules == run.windows["total"].joules
    assert run.meter.kwh == run.windows["total"].kwh
    assert list(run.meter.complaints) == []
    assert run.meter.gaps == []
    assert "Window('whole'," in repr(run.windows["whole"])


def test_the_drivers_door_is_shut_afterwards():
    with aged(Board()).running():
        with on_all_boards():
            assert len(readers()) == 1
        assert readers() == []
        with pytest.raises(pynvml.NVMLError_Uninitialized):
            pynvml.nvmlDeviceGetCount()


def test_a_run_shorter_than_a_tick_is_still_measured():
    lab = aged(Board(power=constant(200)))
    with lab.running(), on_all_boards() as meter:
        pass
    window = meter.total
    assert window.end_mark is not None
    truth = lab.true_joules(0, window.start_mark.t_ns, window.end_mark.t_ns)
    assert abs(window.joules - truth) <= 2 * 200 * 0.1  # a tick at either end
    assert abs(window.joules - truth) <= 3 * window.uncertainty_j


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


# ---- wrong use ----


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


# ---- signal handlers, which run in the middle of anything that the main thread does ----


@pytest.mark.timeout(30)
def test_a_signal_handler_may_ask_a_meter_that_is_being_asked(monkeypatch):
    """Interrupted where it holds its lock."""
    interruptions, answers = Interruptions(), []
    known = Timeline.energy_uj_at

    def loudly(line, t_ns):
        interruptions.now()
        return known(line, t_ns)

    monkeypatch.setattr(Timeline, "energy_uj_at", loudly)
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
    monkeypatch.setattr("lightning_watt.meter.reader.MIN_READ_GAP_S", 3600.0)
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


def test_in_a_child_the_meter_has_stopped_and_nothing_is_waited_for(held_up):
    """Forked where the reader, which the child does not have, holds the lock."""
    clock, source = FakeClock(), ScriptedSource()
    meter = EnergyMeter(sources=[source], clock=clock).start()
    assert meter.wait_for(meter.total.start_mark)
    clock.sleep(2)
    meter.ask()
    assert held_up.inside.wait(10)

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
    clock, source = FakeClock(), ScriptedSource()
    meter = EnergyMeter(sources=[source], clock=clock).start()
    assert meter.wait_for(meter.total.start_mark)
    clock.sleep(2)
    meter.ask()
    assert held_up.inside.wait(10)

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
