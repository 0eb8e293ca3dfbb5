"""The run's files: names and places, and what somebody prepared is neither read for ever nor written through."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lightning_watt import energy_of
from lightning_watt.errors import RecordError
from lightning_watt.record import files, read_journal, read_record
from lightning_watt.record.files import (
    BATCHES_NAME,
    JOURNAL_NAME,
    MAX_LINE_BYTES,
    RECORD_NAME,
    beside,
    check_regular,
    file_of,
    open_to_write,
    place_of,
    read_bounded,
    read_lines,
    record_files,
    write_whole,
)

READ = {RECORD_NAME: read_record, JOURNAL_NAME: read_journal, "last.ckpt": energy_of}


# ---- names and places ----


@pytest.mark.parametrize("name", [RECORD_NAME, JOURNAL_NAME, BATCHES_NAME])
def test_a_rank_has_names_of_its_own(name):
    stem, suffix = name.split(".")
    assert file_of(name, 0) == name
    assert file_of(name, 3) == f"{stem}.rank3.{suffix}"


def test_the_place_beside_a_directory_of_checkpoints(tmp_path):
    assert beside(tmp_path / "run") == tmp_path / "run.watt"
    assert beside(Path("/")) == Path("/.watt")


def test_where_nobody_may_write_beside_it_the_place_is_inside(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "access", lambda place, how: place != tmp_path)
    assert beside(tmp_path / "run") == tmp_path / "run" / ".watt"


@pytest.mark.parametrize("place", ["run", "run.watt", "run/.watt"])
def test_a_runs_files_are_found_in_each_of_its_places(tmp_path, place):
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / RECORD_NAME).touch()
    assert place_of(run) == tmp_path / place


def test_without_a_record_the_place_is_the_directory(tmp_path):
    assert place_of(tmp_path / "run") == tmp_path / "run"


# ---- reading ----


def test_everything_below_with_a_records_name_is_found_and_no_link_followed(tmp_path):
    for name in ("b/watt-v10.json", "b/watt-v2.json", "b/watt.rank1.json", "b/watt-v2.jsonl", "a/2/watt.json", "other.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "watt.json").mkdir()
    (tmp_path / "b" / "round").symlink_to(tmp_path)
    found = [str(file.relative_to(tmp_path)) for file in record_files(tmp_path)]
    assert found == ["a/watt.json", "a/2/watt.json", "b/watt-v2.json", "b/watt-v10.json"]
    unreadable = []
    assert list(record_files(tmp_path / "none", unreadable.append)) == []
    assert len(unreadable) == 1


def test_a_file_of_just_the_limit_is_read(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"a\n" * 50)
    assert read_bounded(file, 100) == b"a\n" * 50
    assert list(read_lines(file, 100)) == [(b"a\n", False)] * 49 + [(b"a\n", True)]
    with pytest.raises(OSError, match="more than 99 bytes"):
        read_bounded(file, 99)
    with pytest.raises(OSError, match="more than 99 bytes"):
        list(read_lines(file, 99))


def test_a_huge_file_is_refused_before_it_is_read(tmp_path):
    """Sparse, so that it takes no room here."""
    for name in (RECORD_NAME, JOURNAL_NAME):
        with (tmp_path / name).open("wb") as file:
            file.truncate(2**40)
        with pytest.raises(RecordError, match="no run writes a file of that size"):
            READ[name](tmp_path)


def test_a_file_that_grows_while_it_is_read_is_refused_too(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"a\n" * 10)
    lines = read_lines(file, 30)
    assert next(lines) == (b"a\n", False)
    with file.open("ab") as more:
        more.write(b"a\n" * 20_000)
    with pytest.raises(OSError, match="more than 30 bytes"):
        list(lines)


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"one", [(b"one", True)]),
        (b"one\n\ntwo", [(b"one\n", False), (b"\n", False), (b"two", True)]),
        (b"a" * (MAX_LINE_BYTES + 1), [(b"a" * MAX_LINE_BYTES, False), (b"a", True)]),
    ],
    ids=["empty", "half a line", "an empty line", "a line without end"],
)
def test_the_lines_of_a_file(tmp_path, content, lines):
    (tmp_path / "file").write_bytes(content)
    assert list(read_lines(tmp_path / "file", 2**30)) == lines


def test_a_reader_that_stops_leaves_nothing_open(tmp_path):
    (tmp_path / "file").write_bytes(b"a\n" * 10)
    before = os.listdir("/proc/self/fd")
    lines = read_lines(tmp_path / "file", 100)
    next(lines)
    lines.close()
    assert os.listdir("/proc/self/fd") == before


def special(path: Path, kind: str) -> Path:
    """Something at `path` that can be read for ever, or that nobody ever writes to."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(path.with_name("pipe"))
        path.symlink_to(path.with_name("pipe"))
    return path


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["pipe", "device", "link to a pipe"])
def test_what_is_no_regular_file_is_refused_by_every_reader(tmp_path, kind):
    path = special(tmp_path / "file", kind)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="no regular file"):
        read_bounded(path, 100)
    with pytest.raises(OSError, match="no regular file"):
        next(read_lines(path, 100))
    with pytest.raises(RecordError, match="no regular file"):
        check_regular(path)
    assert os.listdir("/proc/self/fd") == before


def test_what_another_library_may_open(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for path in (tmp_path, tmp_path / "file", tmp_path / "link"):
        check_regular(path)
    with pytest.raises(FileNotFoundError):
        check_regular(tmp_path / "nothing")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["pipe", "device", "link to a pipe"])
@pytest.mark.parametrize("name", [RECORD_NAME, JOURNAL_NAME, "last.ckpt"])
def test_what_is_no_regular_file_is_not_read(tmp_path, name, kind):
    path = special(tmp_path / name, kind)
    with pytest.raises(RecordError, match="no regular file"):
        READ[name](path)


@pytest.mark.parametrize("name", [RECORD_NAME, JOURNAL_NAME])
def test_what_is_refused_is_not_left_open(tmp_path, name):
    (tmp_path / name).mkdir()
    before = os.listdir("/proc/self/fd")
    with pytest.raises(RecordError, match="cannot be read"):
        READ[name](tmp_path / name)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("name", [RECORD_NAME, JOURNAL_NAME, "last.ckpt"])
def test_a_link_in_a_circle_or_to_nothing_is_an_error(tmp_path, name):
    (tmp_path / name).symlink_to(tmp_path / name)
    with pytest.raises(RecordError, match=name):
        READ[name](tmp_path / name)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to(tmp_path / "nowhere")
    with pytest.raises(RecordError, match=name):
        READ[name](tmp_path / name)


# ---- writing ----


@pytest.mark.parametrize("mode", ["x", "a+"])
def test_a_file_of_ours_is_made_and_written_without_a_buffer(tmp_path, mode):
    with open_to_write(tmp_path / "file", mode) as file:
        write_whole(file, b"one\n")
        assert (tmp_path / "file").read_bytes() == b"one\n"
        write_whole(file, b"two\n")
    assert (tmp_path / "file").read_bytes() == b"one\ntwo\n"


def test_a_file_that_is_made_anew_must_not_be_there(tmp_path):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(FileExistsError):
        open_to_write(tmp_path / "file", "x")
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["pipe", "device", "link to a pipe"])
def test_what_is_no_file_of_ours_is_not_written(tmp_path, kind):
    path = special(tmp_path / "file", kind)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="take it away") as caught:
        open_to_write(path, "a+")
    assert caught.value.filename == str(path)
    assert os.listdir("/proc/self/fd") == before


def test_what_does_not_fit_is_taken_back(tmp_path, monkeypatch):
    class SmallDisk(files.FileIO):
        def write(self, raw):
            return super().write(raw[: max(0, 10 - self.tell())])

    monkeypatch.setattr(files, "FileIO", SmallDisk)
    with open_to_write(tmp_path / "file", "a+") as file:
        write_whole(file, b"1234567\n")
        with pytest.raises(OSError, match="No space left") as caught:
            write_whole(file, b"1234567\n")
        assert caught.value.filename == str(tmp_path / "file")
        assert (tmp_path / "file").read_bytes() == b"1234567\n"
        write_whole(file, b"9\n")
    assert (tmp_path / "file").read_bytes() == b"1234567\n9\n"
