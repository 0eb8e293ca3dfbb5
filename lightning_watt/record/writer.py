"""Writes a run's files, so that a reader never finds half of one, also on a disk that is full.

A file that cannot be written is reported once, and the run goes on.
"""

from __future__ import annotations

import csv
import errno
import io
import math
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import FileIO
from time import monotonic

import msgspec

from lightning_watt.record.claim import RunFiles, close_journal
from lightning_watt.record.files import (
    BATCHES_NAME,
    JOURNAL_NAME,
    MAX_LINE_BYTES,
    RECORD_NAME,
    open_to_write,
    write_whole,
)
from lightning_watt.record.lines import JournalLine, LineWriter
from lightning_watt.record.plain import encodable, plain
from lightning_watt.record.record import Record
from lightning_watt.record.remote import RemoteCopy
from lightning_watt.record.schema import BatchRow

MIN_ROOM_BYTES = 16 * 2**10
"""Bytes of the disk that are kept for the next record, at least; a record has some kilobytes."""


class Turn:
    """Says when something that takes time is due again, so that it takes no more than its share of the time.

    Args:
        share: the share, between 0 and 1.
        now_s: a clock that never steps, seconds.

    Example:
        >>> clock = iter([0.0, 0.5, 40.0, 60.0])
        >>> turn = Turn(0.01, lambda: next(clock))
        >>> with turn:
        ...     pass  # takes half a second
        >>> turn.is_due(), turn.is_due()
        (False, True)
    """

    def __init__(self, share: float, now_s: Callable[[], float] = monotonic) -> None:
        self._share, self._now_s = share, now_s
        self._began_s = self._due_s = -math.inf

    def is_due(self) -> bool:
        """Whether it may be done now."""
        return self._now_s() >= self._due_s

    def __enter__(self) -> None:
        self._began_s = self._now_s()

    def __exit__(self, *error: object) -> None:
        self._due_s = self._began_s + (self._now_s() - self._began_s) / self._share


class RunWriter:
    """Writes the files of one run.

    No method raises an `OSError`. It is reported, and the next call tries again.

    The first write chooses the names of all files (`claim`), which makes their directory and the journal.

    Args:
        files: the run's files.
        report: takes a sentence for the user; called once for each file that cannot be written.
    """

    def __init__(self, files: RunFiles, report: Callable[[str], None]) -> None:
        self._files = files
        self._report = report
        self._failed: set[str] = set()
        self._room_bytes = 0
        self._journal: FileIO | None = None
        self._lines = LineWriter()
        self._batches: FileIO | None = None

    def record(self, record: Record) -> None:
        """Replace `watt.json` whole: a reader finds the old one or the new one, never half of one."""
        self._guarded(RECORD_NAME, lambda: self._write_record(record))
        if self._files.copy is not None:
            self._files.copy.due()
            self._report_all(self._files.copy)

    def journal(self, line: JournalLine) -> None:
        """Add a line to `watt.jsonl`. The line has left this process on return, so a kill cannot lose it."""
        self._guarded(JOURNAL_NAME, lambda: self._append_line(line))

    def batches(self, rows: Sequence[BatchRow]) -> None:
        """Add rows to `watt_batches.csv`; without rows, no file is made."""
        if rows:
            self._guarded(BATCHES_NAME, lambda: self._append_rows(rows))

    def close(self) -> None:
        """Close what is open, free the bytes that were kept for the next record, and end a copy to a remote directory."""
        self._free_room()
        journal, self._journal = self._journal, None
        batches, self._batches = self._batches, None
        if journal is not None:
            self._guarded(JOURNAL_NAME, lambda: close_journal(journal))
        if batches is not None:
            self._guarded(BATCHES_NAME, batches.close)
        if self._files.copy is not None:
            self._files.copy.end()
            self._report_all(self._files.copy)

    def _report_all(self, copy: RemoteCopy) -> None:
        while copy.said:
            self._report(copy.said.popleft())

    def _guarded(self, name: str, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            if name not in self._failed:
                self._failed.add(name)
                self._report(
                    f"{self._files.path(name)} cannot be written ({error}). The training and its logging go on. Free some "
                    "disk space, make the directory writable, or take away what stands there: the next write then succeeds."
                )

    def _opened(self) -> FileIO:
        """The journal, which is opened before all other files: that chooses their names."""
        if self._journal is None:
            self._journal = _whole_lines(self._files.open_journal(self._report))
        elif self._batches is None:
            journal, lines = self._files.go_on(self._journal)
            if journal is not self._journal:
                self._room_bytes = 0
                self._journal = _whole_lines(journal)
                write_whole(self._journal, lines)
        return self._journal

    # -- the record ---------------------------------------------------------------------------------------------------

    def _write_record(self, record: Record) -> None:
        self._opened()
        raw = to_json(record) + b"\n"
        if record.status == "running":
            self._keep_room(2 * len(raw))
        try:
            self._replace_record(raw)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not self._files.room().exists():
                raise
            # A training that fills its disk often ends because of it. Room was kept for the record of that end.
            self._free_room()
            self._replace_record(raw)
        if record.status != "running":
            self._free_room()

    def _replace_record(self, raw: bytes) -> None:
        target = self._files.path(RECORD_NAME)
        # In the target's directory, because only a rename within one file system is atomic.
        half = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            half.unlink(missing_ok=True)  # a killed process with this id may have left one
            with open_to_write(half, "x") as file:
                write_whole(file, raw)
            half.replace(target)
        except OSError:
            half.unlink(missing_ok=True)
            raise

    def _keep_room(self, size: int) -> None:
        """Keep a small file that can be removed for one more record when the disk is full."""
        if self._room_bytes < size:
            with suppress(OSError):
                self._files.room().unlink(missing_ok=True)  # whatever is in its place; the new file is ours
                with open_to_write(self._files.room(), "x") as file:
                    self._room_bytes = file.write(b"\0" * max(size, MIN_ROOM_BYTES))

    def _free_room(self) -> None:
        if self._room_bytes:
            with suppress(OSError):
                self._files.room().unlink(missing_ok=True)
        self._room_bytes = 0

    # -- the journal and the batches ----------------------------------------------------------------------------------

    def _append_line(self, line: JournalLine) -> None:
        write_whole(self._opened(), self._lines.to_line(line))

    def _append_rows(self, rows: Sequence[BatchRow]) -> None:
        self._opened()
        if self._batches is None:
            self._batches = open_to_write(self._files.path(BATCHES_NAME), "a+")
        text = io.StringIO(newline="")
        table = csv.writer(text)
        if self._batches.seek(0, io.SEEK_END) == 0:
            table.writerow(BatchRow._fields)
        table.writerows([*row[:3], f"{row.joules:.6f}", f"{row.seconds:.6f}", f"{row.uncertainty_j:.6f}"] for row in rows)
        write_whole(self._batches, text.getvalue().encode())


def _whole_lines(journal: FileIO) -> FileIO:
    """Cut off a half last line, which a killed process left, before anything is appended."""
    try:
        end = journal.seek(0, os.SEEK_END)
        if end:
            tail = min(end, MAX_LINE_BYTES)
            journal.seek(end - tail)
            journal.truncate(end - tail + journal.read(tail).rfind(b"\n") + 1)
            journal.seek(0, os.SEEK_END)
    except BaseException:
        close_journal(journal)
        raise
    return journal


def to_json(record: Record, most_epochs: int | None = None) -> bytes:
    """A record as it is in the file, each epoch a line. What a model says in types that JSON lacks becomes text.

    Args:
        record: the record.
        most_epochs: how many of the newest epochs; None for all.
    """
    rest = msgspec.structs.replace(record, epochs=[])
    try:
        raw = msgspec.json.encode(rest, enc_hook=plain)
    except UnicodeEncodeError:  # a path, say, whose bytes are no text
        raw = msgspec.json.encode(encodable(msgspec.to_builtins(rest, enc_hook=plain)))
    raw = msgspec.json.format(raw, indent=2)
    # One call for each epoch: a single one for thousands would keep the interpreter from the training meanwhile.
    rows = b",".join(
        b"\n    " + msgspec.json.encode(epoch) for epoch in record.epochs[-(most_epochs or len(record.epochs)) :]
    )
    return raw.replace(b'\n  "epochs": []', b'\n  "epochs": [' + rows + b"\n  ]", 1) if rows else raw
