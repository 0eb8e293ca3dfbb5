"""The source that users' tests play readings back with."""

from __future__ import annotations

import pytest

from lightning_watt.sources.base import EnergySource, Reading
from lightning_watt.sources.replay import ReplaySource
from lightning_watt.testing.doubles import FakeClock, S


def read(source: ReplaySource, clock: FakeClock) -> list[tuple[str, float, float]]:
    found = source.read()
    assert all(isinstance(reading, Reading) for reading in found)
    return [(r.label, (r.t_ns - clock_start) / S, r.energy_uj / 1e6) for r in found if isinstance(r, Reading)]


clock_start = FakeClock().t_ns


def test_readings_come_when_their_time_has_come():
    clock = FakeClock()
    source = ReplaySource({"gpu0": [(0, 5.0), (1, 105.0), (2, 305.5)], "cpu0": [(1.5, 7.0)]})
    source.open(clock)
    assert read(source, clock) == [("gpu0", 0, 5)]
    clock.sleep(1.2)
    assert read(source, clock) == [("gpu0", 1, 105)]
    assert read(source, clock) == []
    clock.sleep(0.8)
    assert read(source, clock) == [("gpu0", 2, 305.5), ("gpu0", 2, 305.5), ("cpu0", 1.5, 7), ("cpu0", 2, 7)]
    clock.sleep(10)
    assert read(source, clock) == [("gpu0", 12, 305.5), ("cpu0", 12, 7)]  # the counter stands where it stood


def test_opening_again_plays_again():
    clock = FakeClock()
    source = ReplaySource({"gpu0": [(0, 5.0), (1, 6.0)]})
    for start in (0, 10):
        source.open(clock)
        assert read(source, clock) == [("gpu0", start, 5)]
        clock.sleep(10)
        source.close()


def test_its_devices_are_what_they_are_said_to_be():
    [device] = ReplaySource({"gpu3": [(0, 0)]}, provenance="estimated", gain=0.2).open(FakeClock())
    assert (device.label, device.provenance, device.gain, device.source) == ("gpu3", "estimated", 0.2, "replay")
    assert isinstance(ReplaySource({"gpu0": [(0, 0)]}), EnergySource)


@pytest.mark.parametrize(
    "readings", [{}, {"gpu0": []}, {"gpu0": [(0, 1), (0, 2)]}, {"gpu0": [(0, 1)], "cpu0": [(2, 1), (1, 2)]}]
)
def test_readings_that_cannot_be_played_are_refused(readings):
    with pytest.raises(ValueError, match="replay"):
        ReplaySource(readings)
