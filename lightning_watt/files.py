"""Reads files that somebody else may have put there: nothing that never ends, and nothing larger than it may be."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from lightning_watt.errors import RecordError


def check_regular(file: Path, mode: int | None = None) -> None:
    """Refuse pipes, devices and the like, which can be read for ever.

    Args:
        file: the file, or a link to it.
        mode: its `st_mode`, where it is open already.

    Raises:
        RecordError: it is something, and neither a regular file nor a directory.
        OSError: there is no such file, or it may not be looked at.
    """
    mode = os.stat(file).st_mode if mode is None else mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise RecordError(f"{file}: this is no regular file but a pipe, a device, a socket: not read.")


def open_without_waiting(path: str, flags: int) -> int:
    """An `opener` for `open`: the opening of a pipe otherwise waits for the other end, which may never come."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)


def read_bounded(file: Path, most_bytes: int) -> bytes:
    """A regular file's bytes.

    Args:
        file: the file, or a link to it.
        most_bytes: a longer one is refused, also where it grows while it is read.

    Raises:
        RecordError: it is no regular file, or longer.
        OSError: it is missing, a directory, or may not be read.

    Example:
        >>> read_bounded(Path("/dev/zero"), 100)
        Traceback (most recent call last):
        lightning_watt.errors.RecordError: /dev/zero: this is no regular file but a pipe, a device, a socket: not read.
    """
    with open(file, "rb", opener=open_without_waiting) as opened:
        check_regular(file, os.fstat(opened.fileno()).st_mode)
        raw = opened.read(most_bytes + 1)
    if len(raw) > most_bytes:
        raise RecordError(f"{file}: it has more than {most_bytes:,} bytes, and no record is larger. It is not one.")
    return raw
