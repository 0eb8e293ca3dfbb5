"""The curve of one device: monotone, on its readings exactly, and honest about what it did not see."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lightning_watt.meter import timeline
from lightning_watt.meter.shape import lay_out
from lightning_watt.meter.timeline import MAX_SAMPLES, STANDSTILL_S, Timeline
from lightning_watt.sources.base import UNREAD, Device, Gap, Reading

S = 1_000_000_000
J = 1_000_000  # microjoules
BOARD = Device("gpu0", "a board", "GPU-0", "nvml-counter", tick_s=0.1, max_power_w=800)
CPU = Device("cpu0", "a CPU", "cpu", "rapl", always_draws=False)


def line_of(*readings: tuple[float, float], device: Device = BOARD, samples=()) -> Timeline:
    """A curve through `(seconds, joules)`; the samples come with the last reading."""
    line = Timeline(device)
    for i, (seconds, joules) in enumerate(readings):
        power = tuple((round(t * S), w) for t, w in samples) if i == len(readings) - 1 else ()
        line.add(Reading(device.label, round(seconds * S), round(joules * J), power))
    return line


def add(line: Timeline, reading: Reading) -> Gap | None:
    """The gap that a reading reveals."""
    step = line.add(reading)
    return None if step is None else step.gap


def joules_at(line: Timeline, *seconds: float) -> list[float]:
    return [uj / J for uj in line.energy_uj_at([round(t * S) for t in seconds]).tolist()]


# ---- between readings ----


def test_it_begins_at_zero_whatever_the_counter_stood_at():
    assert joules_at(line_of((5, 98_765), (6, 98_865)), 5, 6) == [0, 100]


def test_it_knows_nothing_before_its_first_reading():
    line = Timeline(BOARD)
    assert not line.started
    assert joules_at(line, 1, 2) == [0, 0]
    line.forget_before(S)


def test_it_is_a_straight_line_without_samples_and_flat_outside():
    assert joules_at(line_of((10, 0), (12, 200)), 9, 10, 10.5, 11.25, 12, 99) == [0, 0, 50, 125, 200, 200]


def test_samples_give_the_shape_and_the_counter_the_sum():
    # 300 W for half a second, then 100 W; the counter says 10 % less than the samples do.
    samples = [(0.0001, 300), (0.4999, 300), (0.5001, 100), (0.9999, 100)]
    line = line_of((0, 0), (1, 180), samples=samples)
    assert joules_at(line, 1) == [180]
    np.testing.assert_allclose(joules_at(line, 0.25, 0.5, 0.75), [67.5, 135, 157.5], rtol=1e-3)


def test_the_last_sample_before_a_reading_shapes_what_follows_it():
    line = line_of((0, 0), (1, 100), samples=[(0.99, 100), (1.5, 300)])
    line.add(Reading("gpu0", 2 * S, 330 * J))
    # From 100 W at 0.99 s up to 300 W at 1.5 s and on: the first half of that second has less than its half.
    first, second = np.diff(joules_at(line, 1, 1.5, 2))
    np.testing.assert_allclose(first / second, (102 + 300) / 2 / 300, rtol=0.04)  # the counter confirms most of it


@pytest.mark.parametrize("watts", [float("nan"), float("inf"), -5.0, 1e9])
def test_samples_of_garbage_have_no_say(watts):
    samples = [(0.25, 100), (0.5, watts), (0.75, 100)]
    np.testing.assert_allclose(joules_at(line_of((0, 0), (1, 80), samples=samples), 0.5), [40], rtol=1e-6)


def test_what_is_between_two_readings_is_laid_out_only_for_who_asks(monkeypatch):
    laid = []
    monkeypatch.setattr(timeline, "lay_out", lambda *a, **k: laid.append(a[2]) or lay_out(*a, **k))
    samples = [(0.25, 100.0), (0.5, 300.0), (0.75, 100.0)]
    late, at_once = line_of((0, 0), (1, 200), samples=samples), line_of((0, 0), (1, 200), samples=samples)
    assert joules_at(late, 0, 1) == [0, 200]
    assert laid == []
    early = joules_at(at_once, 0.3, 0.7)
    for line in (late, at_once):
        line.add(Reading("gpu0", 2 * S, 250 * J))
    assert joules_at(late, 0.3, 0.7) == early
    assert laid == [200, 200]
    assert joules_at(late, 0, 0.3, 0.7, 1, 2) == joules_at(at_once, 0, 0.3, 0.7, 1, 2)
    assert late.edge_uj_at([S // 3, S, 2 * S]).tolist() == at_once.edge_uj_at([S // 3, S, 2 * S]).tolist()
    assert laid == [200, 200]


def test_samples_of_nothing_leave_a_straight_line():
    assert joules_at(line_of((0, 0), (1, 80), samples=[(0.2, 0), (0.5, 0), (0.9, 0)]), 0.5) == [40]


def test_the_power_is_that_of_the_last_two_readings():
    assert line_of((0, 0), (1, 100), (2, 400)).power_w == 300


def test_the_watched_tick_replaces_the_assumed_one():
    line = Timeline(Device("gpu0", "a board", "GPU-0", "nvml-counter"))
    assert line.tick_s == 0.1  # the longest known, until it was watched
    line.add(Reading("gpu0", 0, 0, tick_s=0.02))
    assert line.tick_s == 0.02
    assert Timeline(CPU).tick_s == 0


# ---- what goes wrong with counters ----


def test_a_reset_is_bridged_with_the_last_power_and_said():
    line = line_of((0, 900), (1, 1000))
    gap = add(line, Reading("gpu0", 3 * S, 7 * J))
    assert gap is not None
    assert (gap.device, gap.seconds, gap.joules) == ("gpu0", 2, 200)
    assert "backwards" in gap.why
    assert add(line, Reading("gpu0", 4 * S, 107 * J)) is None  # and goes on from where the counter restarted
    assert joules_at(line, 1, 3, 4) == [100, 300, 400]


def test_a_reset_is_bridged_with_the_samples_where_there_are_any():
    line = line_of((0, 900), (1, 1000))
    gap = add(line, Reading("gpu0", 3 * S, 7 * J, ((round(1.0 * S) + 1, 250.0), (2 * S, 250.0))))
    assert gap is not None
    assert gap.joules == pytest.approx(500)


@pytest.mark.parametrize(("joules", "refused"), [(850, False), (900, True)])
def test_more_than_the_device_can_draw_is_refused(joules, refused):
    line = line_of((0, 0), (1, 100))
    gap = add(line, Reading("gpu0", 2 * S, (100 + joules) * J))  # at most 800 W, and one tick of 0.1 s
    assert (gap is not None) == refused
    assert joules_at(line, 2) == [200 if refused else 950]


def test_a_counter_that_stands_still_is_said_and_charges_nothing_until_it_moves():
    line = line_of((0, 0), (1, 100))
    for seconds in (1 + STANDSTILL_S, 2 + STANDSTILL_S):
        line.add(Reading("gpu0", round(seconds * S), 100 * J))
        assert line.frontier_ns == S
        assert line.standing_still == (seconds > 1 + STANDSTILL_S)
    assert add(line, Reading("gpu0", 11 * S, 1100 * J)) is None
    assert not line.standing_still
    assert joules_at(line, 1, 6, 11) == [100, 600, 1100]


def test_a_device_that_may_rest_is_never_said_to_stand_still():
    line = line_of((0, 0), (1, 50), (60, 50), device=CPU)
    assert not line.standing_still
    assert line.frontier_ns == 60 * S
    assert line.power_w == 0


def test_old_and_repeated_readings_change_nothing():
    line = line_of((0, 0), (2, 200))
    for seconds, joules in ((1, 150), (2, 900), (0, 0)):
        assert add(line, Reading("gpu0", seconds * S, joules * J)) is None
    assert joules_at(line, 1, 2) == [100, 200]


# ---- memory ----


def test_what_is_forgotten_leaves_the_rest_as_it_was():
    line = line_of(*((i, i * 100 + (i % 7)) for i in range(2000)))
    before = joules_at(line, 1000, 1500.5, 1999)
    line.forget_before(1000 * S)
    assert joules_at(line, 1000, 1500.5, 1999) == before
    assert len(line._t) < 1010


def test_memory_is_flat_over_any_number_of_readings_even_at_a_standstill():
    line = Timeline(BOARD)
    for i in range(1, 1001):
        power = tuple((i * S - k * S // 50, 100.0) for k in range(50, 0, -1))
        line.add(Reading("gpu0", i * S, min(i, 300) * 100 * J, power))
        line.forget_before(line.frontier_ns)
    assert len(line._t) < 20
    assert len(line._samples) <= MAX_SAMPLES
    assert line.standing_still


# ---- for any readings ----

watts = st.one_of(st.floats(0, 800), st.floats(-1e3, 1e9), st.just(float("nan")))
step = st.one_of(
    st.integers(0, 800),  # joules: a rise
    st.just(0),  # a standstill
    st.integers(-(10**6), -1),  # a reset
    st.integers(10**6, 10**9),  # a jump
)


@st.composite
def readings(draw) -> list[Reading]:
    t, counter, found = draw(st.integers(0, 10**15)), draw(st.integers(10**3, 10**12)), []
    for _ in range(draw(st.integers(1, 12))):
        samples = draw(st.lists(st.tuples(st.integers(-2 * S, 2 * S), watts), max_size=6))
        found.append(Reading("gpu0", t, counter, tuple(sorted((t + at, w) for at, w in samples))))
        t += draw(st.integers(-S // 10, 3 * S))
        counter = max(0, counter + draw(step) * J + draw(st.integers(0, J)))
    return found


def test_nothing_that_was_charged_is_no_gap():
    line = Timeline(Device("gpu0", "a board", "GPU-0", "test", always_draws=False))
    line.add(Reading("gpu0", 0, 1000))
    line.add(Reading("gpu0", 5 * S, 1000))
    assert line.gaps == ()


@given(readings(), st.booleans(), st.data())
def test_the_curve_only_rises_hits_every_reading_and_charges_what_it_says(readings, always_draws, data):
    device = Device("gpu0", "a board", "GPU-0", "test", tick_s=0.1, max_power_w=800, always_draws=always_draws)
    line = Timeline(device)
    knots: list[tuple[int, int]] = []  # what the curve must be at each reading that was taken
    counter = total = 0
    for reading in readings:
        frontier = line.frontier_ns
        step = line.add(reading)
        if not knots:
            knots, counter = [(reading.t_ns, 0)], reading.energy_uj
            continue
        if step is None:
            assert reading.t_ns <= frontier or (always_draws and reading.energy_uj == counter)
            continue
        rise = reading.energy_uj - counter
        if step.gap is not None:
            assert rise < 0 or rise > 800 * ((reading.t_ns - frontier) / S + 0.1) * J
            rise = round(step.gap.joules * J)
        assert step.charge_uj >= 0
        if not step.returned:
            assert 0 <= step.charge_uj <= rise  # less, while too much was charged for a gap that is over
        counter, total = reading.energy_uj, total + step.charge_uj
        knots.append((reading.t_ns, total))

    times, energies = zip(*knots, strict=True)
    assert line.energy_uj_at(times).tolist() == list(energies)
    asked = np.sort(np.asarray(data.draw(st.lists(st.integers(times[0] - S, times[-1] + S), min_size=2, max_size=40))))
    curve = line.energy_uj_at(asked)
    assert (np.diff(curve) >= 0).all()
    assert curve.min() >= 0
    assert curve.max() <= energies[-1]

    cut = data.draw(st.integers(times[0], times[-1]))
    line.forget_before(cut)
    later = asked[asked >= cut]
    assert line.energy_uj_at(later).tolist() == curve[asked >= cut].tolist()


def test_power_close_to_nothing_has_a_shape_all_the_same():
    """Less than a number of 64 bits has digits for, as a broken driver may say: found by the property above."""
    line = Timeline(Device("gpu0", "a board", "GPU-0", "nvml-counter", always_draws=False))
    line.add(Reading("gpu0", 0, 1000))
    line.add(Reading("gpu0", 4, 1009, power=((2, 2.2250738585e-313),)))
    assert line.energy_uj_at([0, 4]).tolist() == [0, 9]
    assert 0 <= int(line.energy_uj_at([2])[0]) <= 9


def test_a_slow_counter_is_not_said_to_stand_still_between_its_ticks():
    slow = Device("wall0", "a wall meter", "wall", "my-meter", tick_s=4.0)
    line = line_of((0, 0), (4, 400), device=slow)
    for seconds in (5, 7.9, 8.9):
        line.add(Reading("wall0", round(seconds * S), 400 * J))
        assert not line.standing_still
    line.add(Reading("wall0", 20 * S, 400 * J))
    assert line.standing_still


wild = st.one_of(
    st.sampled_from([0.0, 5e-324, 2.2e-313, 1e-308, 1e-300, 1e-200, 1e300, 1.7e308, -1.0, float("nan"), float("inf")]),
    st.floats(0, 800),
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([1, 4, 1000, S // 1000, S, 3 * S]),
            st.integers(-5, 10**12),
            st.lists(st.tuples(st.floats(-1, 2), wild), max_size=5),
        ),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([800.0, 10_000.0, float("inf")]),
)
@example([(S, 0, [(0.5, 1.7e308)])], 800.0)
@example([(S, -5, [(0.2, 1.7e308), (0.5, 1.7e308)])], float("inf"))
def test_no_sample_of_power_puts_a_number_into_the_curve_that_is_none(steps, max_power_w):
    """1e-308 W of a broken driver, or 1.7e308: neither what was used, nor what is ahead, leaves what can have been used."""
    line = Timeline(Device("gpu0", "a board", "GPU-0", "test", max_power_w=max_power_w, always_draws=False))
    t_ns, counter = 10**15, 10**12
    line.add(Reading("gpu0", t_ns, counter))
    for passed_ns, rise, samples in steps:
        power = tuple((t_ns + round(at * passed_ns), w) for at, w in samples)
        t_ns, counter = t_ns + passed_ns, counter + rise
        line.add(Reading("gpu0", t_ns, counter, power))
    asked = [10**15 + (t_ns - 10**15) * i // 20 for i in range(21)]
    assert (np.diff(line.energy_uj_at(asked)) >= 0).all()
    assert line.energy_uj_at(asked)[0] >= 0
    assert line.ahead_uj_at(np.asarray([t_ns + S]))[0] >= 0
    assert line.energy_now_uj(t_ns + S, goes_on=True) >= 0


def test_a_counter_that_nobody_saw_tick_is_as_slow_as_it_was_seen_to_rest():
    """It ticks every 2 s and is read every 0.5 s: a reading may be 1.5 s old, and not 0.1 s."""
    line = Timeline(Device("gpu0", "a board", "GPU-0", "nvml-counter"))
    for i in range(20):
        line.add(Reading("gpu0", i * S // 2, i // 4 * 200 * J))
    assert line.tick_s == pytest.approx(1.5)
    known = joules_at(line, 5)[0]
    [edge] = line.edge_uj_at([5 * S])
    assert abs(known - 500) <= edge / J
    line.add(Reading("gpu0", 11 * S, 1000 * J, tick_s=2.0))
    assert line.tick_s == 2.0


def test_a_counter_that_was_watched_keeps_its_period_while_it_rests():
    line = Timeline(Device("gpu0", "a board", "GPU-0", "nvml-counter"))
    for i in range(3):
        line.add(Reading("gpu0", i * S, 100 * J, tick_s=0.02))
    assert line.tick_s == 0.02


@pytest.mark.parametrize("hole_s", [0.3, 8.0])
def test_a_hole_between_samples_that_alone_tell_the_energy_is_a_gap(hole_s):
    """Stopped with Ctrl-Z at 300 W, and woken at 300 W; meanwhile the board may have drawn anything."""
    line, uj = Timeline(Device("gpu0", "a board", "GPU-0", "nvml-power")), 0
    line.add(Reading("gpu0", 0, 0))
    end_s = 0.0
    for lasts_s in (1.0, 1.0, hole_s + 0.5):
        at_s = end_s + lasts_s - np.arange(0, lasts_s if lasts_s == 1 else 0.5, 0.1)[::-1]
        end_s += lasts_s
        uj += round(lasts_s * 300e6)
        line.add(Reading("gpu0", round(end_s * S), uj, tuple((round(t * S), 300.0) for t in at_s.tolist())))
    if hole_s < 0.5:
        assert line.gaps == ()
        return
    [gap] = line.gaps
    assert gap.seconds == pytest.approx(hole_s + 0.1, abs=0.11)
    assert gap.joules == pytest.approx(gap.seconds * 300)


# ---- before the first reading ----


def late_line(*readings: tuple[float, float], began_s: float = 10.0, samples=()) -> Timeline:
    line = Timeline(BOARD)
    line.began_ns = round(began_s * S)
    for i, (seconds, joules) in enumerate(readings):
        power = tuple((round(t * S), w) for t, w in samples) if i == 0 else ()
        line.add(Reading("gpu0", round(seconds * S), round(joules * J), power))
    return line


def test_what_was_used_before_a_late_first_reading_is_charged_and_all_of_it_is_uncertain():
    line = late_line((10.4, 1000), (11.4, 1200))  # 200 W, read 0.4 s after the run had begun
    assert joules_at(line, 10, 10.2, 10.4, 11.4) == [0, 40, 80, 280]
    assert line.gaps == (Gap(device="gpu0", seconds=0.4, joules=80.0, why=UNREAD),)
    edges_j = line.edge_uj_at([10 * S, round(10.2 * S), round(10.4 * S)]) / J
    # From a moment on, so much of the guess is still to come; and the counter's own tick.
    assert edges_j - edges_j[-1] == pytest.approx([80, 40, 0])


def test_the_samples_tell_it_where_there_are_some():
    samples = [(10.0, 100), (10.2, 100), (10.4, 100)]
    assert joules_at(late_line((10.4, 1000), (11.4, 1200), samples=samples), 10.4, 11.4) == [40, 240]


def test_nothing_is_known_before_the_second_reading_if_the_first_came_late():
    line = late_line((10.4, 1000))
    assert line.is_late()
    assert line.frontier_ns == 10 * S  # nothing is settled yet, as if it had used nothing
    line.add(Reading("gpu0", 11 * S, 1100 * J))
    assert not line.is_late()
    assert line.frontier_ns == 11 * S


def test_a_first_reading_that_came_a_little_late_is_known_at_once_and_what_was_before_is_charged():
    """As of a source whose thread had to wait for the interpreter: what monitors it has a value after the first reading."""
    line = late_line((10.05, 1000))
    assert not line.is_late()
    assert line.frontier_ns == round(10.05 * S)
    line.add(Reading("gpu0", round(11.05 * S), 1200 * J))
    assert joules_at(line, 10, 10.05, 11.05) == [0, 10, 210]
    assert line.gaps == ()


def test_a_first_reading_in_time_or_of_before_the_run_leaves_no_gap():
    for first_s in (9.0, 10.0):
        line = late_line((first_s, 1000), (11, 1100))
        assert not line.gaps
        assert joules_at(line, first_s, 11) == [0, 100]


def test_a_hole_is_a_gap_only_as_far_as_it_lies_in_the_run():
    line = Timeline(Device("gpu0", "a board", "GPU-0", "nvml-power"))
    line.began_ns = 12 * S
    line.add(Reading("gpu0", 10 * S, 0, ((10 * S, 100.0),)))
    line.add(Reading("gpu0", 13 * S, 300 * J, ((13 * S, 100.0),)))
    assert line.gaps == (Gap(device="gpu0", seconds=1.0, joules=100.0, why="there were no power samples"),)
