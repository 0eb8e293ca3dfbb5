"""Reads files that somebody else may have put there, and opens ours where somebody else may have put something.

What is read never ends up as something without an end, nor as more than it may be. What is written goes into a regular file
of that very name: no pipe is waited for, and no link is followed to a file that is not ours.
"""

from __future__ import annotations

import errno
import os
import stat
from io import FileIO
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


def open_to_write(file: Path, mode: str) -> FileIO:
    """Open one of our own files for writing, without a buffer: a process that is forked off has nothing to write again.

    Args:
        file: the file; its directory may be a link, it may not.
        mode: `"x"`: made anew; `"a+"`: appended to, and read.

    Raises:
        OSError: it cannot be opened, or something else than a regular file stands there: a link, a pipe, a device.

    Example:
        >>> open_to_write(Path("/dev/null"), "a+")
        Traceback (most recent call last):
        OSError: [Errno 22] no regular file stands there; take it away: '/dev/null'
    """
    try:
        opened = FileIO(file, mode, opener=_open_ours)
    except OSError as error:
        # What the system says of a link ("too many levels") and of a pipe ("no such device") helps nobody.
        if error.errno == errno.ELOOP:
            raise OSError(error.errno, "a link stands there, and is not followed; take it away", str(file)) from error
        if error.errno == errno.ENXIO:
            raise OSError(error.errno, "no regular file stands there; take it away", str(file)) from error
        raise
    if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
        opened.close()
        raise OSError(errno.EINVAL, "no regular file stands there; take it away", str(file))
    return opened


def _open_ours(path: str, flags: int) -> int:
    safely = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    return os.open(path, flags | safely, 0o666)


def write_whole(file: FileIO, raw: bytes) -> None:
    """Write at a file's end, all of it or nothing.

    Raises:
        OSError: the disk is full; then the file ends where it did, so that what comes next does not continue half a line.
    """
    before = file.seek(0, os.SEEK_END)
    written = file.write(raw)
    if written != len(raw):
        file.seek(file.truncate(before))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file.name))
