"""What one thread sets and another waits for, safe also where a signal handler sets it in the middle of being set."""

from __future__ import annotations

import threading
from contextlib import suppress
from time import monotonic


class Latch:
    """Like `threading.Event`, for one thread that waits, and without a moment at which whoever sets it holds a lock.

    Python runs a signal handler between any two bytecodes of the main thread. An `Event` that is being set holds a lock: a
    handler that sets it again waits for ever, and one that waits for the other thread keeps it from waking up.

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
        # Let go of by whoever sets, taken by the one that waits: either is one step of the interpreter.
        self._bell = threading.Lock()
        self._bell.acquire()

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Set it, and wake who waits."""
        self._is_set = True
        with suppress(RuntimeError):  # it rings already
            self._bell.release()

    def clear(self) -> None:
        """Take it back."""
        self._is_set = False

    def wait(self, limit_s: float) -> bool:
        """Wait until it is set; False if that takes longer than the limit."""
        until_s = monotonic() + limit_s
        while not self._is_set:
            left_s = min(until_s - monotonic(), threading.TIMEOUT_MAX)
            if left_s <= 0 or not self._bell.acquire(timeout=left_s):  # it may still ring of a time that was taken back
                break
        return self._is_set
