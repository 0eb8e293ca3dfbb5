"""The writer of a run's files: whole files whatever happens, and a file system that fails is reported once a file."""

from __future__ import annotations

import ast
import csv
import json
import math
import os
import resource
import stat
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from lightning_watt.record import BatchRow, Epoch, Inherited, Record, Sam, files, read_journal, read_record
from lightning_watt.record import writer as writer_module
from lightning_watt.record.claim import RunFiles
from lightning_watt.record.files import BATCHES_NAME, JOURNAL_NAME, RECORD_NAME, file_of
from lightning_watt.record.lines import JournalLine
from lightning_watt.record.plain import plain
from lightning_watt.record.writer import RunWriter, Turn, to_json
from tests.unit.record.made import a_record

ROWS = [BatchRow("train", 0, i, 1.25 + i, 0.01, 0.1) for i in range(3)]
LINES = [JournalLine(t=1e9 + i, session="a", total_j=i * 10.5, stage="train") for i in range(5)]
TIMES = [line.t for line in LINES]


def write_all(writer: RunWriter) -> None:
    writer.record(a_record())
    writer.journal(LINES[0])
    writer.batches(ROWS)


def times(directory) -> list[float]:
    return [line["t"] for line in read_journal(directory)]


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


# ---- what somebody else put in the place of a file ----


def a_link(place: Path) -> None:
    victim = place.with_name("victim")
    victim.write_bytes(b"whole\nand half a line")
    place.symlink_to(victim)


def a_hard_link(place: Path) -> None:
    a_link(place)
    victim = place.readlink()
    place.unlink()
    os.link(victim, place)


def a_link_to_nothing(place: Path) -> None:
    place.symlink_to(place.with_name("nowhere"))


SQUATTERS = {
    "link": a_link,
    "hard link": a_hard_link,
    "link to nothing": a_link_to_nothing,
    "pipe": os.mkfifo,
    "directory": os.mkdir,
}


def seen(directory: Path) -> dict[str, object]:
    """What stands in a directory: by name its kind, and what it holds or points to."""
    found: dict[str, object] = {}
    for file in directory.iterdir():
        mode = file.lstat().st_mode
        held = os.readlink(file) if stat.S_ISLNK(mode) else file.read_bytes() if stat.S_ISREG(mode) else b""
        found[file.name] = (stat.S_IFMT(mode), held)
    return found


@pytest.mark.timeout(20)
@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("kind", SQUATTERS)
@pytest.mark.parametrize("name", [RECORD_NAME, JOURNAL_NAME, BATCHES_NAME])
def test_what_stands_under_a_name_of_ours_is_left_alone_and_the_next_name_is_taken(tmp_path, name, kind, rank):
    """Nothing is followed, waited for, emptied, cut or appended to."""
    SQUATTERS[kind](tmp_path / file_of(name, rank))
    before = seen(tmp_path)
    writer = RunWriter(RunFiles(tmp_path, rank), pytest.fail)
    write_all(writer)
    writer.close()
    after = seen(tmp_path)
    assert {file: after.pop(file) for file in before} == before
    assert set(after) == {file_of(one, rank, 1) for one in (RECORD_NAME, JOURNAL_NAME, BATCHES_NAME)}
    assert read_record(tmp_path / file_of(RECORD_NAME, rank, 1)) == a_record()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("kind", [kind for kind in SQUATTERS if kind != "directory"])
def test_what_stands_where_bytes_are_kept_for_the_last_record_is_replaced(tmp_path, kind, rank):
    files = RunFiles(tmp_path, rank)
    SQUATTERS[kind](files.room())
    victim = tmp_path / "victim"
    before = victim.read_bytes() if victim.exists() else None
    writer = RunWriter(files, pytest.fail)
    for _ in range(2):
        writer.record(a_record(status="running"))
    assert files.room().is_file()
    assert not files.room().is_symlink()
    writer.close()
    assert (victim.read_bytes() if victim.exists() else None) == before
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("link", "a link stands there, and is not followed"),
        ("link to nothing", "a link stands there, and is not followed"),
        ("hard link", "this file has a second name"),
        ("pipe", "no regular file stands there"),
    ],
)
def test_what_came_under_a_name_of_ours_while_the_run_goes_on_is_told_once_and_not_touched(tmp_path, kind, said):
    reported: list[str] = []
    writer = RunWriter(RunFiles(tmp_path), reported.append)
    writer.journal(LINES[0])
    place = tmp_path / BATCHES_NAME
    SQUATTERS[kind](place)
    before = seen(tmp_path)
    for _ in range(2):
        writer.batches(ROWS)
    assert seen(tmp_path) == before
    assert [said in sentence for sentence in reported] == [True]
    place.unlink()
    writer.batches(ROWS)  # as the sentence promises
    writer.close()
    assert place.read_text().count("train") == len(ROWS)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
def test_a_journal_that_became_something_else_between_two_stages_is_not_written_to(tmp_path, kind):
    run = RunFiles(tmp_path)
    writer = RunWriter(run, pytest.fail)
    write_all(writer)
    writer.close()
    (tmp_path / JOURNAL_NAME).unlink()
    SQUATTERS[kind](tmp_path / JOURNAL_NAME)
    before = seen(tmp_path)
    writer = RunWriter(run, pytest.fail)
    write_all(writer)
    writer.close()
    assert {file: held for file, held in seen(tmp_path).items() if file in before} == before
    assert times(tmp_path / "watt-v1.jsonl") == [LINES[0].t]


def test_a_directory_behind_a_link_is_written_to(tmp_path):
    """Links are how people keep runs on another disk."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    writer = RunWriter(RunFiles(tmp_path / "run"), pytest.fail)
    write_all(writer)
    writer.record(a_record(status="running"))
    assert sorted(os.listdir(tmp_path / "disk")) == sorted([f".{RECORD_NAME}.room", RECORD_NAME, JOURNAL_NAME, BATCHES_NAME])
    writer.close()


def test_files_are_opened_in_one_place():
    """Over the source: no other module of the room opens one by itself."""
    opening = {"open", "FileIO", "fdopen", "read_bytes", "read_text", "write_bytes", "write_text", "touch"}
    for file in Path(files.__file__).parent.glob("*.py"):
        calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)}
        if file.name != "files.py":
            assert not {call.split(".")[-1] for call in calls} & opening, file.name
        if file.name == "writer.py":
            assert "open_to_write" in calls


def test_each_epoch_is_a_line_and_those_wanted_are_the_newest():
    epochs = [Epoch(epoch=e, stage="train", joules=1.0, seconds=1.0) for e in range(250)]
    record = a_record(epochs=epochs)
    lines = [line for line in to_json(record).decode().splitlines() if '"epoch":' in line]
    assert len(lines) == 250
    assert msgspec.json.decode(to_json(record), type=Record).epochs == epochs
    assert msgspec.json.decode(to_json(record, 100), type=Record).epochs == epochs[-100:]
    assert msgspec.json.decode(to_json(a_record(epochs=[])), type=Record).epochs == []


def test_a_record_of_many_epochs_is_written_the_more_seldom_the_longer_it_takes():
    """The share of the time stays: a record that takes a second is due again after a hundred."""
    now_s = 0.0
    turn = Turn(0.01, lambda: now_s)
    written_s = 0.0
    for epoch in range(20_000):
        now_s += 0.05
        if turn.is_due():
            with turn:
                now_s += epoch * 2e-5
                written_s += epoch * 2e-5
    assert 0.005 < written_s / now_s < 0.011
