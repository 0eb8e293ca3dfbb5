"""Files that somebody prepared: each is a clear error, at once, and nothing in it runs or is followed."""

from __future__ import annotations

import ast
import inspect
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_watt import energy_of, read_record
from lightning_watt.errors import RecordError
from lightning_watt.record import files, scribe, writer
from lightning_watt.record import schema as record
from lightning_watt.record.journal import file_of
from lightning_watt.record.schema import JOURNAL_NAME, RECORD_NAME, BatchRow, read_journal, to_json
from lightning_watt.record.scribe import BATCHES_NAME, Scribe
from lightning_watt.record.writer import RecordWriter
from lightning_watt.run.ledger import Ledger
from tests.unit.record.test_record import a_record


def plain() -> dict[str, Any]:
    return json.loads(to_json(a_record()))


def changed(path: str, value: Any) -> bytes:
    """A good record with one value replaced; `energy.by_device.gpu0.joules` names it."""
    whole = plain()
    *inner, last = path.split(".")
    at: Any = whole
    for key in inner:
        at = at[int(key)] if isinstance(at, list) else at[key]
    at[int(last) if isinstance(at, list) else last] = value
    return json.dumps(whole).encode()


# ---- records ----


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("energy.total_j", -1.0),
        ("energy.total_j", "7"),
        ("energy.total_j", True),
        ("energy.total_j", [1]),
        ("energy.total_j", float("nan")),
        ("energy.total_j", float("inf")),
        ("energy.total_kwh", -0.5),
        ("energy.uncertainty_j", -1),
        ("energy.provenance", "trust me"),
        ("energy.by_stage.train.joules", -2.0),
        ("energy.by_stage.train.batches", -1),
        ("energy.by_stage.train.batches", 1.5),
        ("energy.by_stage", []),
        ("energy.by_device.gpu0.joules", -1),
        ("energy.by_device.gpu0.name", None),
        ("energy.by_device.gpu0.name", {"$ref": "file:///etc/passwd"}),
        ("inherited.0.total_j", -1),
        ("epochs.0.seconds", -1e9),
        ("sam.unit", "MWh"),
        ("accuracy", 0.9),
        ("resumed_j", -5),
    ],
)
def test_a_value_that_cannot_be_is_named(tmp_path, path, value):
    (tmp_path / RECORD_NAME).write_bytes(changed(path, value))
    with pytest.raises(RecordError, match="not a run record") as caught:
        read_record(tmp_path)
    assert str(tmp_path / RECORD_NAME) in str(caught.value)
    with pytest.raises(RecordError):
        energy_of(tmp_path)


@pytest.mark.parametrize("literal", ["1e999", "-1e999", "NaN", "Infinity", "0x7f", "1" * 5000])
def test_a_number_that_json_does_not_know_or_no_float_holds(tmp_path, literal):
    raw = to_json(a_record()).replace(b'"total_j": 7200000.0', f'"total_j": {literal}'.encode())
    assert literal.encode() in raw
    (tmp_path / RECORD_NAME).write_bytes(raw)
    with pytest.raises(RecordError, match="not a run record"):
        read_record(tmp_path)


@pytest.mark.parametrize("key", ["hardware", "model"])
def test_nesting_without_end_is_refused(tmp_path, key):
    """Also where a record may hold anything."""
    deep = "[" * 100_000 + "]" * 100_000
    raw = to_json(a_record()).replace(f'"{key}": {{}}'.encode(), f'"{key}": {{"a": {deep}}}'.encode())
    assert len(raw) > 200_000
    (tmp_path / RECORD_NAME).write_bytes(raw)
    with pytest.raises(RecordError, match="not a run record"):
        read_record(tmp_path)


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
@pytest.mark.parametrize("name", [RECORD_NAME, JOURNAL_NAME, "last.ckpt"])
def test_what_is_no_regular_file_is_not_read(tmp_path, name, kind):
    path = special(tmp_path / name, kind)
    read = {RECORD_NAME: read_record, JOURNAL_NAME: read_journal, "last.ckpt": energy_of}[name]
    with pytest.raises(RecordError, match="no regular file"):
        read(path)


@pytest.mark.parametrize("name", [RECORD_NAME, JOURNAL_NAME])
def test_what_is_refused_is_not_left_open(tmp_path, name):
    read = {RECORD_NAME: read_record, JOURNAL_NAME: read_journal}[name]
    (tmp_path / name).mkdir()
    before = os.listdir("/proc/self/fd")
    with pytest.raises(RecordError, match="cannot be read"):
        read(tmp_path / name)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("name", [RECORD_NAME, JOURNAL_NAME, "last.ckpt"])
def test_a_link_in_a_circle_or_to_nothing_is_an_error(tmp_path, name):
    read = {RECORD_NAME: read_record, JOURNAL_NAME: read_journal, "last.ckpt": energy_of}[name]
    (tmp_path / name).symlink_to(tmp_path / name)
    with pytest.raises(RecordError, match=name):
        read(tmp_path / name)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to(tmp_path / "nowhere")
    with pytest.raises(RecordError, match=name):
        read(tmp_path / name)


def test_a_record_behind_a_link_is_read(tmp_path):
    """Links are how people keep runs on another disk."""
    RecordWriter(tmp_path / "disk").write(a_record())
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    assert read_record(tmp_path / "run") == a_record()


def test_a_huge_file_is_not_loaded(tmp_path):
    """Sparse, so that it takes no room here."""
    with (tmp_path / RECORD_NAME).open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(RecordError, match="no record is larger"):
        read_record(tmp_path)


def test_a_journal_without_end_is_not_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "MAX_JOURNAL_BYTES", 100)
    (tmp_path / JOURNAL_NAME).write_bytes(b'{"t": 1}\n' * 20)
    with pytest.raises(RecordError, match="no record is larger"):
        read_journal(tmp_path)
    assert files.read_bounded(tmp_path / JOURNAL_NAME, 180) == b'{"t": 1}\n' * 20


@pytest.mark.parametrize("line", [b"[1]", b"7", b'"text"', b"\xff\xfe", b"[" * 100_000])
def test_a_line_of_the_journal_that_is_none_is_named(tmp_path, line):
    (tmp_path / JOURNAL_NAME).write_bytes(b'{"t": 1}\n' + line + b'\n{"t": 2}\n')
    with pytest.raises(RecordError, match="line 2"):
        read_journal(tmp_path)


# ---- where a record is written ----


def test_a_link_where_the_half_record_goes_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    run = tmp_path / "run"
    run.mkdir()
    (run / f".{RECORD_NAME}.{os.getpid()}").symlink_to(victim)
    RecordWriter(run).write(a_record())
    assert victim.read_text() == "precious"
    assert read_record(run) == a_record()


def test_a_link_where_the_record_goes_is_replaced_and_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    run = tmp_path / "run"
    run.mkdir()
    (run / RECORD_NAME).symlink_to(victim)
    RecordWriter(run).write(a_record())
    assert victim.read_text() == "precious"
    assert not (run / RECORD_NAME).is_symlink()


WRITES = {
    RECORD_NAME: lambda scribe: scribe.record(a_record()),
    f".{RECORD_NAME}.room": lambda scribe: scribe.record(a_record(status="running")),
    JOURNAL_NAME: lambda scribe: scribe.journal({"t": 1.0, "total_j": 5.0}),
    BATCHES_NAME: lambda scribe: scribe.batches([BatchRow("train", 0, 0, 1.25, 0.01, 0.1)]),
}
REPLACED = (RECORD_NAME, f".{RECORD_NAME}.room")
"""Made anew each time, and so in the place of whatever stood there."""


def named(name: str, rank: int) -> str:
    """The file's name for a rank; the room is kept beside the record."""
    if name.endswith(".room"):
        return f".{file_of(RECORD_NAME, rank)}.room"
    return file_of(name, rank)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("name", WRITES)
def test_a_pipe_where_a_file_of_ours_goes_is_not_waited_for(tmp_path, name, rank):
    told: list[str] = []
    pipe = tmp_path / named(name, rank)
    os.mkfifo(pipe)
    scribe = Scribe(tmp_path, told.append, rank)
    for _ in range(2):
        WRITES[name](scribe)
    if name in REPLACED:
        assert told == []
        assert pipe.is_file()
    else:
        assert ["no regular file stands there; take it away" in sentence for sentence in told] == [True]
    scribe.close()


@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("content", [b"precious", b"", b"whole\nand half a line"], ids=["text", "empty", "half"])
@pytest.mark.parametrize("name", WRITES)
def test_a_link_where_a_file_of_ours_goes_leaves_its_target_alone(tmp_path, name, content, rank):
    """Neither emptied nor cut nor appended to."""
    told: list[str] = []
    victim, run = tmp_path / "victim", tmp_path / "run"
    victim.write_bytes(content)
    run.mkdir()
    link = run / named(name, rank)
    link.symlink_to(victim)
    scribe = Scribe(run, told.append, rank)
    for _ in range(2):
        WRITES[name](scribe)
    assert victim.read_bytes() == content
    if name in REPLACED:
        assert told == []
        assert not link.is_symlink()
    else:
        assert ["a link stands there, and is not followed" in sentence for sentence in told] == [True]
        link.unlink()
        WRITES[name](scribe)  # as the sentence promises
        assert link.stat().st_size > 0
    scribe.close()
    assert victim.read_bytes() == content


@pytest.mark.parametrize("name", [JOURNAL_NAME, BATCHES_NAME])
def test_a_link_to_nothing_is_not_followed_either(tmp_path, name):
    told: list[str] = []
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(tmp_path / "nowhere")
    scribe = Scribe(tmp_path / "run", told.append)
    WRITES[name](scribe)
    scribe.close()
    assert len(told) == 1
    assert not (tmp_path / "nowhere").exists()


def test_a_directory_behind_a_link_is_written_to(tmp_path):
    """Links are how people keep runs on another disk."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    scribe = Scribe(tmp_path / "run", pytest.fail)
    for write in WRITES.values():
        write(scribe)
    assert sorted(os.listdir(tmp_path / "disk")) == sorted(WRITES)
    scribe.close()


def test_our_files_are_opened_in_one_place():
    """Over the source: nothing that writes a run's files opens one by itself."""
    for module in (writer, scribe):
        calls = [
            ast.unparse(node.func) for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.Call)
        ]
        assert "open_to_write" in calls
        named = {call.split(".")[-1] for call in calls}
        assert not named & {"open", "FileIO", "fdopen", "write_bytes", "write_text", "touch"}, module.__name__


# ---- checkpoints ----


class Evil:
    """Makes a directory where it is unpickled."""

    def __init__(self, sign: Path) -> None:
        self.sign = str(sign)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.sign,)


def zipped(path: Path, data: bytes) -> Path:
    """A torch archive with that pickle in it."""
    torch.save({}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, data if name.endswith("data.pkl") else content)
    return path


def pickles(sign: Path) -> dict[str, bytes]:
    """Ways to run something out of a pickle."""
    command = f"os.mkdir({str(sign)!r})".encode()
    return {
        "reduce": pickle.dumps(Evil(sign), protocol=2),
        "within the state": pickle.dumps({"callbacks": {"WattCallback": {"session": Evil(sign)}}}, protocol=2),
        "as a key": pickle.dumps({"callbacks": {"WattCallback": 1}, Evil: Evil(sign)}, protocol=2),
        "eval": b"cbuiltins\neval\n(V__import__('os').mkdir('" + str(sign).encode() + b"')\ntR.",
        "global": b"cposix\nmkdir\n(V" + str(sign).encode() + b"\ntR.",
        "allow-listed, then more": b"ctorch.storage\n_load_from_bytes\n(B" + pickle.dumps(Evil(sign)) + b"tR.",
        "cut off": b"cposix\nmkdir\n(V" + str(sign).encode(),
        "command": command,
    }


@pytest.mark.parametrize("kind", pickles(Path("x")))
@pytest.mark.parametrize("container", ["zip", "bare"])
def test_no_pickle_runs_anything(tmp_path, kind, container):
    sign = tmp_path / "it ran"
    raw = pickles(sign)[kind]
    path = tmp_path / "evil.ckpt"
    if container == "zip":
        zipped(path, raw)
    else:
        path.write_bytes(raw)
    with pytest.raises(RecordError, match="without running code"):
        energy_of(path)
    assert not sign.exists()


@pytest.mark.parametrize(
    "entry",
    [
        ["train", 0, {"gpu0": -5_000_000}, 0, 0, 0, 0.0],
        ["train", 0, {"gpu0": 10**400}, 0, 0, 0, 0.0],
        ["train", 0, {"gpu0": float("nan")}, 0, 0, 0, 0.0],
        ["train", 0, {"gpu0": 5}, -(10**12), 0, 0, 0.0],
        ["train", 0, {"gpu0": 5}, 0, -1, 0, 0.0],
        ["train", 0, {"gpu0": 5}, 0, 0, 0, float("nan")],
        ["train", 0, {"gpu0": 5}, 0, 0, 0, -1.0],
        ["mining", 0, {"gpu0": 5}, 0, 0, 0, 0.0],
        ["train", 0, {"gpu0": "much"}, 0, 0, 0, 0.0],
        ["train"],
        "train",
        None,
    ],
)
def test_an_account_that_cannot_be_is_refused_whole(tmp_path, entry):
    ledger = Ledger()
    good = ["validate", 0, {"gpu0": 5}, 0, 0, 0, 0.0]
    with pytest.raises(ValueError, match="not a ledger's state"):
        ledger.absorb([good, entry])
    assert ledger.total_uj == 0
    state = {"session": {"ledger": [good, entry]}, "inherited": []}
    torch.save({"callbacks": {"WattCallback": state}}, tmp_path / "last.ckpt")
    with pytest.raises(RecordError, match="broken"):
        energy_of(tmp_path / "last.ckpt")


@pytest.mark.parametrize("total_j", [-1.0, float("nan"), float("inf"), 10**400])
def test_an_inherited_energy_that_cannot_be_is_refused(tmp_path, total_j):
    state = {"session": {"ledger": []}, "inherited": [{"path": "a", "total_j": total_j}]}
    torch.save({"callbacks": {"WattCallback": state}}, tmp_path / "last.ckpt")
    with pytest.raises(RecordError, match="broken"):
        energy_of(tmp_path / "last.ckpt")
