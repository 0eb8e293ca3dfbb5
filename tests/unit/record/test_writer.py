"""The writer of a run's files: whole files whatever happens, and a file system that fails is reported once a file."""

from __future__ import annotations

import csv
import json
import math
import os
import resource

import numpy as np
import pytest
import torch

from lightning_watt.record import Inherited, Sam, files, read_record
from lightning_watt.record import writer as writer_module
from lightning_watt.record.claim import RunFiles
from lightning_watt.record.files import BATCHES_NAME, JOURNAL_NAME, RECORD_NAME, file_of
from lightning_watt.record.lines import JournalLine
from lightning_watt.record.plain import plain
from lightning_watt.record.writer import RunWriter, to_json
from tests.unit.record.made import a_record
from tests.unit.record.written import LINES, ROWS, TIMES, times, write_all

# ---- all files ----


def test_the_three_files(tmp_path):
    writer = RunWriter(RunFiles(tmp_path / "version_0"), pytest.fail)
    write_all(writer)
    writer.batches([])
    writer.close()
    writer.close()
    assert read_record(tmp_path / "version_0") == a_record()
    assert times(tmp_path / "version_0") == [LINES[0].t]
    with (tmp_path / "version_0" / BATCHES_NAME).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["stage", "epoch", "batch", "joules", "seconds", "uncertainty_j"]
    assert [(row["stage"], int(row["batch"]), float(row["joules"])) for row in rows] == [
        ("train", 0, 1.25),
        ("train", 1, 2.25),
        ("train", 2, 3.25),
    ]


def test_a_run_whose_next_stage_begins_goes_on_below_without_a_second_heading(tmp_path):
    run = RunFiles(tmp_path)
    for _ in range(2):
        writer = RunWriter(run, pytest.fail)
        writer.batches(ROWS)
        writer.close()
    assert len((tmp_path / BATCHES_NAME).read_text().splitlines()) == 1 + 2 * len(ROWS)


def test_no_batches_no_file(tmp_path):
    writer = RunWriter(RunFiles(tmp_path / "logs"), pytest.fail)
    writer.batches([])
    writer.close()
    assert not (tmp_path / "logs").exists()


def test_what_cannot_be_written_is_reported_once_a_file_and_written_when_it_can_be(tmp_path):
    reported: list[str] = []
    place = tmp_path / "logs"
    place.write_text("a file where the directory should be")
    writer = RunWriter(RunFiles(place), reported.append)
    for _ in range(3):
        write_all(writer)
    assert len(reported) == 3
    for name in (RECORD_NAME, JOURNAL_NAME, BATCHES_NAME):
        assert sum(f"{place / name} cannot" in sentence for sentence in reported) == 1
    place.unlink()
    write_all(writer)
    writer.close()
    assert read_record(place) == a_record()
    assert times(place) == [LINES[0].t]
    assert (place / BATCHES_NAME).read_text().count("train") == len(ROWS)
    assert len(reported) == 3


def test_rows_are_in_the_file_when_the_call_returns_and_none_wait_in_the_process(tmp_path):
    """So that a process that is forked off now, and ends in any way, has nothing left to write a second time."""
    writer = RunWriter(RunFiles(tmp_path), pytest.fail)
    writer.batches(ROWS)
    before = (tmp_path / BATCHES_NAME).read_bytes()
    assert before.count(b"train") == len(ROWS)
    child = os.fork()
    if child == 0:
        try:
            writer.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert (tmp_path / BATCHES_NAME).read_bytes() == before
    writer.batches(ROWS)
    writer.close()
    assert (tmp_path / BATCHES_NAME).read_bytes().count(b"train") == 2 * len(ROWS)


@pytest.mark.parametrize("name", [JOURNAL_NAME, BATCHES_NAME])
def test_a_write_that_fits_in_half_is_taken_back(tmp_path, name):
    """The kernel lets a file grow to a limit and no further: what a full disk does, without a disk."""
    reported: list[str] = []
    writer = RunWriter(RunFiles(tmp_path), reported.append)

    def write() -> None:
        if name == JOURNAL_NAME:
            writer.journal(JournalLine(t=1.0, session="x" * 200))
        else:
            writer.batches(ROWS)

    write()
    before = (tmp_path / name).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, hard))
    try:
        write()
        assert (tmp_path / name).read_bytes() == before
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(reported) == 1
    write()
    writer.close()
    assert (tmp_path / name).read_bytes().startswith(before)
    assert len((tmp_path / name).read_bytes()) > len(before)


@pytest.mark.parametrize("rank", [0, 2])
def test_each_rank_has_files_of_its_own(tmp_path, rank):
    writer = RunWriter(RunFiles(tmp_path, rank), pytest.fail)
    write_all(writer)
    writer.close()
    assert sorted(os.listdir(tmp_path)) == sorted(file_of(name, rank) for name in (RECORD_NAME, JOURNAL_NAME, BATCHES_NAME))


def test_a_failure_of_one_file_leaves_the_others_alone(tmp_path):
    reported: list[str] = []
    writer = RunWriter(RunFiles(tmp_path), reported.append)
    writer.record(a_record())
    (tmp_path / BATCHES_NAME).mkdir()
    write_all(writer)
    writer.close()
    (sentence,) = reported
    assert sentence.startswith(f"{tmp_path / BATCHES_NAME} cannot be written")
    assert read_record(tmp_path) == a_record()
    assert times(tmp_path) == [LINES[0].t]


# ---- the record ----


def test_what_is_undefined_is_null():
    sam = Sam(alpha=5.0, beta=5.0, unit="kWh", value=math.nan, shifted=math.inf)
    plain = json.loads(to_json(a_record(sam=sam)), parse_constant=pytest.fail)
    assert plain["sam"]["value"] is None
    assert plain["sam"]["shifted"] is None


def test_what_a_model_says_about_itself_never_breaks_the_file(tmp_path):
    said = {"flops": np.int64(7), "ratio": np.float32(0.5), "none": np.float64("nan"), "dtype": torch.float32, (1, 2): {3}}
    RunWriter(RunFiles(tmp_path), pytest.fail).record(a_record(model=said))
    model = read_record(tmp_path).model
    assert model == {"flops": 7, "ratio": 0.5, "none": None, "dtype": "torch.float32", "(1, 2)": [3]}


def test_a_path_whose_bytes_are_no_text_does_not_cost_the_record(tmp_path):
    start = Inherited(path=os.fsdecode(b"/runs/\xff"), total_j=1.0)
    RunWriter(RunFiles(tmp_path), pytest.fail).record(a_record(inherited=[start], model={"\udc80": ["\udc80", 1]}))
    record = read_record(tmp_path)
    assert (record.inherited[0].path, record.model) == ("/runs/?", {"?": ["?", 1]})


def test_a_number_of_numpys_is_a_number(tmp_path):
    RunWriter(RunFiles(tmp_path), pytest.fail).record(a_record(pue=np.float64(1.2), started_unix=np.int64(5)))
    assert read_record(tmp_path).pue == 1.2
    assert read_record(tmp_path).started_unix == 5


@pytest.mark.parametrize(
    ("value", "expected"),
    [(np.int64(7), 7), (np.float32(0.5), 0.5), (True, 1), (torch.float32, "torch.float32"), (1 + 2j, "(1+2j)")],
)
def test_a_value_that_json_lacks(value, expected):
    assert plain(value) == expected
    assert type(plain(value)) is type(expected)


def test_it_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path):
    writer = RunWriter(RunFiles(tmp_path), pytest.fail)
    writer.record(a_record())
    before = (tmp_path / RECORD_NAME).stat().st_ino
    writer.record(a_record(status="completed"))
    assert read_record(tmp_path).status == "completed"
    assert (tmp_path / RECORD_NAME).stat().st_ino != before
    writer.close()
    assert sorted(os.listdir(tmp_path)) == [RECORD_NAME, JOURNAL_NAME]


def test_a_write_that_fails_leaves_the_old_record(tmp_path):
    reported: list[str] = []
    writer = RunWriter(RunFiles(tmp_path), reported.append)
    writer.record(a_record())
    half = tmp_path / f".{RECORD_NAME}.{os.getpid()}"
    half.mkdir()
    writer.record(a_record(status="completed"))
    assert len(reported) == 1
    assert read_record(tmp_path).status == "running"
    half.rmdir()
    writer.record(a_record(status="completed"))
    assert read_record(tmp_path).status == "completed"


def test_a_disk_that_is_full_has_room_for_the_last_record(tmp_path, monkeypatch):
    """The record of a training that died of a full disk is written in the room that was kept for it."""

    class FullDisk(files.FileIO):
        def write(self, raw):
            kept = tmp_path / f".{RECORD_NAME}.room"
            return 0 if kept.exists() and kept.stat().st_size else super().write(raw)

    writer = RunWriter(RunFiles(tmp_path), pytest.fail)
    writer.record(a_record())
    assert (tmp_path / f".{RECORD_NAME}.room").stat().st_size >= writer_module.MIN_ROOM_BYTES
    monkeypatch.setattr(files, "FileIO", FullDisk)
    writer.record(a_record(status="failed"))
    assert read_record(tmp_path).status == "failed"
    assert sorted(os.listdir(tmp_path)) == [RECORD_NAME, JOURNAL_NAME]


def test_a_link_where_the_half_record_goes_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    run = tmp_path / "run"
    run.mkdir()
    (run / f".{RECORD_NAME}.{os.getpid()}").symlink_to(victim)
    RunWriter(RunFiles(run), pytest.fail).record(a_record())
    assert victim.read_text() == "precious"
    assert read_record(run) == a_record()


# ---- the journal ----


def test_the_journal_holds_every_line_as_soon_as_it_is_appended(tmp_path):
    writer = RunWriter(RunFiles(tmp_path / "new"), pytest.fail)
    for i, line in enumerate(LINES, start=1):
        writer.journal(line)
        assert times(tmp_path / "new") == TIMES[:i]
    writer.close()
    writer.close()
    assert times(tmp_path / "new" / JOURNAL_NAME) == TIMES


def test_a_run_whose_next_stage_begins_appends(tmp_path):
    run = RunFiles(tmp_path)
    for part in (LINES[:1], LINES[1:]):
        writer = RunWriter(run, pytest.fail)
        for line in part:
            writer.journal(line)
        writer.close()
    assert times(tmp_path) == TIMES


@pytest.mark.parametrize("half", [b'{"t": 17', b'{"t": 1, "stage": "tr\xc3', b"{", b'{"t": 1, "total_j": 5}'])
def test_a_line_that_a_killed_process_cut_off_costs_that_line_only(tmp_path, half):
    run = RunFiles(tmp_path)
    writer = RunWriter(run, pytest.fail)
    for line in LINES[:3]:
        writer.journal(line)
    writer.close()
    with (tmp_path / JOURNAL_NAME).open("ab") as file:
        file.write(half)
    assert times(tmp_path)[:3] == TIMES[:3]
    again = RunWriter(run, pytest.fail)
    again.journal(LINES[3])
    again.close()
    assert times(tmp_path) == TIMES[:4]


def test_a_journal_of_one_half_line_is_begun_again(tmp_path):
    run = RunFiles(tmp_path)
    RunWriter(run, pytest.fail).record(a_record(session="a"))
    (tmp_path / JOURNAL_NAME).write_bytes(b'{"t": 17')
    resumed = RunFiles(tmp_path, goes_on=lambda heading: heading.session == "a")
    resumed.resumed()
    writer = RunWriter(resumed, pytest.fail)
    writer.journal(LINES[0])
    writer.close()
    assert times(tmp_path) == TIMES[:1]


def test_a_full_disk_is_reported_and_leaves_whole_lines(tmp_path, monkeypatch):
    class SmallDisk(files.FileIO):
        def write(self, raw):
            return super().write(raw[: max(0, 200 - self.tell())])

    monkeypatch.setattr(files, "FileIO", SmallDisk)
    reported: list[str] = []
    writer = RunWriter(RunFiles(tmp_path), reported.append)
    writer.journal(JournalLine(t=1.0, session="x" * 30))
    for _ in range(2):
        writer.journal(JournalLine(t=2.0, session="x" * 60))
    writer.journal(JournalLine(t=3.0, session="x"))  # a shorter one still fits
    writer.close()
    assert times(tmp_path) == [1.0, 3.0]
    (sentence,) = reported
    assert "No space left on device" in sentence
    assert str(tmp_path / JOURNAL_NAME) in sentence
