"""Samples are evidence: their shape is trusted as far as it foretold the counter, and the ± holds over random sensors."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.bench.cases import PHASES
from experiments.bench.curves import IN_STEP, made
from experiments.bench.replay import Run, replay
from lightning_watt.meter.evidence import Evidence, Timing
from lightning_watt.meter.reader import SPREAD
from lightning_watt.meter.timeline import Timeline
from lightning_watt.sources.base import Device, Reading
from lightning_watt.testing import named

S = 1_000_000_000
DEVICE = Device("gpu0", "a board", "GPU-0", "nvml-counter", tick_s=0.1, max_power_w=1000)


class Swing:
    """Watts that alternate between two levels; joules up to a time, exactly."""

    def __init__(self, period_s: float, low_w: float, high_w: float) -> None:
        self.period_s, self.low_w, self.high_w = period_s, low_w, high_w

    def joules(self, t_s: float) -> float:
        whole, part = divmod(t_s, self.period_s)
        half = self.period_s / 2
        high_s = whole * half + min(part, half)
        return self.high_w * high_s + self.low_w * (t_s - high_s)

    def mean_w(self, start_s: float, end_s: float) -> float:
        return (self.joules(end_s) - self.joules(start_s)) / (end_s - start_s)


TICKS = 10
"""A second."""


def measured(swing: Swing, spacing_s: float, window_s: float, reads: int = 40, seed: int = 0) -> Timeline:
    """A counter that is read at two neighbouring ticks, about once a second as the reader does it, and a sensor beside it.

    Args:
        swing: the load.
        spacing_s: between two samples.
        window_s: how long the sensor looks for each.
        reads: how many reads.
        seed: of the times between them.
    """
    line, last, tick, chance = Timeline(DEVICE), 10.0, 10 * TICKS, random.Random(seed)
    for _ in range(reads):
        for t in (tick / TICKS, (tick + 1) / TICKS):
            at = np.arange(math.ceil(last / spacing_s), math.ceil(t / spacing_s)) * spacing_s
            power = tuple((round(a * S), swing.mean_w(a - window_s, a)) for a in at.tolist())
            line.add(Reading("gpu0", round(t * S), round(swing.joules(t) * 1e6), power, tick_s=0.1))
            last = t
        tick += math.ceil(TICKS * chance.uniform(1 - SPREAD, 1))
    return line


def errors_j(line: Timeline, swing: Swing, window_s: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Error, stated ± and truth of windows from the tenth second on."""
    starts = 20 + np.arange(0, 25, 0.0731)
    marks = [np.rint((starts + x) * S).astype(np.int64) for x in (0, window_s)]
    used = (line.energy_uj_at(marks[1]) - line.energy_uj_at(marks[0])) / 1e6
    true = np.asarray([swing.joules(a + window_s) - swing.joules(a) for a in starts])
    stated = np.hypot(line.edge_uj_at(marks[0]), line.edge_uj_at(marks[1])) / 1e6
    return used - true, np.minimum(stated, used), true


def test_a_sensor_that_beats_with_the_load_has_no_say():
    """25 of every 100 ms, under a load of 104 ms: its samples rise and fall slowly, and the power does not."""
    swing = Swing(0.104, 80, 300)
    error, stated, true = errors_j(measured(swing, 0.1, 0.025), swing, 0.4)
    assert np.abs(error).mean() < 0.03 * true.mean()  # 17 % when the samples were believed
    assert (np.abs(error) <= stated).mean() > 0.95


def test_dense_samples_of_slow_steps_are_believed():
    swing = Swing(1.7, 80, 300)
    line = measured(swing, 0.02, 0.01)
    error, stated, true = errors_j(line, swing, 0.15)
    assert np.abs(error).mean() < 0.03 * true.mean()
    assert (np.abs(error) <= stated).mean() > 0.95


@pytest.mark.parametrize("period_s", [0.999, 1.0, 1.001, 1.002, 0.501])
@pytest.mark.parametrize(("spacing_s", "part"), [(0.02, 0.5), (0.05, 1.0), (0.1, 0.25), (0.1, 1.0)])
def test_a_load_that_alternates_as_often_as_it_is_read_is_within_what_is_stated(period_s, spacing_s, part):
    """Read once a second to the millisecond, each tick showed the same side of the load: 16 % of windows were within."""
    swing = Swing(period_s, 50, 200)
    error, stated, _ = errors_j(measured(swing, spacing_s, part * spacing_s), swing, 0.4)
    assert (np.abs(error) <= stated + 1e-6).mean() >= 0.8


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.floats(0.03, 3), st.floats(50, 200), st.floats(0, 300), st.sampled_from([0.02, 0.05, 0.1]), st.floats(0.2, 1))
def test_the_truth_lies_within_what_is_stated_and_shares_sum_to_the_counter(period_s, low_w, more_w, spacing_s, part):
    swing = Swing(period_s, low_w, low_w + more_w)
    line = measured(swing, spacing_s, part * spacing_s)
    error, stated, _ = errors_j(line, swing, 0.4)
    assert (np.abs(error) <= stated + 1e-6).mean() >= 0.8
    end_ns = line.frontier_ns
    cuts = np.sort(np.random.default_rng(0).integers(10 * S, end_ns, 200))
    cuts[0], cuts[-1] = 10 * S, end_ns
    rise = round(swing.joules(end_ns / S) * 1e6) - round(swing.joules(10.0) * 1e6)
    assert int(np.diff(line.energy_uj_at(cuts)).sum()) == rise


def test_trust_is_what_the_counter_confirms():
    evidence = Evidence()
    assert evidence.trust == 1
    for i in range(60):
        evidence.take(0.1, 20.0 + i % 2, 20.0 + 4 * (i % 2), 0.0)  # the samples swing four times as much as the counter
    assert evidence.trust == pytest.approx(0.25, abs=0.1)
    evidence.interrupt()
    evidence.take(0.1, 500.0, 1.0, 0.0)  # what lies beyond a gap tests nothing
    assert evidence.trust == pytest.approx(0.25, abs=0.1)


def replayed(board: str, curve: str, **changes) -> Run:
    return replay(named(board, **PHASES, power=made()[curve], **changes), 75.0, (0.15, 0.4, 3.0))


def test_samples_that_miss_edges_are_believed_between_them() -> None:
    """Bursts: what 25 of 100 ms miss at an edge once made the samples of the long plateaus seem to tell too much."""
    found = replayed("A100", "bursts").replayed
    assert found[0.15].error(found[0.15].ours_j) < 0.008  # 0.95 %
    assert found[0.4].error(found[0.4].ours_j) < 0.01  # 1.2 %


def test_the_samples_tell_when_an_uneven_tick_was() -> None:
    found = replayed("A100", "step", counter_jitter_ms=46, samples_jitter_ms=46).replayed
    assert found[0.15].error(found[0.15].ours_j) < 0.006  # 0.87 % by the looks alone
    assert found[0.4].error(found[0.4].ours_j) < 0.005  # 0.66 %
    assert min(one.coverage for one in found.values()) > 0.95


def test_a_counter_is_not_read_often_where_that_shows_no_more() -> None:
    """Under 52 ms of load and of none, a reading lies anywhere on the ripple, and more of them lie no better."""
    assert replayed("A100", "alternating 52 ms").calls_a_second < 3
    assert replayed("A100", "training").calls_a_second > 4


def test_samples_are_laid_where_they_were_seen_and_not_where_they_are_stamped() -> None:
    """A mean over 100 ms is 50 ms old at its stamp."""
    found = replayed("RTX 3090", "bursts").replayed
    assert found[0.4].error(found[0.4].ours_j) < 0.007  # 0.87 % by the stamps
    assert found[3.0].error(found[3.0].ours_j) < 0.004  # 0.7 %


def test_samples_that_are_flat_tell_no_less_often_that_they_miss_everything() -> None:
    """A mean over a second, under a load that alternates once a second."""
    found = replayed("H100", IN_STEP, samples_window_ms=1000)
    assert found.calls_a_second > 4
    assert found.replayed[0.4].coverage > 0.9  # 0.57 when they were thought to be right


def test_a_burst_that_no_sample_saw_is_within_what_is_stated() -> None:
    """A tenth of the time the board works, for 5 to 40 ms, at four times its mean power; the sensor looks 25 of 100 ms."""
    found = replay(named("A100", **PHASES, power=made()["rare bursts"]), 75.0, (0.008, 0.04)).replayed
    assert found[0.008].coverage > 0.95  # 0.91 when no window was thought to use more than 2.7 times the mean
    assert found[0.04].coverage > 0.95


def test_late_ticks_are_weighed_by_what_is_known_of_them() -> None:
    timing = Timing(0.1)
    assert not timing.looked(0.01)  # even ticks
    assert timing.looked(0.02)
    t_s, watts = np.linspace(0, 1, 11), np.full(11, 100.0)
    late_s = timing.late_s(t_s, watts, 101.0, 0.1)  # a tick of 1.01 s, seen at 1 s
    assert 0.001 < late_s < 0.01
    for _ in range(10):
        timing.looked(0.02)
        late_s = timing.late_s(t_s, watts, 101.0, 0.1)
    assert 0.005 < late_s < 0.01  # the readings before were known better than this one
    timing.looked(0.02)
    assert timing.late_s(t_s, watts, 130.0, 0.1) == 0.02  # within the looks
