"""Runs whose directory is not on this machine's file system (`s3://`, `gs://`, `memory://`), through fsspec.

Such a place cannot be appended to, and a write there takes as long as the network does. So the files are written to a local
directory, and a thread of its own copies those that have changed: after the record was written, and at the end of the run.
What a killed process had not copied yet is in the local directory. Nothing there is replaced: the names of the files are the
next free ones of the remote directory.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any

from lightning_watt.errors import RecordError, shown
from lightning_watt.host import keep, tell_of_forks
from lightning_watt.record.files import (
    BATCHES_NAME,
    BESIDE,
    JOURNAL_NAME,
    MAX_JOURNAL_BYTES,
    MAX_RECORD_BYTES,
    RECORD_NAME,
    file_of,
    version_of,
    versions_of,
)

LOCAL = ("file", "local")
"""Schemes that mean this machine's file system."""
PAUSE = 100
"""After a copy the next one waits this many times as long as it took, so that copying takes at most 1 % of the time."""
END_LIMIT_S = 20.0
"""How long the end of a run waits for its last copy."""


def is_remote(place: str) -> bool:
    """Whether a directory or a file is not on this machine's file system.

    Example:
        >>> is_remote("s3://bucket/run"), is_remote("file:///tmp/run"), is_remote("/tmp/run")
        (True, False, False)
    """
    scheme, is_url, _ = place.partition("://")
    return bool(is_url) and scheme not in LOCAL


def as_local(place: str) -> str:
    """The path of a local place; one that begins with `file://` is without that.

    Example:
        >>> as_local("file:///tmp/run"), as_local("runs/a")
        ('/tmp/run', 'runs/a')
    """
    scheme, is_url, rest = place.partition("://")
    return rest if is_url and scheme in LOCAL else place


# -- writing ----------------------------------------------------------------------------------------------------------


class RemoteCopy:
    """Copies the files of one run to where they are wanted. Nothing here raises.

    Args:
        url: the remote directory.
        rank: the rank whose files they are.

    Attributes:
        url: the same.
        directory: the local directory that they are written to; it is removed when they are all copied and the process ends.
        said: sentences for the user.
    """

    def __init__(self, url: str, rank: int = 0) -> None:
        self.url = url.rstrip("/")
        root = _local_root()
        root.mkdir(mode=0o700, exist_ok=True)
        self.directory = Path(tempfile.mkdtemp(prefix="run-", dir=root))
        self.said = deque(
            [
                f"This run's directory is remote ({url.partition('://')[0]}://), so its files are written below {root}, "
                "and copied there when the record is written and when the run ends."
            ]
        )
        self._rank = rank
        self._copied: dict[str, tuple[int, int]] = {}
        self._version: int | None = None
        self._remove = weakref.finalize(self, _remove, self.directory, os.getpid())
        self._begin_anew()
        tell_of_forks(self)

    def _begin_anew(self) -> None:
        self._news = threading.Event()
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    def forked(self) -> None:
        """In a child: the files and the network are the parent's."""
        keep(dict(vars(self)))
        self._begin_anew()

    def path(self, name: str) -> str:
        """Where the file of this name will be; where it is on this machine until it was copied once."""
        if self._version is None:
            return str(self.directory / file_of(name, self._rank))
        return f"{self.url}/{file_of(name, self._rank, self._version)}"

    def due(self) -> None:
        """The record was written: copy what has changed, soon. Waits for nothing."""
        self._is_over.clear()
        self._start()

    def end(self, limit_s: float = END_LIMIT_S) -> None:
        """Copy what has changed, and wait for it.

        Args:
            limit_s: wait for the network this long and no longer, seconds.
        """
        self._is_over.set()  # before the news, so that whoever hears of them knows
        thread = self._start()
        thread.join(limit_s)
        if thread.is_alive():
            self._tell(f"it took longer than {limit_s:g} s")

    def _start(self) -> threading.Thread:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work, name="lightning_watt copies the run's files", daemon=True)
            self._thread.start()
        self._news.set()
        return self._thread

    def _work(self) -> None:
        while True:
            self._news.wait()
            self._news.clear()
            is_over, began_s = self._is_over.is_set(), monotonic()
            try:
                self._copy()
            except Exception as error:  # noqa: BLE001 - each file system has errors of its own
                self._tell(shown(error))
            if is_over:
                return
            self._is_over.wait(PAUSE * (monotonic() - began_s))

    def _copy(self) -> None:
        system, root = _file_system(self.url)
        if self._version is None:
            taken = versions_of(_names(system, root))
            self._version = next(version for version in range(len(taken) + 1) if version not in taken)
            system.makedirs(root, exist_ok=True)
        for name in (JOURNAL_NAME, BATCHES_NAME, RECORD_NAME):
            file = self.directory / file_of(name, self._rank)
            try:
                about = file.stat()
            except OSError:
                continue  # not every run has batches
            if self._copied.get(name) != (about.st_size, about.st_mtime_ns):
                system.put_file(str(file), f"{root}/{file_of(name, self._rank, self._version)}")
                self._copied[name] = about.st_size, about.st_mtime_ns

    def _tell(self, why: str) -> None:
        if self._remove.detach() is not None:  # once, and the files stay
            self.said.append(
                f"The run's files could not be copied to {self.url} ({why}). They are in {self.directory}. The training "
                "goes on, and it is tried again when the record is written."
            )


@cache
def _local_root() -> Path:
    """One for all runs of this process, and so one sentence."""
    return Path(tempfile.mkdtemp(prefix="lightning_watt-"))


def _remove(directory: Path, pid: int) -> None:
    if os.getpid() == pid:  # a forked child may end before its parent does
        shutil.rmtree(directory, ignore_errors=True)
        try:
            directory.parent.rmdir()
        except OSError:
            return  # other runs are still in it


# -- reading ----------------------------------------------------------------------------------------------------------


@contextmanager
def at_hand(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A directory or a file as a local path; a remote one is a copy, which is removed afterwards.

    Of a remote directory only a run's own files are copied.

    Args:
        path: a path or a URL.

    Raises:
        RecordError: it is remote and cannot be read. An error about the copy names the URL.
    """
    place = os.fspath(path)
    if not is_remote(place):
        yield Path(as_local(place))
        return
    with tempfile.TemporaryDirectory(prefix="lightning_watt-") as made:
        try:
            copy = _fetch(place.rstrip("/"), Path(made))
        except Exception as error:
            raise RecordError(f"{place}: it cannot be read ({shown(error)}).") from error
        try:
            yield copy
        except RecordError as error:
            raise RecordError(str(error).replace(str(copy), place)) from error


def _fetch(url: str, into: Path) -> Path:
    system, root = _file_system(url)
    if url.endswith((".json", ".ckpt")):
        file = into / os.path.basename(root)
        system.get_file(root, str(file))
        return file
    for directory in (root, f"{root}{BESIDE}", f"{root}/{BESIDE}"):
        names = [name for name in _names(system, directory) if version_of(name) is not None]
        for name in names:
            limit = MAX_RECORD_BYTES if name.endswith(".json") else MAX_JOURNAL_BYTES
            if not name.endswith(".csv") and system.size(f"{directory}/{name}") <= limit:
                system.get_file(f"{directory}/{name}", str(into / name))
        if names:
            break
    return into


def _file_system(url: str) -> tuple[Any, str]:
    import fsspec  # Lightning brings it; a meter without Lightning needs it for a URL only

    system, root = fsspec.core.url_to_fs(url)
    system.invalidate_cache()
    return system, str(root).rstrip("/")


def _names(system: Any, directory: str) -> set[str]:
    try:
        return {os.path.basename(name) for name in system.ls(directory, detail=False)}
    except FileNotFoundError:
        return set()
