"""EnergyMeter against the truth of the lab's boards."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pynvml
import pytest

from lightning_watt.sources.nvidia.gains import OTHERS
from lightning_watt.testing import Board, Lab, ReplayClock, constant, ramp, square
from tests.unit.meter.made import aged, on_all_boards, readers

BOARDS = {
    "100 ms counter and samples": Board(power=square(300, 80, 0.81), counter_ms=100),
    "20 ms counter and samples": Board(power=square(320, 60, 0.53), counter_ms=20, counter_phase_ms=7),
    "100 ms counter, no samples": Board(power=ramp(80, 300, 16), samples_ms=None, counter_ms=100, counter_phase_ms=40),
    "samples, no counter": Board(power=square(250, 90, 0.67), counter_ms=None),
    "power only": Board(power=ramp(100, 300, 20), counter_ms=None, samples_ms=None, power_window_ms=0),
}
WITH_COUNTER = [kind for kind, board in BOARDS.items() if board.counter_ms]
SHAPED = [kind for kind, board in BOARDS.items() if board.samples_ms]


@pytest.fixture(scope="module")
def run() -> SimpleNamespace:
    """One measured run of a little over three seconds on all kinds of boards: its windows, and what they truly used."""
    clock = ReplayClock()
    lab = Lab(list(BOARDS.values()), age_s=10, clock=clock)
    windows = {}
    with lab.running(), on_all_boards(clock=clock) as meter:
        with meter.window("whole") as windows["whole"]:
            with meter.window("first") as windows["first"]:
                clock.run_for(0.83)
            with meter.window("second") as windows["second"], meter.window("inner") as windows["inner"]:
                clock.run_for(1.21)
            clock.run_for(1.1)
        clock.run_for(0.2)
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
    assert window.gain_j == pytest.approx(OTHERS.gain * window.joules)
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
    assert whole.seconds == pytest.approx(0.83 + 1.21 + 1.1, rel=0.05)
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
