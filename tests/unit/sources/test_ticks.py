"""Reading a slow counter at its ticks, on a clock that only moves when the reader looks or sleeps."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import chain, repeat

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_watt.meter.latch import EndingClock
from lightning_watt.sources import ticks
from lightning_watt.sources.nvidia.looks import CALLS, MARGIN_NS, SHARP_NS, Turn, run_together
from lightning_watt.sources.ticks import MISSES, WATCH_NS, TickReader
from lightning_watt.testing.doubles import MS, FakeClock, S

WATTS = 250


class SlowCounter:
    """Microjoules of a constant power, shown as they were at the last tick."""

    def __init__(self, clock: FakeClock, period_ms: float, phase_ms: float = 0.0) -> None:
        self.clock = clock
        self.period_ns = round(period_ms * MS)
        self.phase_ns = round(phase_ms * MS)
        self.stuck_at: int | None = None
        self.looks = 0
        self.call_ns: Callable[[], int] = lambda: 0
        self.taken_at = 1.0

    def tick_before(self, t_ns: int) -> int:
        return (t_ns - self.phase_ns) // self.period_ns * self.period_ns + self.phase_ns

    def energy_uj(self, t_ns: int) -> int:
        return t_ns * WATTS // 1000

    def __call__(self) -> int:
        self.looks += 1
        began_ns, call_ns = self.clock.t_ns, self.call_ns()
        self.clock.t_ns += call_ns
        return self.energy_uj(self.tick_before(self.stuck_at or began_ns + round(call_ns * self.taken_at)))


def a_reader(period_ms: float, phase_ms: float = 0.0, late_ns: Callable[[], int] = lambda: 0):
    clock = FakeClock(look_ns=1000, late_ns=late_ns)
    counter = SlowCounter(clock, period_ms, phase_ms)
    return TickReader(counter, clock), counter, clock


def errors_ns(readings: list[tuple[int, int]], counter: SlowCounter) -> list[int]:
    """How far off the times are from the moments that the values stand for."""
    return [t_ns - counter.tick_before(uj * 1000 // WATTS + MS) for t_ns, uj in readings]


@given(st.sampled_from([10, 20, 33.3, 50, 100, 101.7]), st.floats(0, 100))
def test_every_reading_stands_for_its_tick(period_ms, phase_ms):
    reader, counter, clock = a_reader(period_ms, phase_ms)
    assert reader.period_s is None
    readings = []
    for _ in range(6):
        readings += reader.read()
        clock.sleep(0.87)
    assert np.abs(errors_ns(readings, counter)).max() <= SHARP_NS
    assert reader.period_s == pytest.approx(period_ms / 1000, rel=0.1)


@pytest.mark.parametrize("period_ms", [50, 100])
def test_the_period_grows_exact_with_time(period_ms):
    reader, _, clock = a_reader(period_ms, phase_ms=3)
    for _ in range(30):
        reader.read()
        clock.sleep(0.9)
    assert reader.period_s == pytest.approx(period_ms / 1000, rel=1e-3)


def test_readings_bracket_the_moment_they_were_asked_for_and_never_go_back():
    reader, _, clock = a_reader(100)
    last_uj = -1
    for i in range(10):
        asked = clock.t_ns
        readings = reader.read()
        # After the watch the period is known well enough to count ticks, and the first may come unexpectedly.
        assert readings[0][0] <= asked + (MARGIN_NS if i != 1 else 100 * MS)
        assert asked < readings[-1][0]
        assert [uj for _, uj in readings] == sorted(uj for _, uj in readings)
        assert readings[-1][1] > last_uj
        last_uj = readings[-1][1]
        clock.sleep(1.0)


def test_the_first_readings_reach_back_to_the_moment_of_opening():
    """So that what is used between opening and the first tick is not lost."""
    reader, counter, clock = a_reader(100, phase_ms=40)
    opened = clock.t_ns
    clock.sleep(0.07)
    (first_ns, first_uj), *_ = reader.read()
    assert first_ns <= opened
    assert abs(first_ns - counter.tick_before(opened)) <= 1.5 * MS
    assert first_uj == counter.energy_uj(counter.tick_before(opened))


def test_it_costs_a_few_looks_a_read():
    reader, counter, clock = a_reader(100)
    reader.read()
    watched = counter.looks
    for _ in range(20):
        clock.sleep(1.0)
        reader.read()
    assert (counter.looks - watched) / 20 < 12


def test_a_tick_that_the_clock_does_not_know_well_enough_is_not_taken_for_another():
    """Read at any moment, some looks come so close to a tick that the drift of where it is expected decides."""
    rng = random.Random(0)
    for _ in range(60):
        reader, counter, clock = a_reader(20, phase_ms=20 * rng.random(), late_ns=lambda: rng.randrange(MS))
        reader.read()
        for _ in range(40):
            clock.sleep(rng.uniform(0.75, 1.25))
            assert np.abs(errors_ns(reader.read(), counter)).max() <= 10 * MS  # half a tick


def test_a_thread_that_is_woken_late_still_knows_when_the_tick_was():
    """After the first reads, every sleep takes up to 40 ms longer than asked for."""
    rng = np.random.default_rng(0)
    late = chain(repeat(0, 300), (int(n) for n in rng.integers(0, 40 * MS, size=100_000)))
    reader, counter, clock = a_reader(100, late_ns=lambda: next(late))
    reader.read()
    for _ in range(40):
        assert np.abs(errors_ns(reader.read(), counter)).max() <= 8 * MS
        clock.sleep(0.95)
    assert reader.period_s == pytest.approx(0.1, rel=0.01)


def test_a_machine_too_busy_to_see_a_tick_reads_plainly():
    reader, _, clock = a_reader(100, late_ns=lambda: 60 * MS)
    readings = reader.read()
    assert reader.period_s is None
    assert readings
    assert len(reader.read()) == 1
    assert readings[-1][0] <= clock.t_ns


@pytest.mark.parametrize("period_ms", [0.5, 2])
def test_a_fast_counter_needs_no_waiting(period_ms):
    reader, counter, clock = a_reader(period_ms)
    reader.read()
    assert reader.period_s is None
    before, looks = clock.t_ns, counter.looks
    assert len(reader.read()) == 1
    assert clock.t_ns - before < MS
    assert counter.looks == looks + 1


@pytest.mark.parametrize("taken_at", [0.0, 0.5, 1.0], ids=["at the call's begin", "in its middle", "at its end"])
@pytest.mark.parametrize(("period_ms", "least_ms", "most_ms"), [(20, 2, 2), (20, 1, 2.6), (100, 1, 2.6), (100, 10, 10)])
def test_a_driver_whose_calls_take_long_is_read_at_the_ticks_as_well(taken_at, period_ms, least_ms, most_ms):
    """1 to 2.6 ms on real boards under load; when a call takes the value, nobody knows, and `blur_s` says so."""
    chance = np.random.default_rng(0)
    reader, counter, clock = a_reader(period_ms, phase_ms=7)
    counter.call_ns, counter.taken_at = lambda: round(chance.uniform(least_ms, most_ms) * MS), taken_at
    reader = TickReader(counter, clock)
    readings = reader.read()[1:]
    assert reader.period_s == pytest.approx(period_ms / 1000, rel=0.1)
    looks = counter.looks
    for _ in range(30):
        clock.sleep(0.9)
        readings += reader.read()
        assert 0 < reader.blur_s <= 1.6 * most_ms / 1000
    assert reader.period_s == pytest.approx(period_ms / 1000, rel=2e-3)
    assert np.abs(errors_ns(readings, counter)).max() <= SHARP_NS / 2 + 1.6 * most_ms * MS
    assert (counter.looks - looks) / 30 < 10


def test_a_driver_that_gets_slow_stays_at_the_ticks():
    """Idle at first, when it is watched; then busy."""
    reader, counter, clock = a_reader(100)
    reader.read()
    assert reader.blur_s < 1e-5
    counter.call_ns = lambda: 2 * MS
    readings = []
    for _ in range(20):
        clock.sleep(0.9)
        readings += reader.read()
    assert np.abs(errors_ns(readings[5:], counter)).max() <= SHARP_NS / 2 + 4 * MS
    assert 0.001 < reader.blur_s < 0.003


def test_a_counter_too_fast_for_a_slow_driver_is_read_as_it_is_and_told_to_be_a_tick_old():
    reader, counter, clock = a_reader(20)
    reader.read()
    counter.call_ns = lambda: 10 * MS
    for _ in range(CALLS):
        clock.sleep(0.9)
        reader.read()
    looks = counter.looks
    [(t_ns, uj)] = reader.read()
    assert counter.looks == looks + 1
    assert uj == counter.energy_uj(counter.tick_before(t_ns))
    assert reader.blur_s == pytest.approx(0.03, rel=0.1)  # a tick and a call


def test_looks_at_a_slow_driver_leave_it_alone_for_as_long_as_they_take():
    """Calls hold up whoever else waits for the driver."""
    reader, counter, clock = a_reader(100)
    counter.call_ns = lambda: 4 * MS
    reader = TickReader(counter, clock)
    began_ns, looks = clock.t_ns, counter.looks
    reader.read()
    assert (counter.looks - looks) * 4 * MS <= 0.52 * (clock.t_ns - began_ns)


def test_a_counter_that_does_not_move_is_watched_again_ever_more_seldom():
    reader, counter, clock = a_reader(100)
    counter.stuck_at = clock.t_ns
    before = clock.t_ns
    assert reader.read() == [reader._opened]
    assert WATCH_NS <= clock.t_ns - before < WATCH_NS + 10 * MS
    watches = []
    began = clock.t_ns
    while clock.t_ns - began < 1000 * S:
        looks = counter.looks
        [(t_ns, _)] = reader.read()
        assert t_ns == pytest.approx(clock.t_ns, abs=MS)
        if counter.looks - looks > 1:
            watches.append((clock.t_ns - began) / S)
        clock.sleep(1.0)
    np.testing.assert_allclose(np.diff(watches), [10, 20, 40, 80, 160, 300, 300], rtol=0.1)


def test_a_watch_that_failed_is_tried_again_and_the_ticks_are_found():
    """A machine that is too busy to see a tick in the first seconds, as one that imports and compiles is."""
    late = chain(repeat(60 * MS, 20), repeat(0))
    reader, counter, clock = a_reader(100, late_ns=lambda: next(late))
    reader.read()
    assert reader.period_s is None
    found = []
    for _ in range(9):
        clock.sleep(0.9)
        found.append(reader.read())
    assert reader.period_s == pytest.approx(0.1, rel=0.01)
    first = next(i for i, readings in enumerate(found) if len(readings) > 1)
    later = [one for readings in found[first:] for one in readings]
    assert np.abs(errors_ns(later, counter)).max() <= SHARP_NS
    times = [t_ns for readings in found for t_ns, _ in readings]
    assert np.diff(times).min() > -SHARP_NS


def test_several_boards_behind_a_slow_driver_watch_again_one_after_another():
    """Watched at once, looks at each of eight lie eight calls apart."""
    clock = FakeClock(look_ns=1000)
    counters = [SlowCounter(clock, 100, phase_ms=11 * i) for i in range(8)]
    for counter in counters:
        counter.call_ns = lambda: 2 * MS
    turn = Turn()
    readers = [TickReader(counter, clock, turn=turn) for counter in counters]
    run_together([reader.looks() for reader in readers], clock)
    assert [reader.period_s for reader in readers] == [None] * 8
    for _ in range(40):
        clock.sleep(0.5)
        run_together([reader.looks() for reader in readers], clock)
    for reader, counter in zip(readers, counters, strict=True):
        assert reader.period_s == pytest.approx(0.1, rel=0.01)
        assert np.abs(errors_ns(reader.read(), counter)).max() <= 30 * MS
    assert not turn.taken


def test_a_watch_that_the_driver_breaks_off_lets_the_next_one_have_its_turn():
    reader, counter, clock = a_reader(100)
    counter.stuck_at = clock.t_ns
    reader.read()
    clock.sleep(6)
    looks = reader.looks()
    next(looks)
    assert reader._turn.taken
    counter.call_ns = lambda: 1 // 0
    with pytest.raises(ZeroDivisionError):
        next(looks)
    assert not reader._turn.taken


def test_a_counter_that_stops_is_waited_for_a_few_times_and_watched_again_when_it_may_have_come_back():
    reader, counter, clock = a_reader(100)
    reader.read()
    stopped = counter.stuck_at = clock.t_ns
    clock.sleep(1.0)
    waited = []
    for _ in range(MISSES + 2):
        before = clock.t_ns
        [(t_ns, uj)] = reader.read()
        assert uj == counter.energy_uj(counter.tick_before(stopped))
        assert t_ns <= clock.t_ns
        assert reader.blur_s == pytest.approx(0.1, rel=0.01)  # nobody saw its tick
        waited.append(clock.t_ns - before)
    assert all(wait < 5 * 100 * MS for wait in waited)
    assert all(wait < MS for wait in waited[MISSES:])
    counter.stuck_at, counter.phase_ns = None, 61 * MS  # awake again, in another rhythm
    for _ in range(12):
        clock.sleep(0.9)
        readings = reader.read()
    assert len(readings) > 1
    assert np.abs(errors_ns(readings, counter)).max() <= SHARP_NS
    assert reader.blur_s < 1e-5


def test_what_the_driver_raises_comes_through():
    def read() -> int:
        if clock.t_ns > 51 * S:
            raise RuntimeError("lost")
        return clock.t_ns // (100 * MS)

    clock = FakeClock(look_ns=1000)
    reader = TickReader(read, clock)
    reader.read()
    clock.sleep(1.0)
    with pytest.raises(RuntimeError, match="lost"):
        reader.read()


@pytest.mark.parametrize("after_us", [-200, -5, 1, 200])
@pytest.mark.parametrize("watched_after_ms", [0, 0.5, 40, 130, 260])
def test_opened_close_to_a_tick_it_is_known_on_which_side(after_us, watched_after_ms):
    clock = FakeClock(50 * S + after_us * 1000, look_ns=1000)
    counter = SlowCounter(clock, 100)
    reader = TickReader(counter, clock)
    clock.sleep(watched_after_ms / 1000)
    (first_ns, first_uj), *_ = reader.read()
    assert first_uj == counter.energy_uj(50 * S if after_us > 0 else 50 * S - 100 * MS)
    tolerance = SHARP_NS
    if watched_after_ms > 100 and abs(after_us) < 1000:
        tolerance += 100 * MS  # only a value that has not changed more than once since tells
    assert abs(errors_ns([(first_ns, first_uj)], counter)[0]) <= tolerance


@pytest.fixture
def a_board(monkeypatch):
    """Opens the same board again and again, on a clock that can end each time."""
    clock = FakeClock(look_ns=1000)
    counter = SlowCounter(clock, 100, 37)
    monkeypatch.setattr(ticks, "HOST_CLOCK", clock)
    monkeypatch.setattr(ticks, "_known", {})

    def opened() -> tuple[TickReader, SlowCounter, EndingClock]:
        ending = EndingClock(clock)
        return TickReader(counter, ending, "GPU-1"), counter, ending

    return opened


def test_a_boards_ticks_are_remembered_and_not_watched_again(a_board):
    reader, counter, clock = a_board()
    for _ in range(3):
        reader.read()
        clock.sleep(0.9)
    clock.sleep(0.013)
    looks = counter.looks
    again, _, _ = a_board()
    clock.sleep(0.25)
    readings = again.read()
    assert counter.looks - looks < 10  # a watch takes more than a hundred
    assert np.abs(errors_ns(readings, counter)).max() <= SHARP_NS
    assert readings[0][0] <= again._opened[0] < readings[1][0]


@pytest.mark.parametrize("what", ["long ago", "another counter", "close to a tick"])
def test_what_is_not_sure_any_more_is_watched_anew(a_board, what):
    reader, counter, clock = a_board()
    for _ in range(3):
        reader.read()
        clock.sleep(0.9)
    if what == "long ago":
        clock.sleep(3600)
    elif what == "another counter":
        counter.energy_uj = lambda t_ns: t_ns * WATTS // 1000 + 10**9
    else:
        clock.sleep((counter.tick_before(clock.now_ns()) + counter.period_ns - clock.now_ns() + 500_000) / S)
    assert a_board()[0].period_s is None


@pytest.mark.parametrize("after_ms", [5, 60, 130, 180, 270])
@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
def test_an_end_in_the_middle_waits_for_no_tick_and_says_nothing_untrue(a_board, known, after_ms):
    """Ended while it watches or waits; where the ticks are known, the value stands for the last one."""
    reader, counter, clock = a_board()
    if known:
        for _ in range(3):
            reader.read()
            clock.sleep(0.77)
        reader, counter, clock = a_board()
    looks, ends_ns = reader.looks(), clock.now_ns() + after_ms * MS

    def ends() -> None:
        clock.sleep(max(0, ends_ns - clock.now_ns()) / S)
        clock.end_by(clock.now_ns() + 5 * MS)

    def read() -> list[tuple[int, int]]:
        while True:
            try:
                due_ns = next(looks)
            except StopIteration as done:
                return done.value
            if due_ns >= ends_ns and clock.ends_ns is None:
                ends()
            clock.sleep(max(0, due_ns - clock.now_ns()) / S)

    last = read()
    if clock.ends_ns is None:
        ends()
    last += reader.read()
    assert clock.now_ns() <= ends_ns + 15 * MS
    assert all(t_ns <= clock.now_ns() for t_ns, _ in last)
    if reader.period_s:
        assert np.abs(errors_ns(last, counter)).max() <= SHARP_NS
        assert last[-1][1] == counter.energy_uj(counter.tick_before(clock.now_ns()))


class UnevenCounter(SlowCounter):
    """Each tick comes up to 46 ms late."""

    def tick_before(self, t_ns: int) -> int:
        tick = (t_ns - self.phase_ns) // self.period_ns
        while (at_ns := self.phase_ns + tick * self.period_ns + tick * 7919 % 47 * MS) > t_ns:
            tick -= 1
        return at_ns


def test_a_read_at_ticks_that_are_known_takes_two_looks():
    reader, counter, clock = a_reader(100, phase_ms=40)
    for _ in range(20):  # until the period is known
        reader.read()
        clock.sleep(0.9)
    looks, readings = counter.looks, []
    for _ in range(30):
        readings += reader.read()
        clock.sleep(0.9)
    assert counter.looks - looks <= 3 * 30  # two, and every few seconds those that make sure of it; it was five and more
    assert np.abs(errors_ns(readings, counter)).max() <= SHARP_NS
    assert len(readings) >= 2 * 30


def test_glances_between_two_reads_come_with_the_next_one_each_for_one_look():
    reader, counter, clock = a_reader(100, phase_ms=40)
    for _ in range(20):
        reader.read()
        clock.sleep(0.9)
    reader.read()
    looks = counter.looks
    for pause_s in (0.2, 0.23, 0.17):
        clock.sleep(pause_s)
        run_together([reader.glance()], clock)
    assert counter.looks == looks + 3
    clock.sleep(0.2)
    readings = reader.read()
    assert len(readings) >= 4
    assert [t_ns for t_ns, _ in readings] == sorted({t_ns for t_ns, _ in readings})
    assert np.abs(errors_ns(readings, counter)).max() <= SHARP_NS


def test_ticks_that_come_unevenly_cost_few_looks_and_are_known_as_well_as_is_said():
    clock = FakeClock(look_ns=1000)
    counter = UnevenCounter(clock, 100)
    reader = TickReader(counter, clock)
    for _ in range(10):
        reader.read()
        clock.sleep(0.9)
    looks, known = counter.looks, 0
    for _ in range(60):
        readings = reader.read()
        if reader.blur_s >= 0.005:  # it was seen to tick, and not read as it is
            known += 1
            assert all(abs(t_ns - uj * 1000 // WATTS) <= reader.blur_s * S + MS for t_ns, uj in readings)
        clock.sleep(0.9)
    assert known >= 30
    assert counter.looks - looks <= 6 * 60  # it was fifty and more a read
