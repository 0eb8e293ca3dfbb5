"""Writes a run's record and journal so that whoever reads them never meets half of one, also on a disk that is full."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

import msgspec

from lightning_watt.record.files import open_to_write, write_whole
from lightning_watt.record.journal import JOURNAL_NAME, MAX_LINE_BYTES, RECORD_NAME, Line, file_of, to_line
from lightning_watt.record.schema import Record, plain, to_json

MIN_ROOM_BYTES = 16 * 2**10
"""Kept on the disk beside a record that is being written; a record has some kilobytes."""


class RecordWriter:
    """Writes one run's two files.

    Args:
        directory: the run's log directory; it is made where it is missing.
        rank: the process's global rank; other than zero it has files of its own.

    Raises:
        OSError: from `write` and `append`, where the disk is full or the directory read-only; the caller warns once.
    """

    def __init__(self, directory: Path, rank: int = 0) -> None:
        self.directory = directory
        self._record_name, self._journal_name = file_of(RECORD_NAME, rank), file_of(JOURNAL_NAME, rank)
        self._room, self._kept = directory / f".{self._record_name}.room", 0
        self._journal: FileIO | None = None

    def write(self, record: Record) -> None:
        """Replace `watt.json` whole: a reader sees the old one or the new one, never half of one."""
        self.directory.mkdir(parents=True, exist_ok=True)
        raw = to_json(record) + b"\n"
        if record.status == "running":
            self._keep_room(2 * len(raw))
        try:
            self._replace(raw)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not self._room.exists():
                raise
            # A training that fills its disk often ends by it; the record of that end goes where room was kept for it.
            self._give_back_room()
            self._replace(raw)

        if record.status != "running":
            self._give_back_room()

    def _replace(self, raw: bytes) -> None:
        target = self.directory / self._record_name
        # Beside the target, because only a rename within one file system is atomic.
        half = target.with_name(f".{self._record_name}.{os.getpid()}")
        try:
            half.unlink(missing_ok=True)  # of a killed process of this number
            with open_to_write(half, "x") as file:
                write_whole(file, raw)
            half.replace(target)
        except OSError:
            half.unlink(missing_ok=True)
            raise

    def _give_back_room(self) -> None:
        with suppress(OSError):
            self._room.unlink(missing_ok=True)
        self._kept = 0

    def _keep_room(self, size: int) -> None:
        """Keep a small file that can make room for one more record on a disk that has become full."""
        if self._kept < size:
            with suppress(OSError):
                self._room.unlink(missing_ok=True)  # whatever stands there: made anew, it is ours
                with open_to_write(self._room, "x") as file:
                    self._kept = file.write(b"\0" * max(size, MIN_ROOM_BYTES))

    def append(self, line: Line | dict[str, Any]) -> None:
        """Add a line to `watt.jsonl`; it has left this process when this returns, so a kill loses at most what follows."""
        if self._journal is None:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._journal = _open_whole_lines(self.directory / self._journal_name)
        raw = to_line(line) if isinstance(line, Line) else msgspec.json.encode(line, enc_hook=plain) + b"\n"
        write_whole(self._journal, raw)

    def close(self) -> None:
        """Close the journal, and give back the room that was kept for a last record."""
        self._give_back_room()
        if self._journal is not None:
            self._journal.close()
            self._journal = None


def _open_whole_lines(file: Path) -> FileIO:
    """Open a file to append to; a half last line, which a killed process left, is cut off first."""
    opened = open_to_write(file, "a+")
    try:
        end = opened.seek(0, os.SEEK_END)
        if end:
            tail = min(end, MAX_LINE_BYTES)
            opened.seek(end - tail)
            opened.truncate(end - tail + opened.read(tail).rfind(b"\n") + 1)
            opened.seek(0, os.SEEK_END)
    except BaseException:
        opened.close()
        raise
    return opened
