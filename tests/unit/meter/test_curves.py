"""Curves: complaints come once, and a device that is left out is not counted."""

from __future__ import annotations

from contextlib import nullcontext

from lightning_watt.meter.curves import Complaints, Curves
from lightning_watt.sources.base import Device, Failure, Reading

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
