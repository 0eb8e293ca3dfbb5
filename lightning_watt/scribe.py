"""Writes a run's files and survives what file systems do: each kind of failure is told once, and the run goes on."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning_watt.events import BatchRow
from lightning_watt.files import open_without_waiting
from lightning_watt.journal import JOURNAL_NAME, RECORD_NAME, Line, file_of
from lightning_watt.record import Record
from lightning_watt.writer import RecordWriter

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
        self._rows_file: Any = None

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
            self._rows_file = open(file, "a", newline="", opener=open_without_waiting)  # noqa: SIM115 - `close` closes it
            if self._rows_file.tell() == 0:
                csv.writer(self._rows_file).writerow(BatchRow._fields)
        csv.writer(self._rows_file).writerows(
            [*row[:3], f"{row.joules:.6f}", f"{row.seconds:.6f}", f"{row.uncertainty_j:.6f}"] for row in rows
        )
        self._rows_file.flush()

    def _guarded(self, name: str, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            if name not in self._failed:
                self._failed.add(name)
                self._complain(
                    f"{self.directory / self._names[name]} cannot be written ({error}). The training and its logging go on; "
                    "make room or make the directory writable, and the next write succeeds."
                )
