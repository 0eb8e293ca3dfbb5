"""The names of a run's files in its directory: one run, one version, and nobody's record is replaced by another run's."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_watt.record import NodeEnergy, Record, read_journal, read_record
from lightning_watt.record.claim import LOCK_TRIES, RunFiles
from lightning_watt.record.files import RECORD_NAME, is_locked
from lightning_watt.record.journal import JournalLine
from lightning_watt.record.writer import RunWriter
from tests.unit.record.made import a_record


def of(session: str, *, resumes: tuple[str, ...] = (), **changes: object) -> Record:
    return a_record(session=session, resumes=list(resumes), nodes=[NodeEnergy(session=session)], **changes)


def run(directory: Path, session: str, report: Callable[[str], None] = pytest.fail, **options: object) -> str:
    """A run from its begin to its end; returns the name of its record."""
    files = RunFiles(directory, **options)  # type: ignore[arg-type]
    writer = RunWriter(files, report)
    writer.journal(JournalLine(t=1.0, session=session))
    writer.record(of(session, status="completed"))
    writer.close()
    return files.path(RECORD_NAME).name


def resuming(directory: Path, *sessions: str, rank: int = 0) -> RunFiles:
    files = RunFiles(directory, rank, goes_on=lambda heading: heading.session in sessions)
    files.resumed()
    return files


def sessions(file: Path) -> list[str]:
    return [line["session"] for line in read_journal(file)]


def test_each_run_has_a_version_of_its_own(tmp_path):
    assert [run(tmp_path, session) for session in "abc"] == ["watt.json", "watt-v1.json", "watt-v2.json"]
    assert [read_record(tmp_path / name).session for name in ("watt.json", "watt-v1.json", "watt-v2.json")] == [
        "a",
        "b",
        "c",
    ]
    assert [sessions(tmp_path / name) for name in ("watt.jsonl", "watt-v1.jsonl", "watt-v2.jsonl")] == [["a"], ["b"], ["c"]]


@pytest.mark.parametrize("name", ["watt.json", "watt.jsonl", "watt_batches.csv", "watt.rank3.json"])
def test_whatever_is_left_of_a_run_keeps_its_version(tmp_path, name):
    (tmp_path / name).write_text("")
    assert run(tmp_path, "a") == "watt-v1.json"
    assert (tmp_path / name).read_text() == ""


def test_a_version_that_was_removed_is_given_again(tmp_path):
    for session in "abc":
        run(tmp_path, session)
    for file in tmp_path.glob("watt-v1*"):
        file.unlink()
    assert run(tmp_path, "d") == "watt-v1.json"


def test_files_that_are_named_alike_are_nobodys(tmp_path):
    for name in ("watt-v0.json", "watt-v01.json", "watt-vx.json", "watts.json", "watt.json.bak", "watt-v1.json~"):
        (tmp_path / name).write_text("")
    assert run(tmp_path, "a") == "watt.json"


def test_the_ranks_of_a_run_have_the_version_that_rank_zero_found(tmp_path):
    run(tmp_path, "before")
    for rank in (0, 2):
        run(tmp_path, f"rank {rank}", rank=rank, at_least=1)
    assert {file.name for file in tmp_path.glob("*v1*")} == {
        "watt-v1.json",
        "watt-v1.jsonl",
        "watt-v1.rank2.json",
        "watt-v1.rank2.jsonl",
    }


def test_the_ranks_may_come_in_any_order(tmp_path):
    """Rank zero, too, may come after others of its run have begun to write."""
    for rank in (2, 0):
        run(tmp_path, f"rank {rank}", rank=rank, at_least=0)
    assert not list(tmp_path.glob("*-v*"))


def test_the_same_run_goes_on_in_its_own_files(tmp_path):
    files = RunFiles(tmp_path, goes_on=lambda heading: heading.session == "a")
    for _ in range(2):
        writer = RunWriter(files, pytest.fail)
        writer.journal(JournalLine(t=1.0, session="a"))
        writer.record(of("a"))
        writer.close()
        run(tmp_path, "another one")
    assert sessions(tmp_path / "watt.jsonl") == ["a", "a"]
    assert sorted(os.listdir(tmp_path)) == [
        f"watt{version}.{suffix}" for version in ("-v1", "-v2", "") for suffix in ("json", "jsonl")
    ]


def test_a_run_that_goes_on_takes_the_record_over_that_it_holds(tmp_path):
    run(tmp_path, "another one")
    run(tmp_path, "a")
    writer = RunWriter(resuming(tmp_path, "a"), pytest.fail)
    writer.journal(JournalLine(t=2.0, session="b"))
    writer.record(of("b", resumes=("a",)))
    writer.close()
    assert sessions(tmp_path / "watt-v1.jsonl") == ["a", "b"]
    assert read_record(tmp_path / "watt-v1.json").session == "b"
    assert read_record(tmp_path / "watt.json").session == "another one"
    assert len(os.listdir(tmp_path)) == 4


def test_a_record_that_is_not_held_is_not_taken_over(tmp_path):
    run(tmp_path, "a")
    assert run(tmp_path, "b") == "watt-v1.json"
    writer = RunWriter(resuming(tmp_path, "somebody"), pytest.fail)
    writer.record(of("c"))
    writer.close()
    assert [read_record(tmp_path / name).session for name in ("watt.json", "watt-v1.json", "watt-v2.json")] == [
        "a",
        "b",
        "c",
    ]


def test_a_checkpoint_that_comes_after_the_first_lines_is_heard(tmp_path):
    """They were written beside, and are taken away: the lines that follow hold them again."""
    run(tmp_path, "a")
    files = RunFiles(tmp_path, goes_on=lambda heading: heading.session in ("a", "b"))
    writer = RunWriter(files, pytest.fail)
    writer.journal(JournalLine(t=1.0, session="b"))
    writer.record(of("b"))
    assert (tmp_path / "watt-v1.json").exists()
    files.resumed()
    for t in (2.0, 3.0):
        writer.journal(JournalLine(t=t, session="b"))
        writer.record(of("b", resumes=("a",)))
    writer.close()
    assert sorted(os.listdir(tmp_path)) == ["watt.json", "watt.jsonl"]
    assert sessions(tmp_path / "watt.jsonl") == ["a", "b", "b"]


def test_a_checkpoint_of_an_unknown_run_changes_no_names(tmp_path):
    run(tmp_path, "a")
    files = RunFiles(tmp_path, goes_on=lambda heading: heading.session == "b")
    writer = RunWriter(files, pytest.fail)
    writer.record(of("b"))
    files.resumed()
    writer.journal(JournalLine(t=1.0, session="b"))
    writer.close()
    assert sessions(tmp_path / "watt-v1.jsonl") == ["b"]
    assert read_record(tmp_path / "watt.json").session == "a"


@pytest.mark.timeout(20)
def test_another_run_that_writes_now_is_told_of_once_and_is_not_taken_over(tmp_path):
    said: list[str] = []
    first = RunWriter(RunFiles(tmp_path), pytest.fail)
    first.record(of("a"))
    second = RunWriter(resuming(tmp_path, "a"), said.append)
    for _ in range(2):
        second.record(of("b"))
    (sentence,) = said
    assert "Another run is writing" in sentence
    assert "(watt.jsonl)" in sentence
    assert "watt-v1.json" in sentence
    assert read_record(tmp_path / "watt.json").session == "a"
    first.close()
    assert not is_locked(tmp_path / "watt.jsonl")
    run(tmp_path, "c", said.append)
    assert "(watt-v1.jsonl)" in said[1]  # the first one has ended
    second.close()
    assert run(tmp_path, "d") == "watt-v3.json"


def test_two_that_resume_at_once_do_not_share_a_file(tmp_path):
    run(tmp_path, "a")
    writers = [RunWriter(resuming(tmp_path, "a"), lambda _: None) for _ in range(2)]
    for writer, session in zip(writers, "bc", strict=True):
        writer.journal(JournalLine(t=2.0, session=session))
        writer.record(of(session, resumes=("a",)))
    for writer in writers:
        writer.close()
    assert sessions(tmp_path / "watt.jsonl") == ["a", "b"]
    assert sessions(tmp_path / "watt-v1.jsonl") == ["c"]


def test_a_child_that_was_forked_off_does_not_keep_the_files(tmp_path):
    """As loader workers that live on do; they hold all that is open."""
    files = RunFiles(tmp_path, goes_on=lambda heading: heading.session == "a")
    writer = RunWriter(files, pytest.fail)
    writer.record(of("a"))
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        writer.close()
        again = RunWriter(files, pytest.fail)
        again.record(of("a"))
        again.close()
        assert files.version == 0
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_file_system_without_locks_takes_nothing_away(tmp_path, monkeypatch):
    def unknown(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", unknown)
    assert [run(tmp_path, session) for session in "ab"] == ["watt.json", "watt-v1.json"]
    writer = RunWriter(resuming(tmp_path, "a"), pytest.fail)
    writer.record(of("c"))
    writer.close()
    assert read_record(tmp_path / "watt.json").session == "c"


def test_a_hard_linked_record_is_taken_over_beside(tmp_path):
    """A snapshot of hard links (`cp -al`) stays as it was."""
    run(tmp_path / "run", "a")
    (tmp_path / "snapshot").mkdir()
    for file in (tmp_path / "run").iterdir():
        os.link(file, tmp_path / "snapshot" / file.name)
    before = {file.name: file.read_bytes() for file in (tmp_path / "snapshot").iterdir()}
    writer = RunWriter(resuming(tmp_path / "run", "a"), pytest.fail)
    writer.record(of("b", resumes=("a",)))
    writer.close()
    assert {file.name: file.read_bytes() for file in (tmp_path / "snapshot").iterdir()} == before
    assert read_record(tmp_path / "run" / "watt-v1.json").session == "b"


def test_whoever_looks_for_a_moment_does_not_keep_a_run_from_its_files(tmp_path, monkeypatch):
    assert LOCK_TRIES > 1
    answers = iter([False, True])
    monkeypatch.setattr("lightning_watt.record.claim.lock", lambda _: next(answers))
    run(tmp_path, "a")
    monkeypatch.setattr("lightning_watt.record.claim.lock", lambda _: next(answers, True))
    answers = iter([False, True])
    writer = RunWriter(resuming(tmp_path, "a"), pytest.fail)
    writer.record(of("b"))
    writer.close()
    assert read_record(tmp_path / "watt.json").session == "b"
