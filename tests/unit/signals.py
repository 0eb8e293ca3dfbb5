"""A signal that arrives where a test wants it: between two bytecodes of the main thread, in the middle of something."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNAL = signal.SIGUSR1


class Interruptions:
    """Raises a signal in the main thread wherever `now` is called, but not while its handler runs.

    Attributes:
        handled: how often the handler ran to its end.
    """

    def __init__(self) -> None:
        self.handled = 0
        self.armed = False

    def now(self) -> None:
        if self.armed and threading.current_thread() is threading.main_thread():
            self.armed = False
            signal.raise_signal(SIGNAL)
            self.armed = True


@contextmanager
def interrupted_by(handler: Callable[[], object], interruptions: Interruptions) -> Iterator[None]:
    """While inside, every `interruptions.now()` in the main thread runs the handler, as a signal's."""

    def handle(number: int, frame: object) -> None:
        handler()
        interruptions.handled += 1

    before = signal.signal(SIGNAL, handle)
    interruptions.armed = True
    try:
        yield
    finally:
        interruptions.armed = False
        signal.signal(SIGNAL, before)


@contextmanager
def interrupted_at(line: int, handler: Callable[[], object]) -> Iterator[Interruptions]:
    """While inside, the handler runs once, as a signal's, before that many lines (of any module) have run."""
    interruptions, left = Interruptions(), line

    def trace(frame: FrameType, event: str, argument: object) -> object:
        nonlocal left
        if event == "line":
            left -= 1
            if left == -1:
                interruptions.now()
        return trace

    before = sys.gettrace()
    with interrupted_by(handler, interruptions):
        sys.settrace(trace)
        try:
            yield interruptions
        finally:
            sys.settrace(before)
