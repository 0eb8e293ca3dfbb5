"""Curves: complaints come once, and a device that is left out is not counted."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from lightning_watt.meter.curves import Complaints, Curves
from lightning_watt.meter.marks import Mark
from lightning_watt.sources.base import Device, Failure, Reading

S = 1_000_000_000
DEVICES = [Device(label, "a board", label, "nvml-counter") for label in ("gpu0", "gpu1")]


def test_a_failure_is_reported_once_and_what_is_left_out_is_not():
    curves = Curves(DEVICES, Complaints(), [])
    curves.leave_out({"gpu1"})
    for label in ("gpu0", "gpu0", "gpu1"):
        curves.take(Failure(label, "Lost.", "Look for it."), ["gpu0", "gpu1"], nullcontext())
    assert len(curves.complaints) == 1
    assert curves.complaints.failed == {"gpu0": "Lost. Look for it."}
    curves.take(Reading("gpu0", 5, 7), ["gpu0"], nullcontext())
    assert curves.frontier_ns(9) == 5
    assert curves.complaints.failed == {}


def test_a_device_that_is_known_to_be_slow_is_waited_for_and_one_that_stands_is_not():
    """A meter in the wall that tells its energy every eight seconds: what ended before its reading is not settled yet."""
    wall = Device("wall0", "a wall meter", "wall", "my-meter", tick_s=8.0)
    curves = Curves([DEVICES[0], wall], Complaints(), [])
    for label in ("gpu0", "wall0"):
        curves.take(Reading(label, S, 0), ["gpu0", "wall0"], nullcontext())
    for second in range(2, 30):
        curves.take(Reading("gpu0", second * S, second * 100_000_000), ["gpu0", "wall0"], nullcontext())
        if second == 9:
            curves.take(Reading("wall0", 9 * S, 10**9), ["gpu0", "wall0"], nullcontext())
            assert curves.frontier_ns(9 * S) == 9 * S
        elif second < 9:
            assert curves.frontier_ns(second * S) == S
    assert curves.frontier_ns(29 * S) == 9 * S
    curves.take(Reading("gpu0", 34 * S, 34 * 100_000_000), ["gpu0", "wall0"], nullcontext())
    assert curves.frontier_ns(34 * S) == 34 * S  # three of its periods are over


def test_what_a_gap_comes_to_lies_between_its_ends_and_goes_with_it():
    """A counter of 100 W starts over between the 3rd and the 4th second, and what it had told by then comes back later."""
    curves = Curves(DEVICES[:1], Complaints(), [])

    def read(second: int, joules: int) -> None:
        curves.take(Reading("gpu0", second * S, joules * 1_000_000), ["gpu0"], nullcontext())

    def gaps_j(*seconds: float) -> list[float]:
        return [uj / 1e6 for uj in curves.gaps_uj([Mark(round(second * S), None) for second in seconds])]

    for second in (1, 2, 3):
        read(second, 1000 + 100 * second)
    assert gaps_j(1, 3) == [0, 0]
    read(4, 10)
    assert gaps_j(2, 3, 3.5, 4, 9) == pytest.approx([0, 0, 50, 100, 100])
    read(5, 1500)
    assert gaps_j(3, 4, 5) == [0, 0, 0]
