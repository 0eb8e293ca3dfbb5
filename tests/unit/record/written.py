"""What a test has the writer of a run's files write, and what is read back."""

from __future__ import annotations

from pathlib import Path

from lightning_watt.record import BatchRow, read_journal
from lightning_watt.record.lines import JournalLine
from lightning_watt.record.writer import RunWriter
from tests.unit.record.made import a_record

ROWS = [BatchRow("train", 0, i, 1.25 + i, 0.01, 0.1) for i in range(3)]
LINES = [JournalLine(t=1e9 + i, session="a", total_j=i * 10.5, stage="train") for i in range(5)]
TIMES = [line.t for line in LINES]


def write_all(writer: RunWriter) -> None:
    """A record, a line of the journal and the batches."""
    writer.record(a_record())
    writer.journal(LINES[0])
    writer.batches(ROWS)


def times(directory: Path) -> list[float]:
    """When each line of the journal was written."""
    return [line["t"] for line in read_journal(directory)]
