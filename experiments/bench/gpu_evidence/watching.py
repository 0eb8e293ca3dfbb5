"""Watches a value until it changes: the moment lies between two looks."""

from __future__ import annotations

import time
from collections.abc import Callable

from lightning_watt.sources.nvidia.looks import Tick


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
    """The next sharp change, by a look each millisecond.

    On a busy machine two looks may lie far apart. Then the change between them is not used, and the next one is waited for.

    Args:
        read: the value.
        limit_s: seconds to wait; then the change with the shortest time between its two looks is the answer.

    Returns:
        The change, or None if there was none.
    """
    value, looked = read(), time.monotonic_ns()
    end = looked + round(limit_s * 1e9)
    best: Tick | None = None
    while looked < end:
        time.sleep(0.001)
        seen, now = read(), time.monotonic_ns()
        if seen != value:
            tick = Tick(looked, now, seen)
            if tick.sharp:
                return tick
            best = tick if best is None or _width_ns(tick) < _width_ns(best) else best
        value, looked = seen, now
    return best


def _width_ns(tick: Tick) -> int:
    return tick.late_ns - tick.early_ns
