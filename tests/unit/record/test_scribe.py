"""The writer of a run's files: a file system that fails is told of once, and written again when it works again."""

from __future__ import annotations

import csv
import os
import resource

import pytest

from lightning_watt.record.journal import JOURNAL_NAME
from lightning_watt.record.schema import RECORD_NAME, BatchRow, read_journal, read_record
from lightning_watt.record.scribe import BATCHES_NAME, Scribe
from tests.unit.record.test_record import a_record

ROWS = [BatchRow("train", 0, i, 1.25 + i, 0.01, 0.1) for i in range(3)]


def write_all(scribe: Scribe) -> None:
    scribe.record(a_record())
    scribe.journal({"t": 1.0, "total_j": 5.0})
    scribe.batches(ROWS)


def test_the_three_files(tmp_path):
    scribe = Scribe(tmp_path / "version_0", pytest.fail)
    write_all(scribe)
    scribe.batches([])
    scribe.close()
    scribe.close()
    assert read_record(tmp_path / "version_0") == a_record()
    assert read_journal(tmp_path / "version_0") == [{"t": 1.0, "total_j": 5.0}]
    with (tmp_path / "version_0" / BATCHES_NAME).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["stage", "epoch", "batch", "joules", "seconds", "uncertainty_j"]
    assert [(row["stage"], int(row["batch"]), float(row["joules"])) for row in rows] == [
        ("train", 0, 1.25),
        ("train", 1, 2.25),
        ("train", 2, 3.25),
    ]


def test_a_resumed_run_goes_on_below_without_a_second_heading(tmp_path):
    for _ in range(2):
        scribe = Scribe(tmp_path, pytest.fail)
        scribe.batches(ROWS)
        scribe.close()
    assert len((tmp_path / BATCHES_NAME).read_text().splitlines()) == 1 + 2 * len(ROWS)


def test_no_batches_no_file(tmp_path):
    scribe = Scribe(tmp_path / "logs", pytest.fail)
    scribe.batches([])
    scribe.close()
    assert not (tmp_path / "logs").exists()


def test_what_cannot_be_written_is_told_once_a_file_and_written_when_it_can_be(tmp_path):
    told: list[str] = []
    place = tmp_path / "logs"
    place.write_text("a file where the directory should be")
    scribe = Scribe(place, told.append)
    for _ in range(3):
        write_all(scribe)
    assert len(told) == 3
    for name in (RECORD_NAME, JOURNAL_NAME, BATCHES_NAME):
        assert sum(f"{place / name} cannot" in sentence for sentence in told) == 1
    place.unlink()
    write_all(scribe)
    scribe.close()
    assert read_record(place) == a_record()
    assert read_journal(place) == [{"t": 1.0, "total_j": 5.0}]
    assert (place / BATCHES_NAME).read_text().count("train") == len(ROWS)
    assert len(told) == 3


def test_rows_are_in_the_file_when_the_call_returns_and_none_wait_in_the_process(tmp_path):
    """So that a process that is forked off now, and ends in any way, has nothing left to write a second time."""
    scribe = Scribe(tmp_path, pytest.fail)
    scribe.batches(ROWS)
    before = (tmp_path / BATCHES_NAME).read_bytes()
    assert before.count(b"train") == len(ROWS)
    child = os.fork()
    if child == 0:
        try:
            scribe.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert (tmp_path / BATCHES_NAME).read_bytes() == before
    scribe.batches(ROWS)
    scribe.close()
    assert (tmp_path / BATCHES_NAME).read_bytes().count(b"train") == 2 * len(ROWS)


@pytest.mark.parametrize("name", [JOURNAL_NAME, BATCHES_NAME])
def test_a_write_that_fits_in_half_is_taken_back(tmp_path, name):
    """The kernel lets a file grow to a limit and no further: what a full disk does, without a disk."""
    told: list[str] = []
    scribe = Scribe(tmp_path, told.append)

    def write() -> None:
        if name == JOURNAL_NAME:
            scribe.journal({"t": 1.0, "note": "x" * 200})
        else:
            scribe.batches(ROWS)

    write()
    before = (tmp_path / name).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, hard))
    try:
        write()
        assert (tmp_path / name).read_bytes() == before
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(told) == 1
    write()
    scribe.close()
    assert (tmp_path / name).read_bytes().startswith(before)
    assert len((tmp_path / name).read_bytes()) > len(before)
