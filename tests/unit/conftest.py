"""Settings of the unit tests, and a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TextIO

import pytest
from hypothesis import HealthCheck, settings

# The machine that runs these is shared: how long an example takes says nothing about the code.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")


@pytest.fixture
def terminal(request, monkeypatch) -> Iterator[tuple[TextIO, Callable[[], str]]]:
    """A real terminal of 40 characters, or of as many as a parameter says, and what has been shown on it."""
    monkeypatch.delenv("COLUMNS", raising=False)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, getattr(request, "param", 40), 0, 0))
    os.set_blocking(ours, False)
    with os.fdopen(theirs, "w", encoding="utf-8") as stream:

        def shown() -> str:
            stream.flush()
            said = b""
            with suppress(BlockingIOError):
                while True:
                    said += os.read(ours, 65536)
            return said.decode().replace("\r\n", "\n")

        yield stream, shown
    os.close(ours)
