"""Window by hand, and in a `with` statement."""

from __future__ import annotations

import pytest

from lightning_watt import EnergyMeter
from lightning_watt.errors import WattError
from lightning_watt.meter.window import Window, beyond_uj
from lightning_watt.sources.nvml import NvmlSource
from lightning_watt.testing import Board, Lab, ReplayClock, constant
from lightning_watt.testing.doubles import FakeClock, ScriptedSource


def test_a_window_can_be_begun_and_ended_by_hand():
    clock = FakeClock()
    with EnergyMeter(sources=[ScriptedSource()], clock=clock) as meter:
        window = meter.window("work")
        assert isinstance(window, Window)
        assert repr(window) == "Window('work', not begun)"
        assert meter.wait_for(window.begin().start_mark)
        clock.sleep(2)
        window.end()
        clock.sleep(5)
        assert (window.joules, window.seconds) == (pytest.approx(200), 2)


def test_a_window_that_was_ended_inside_its_with_keeps_that_end():
    clock = FakeClock()
    with EnergyMeter(sources=[ScriptedSource()], clock=clock) as meter, meter.window("work") as window:
        clock.sleep(1)
        window.end()
        clock.sleep(1)
    assert window.seconds == 1


def test_wrong_use_says_what_to_do():
    with EnergyMeter(sources=[ScriptedSource()], clock=FakeClock()) as meter:
        window = meter.window("work")
        for ask in (window.end, lambda: window.joules, lambda: window.seconds, lambda: window.by_device):
            with pytest.raises(WattError, match=r"Window 'work' has not begun\. Call its `begin\(\)` first"):
                ask()
        window.begin()
        with pytest.raises(WattError, match=r"has begun already\. Make a new one"):
            window.begin()
        window.end()
        with pytest.raises(WattError, match=r"has ended already\. Make a new one"):
            window.end()


def test_a_window_of_a_meter_that_never_started_says_how_to_start_it():
    meter = EnergyMeter(sources=[ScriptedSource()], clock=FakeClock())
    with pytest.raises(WattError, match=r"its meter was never started.*`with EnergyMeter\(\) as meter:`.*`start\(\)` first"):
        meter.window("work").begin()
    meter.open()
    with pytest.raises(WattError, match="never started"), meter.window("work"):
        pass
    with pytest.raises(WattError, match=r"never started.*`start\(\)` first"):
        _ = meter.joules
    meter.start()
    meter.window("work").begin()
    meter.stop()


def test_the_boundary_is_of_both_edges_and_all_devices_in_squares_and_at_most_what_may_have_been_used():
    """Two devices of 100 W, whose readings are good to some milliseconds."""
    clock = FakeClock()
    with EnergyMeter(sources=[ScriptedSource(labels=["a", "b"])], clock=clock) as meter:
        clock.sleep(10)
        assert meter.wait_for(meter.mark())
        with meter.window("long") as long:
            clock.sleep(5)
        with meter.window("nothing") as nothing:
            pass
        clock.sleep(5)
        edges_uj = [*long.start_mark.edge_uj, *long.end_mark.edge_uj] if meter.wait_for(long.end_mark) else []
        assert len(edges_uj) == 4
        assert long.boundary_j == pytest.approx(sum(float(edge) ** 2 for edge in edges_uj) ** 0.5 / 1e6)
        assert 0 < long.boundary_j < long.joules
        assert (nothing.joules, nothing.boundary_j) == (0, 0)  # no time, and so nothing
        assert long.uncertainty_j == pytest.approx((long.boundary_j**2 + long.gain_j**2) ** 0.5)


def test_a_short_window_may_have_used_more_than_it_seems_to_and_no_more_than_others_do():
    assert beyond_uj(50.0, 0.0, 10.0, 15.0) == 17
    assert beyond_uj(50.0, 30.0, 10.0, 15.0) == 30
    assert beyond_uj(50.0, 10.0, 10.0, 45.0) == 35  # a burst of the highest power, all of it missed
    assert beyond_uj(5.0, 0.0, 10.0, 45.0) == 5


@pytest.mark.parametrize("seconds", [0.005, 0.03, 0.3])
def test_what_a_board_used_before_the_run_is_not_what_a_short_run_may_have_missed(seconds):
    """Its samples begin a second before."""
    clock = ReplayClock()
    lab = Lab([Board(power=constant(300), counter_ms=None)], clock=clock, t0_ns=clock.now_ns() - 20 * 10**9)
    with lab.running(children=False), EnergyMeter(sources=[NvmlSource()], clock=clock) as meter:
        clock.run_for(seconds)
    assert abs(meter.joules - 300 * meter.total.seconds) <= meter.total.boundary_j + 0.01 * meter.joules
    assert meter.total.boundary_j <= 1.75 * meter.joules


def test_a_gap_within_a_window_is_in_its_uncertainty_and_in_no_other_window():
    """A counter of 100 W that starts over in the second window, in which nobody knows what was used."""
    clock = FakeClock()
    lost_ns = 15 * 1_000_000_000
    source = ScriptedSource(lambda ns: 10**12 + ns // 10 if ns < lost_ns else (ns - lost_ns) // 10)
    with EnergyMeter(sources=[source], clock=clock) as meter:
        windows = []
        for name in ("before", "meanwhile", "after"):
            with meter.window(name) as window:
                clock.sleep(10)
                windows.append(window)
            meter.wait_for(window.end_mark)
        [gap] = meter.gaps
        assert gap.joules > 50
        assert [window.boundary_j > gap.joules for window in windows] == [False, True, False]
        assert windows[1].uncertainty_j > gap.joules
