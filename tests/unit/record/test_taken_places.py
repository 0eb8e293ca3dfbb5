"""The writer where somebody else put something in the place of a run's file: a link, a pipe, a directory."""

from __future__ import annotations

import ast
import os
import stat
from pathlib import Path

import msgspec
import pytest

from lightning_watt.record import Epoch, Record, files, read_record
from lightning_watt.record.claim import RunFiles
from lightning_watt.record.files import BATCHES_NAME, JOURNAL_NAME, RECORD_NAME, file_of
from lightning_watt.record.writer import RunWriter, Turn, to_json
from tests.unit.record.made import a_record
from tests.unit.record.written import LINES, ROWS, times, write_all


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
