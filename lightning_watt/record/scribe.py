"""Writes a run's files and survives what file systems do: each kind of failure is told once, and the run goes on."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from io import FileIO
from pathlib import Path

from lightning_watt.record.files import open_to_write, write_whole
from lightning_watt.record.journal import JOURNAL_NAME, RECORD_NAME, Line, file_of
from lightning_watt.record.schema import BatchRow, Record
from lightning_watt.record.writer import RecordWriter

BATCHES_NAME = "watt_batches.csv"


class Scribe:
    """The files of one run.

    Args:
        directory: the run's log directory.
        complain: takes a sentence for the user; called once for each file that cannot be written.
        rank: the process's global rank; other than zero it has files of its own.
    """

    def __init__(self, directory: Path, complain: Callable[[str], None], rank: int = 0) -> None:
        self.directory = directory
        self._writer = RecordWriter(directory, rank)
        self._names = {name: file_of(name, rank) for name in (RECORD_NAME, JOURNAL_NAME, BATCHES_NAME)}
        self._complain = complain
        self._failed: set[str] = set()
        self._rows_file: FileIO | None = None

    def record(self, record: Record) -> None:
        """Replace `watt.json`."""
        self._guarded(RECORD_NAME, lambda: self._writer.write(record))

    def journal(self, line: Line) -> None:
        """Append to `watt.jsonl`."""
        self._guarded(JOURNAL_NAME, lambda: self._writer.append(line))

    def batches(self, rows: Sequence[BatchRow]) -> None:
        """Append to `watt_batches.csv`."""
        if rows:
            self._guarded(BATCHES_NAME, lambda: self._append_rows(rows))

    def close(self) -> None:
        """Close what is open."""
        self._guarded(JOURNAL_NAME, self._writer.close)
        if self._rows_file is not None:
            self._guarded(BATCHES_NAME, self._rows_file.close)
            self._rows_file = None

    def _append_rows(self, rows: Sequence[BatchRow]) -> None:
        if self._rows_file is None:
            self.directory.mkdir(parents=True, exist_ok=True)
            file = self.directory / self._names[BATCHES_NAME]
            self._rows_file = open_to_write(file, "a+")
        text = io.StringIO(newline="")
        table = csv.writer(text)
        if self._rows_file.seek(0, io.SEEK_END) == 0:
            table.writerow(BatchRow._fields)
        table.writerows([*row[:3], f"{row.joules:.6f}", f"{row.seconds:.6f}", f"{row.uncertainty_j:.6f}"] for row in rows)
        write_whole(self._rows_file, text.getvalue().encode())

    def _guarded(self, name: str, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            if name not in self._failed:
                self._failed.add(name)
                self._complain(
                    f"{self.directory / self._names[name]} cannot be written ({error}). The training and its logging go on; "
                    "make room, make the directory writable or take away what stands there, and the next write succeeds."
                )
