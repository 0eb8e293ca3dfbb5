"""A remote directory: what is copied there, when, and what happens if it cannot be; over fsspec's own file systems."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from lightning_watt import energy_of, read_record
from lightning_watt.errors import RecordError
from lightning_watt.record import read_records
from lightning_watt.record.claim import RunFiles
from lightning_watt.record.journal import JournalLine
from lightning_watt.record.remote import RemoteCopy, at_hand
from lightning_watt.record.writer import RunWriter
from tests.unit.record.made import a_record, a_session

MEMORY = fsspec.filesystem("memory")


@pytest.fixture
def url() -> Iterator[str]:
    name = uuid.uuid4().hex
    yield f"memory://{name}/run"
    if MEMORY.exists(f"/{name}"):
        MEMORY.rm(f"/{name}", recursive=True)


def there(url: str) -> list[str]:
    return sorted(os.path.basename(name) for name in MEMORY.ls(url.removeprefix("memory:/"), detail=False))


def run(url: str, session: str, said: list[str] | None = None, **about: Any) -> RemoteCopy:
    copy = RemoteCopy(url)
    files = RunFiles(copy.directory, copy=copy)
    writer = RunWriter(files, (said if said is not None else []).append)
    writer.journal(JournalLine(t=1.0, session=session))
    writer.record(a_record(session=session, status="completed", **about))
    writer.close()
    return copy


def test_the_files_are_there_when_the_run_has_ended_and_each_run_has_its_own(url):
    first, second = run(url, "a", started_unix=1.0), run(url + "/", "b", started_unix=2.0)
    assert there(url) == ["watt-v1.json", "watt-v1.jsonl", "watt.json", "watt.jsonl"]
    assert (first.path("watt.json"), second.path("watt.json")) == (f"{url}/watt.json", f"{url}/watt-v1.json")
    assert [record.session for record in read_records(url)] == ["a", "b"]
    assert read_record(url).session == "b"
    assert read_record(f"{url}/watt.json").session == "a"
    assert energy_of(url).own_j == 2 * 7.2e6
    assert energy_of(url).path == url


def test_the_local_place_is_told_once_and_does_not_outlive_the_run(url):
    said: list[str] = []
    copy = run(url, "a", said)
    (sentence,) = said
    assert "memory://" in sentence
    place = copy.directory
    assert str(place.parent) in sentence
    assert place.exists()
    del copy
    assert not place.exists()


def test_a_record_that_is_due_is_copied_while_the_run_goes_on(url):
    copy = RemoteCopy(url)
    writer = RunWriter(RunFiles(copy.directory, copy=copy), lambda _: None)
    writer.journal(a_session("a", 1.0)[0])
    writer.record(a_record(session="a"))
    for _ in range(500):
        if MEMORY.exists(f"{url.removeprefix('memory:/')}/watt.json"):
            break
        time.sleep(0.01)
    assert read_record(url).status == "running"
    writer.close()


def test_a_second_stage_goes_on_in_the_same_remote_files(url):
    copy = RemoteCopy(url)
    files = RunFiles(copy.directory, goes_on=lambda heading: heading.session == "a", copy=copy)
    for status in ("running", "completed", "failed"):
        writer = RunWriter(files, lambda _: None)
        writer.record(a_record(session="a", status=status))
        writer.close()
        assert read_record(url).status == status
    assert there(url) == ["watt.json", "watt.jsonl"]


def test_a_copy_that_fails_is_told_once_with_where_the_files_are(tmp_path):
    said: list[str] = []
    copy = run("no-such-protocol://bucket/run", "a", said)
    assert len(said) == 2
    assert "could not be copied to no-such-protocol://bucket/run" in said[1]
    assert str(copy.directory) in said[1]
    place = copy.directory
    del copy
    assert read_record(place).session == "a"
    for file in place.iterdir():
        file.unlink()
    place.rmdir()


def test_a_network_that_hangs_holds_up_nothing_but_the_end_and_that_with_a_limit(url, monkeypatch):
    answers = threading.Event()
    monkeypatch.setattr(type(MEMORY), "makedirs", lambda *_, **__: answers.wait(30))
    copy = RemoteCopy(url)
    writer = RunWriter(RunFiles(copy.directory, copy=copy), (said := []).append)
    for _ in range(3):
        writer.record(a_record(session="a"))  # would hang here
    copy.end(0.1)
    assert "longer than 0.1 s" in list(copy.said)[-1]
    answers.set()
    monkeypatch.undo()
    writer.close()
    assert read_record(url).session == "a"
    assert len(said) == 2


def test_errors_name_the_url(url):
    with pytest.raises(RecordError, match=rf"^{url}/watt\.json: there is no such file"):
        read_record(url)
    MEMORY.pipe_file(f"{url.removeprefix('memory:/')}/watt.json", b"{")
    with pytest.raises(RecordError, match=rf"^{url}/watt\.json: this is not a run record"):
        read_record(f"{url}/watt.json")
    with pytest.raises(RecordError, match="it cannot be read"):
        energy_of("no-such-protocol://x")


def test_a_url_of_this_machine_is_a_path(tmp_path):
    run_here = RunWriter(RunFiles(tmp_path), pytest.fail)
    run_here.record(a_record(session="a"))
    run_here.close()
    assert read_record(f"file://{tmp_path}").session == "a"
    assert energy_of(f"file://{tmp_path}").path == tmp_path
    with at_hand(Path(tmp_path)) as here:
        assert here == tmp_path


def test_a_child_that_was_forked_off_removes_nothing(url):
    copy = RemoteCopy(url)
    child = os.fork()
    if child == 0:
        copy._remove()
        os._exit(0)
    os.waitpid(child, 0)
    assert copy.directory.exists()
