"""A clock of its own for a lab and a meter: an hour of measuring passes in seconds, the same in every run.

Time passes where the meter's reader sleeps or waits, and by what calls to the driver take. Nobody waits for it.
"""

from __future__ import annotations

import ctypes
import heapq
import random
import threading
from collections.abc import Callable
from itertools import count
from typing import Any

from lightning_watt.testing.nvml_lab.curve import NS_PER_S

PATIENCE_S = 60.0
"""Real seconds after which a reader that does not come to the end of `run_for` is given up."""


class ReplayClock:
    """The time of a replay; give it to the lab and to the meter.

    The reader's thread moves it. The test says how far, with `run_for`, and what happens meanwhile, with `at`. When it has
    come there, the clock stands still: the test may look at the meter, go on, or stop it.

    Args:
        seed: of the delays.
        wake_ms: how late a sleeper wakes up on average, exponentially distributed.
        late: the probability that it wakes up much later, and by how many milliseconds on average.

    Example:
        >>> from lightning_watt import EnergyMeter
        >>> from lightning_watt.sources.nvml import NvmlSource
        >>> from lightning_watt.testing import Lab, ReplayClock, constant, named
        >>> clock = ReplayClock()
        >>> lab = Lab([named("A100", power=constant(200))], clock=clock)
        >>> with lab.running(), EnergyMeter(sources=[NvmlSource()], clock=clock) as meter:
        ...     clock.run_for(60)
        >>> round(meter.joules / 60)
        200
    """

    def __init__(self, *, seed: int = 0, wake_ms: float = 0.08, late: tuple[float, float] = (0.0, 0.0)) -> None:
        self._random = random.Random(seed)
        self._wake_s, self._late_chance, self._late_s = wake_ms / 1000, late[0], late[1] / 1000
        self._cell: Any = ctypes.c_longlong(1000 * NS_PER_S)
        self._due: list[tuple[int, int, Callable[[], object]]] = []
        self._number = count()
        self._in_event = False
        self._ends_ns = self._cell.value
        self._arrived, self._news = threading.Event(), threading.Condition()

    # -- a clock, as the meter and its sources use it -------------------------------------------------------------------

    def now_ns(self) -> int:
        """The time; what was due by now has been done."""
        now: int = self._cell.value
        if self._due and self._due[0][0] <= now and not self._in_event:
            self._do(now)
        return now

    def unix_ns(self) -> int:
        """The same, since 1970."""
        return self.now_ns() + UNIX_OFFSET_NS

    def boot_ns(self) -> int:
        """The same, since the machine was started: it never slept."""
        return self.now_ns()

    def steady_s(self) -> float:
        """The same, in seconds."""
        return self.now_ns() / NS_PER_S

    def sleep(self, seconds: float) -> None:
        """Let time pass, and wake up a little late."""
        late_s = self._random.expovariate(1 / self._wake_s) if self._wake_s else 0.0
        if self._late_chance and self._random.random() < self._late_chance:
            late_s += self._random.expovariate(1 / self._late_s)
        self._pass_until(self._cell.value + round((seconds + late_s) * NS_PER_S), lambda: False)

    def latch(self) -> _Latch:
        """What a thread waits at on this clock."""
        return _Latch(self)

    # -- for the test ---------------------------------------------------------------------------------------------------

    def at(self, t_ns: int, do: Callable[[], object]) -> None:
        """Call `do` when the clock comes to `t_ns`; for it, that is the time, even in the middle of a call to the driver."""
        heapq.heappush(self._due, (t_ns, next(self._number), do))

    def run_for(self, seconds: float) -> None:
        """Let the meter run for that long, and return when it waits for the time beyond.

        Raises:
            TimeoutError: nobody waits on this clock, or its reader hangs.
        """
        with self._news:
            self._arrived.clear()
            self._ends_ns += round(seconds * NS_PER_S)
            self._news.notify_all()
        if not self._arrived.wait(PATIENCE_S):
            raise TimeoutError(f"No reader has come to the end of these {seconds:g} s: has the meter started on this clock?")

    def hold(self, cell: Any) -> None:
        """Go on in another memory cell, such as the lab's library reads; an integer of 64 bits."""
        cell.value = self._cell.value
        self._cell = cell

    # -- passing --------------------------------------------------------------------------------------------------------

    def _do(self, now: int) -> None:
        self._in_event = True
        try:
            while self._due and self._due[0][0] <= now:
                t_ns, _, do = heapq.heappop(self._due)
                self._cell.value = t_ns
                do()
        finally:
            self._cell.value, self._in_event = now, False

    def _pass_until(self, t_ns: int, woken: Callable[[], bool]) -> None:
        """Move on to `t_ns`, and do on the way what is due; stop there if that wakes the sleeper."""
        while not woken() and self._cell.value < t_ns:
            self._cell.value = max(self._cell.value, min(t_ns, self._due[0][0] if self._due else t_ns))
            self.now_ns()

    def _wait(self, latch: _Latch, limit_s: float) -> None:
        until_ns = self._cell.value + round(limit_s * NS_PER_S)
        while not latch.is_set():
            self._pass_until(min(until_ns, self._ends_ns), latch.is_set)
            if latch.is_set() or self._cell.value >= until_ns:
                return
            with self._news:
                if self._ends_ns <= self._cell.value:
                    self._arrived.set()
                self._news.wait_for(lambda: latch.is_set() or self._ends_ns > self._cell.value)


UNIX_OFFSET_NS = 1_700_000_000 * NS_PER_S


class _Latch:
    """As `lightning_watt.meter.latch.Latch`, on a replay's clock."""

    def __init__(self, clock: ReplayClock) -> None:
        self._clock, self._is_set = clock, False

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        with self._clock._news:
            self._is_set = True
            self._clock._news.notify_all()

    def clear(self) -> None:
        self._is_set = False

    def wait(self, limit_s: float) -> bool:
        self._clock._wait(self, limit_s)
        return self._is_set
