"""Random sensors, replayed: the curve goes through the counter exactly, shares sum to it, and the ± holds the truth."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from experiments.bench.replay import replay
from lightning_watt import EnergyMeter
from lightning_watt.meter.marks import Mark
from lightning_watt.sources.base import Clock, Device, Failure, Reading
from lightning_watt.sources.nvml import NvmlSource
from lightning_watt.testing import Board, Curve, Lab, ReplayClock, square, steps

S = 1_000_000_000
SECONDS = 24.0


@st.composite
def loads(draw: st.DrawFn) -> Curve:
    """Alternating from 10 ms to 4 s, or load and idle of random lengths."""
    high, low = draw(st.floats(100, 300)), draw(st.floats(5, 100))
    if draw(st.booleans()):
        return square(high, low, draw(st.floats(0.01, 4)), duty=draw(st.floats(0.1, 0.9)))
    chance = random.Random(draw(st.integers(0, 1000)))
    return steps([(0.01 * 200 ** chance.random(), chance.uniform(low, high)) for _ in range(200)])


@st.composite
def sensors(draw: st.DrawFn) -> Board:
    """Boards with a counter, of any period, phase, jitter and delay; with samples over any window, or none."""
    counter_ms, samples_ms = draw(st.floats(10, 200)), draw(st.none() | st.floats(10, 200))
    period_ms = samples_ms or 100.0
    return Board(
        power=draw(loads()),
        counter_ms=counter_ms,
        counter_phase_ms=draw(st.floats(0, 1)) * counter_ms,
        counter_jitter_ms=draw(st.just(0.0) | st.floats(0, 0.3)) * counter_ms,
        samples_ms=samples_ms,
        samples_phase_ms=draw(st.floats(0, 1)) * period_ms,
        samples_jitter_ms=draw(st.just(0.0) | st.floats(0, 0.5)) * period_ms,
        samples_window_ms=draw(st.floats(0.1, 1) | st.just(10.0)) * period_ms,
        stamps=draw(st.sampled_from(["unix", "boot"])),
        call_ms=draw(st.floats(0.03, 10)),
        sensor_gain=draw(st.floats(0.9, 1.1)),
    )


class Recording(NvmlSource):
    """An NVML source that keeps what it has read."""

    def open(self, clock: Clock) -> list[Device]:
        self.readings: dict[int, int] = {}
        return super().open(clock)

    def read(self) -> list[Reading | Failure]:
        found = super().read()
        for reading in found:
            assert isinstance(reading, Reading)
            self.readings.setdefault(reading.t_ns, reading.energy_uj)
        return found


@settings(max_examples=15)
@given(sensors(), st.integers(0, 99), st.lists(st.floats(0.5, 11), min_size=1, max_size=20))
def test_shares_sum_to_the_counter_exactly(board: Board, seed: int, at_s: list[float]) -> None:
    clock = ReplayClock(seed=seed, late=(0.02, 20.0))
    lab = Lab([board], clock=clock, t0_ns=clock.now_ns() - 20 * S)
    source, known = Recording(), []

    def listen(marks: Sequence[Mark[Any]]) -> None:
        known.extend(mark for mark in marks if mark.payload is None)

    with lab.running(children=False):
        meter = EnergyMeter(sources=[source], clock=clock)
        begin_ns = clock.now_ns()
        parts: list[Mark[Any]] = []
        for t_ns in sorted(begin_ns + round(s * S) for s in at_s):
            clock.at(t_ns, lambda: parts.append(meter.mark("an edge")))
        meter.start(listen)
        clock.run_for(12.0)
        meter.stop()
        readings = source.readings
    first = readings[min(readings)]
    shown_at = {uj - first: t_ns for t_ns, uj in reversed(readings.items())}
    at_readings = [mark for mark in known if mark.energy_uj is not None and int(mark.energy_uj[0]) in shown_at]
    assert len({mark.t_ns for mark in at_readings}) >= 10
    for mark in at_readings:
        # Where ticks are uneven, the samples tell within the looks when the counter came to show it.
        assert mark.energy_uj is not None
        assert abs(mark.t_ns - shown_at[int(mark.energy_uj[0])]) <= 0.1 * S
    total = meter.total
    assert total.end_mark is not None
    edges = [total.start_mark, *parts, total.end_mark]
    assert len(edges) == len(at_s) + 2
    shares = np.diff([int(mark.energy_uj[0]) for mark in edges if mark.energy_uj is not None])
    assert len(shares) == len(edges) - 1
    assert min(shares) >= 0
    assert sum(shares) / 1e6 == total.joules


@settings(max_examples=25, derandomize=True, phases=[Phase.explicit, Phase.generate])
@given(sensors(), st.integers(0, 99))
def test_the_uncertainty_holds_the_truth(board: Board, seed: int) -> None:
    run = replay(board, SECONDS, (0.04, 0.4, 3.0), seed=seed)
    for found in run.replayed.values():
        assert found.coverage >= 0.9, f"{found.window_s} s: ± {found.stated:.1%}, 95 % {found.error(found.ours_j, 95):.1%}"
