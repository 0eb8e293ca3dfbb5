"""Watches a value until it changes: the moment lies between two looks."""

from __future__ import annotations

import time
from collections.abc import Callable

from lightning_watt.sources.ticks import Tick


def watch(read: Callable[[], int], seconds: float, pause_s: float) -> tuple[list[Tick], int]:
    """Every change of a value for so many seconds.

    Args:
        read: the value.
        seconds: for how long.
        pause_s: seconds between two looks.

    Returns:
        The changes, and the number of looks.
    """
    ticks: list[Tick] = []
    looks = 1
    value, looked = read(), time.monotonic_ns()
    end = looked + round(seconds * 1e9)
    while looked < end:
        time.sleep(pause_s)
        seen, now = read(), time.monotonic_ns()
        looks += 1
        if seen != value:
            ticks.append(Tick(looked, now, seen))
        value, looked = seen, now
    return ticks, looks


def next_tick(read: Callable[[], int], limit_s: float = 0.5) -> Tick | None:
    """The next change, by a look each millisecond; None if it takes longer than `limit_s`."""
    value, looked = read(), time.monotonic_ns()
    end = looked + round(limit_s * 1e9)
    while looked < end:
        time.sleep(0.001)
        seen, now = read(), time.monotonic_ns()
        if seen != value:
            return Tick(looked, now, seen)
        looked = now
    return None
