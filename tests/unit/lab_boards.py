"""An NVML source over the lab's boards, opened for a test."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from lightning_watt.sources.base import HOST_CLOCK, Device
from lightning_watt.sources.nvml import NvmlSource
from lightning_watt.testing import Board, Lab
from lightning_watt.testing.doubles import S

AGE_S = 100.0


@contextmanager
def machine(*boards: Board, **arguments) -> Iterator[Lab]:
    """A lab that has run for `AGE_S` seconds."""
    lab = Lab(boards, t0_ns=time.monotonic_ns() - round(AGE_S * S), **arguments)
    with lab.running():
        yield lab


def opened(gpus="all", clock=HOST_CLOCK) -> tuple[NvmlSource, list[Device]]:
    source = NvmlSource(gpus, at_ticks=False)
    return source, source.open(clock)


def labels(gpus) -> list[str]:
    source, devices = opened(gpus)
    source.close()
    return [device.label for device in devices]
