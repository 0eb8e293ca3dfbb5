"""An NVML source over the lab's boards, opened for a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lightning_watt.sources.base import HOST_CLOCK, Device
from lightning_watt.sources.nvml import NvmlSource
from lightning_watt.testing import Board, Lab

AGE_S = 100.0


@contextmanager
def machine(*boards: Board, **arguments) -> Iterator[Lab]:
    """A lab that has run for `AGE_S` seconds when a board is first read."""
    lab = Lab(boards, age_s=AGE_S, start="first_reading", **arguments)
    with lab.running():
        yield lab


def opened(gpus="all", clock=HOST_CLOCK) -> tuple[NvmlSource, list[Device]]:
    source = NvmlSource(gpus, at_ticks=False)
    return source, source.open(clock)


def labels(gpus) -> list[str]:
    source, devices = opened(gpus)
    source.close()
    return [device.label for device in devices]
