"""Account: complaints come once, and a device that is left out is not counted."""

from __future__ import annotations

from contextlib import nullcontext

from lightning_watt.meter.account import Account, Complaints
from lightning_watt.sources.base import Device, Failure, Reading

DEVICES = [Device(label, "a board", label, "nvml-counter") for label in ("gpu0", "gpu1")]


def test_a_failure_is_reported_once_and_what_is_left_out_is_not():
    account = Account(DEVICES, Complaints(), [])
    account.leave_out({"gpu1"})
    for label in ("gpu0", "gpu0", "gpu1"):
        account.take(Failure(label, "Lost.", "Look for it."), ["gpu0", "gpu1"], nullcontext())
    assert len(account.complaints) == 1
    account.take(Reading("gpu0", 5, 7), ["gpu0"], nullcontext())
    assert account.frontier_ns(9) == 5
