"""A counter that falls, returns, jumps and begins anew: no joule is charged twice, and none is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_watt.meter.counter import MOST_GAPS, MOST_PATHS, Counter, Step
from lightning_watt.meter.timeline import Timeline
from lightning_watt.sources.base import Reading
from lightning_watt.sources.rapl import RaplSource
from lightning_watt.testing.doubles import FakeClock
from tests.unit.powercap import zone

S = 1_000_000_000
J = 1_000_000
MOST_W = 2000.0


def run(readings: list[tuple[float, float]], power_w: float) -> tuple[Counter, list[Step]]:
    """Take `(seconds, joules)`; what is known beside the counter is that the device draws this power."""
    counter, steps = Counter("cpu0", MOST_W), []
    (begun, first), *later = [(round(s * S), round(j * J)) for s, j in readings]
    counter.begin(begun, first)
    before = begun
    for t_ns, uj in later:
        steps.append(counter.take(t_ns, uj, 0.0, lambda: round(power_w * (t_ns - before) / S * J)))  # noqa: B023 - at once
        before = t_ns
    return counter, steps


def joules(steps: list[Step]) -> float:
    return sum(step.charge_uj for step in steps) / J


def test_a_rise_is_charged():
    counter, steps = run([(0, 700), (1, 800), (2, 950)], 100)
    assert [step.charge_uj / J for step in steps] == [100, 150]
    assert steps[-1].power_w == 150
    assert counter.gaps == ()


def test_a_counter_that_falls_and_returns_is_charged_once():
    """8 W; for three seconds it shows 690 J less."""
    fell = [(t, 10_000 + 8 * t - (690 if 2 <= t < 5 else 0)) for t in range(8)]
    counter, steps = run(fell, 8)
    assert joules(steps) == 7 * 8
    assert [step.gap is not None for step in steps] == [False, True, False, False, False, False, False]
    assert [step.returned for step in steps] == [False, False, False, False, True, False, False]
    assert counter.gaps == ()


def test_what_was_bridged_too_high_is_paid_back_by_what_follows_and_is_uncertain_until_then():
    """It drew 50 W where 100 W were thought, so 50 J too many are charged."""
    fell = [(0, 1000), (1, 1100), (2, 400)]
    counter, steps = run([*fell, (3, 1200)], 100)
    assert (joules(steps), counter.gaps) == (200, ())  # 100 J and the bridge's 100 J, and that is what it shows
    counter, steps = run([*fell, (3, 1150)], 100)
    assert joules(steps) == 200
    assert [gap.joules for gap in counter.gaps] == [50]
    counter, steps = run([*fell, (3, 1150), (4, 1250)], 100)
    assert (joules(steps), counter.gaps) == (250, ())


def test_a_small_fall_that_two_things_explain_is_uncertain():
    """It rose by 250 J where 100 were to be expected: it returned and drew less, or it went on and drew more."""
    counter, steps = run([(0, 1000), (1, 1100), (2, 900), (3, 1150)], 100)
    assert joules(steps) == 450
    assert sum(gap.joules for gap in counter.gaps) >= 300


def test_a_fall_for_good_is_bridged_and_stays_a_gap():
    counter, steps = run([(0, 900), (1, 1000), (2, 7), (3, 107), (4, 207)], 100)
    assert joules(steps) == 400
    assert [(gap.joules, gap.seconds) for gap in counter.gaps] == [(100, 1)]


def test_a_counter_that_began_anew_and_passes_its_old_height_has_not_returned():
    counter, steps = run([(0, 200), (1, 300), *((t, 100 * (t - 2)) for t in range(2, 12))], 100)
    assert joules(steps) == 1100
    assert not any(step.returned for step in steps)
    assert len(counter.gaps) == 1


def test_a_jump_up_and_back_is_no_energy_either():
    counter, steps = run([(0, 0), (1, 100), (2, 10**6), (3, 300), (4, 400)], 100)
    assert joules(steps) == 400
    assert counter.gaps == ()


def test_two_falls_on_top_of_each_other_end_together():
    counter, steps = run([(0, 5000), (1, 5100), (2, 4200), (3, 3300), (4, 3400), (5, 5500), (6, 5600)], 100)
    assert joules(steps) == 600
    assert counter.gaps == ()


def test_a_fall_after_it_began_anew_returns_to_where_it_was_then():
    anew = [(0, 5000), (1, 5100), (2, 50), (3, 150)]
    counter, steps = run([*anew, (4, 20), (5, 350), (6, 450)], 100)
    assert joules(steps) == 600
    assert len(counter.gaps) == 1


def test_memory_is_flat_over_any_number_of_falls():
    counter, steps = run([(t, 10**9 - 5000 * t) for t in range(1000)], 100)
    assert joules(steps) == 99_900
    assert len(counter.gaps) <= MOST_PATHS + MOST_GAPS + 1
    assert sum(gap.joules for gap in counter.gaps) == pytest.approx(99_900)
    assert sum(gap.seconds for gap in counter.gaps) == pytest.approx(999)


@st.composite
def glitching(draw) -> tuple[list[tuple[float, float]], float]:
    """Readings of a device of steady power whose counter falls now and then by more than it uses meanwhile, and returns."""
    power = draw(st.integers(1, 400))
    start = draw(st.integers(10**6, 10**9))
    readings, t = [], 0.0
    for fell in draw(st.lists(st.integers(0, 6), min_size=1, max_size=15)):
        for below in [0.0, *[draw(st.floats(20.0 * power, 1e6))] * fell]:
            readings.append((t, start + power * t - below))
            t += draw(st.sampled_from([0.1, 0.25, 1.0, 3.0]))
    return [*readings, (t, start + power * t), (t + 1, start + power * (t + 1))], float(power)


@given(glitching())
def test_no_joule_is_charged_twice_and_none_is_lost(drawn):
    readings, power = drawn
    counter, steps = run(readings, power)
    assert joules(steps) == pytest.approx(power * readings[-1][0], rel=1e-6, abs=1e-3)
    assert sum(gap.joules for gap in counter.gaps) == pytest.approx(0, abs=1e-3)


@given(glitching(), st.floats(0.5, 2.0))
def test_what_is_charged_is_off_by_no_more_than_the_gaps_that_are_left(drawn, error):
    """Whatever was thought of the power: what is charged, less what is still uncertain, is what was used."""
    readings, power = drawn
    counter, steps = Counter("cpu0", MOST_W), []
    (begun, first), *later = [(round(s * S), round(j * J)) for s, j in readings]
    counter.begin(begun, first)
    before, charged = begun, 0
    for t_ns, uj in later:
        steps.append(counter.take(t_ns, uj, 0.0, lambda: round(error * power * (t_ns - before) / S * J)))  # noqa: B023
        before, charged = t_ns, charged + steps[-1].charge_uj
        assert steps[-1].charge_uj >= 0
    used = power * readings[-1][0]
    assert abs(charged / J - used) <= sum(gap.joules for gap in counter.gaps) + 1e-3


@given(st.lists(st.tuples(st.integers(1, 5 * S), st.integers(0, 2**63)), min_size=2, max_size=40), st.integers(0, 10**12))
def test_whatever_a_counter_shows_it_only_rises_and_stays_in_range(steps, expected):
    counter = Counter("cpu0", 1e9)
    t_ns = charged = 0
    counter.begin(0, steps[0][1])
    for more_ns, uj in steps[1:]:
        t_ns += more_ns
        step = counter.take(t_ns, uj, 0.1, lambda: expected)
        assert step.charge_uj >= 0
        assert step.power_w >= 0
        charged += step.charge_uj
        assert charged <= 2**62
        assert all(gap.joules >= 0 for gap in counter.gaps)


@pytest.mark.parametrize("start", [10**10, 65_532_610_987 - 30 * J], ids=["far from a wrap", "over a wrap"])
def test_rapl_that_falls_and_returns_is_charged_once(tmp_path, start):
    """8 W, and 690 J less for two seconds, in the files themselves."""
    file = zone(tmp_path, "intel-rapl:0", "package-0", start, 65_532_610_987)
    clock, source = FakeClock(), RaplSource(tmp_path)
    [device] = source.open(clock)
    line = Timeline(device)
    for second in range(1, 9):
        clock.sleep(1)
        shown = start + 8 * J * second - (690 * J if second in (3, 4) else 0)
        file.write_text(str(shown % 65_532_610_988))
        for reading in source.read():
            assert isinstance(reading, Reading)
            line.add(reading)
    assert line.energy_uj_at([line.frontier_ns]).tolist() == [64 * J]
    assert line.gaps == ()
