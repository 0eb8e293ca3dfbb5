"""How a thread waits, and how another wakes it without ever holding a lock: the latch, and the clock that it sleeps by."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

from lightning_watt.sources.base import Clock, HostClock, boot_ns
from lightning_watt.units import NS_PER_S


class Latch:
    """Like `threading.Event`, for one thread that waits. The thread that sets it never holds a lock.

    Python runs a signal handler between any two bytecodes of the main thread. An `Event` that is being set holds a lock: a
    handler that sets it again waits for ever, and a handler that waits for the other thread keeps it from waking up.

    Example:
        >>> latch = Latch()
        >>> latch.wait(0.0)
        False
        >>> latch.set()
        >>> latch.wait(10.0)
        True
    """

    def __init__(self) -> None:
        self._is_set = False
        # The setter releases it, the waiting thread acquires it: each is one step of the interpreter.
        self._bell = threading.Lock()
        self._bell.acquire()

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Set it, and wake the thread that waits."""
        self._is_set = True
        if self._bell.locked():
            try:
                self._bell.release()
            except RuntimeError:  # a signal handler, or another thread, has just rung it
                return

    def clear(self) -> None:
        """Reset it."""
        self._is_set = False

    def wait(self, limit_s: float) -> bool:
        """Wait until it is set; False if that takes longer than the limit."""
        until_s = monotonic() + limit_s
        while not self._is_set:
            left_s = min(until_s - monotonic(), threading.TIMEOUT_MAX)
            if left_s <= 0 or not self._bell.acquire(timeout=left_s):  # the bell may still ring from before a `clear`
                break
        return self._is_set


class EndingClock:
    """A clock of one measurement. Once that is to end, nobody sleeps by it beyond its end.

    Args:
        clock: the clock that tells the time. A test's own goes on by itself while somebody sleeps, so it needs no waking.

    Attributes:
        ends_ns: when the last reading has to be there, on this clock; None until the measurement is to end.
    """

    def __init__(self, clock: Clock) -> None:
        self.ends_ns: int | None = None
        self.now_ns = clock.now_ns
        self.unix_ns = clock.unix_ns
        self.boot_ns = partial(boot_ns, clock)
        self.clock = clock
        # A replay's own clock also passes where a thread waits.
        self.steady_s: Callable[[], float] = getattr(clock, "steady_s", monotonic)
        self.latch: Callable[[], Latch] = getattr(clock, "latch", Latch)
        self._woken = Latch()

    def sleep(self, seconds: float) -> None:
        """Wait, but not beyond the end."""
        if self.ends_ns is None and isinstance(self.clock, HostClock):
            self._woken.wait(seconds)
            return
        if self.ends_ns is not None:
            seconds = min(seconds, (self.ends_ns - self.now_ns()) / NS_PER_S)
        if seconds > 0:
            self.clock.sleep(seconds)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, or a pickle, of a source that has measured goes on without this measurement's end."""
        return type(self), (self.clock,)

    def end_by(self, t_ns: int) -> None:
        """The measurement is to end; who sleeps wakes up."""
        self.ends_ns = t_ns
        self._woken.set()
