"""Between two reads the reader glances at counters of which more has to be known, and power alone is polled gently."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from experiments.bench.cases import PHASES
from experiments.bench.curves import made
from lightning_watt import EnergyMeter
from lightning_watt.meter.evidence import BEAT_S, Blind
from lightning_watt.meter.reader import GLANCE_S, MIN_READ_GAP_S
from lightning_watt.sources.base import Device, Reading
from lightning_watt.sources.nvml import NvmlSource
from lightning_watt.testing import Lab, ReplayClock, constant, named

S = 1_000_000_000
MJ = 1_000


class Swinging:
    """A counter of 100 ms whose power changes with each tick, without samples; notes when it was read and glanced at."""

    name, due_s = "swinging", 1.0

    def __init__(self, clock: ReplayClock, *, glances: bool = True) -> None:
        self._clock = clock
        self.read_ns: list[int] = []
        self.glanced: list[tuple[int, tuple[str, ...]]] = []
        if glances:
            self.glance = lambda labels: self.glanced.append((clock.now_ns(), tuple(labels)))

    def open(self, clock: Any) -> list[Device]:
        return [Device(label, "a counter", label, self.name, tick_s=0.1) for label in ("a", "b")]

    def read(self) -> list[Reading]:
        now = self._clock.now_ns()
        self.read_ns.append(now)
        samples = tuple((now - k * S // 50, 100.0) for k in range(50))[::-1]
        return [
            Reading("a", now, now // 10, tick_s=0.1),
            Reading("b", now, now // 10, power=samples, tick_s=0.1),  # its samples tell all
        ]

    def close(self) -> None:
        pass


def run(source: Swinging, clock: ReplayClock, seconds: float, **options: Any) -> None:
    with EnergyMeter(sources=[source], clock=clock, **options):
        clock.run_for(seconds)


def test_a_counter_without_samples_is_glanced_at_between_two_reads_and_one_with_them_is_not() -> None:
    clock = ReplayClock(wake_ms=0)
    source = Swinging(clock)
    run(source, clock, 5.0)
    assert {labels for _, labels in source.glanced[5:]} == {("a",)}
    times = sorted([*source.read_ns[:-1], *(t for t, _ in source.glanced)])  # the last is at the end
    assert np.diff(times).min() >= (MIN_READ_GAP_S - 1e-3) * S  # also before the next read
    assert len(source.glanced) == pytest.approx(4 * 5, abs=5)
    assert np.diff(source.read_ns).max() <= 1.01 * S  # no glance puts off a read


def test_the_time_between_two_reads_varies_and_is_never_longer_than_a_source_bears() -> None:
    """At even times, a load that alternates as often as it is read shows one side of itself."""
    clock = ReplayClock(wake_ms=0)
    for due_s, most_s in ((5.0, 1.0), (0.5, 0.5)):
        source = Swinging(clock)
        source.due_s = due_s
        run(source, clock, 200.0)
        between_s = np.diff(source.read_ns) / S
        assert between_s.max() <= 1.01 * most_s
        assert between_s.mean() > 0.85 * most_s
        assert between_s.std() > 0.04 * most_s
        phase = np.exp(2j * np.pi * np.asarray(source.read_ns) / S / most_s)
        assert abs(phase.mean()) < 0.2  # it would be 1


def test_a_source_that_offers_no_glance_is_read_as_ever() -> None:
    clock = ReplayClock(wake_ms=0)
    source = Swinging(clock, glances=False)
    run(source, clock, 5.0)
    assert len(source.read_ns) == pytest.approx(6, abs=1)


def test_where_reads_are_close_there_is_no_room_for_glances() -> None:
    clock = ReplayClock(wake_ms=0)
    source = Swinging(clock)
    run(source, clock, 3.0, interval=GLANCE_S)
    assert source.glanced == []


def test_a_reading_that_is_asked_for_ends_the_rest_at_once() -> None:
    clock = ReplayClock(wake_ms=0)
    source = Swinging(clock)
    meter = EnergyMeter(sources=[source], clock=clock)
    begin_ns = clock.now_ns()
    with meter:
        clock.at(begin_ns + 3 * S + S // 3, meter.ask)
        clock.run_for(5.0)
    asked = [t for t in source.read_ns if abs(t - begin_ns - 3 * S - S // 3) < 0.01 * S]
    assert len(asked) == 1


def test_a_board_that_tells_its_power_alone_is_asked_ten_times_a_second() -> None:
    clock = ReplayClock()
    board = named("A100", **{**PHASES, "power": constant(200), "counter_ms": None, "samples_ms": None})
    lab = Lab([board], clock=clock, t0_ns=clock.now_ns() - 20 * S)
    with lab.running(children=False), EnergyMeter(sources=[NvmlSource()], clock=clock) as meter:
        clock.run_for(2.0)
        before = lab.calls("nvmlDeviceGetPowerUsage")
        clock.run_for(10.0)
        assert lab.calls("nvmlDeviceGetPowerUsage") - before == pytest.approx(100, abs=5)
    assert meter.joules == pytest.approx(200 * meter.total.seconds, rel=0.01)


def test_a_board_without_samples_tells_its_power_at_each_glance() -> None:
    clock = ReplayClock()
    board = named("A100", **{**PHASES, "power": made()["training"], "samples_ms": None})
    lab = Lab([board], clock=clock, t0_ns=clock.now_ns() - 20 * S)
    with lab.running(children=False), EnergyMeter(sources=[NvmlSource()], clock=clock):
        clock.run_for(5.0)
        before = lab.calls("nvmlDeviceGetPowerUsage"), lab.calls("nvmlDeviceGetTotalEnergyConsumption")
        clock.run_for(20.0)
        power, counter = (
            lab.calls(name) - was
            for name, was in zip(("nvmlDeviceGetPowerUsage", "nvmlDeviceGetTotalEnergyConsumption"), before, strict=True)
        )
    assert power == pytest.approx(4 * 20, abs=10)
    assert power < counter <= 6 * 20


T_S = np.linspace(0, 1, 11)


def hidden_j(watts_of: Any, seconds: int = 6, spacing_s: float = 0.1) -> list[float]:
    """What samples of this power alone may hide after each second."""
    blind = Blind()
    return [blind.take(T_S, watts_of(second + T_S), spacing_s) for second in range(seconds)]


def test_samples_that_do_not_change_hide_nothing() -> None:
    assert hidden_j(lambda t: np.full_like(t, 150.0)) == pytest.approx([0.0] * 6, abs=1e-9)


def test_a_slow_swing_of_samples_alone_may_be_a_beat() -> None:
    """100 to 200 W and back in two seconds: as far as the curve lies from the straight line over the last seconds."""
    found = hidden_j(lambda t: 150 + 50 * np.sin(np.pi * t))
    assert found[-1] == pytest.approx(2 * 50 / np.pi, rel=0.1)
    dense = hidden_j(lambda t: 150 + 50 * np.sin(np.pi * t), spacing_s=0.02)
    assert dense[-1] == pytest.approx(found[-1] / 5)  # fewer loads beat with dense samples


def test_what_is_past_is_forgotten_after_the_longest_beat() -> None:
    found = hidden_j(lambda t: np.where(t < 1, 300.0, 100.0), seconds=10)
    assert found[1] > 50
    assert found[int(BEAT_S) + 3 :] == pytest.approx([0.0] * (10 - int(BEAT_S) - 3), abs=1e-9)
