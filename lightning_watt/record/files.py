"""The run's files: their names, their places, their size limits, and how they are opened.

Somebody else may have put a file or a link in our place. So every file of a run is read and opened to write with the
functions of this module. They read only regular files, only up to a limit, and they never wait for a pipe. They write only
to a regular file of exactly that name, and follow no link to a file that is not ours.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from lightning_watt.errors import RecordError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

RECORD_NAME = "watt.json"
JOURNAL_NAME = "watt.jsonl"
BATCHES_NAME = "watt_batches.csv"
BESIDE = ".watt"
"""Added to the name of a log directory that also holds the checkpoints, for a directory of ours next to it. Many programs
load every file that they find next to their checkpoints, so our files must not be there."""

MAX_RECORD_BYTES = 64 * 2**20
"""A record has some kilobytes. This package did not write a larger file."""
MAX_JOURNAL_BYTES = 2**33
"""Half a year of one line a second on eight boards. This package did not write a larger file."""
MAX_LINE_BYTES = 2**20
"""A line of the journal has some hundred bytes."""

NOT_REGULAR = "it is no regular file but a pipe, a device or a socket"
_NAME = re.compile(
    r"(?:watt(?:-v(?P<run>[1-9]\d{0,8}))?(?:\.rank[1-9]\d{0,8})?\.jsonl?)"
    r"|(?:watt_batches(?:-v(?P<rows>[1-9]\d{0,8}))?(?:\.rank[1-9]\d{0,8})?\.csv)"
)


# -- names and places -------------------------------------------------------------------------------------------------


def file_of(name: str, rank: int, version: int = 0) -> str:
    """The name of a run's file at a rank.

    Args:
        name: `RECORD_NAME`, `JOURNAL_NAME` or `BATCHES_NAME`.
        rank: the global rank.
        version: which of the runs in this directory it is. They are told apart as Lightning tells its checkpoints.

    Example:
        >>> file_of("watt.json", 0), file_of("watt.json", 2), file_of("watt_batches.csv", 0, 1), file_of("watt.json", 2, 1)
        ('watt.json', 'watt.rank2.json', 'watt_batches-v1.csv', 'watt-v1.rank2.json')
    """
    stem, suffix = os.path.splitext(name)
    return f"{stem}{f'-v{version}' if version else ''}{f'.rank{rank}' if rank else ''}{suffix}"


def version_of(name: str) -> int | None:
    """The version in the name of a run's file, of any rank; None if this is no file of a run.

    Example:
        >>> [version_of(name) for name in ("watt.json", "watt-v2.rank1.jsonl", "watt_batches-v3.csv", "a.json")]
        [0, 2, 3, None]
    """
    found = _NAME.fullmatch(name)
    return None if found is None else int(found["run"] or found["rows"] or 0)


def versions_of(names: Iterable[str]) -> set[int]:
    """The versions of the runs that these files belong to."""
    return {version for name in names if (version := version_of(name)) is not None}


def names_in(directory: Path) -> set[str]:
    """The names of all runs' files in a directory, whatever stands there under them; empty if it cannot be listed."""
    try:
        return {name for name in os.listdir(directory) if version_of(name) is not None}
    except OSError:
        return set()


def records_in(directory: Path) -> list[Path]:
    """The records in a directory, one for each run there and none of single ranks; the lowest version first."""
    files = [directory / file_of(RECORD_NAME, 0, version) for version in sorted(versions_of(names_in(directory)))]
    return [file for file in files if file.is_file()]


def record_files(root: Path, unreadable: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """Everything below a directory that has a record's name, one for each run and none of single ranks.

    Links to directories are not followed. What has the name may itself be a link, a pipe or a directory.

    Args:
        root: the directory.
        unreadable: is told of a directory that cannot be listed.

    Yields:
        The files in the order of their paths, of one directory the lowest version first.
    """
    for directory, folders, files in os.walk(root, onerror=unreadable):
        folders.sort()
        there = {*files, *folders}
        names = (file_of(RECORD_NAME, 0, version) for version in sorted(versions_of(there)))
        yield from (Path(directory, name) for name in names if name in there)


def first_free(directory: Path) -> int:
    """The lowest version that no run has in a directory."""
    taken = versions_of(names_in(directory))
    return next(version for version in range(len(taken) + 1) if version not in taken)


def beside(directory: Path) -> Path:
    """Our own directory for a run whose log directory also holds the checkpoints.

    It is next to the log directory, or inside it if we may not write next to it.

    Example:
        >>> beside(Path("/tmp/run")).name
        'run.watt'
    """
    whole = Path(os.path.abspath(directory))
    may_write = bool(whole.name) and os.access(whole.parent, os.W_OK)
    return whole.with_name(whole.name + BESIDE) if may_write else whole / BESIDE


def place_of(directory: Path) -> Path:
    """The directory that holds the files of the run with this log directory: it, or one that `beside` gave."""
    whole = Path(os.path.abspath(directory))
    places = (directory, whole.with_name(whole.name + BESIDE) if whole.name else whole / BESIDE, whole / BESIDE)
    return next((place for place in places if names_in(place)), directory)


# -- reading ----------------------------------------------------------------------------------------------------------


def check_regular(file: Path) -> None:
    """Refuse pipes, devices and sockets, for a file that another library opens.

    Args:
        file: the file, or a link to it.

    Raises:
        RecordError: it exists, and is neither a regular file nor a directory.
        OSError: it does not exist, or its kind cannot be read.
    """
    mode = os.stat(file).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise RecordError(f"{file}: it cannot be read ({NOT_REGULAR}).")


def read_bounded(file: Path, max_bytes: int) -> bytes:
    """The bytes of a regular file.

    Args:
        file: the file, or a link to it.
        max_bytes: a larger file is refused, even if it grows while it is read.

    Raises:
        OSError: it is missing, no regular file, or too large, or it may not be read.

    Example:
        >>> read_bounded(Path("/dev/zero"), 100)
        Traceback (most recent call last):
        OSError: it is no regular file but a pipe, a device or a socket
    """
    with _open_to_read(file, max_bytes) as opened:
        raw = opened.read(max_bytes + 1)
    if len(raw) > max_bytes:
        raise _too_large(max_bytes)
    return raw


def read_lines(file: Path, max_bytes: int) -> Iterator[tuple[bytes, bool]]:
    """The lines of a regular file, read one after the other.

    Args:
        file: the file, or a link to it.
        max_bytes: a larger file is refused, even if it grows while it is read.

    Yields:
        Each line, and whether it is the last one. A line that is longer than `MAX_LINE_BYTES` comes in pieces.

    Raises:
        OSError: it is missing, no regular file, or too large, or it may not be read.
    """
    with _open_to_read(file, max_bytes) as opened:
        line, left = opened.readline(MAX_LINE_BYTES), max_bytes
        while line:
            left -= len(line)
            if left < 0:
                raise _too_large(max_bytes)
            following = opened.readline(MAX_LINE_BYTES)
            yield line, not following
            line = following


def _open_to_read(file: Path, max_bytes: int) -> BinaryIO:
    opened = open(file, "rb", opener=_without_waiting)  # noqa: SIM115 - the caller closes it
    about = os.fstat(opened.fileno())
    problem = None
    if not stat.S_ISREG(about.st_mode):
        problem = OSError(NOT_REGULAR)
    elif about.st_size > max_bytes:
        problem = _too_large(max_bytes)
    if problem is not None:
        opened.close()
        raise problem
    return opened


def _too_large(max_bytes: int) -> OSError:
    return OSError(f"it has more than {max_bytes:,} bytes, and no run writes a file of that size")


def _without_waiting(path: str, flags: int) -> int:
    """An `opener` for `open`. Without it, to open a pipe is to wait for its other end, which may never come."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)


# -- writing ----------------------------------------------------------------------------------------------------------


def open_to_write(file: Path, mode: str) -> FileIO:
    """Open one of our own files to write. It has no buffer, so a forked process has nothing to write a second time.

    Args:
        file: the file. Its directory may be a link; the file itself may not.
        mode: `"x"` makes it anew; `"a+"` appends to it, and can read it.

    Raises:
        OSError: it cannot be opened, or a link, a pipe or a device is in its place, or the file has a second name.

    Example:
        >>> open_to_write(Path("/dev/null"), "a+")
        Traceback (most recent call last):
        OSError: [Errno 22] no regular file stands there; take it away: '/dev/null'
    """
    try:
        opened = FileIO(file, mode, opener=_open_ours)
    except OSError as error:
        # The system's own words for a link ("too many levels") and for a pipe ("no such device") do not help the user.
        if error.errno == errno.ELOOP:
            raise OSError(error.errno, "a link stands there, and is not followed; take it away", str(file)) from error
        if error.errno == errno.ENXIO:
            raise OSError(error.errno, "no regular file stands there; take it away", str(file)) from error
        raise
    about = os.fstat(opened.fileno())
    if not stat.S_ISREG(about.st_mode):
        opened.close()
        raise OSError(errno.EINVAL, "no regular file stands there; take it away", str(file))
    if about.st_nlink > 1:  # a snapshot made of hard links, say, which has to stay as it is
        opened.close()
        raise OSError(errno.EMLINK, "this file has a second name (a hard link) and is not changed; take it away", str(file))
    return opened


def _open_ours(path: str, flags: int) -> int:
    safely = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    return os.open(path, flags | safely, 0o666)


def lock(file: FileIO) -> bool:
    """Mark a file as one that this process is writing; the mark ends with the process. Never waits.

    Returns:
        Whether nobody else writes it; also true where the system or the file system knows no such marks.
    """
    return _flock(file, "LOCK_EX")


def unlock(file: FileIO) -> None:
    """Take the mark away, also for processes that were forked off meanwhile and hold the same file."""
    _flock(file, "LOCK_UN")


def is_locked(file: Path) -> bool:
    """Whether another process, or another Trainer of this one, is writing this file."""
    with suppress(OSError), _open_to_read(file, MAX_JOURNAL_BYTES) as opened:
        return not _flock(opened, "LOCK_SH")
    return False


def _flock(file: FileIO | BinaryIO, how: str) -> bool:
    if fcntl is not None:
        try:
            fcntl.flock(file.fileno(), getattr(fcntl, how) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True
    return True


def write_whole(file: FileIO, raw: bytes) -> None:
    """Write all of it at the end of a file, or nothing.

    Raises:
        OSError: the disk is full. Then the file is as long as before, so that the next write does not continue half a line.
    """
    before = file.seek(0, os.SEEK_END)
    written = file.write(raw)
    if written != len(raw):
        file.seek(file.truncate(before))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file.name))
