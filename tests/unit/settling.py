"""Waiting until a meter's listener knows everything that was noted."""

from __future__ import annotations

from lightning_watt import EnergyMeter


def settle(meter: EnergyMeter) -> None:
    """Return when the listener has taken every mark so far.

    A mark is settled before the listener is called. The next one is settled only after the listener has returned.
    """
    for _ in range(2):
        assert meter.wait_for(meter.mark())
