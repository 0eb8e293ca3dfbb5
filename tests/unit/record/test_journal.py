"""Journals as somebody may have left them: what makes no sense is left out and told; and what was lost, by the rules."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from lightning_watt.host import host_id, process_facts, this_machine
from lightning_watt.record.journal import JOURNAL_NAME, About, Line, read_traces
from lightning_watt.record.schema import (
    Accuracy,
    DeviceEnergy,
    Energy,
    NodeEnergy,
    Record,
    Sam,
    Stage,
    read_journal,
    read_record,
)
from lightning_watt.record.writer import RecordWriter
from lightning_watt.run.wasted import Losses, Taken, find_losses

J = 1_000_000
NOW = 1_000_000.0
BOARD = About(name="a board", uuid="GPU-0", source="nvml-counter", provenance="measured", gain=0.05)


def lines(session: str, *joules: float, resumes: list[str] = [], status: str | None = None, **facts) -> list[Line]:  # noqa: B006
    """A session that wrote a line a second, with these joules so far."""
    made = [
        Line(t=NOW - 500 + i, session=session, device_uj={"gpu0": round(j * J)}, ns=i * 10**9, power_w=100.0)
        for i, j in enumerate(joules)
    ]
    made[0].devices, made[0].resumes, made[0].where, made[0].interval_s = {"gpu0": BOARD}, resumes, "another machine", 1.0
    for name, value in facts.items():
        setattr(made[0], name, value)
    made[-1].status = status  # type: ignore[assignment]
    return made


def journal(directory: Path, *sessions: list[Line], name: str = JOURNAL_NAME) -> Path:
    directory.mkdir(exist_ok=True)
    file = directory / name
    with file.open("ab") as out:
        for session in sessions:
            out.writelines(msgspec.json.encode(line) + b"\n" for line in session)
    return file


def beside(directory: Path, session: str, resumes: list[str]) -> None:
    """A record that says whose run this one goes on with."""
    (directory / "watt.json").write_bytes(msgspec.json.encode({"session": session, "resumes": resumes}))


def lost(found: Losses) -> dict[str, tuple[str, float]]:
    return {loss.session: (loss.status, loss.total_uj / J) for loss in found.found}


def find(taken: dict[str, float], unfinished: list[str], *directories: Path, own: str = "me") -> Losses:
    return find_losses(
        {session: Taken({"gpu0": round(j * J)}, 0) for session, j in taken.items()}, unfinished, directories, {own}, NOW
    )


# ---- what was lost ----


@pytest.mark.parametrize("status", [None, "failed", "interrupted"])
def test_what_a_session_used_after_its_checkpoint(tmp_path, status):
    journal(tmp_path, lines("a", 0, 100, 200, 300, status=status))
    found = find({"a": 220.0}, ["a"], tmp_path)
    assert lost(found) == {"a": (status or "killed", 80.0)}
    (loss,) = found.found
    assert loss.taken.uj == {"gpu0": 300 * J}
    # What a kill cut off is at most an interval, and is said; a session that told its end lacks nothing.
    assert (loss.unseen_s, loss.unseen_j) == ((1.0, 100.0) if status is None else (0.0, 0.0))
    assert found.unknown == []


def test_a_session_that_ended_well_lost_nothing_and_a_test_after_it_did(tmp_path):
    journal(tmp_path, lines("a", 0, 100, 200, status="completed"))
    assert lost(find({"a": 150.0}, ["a"], tmp_path)) == {}
    journal(tmp_path, [Line(t=NOW - 400, session="a", device_uj={"gpu0": 260 * J}, ns=9 * 10**9)])
    assert lost(find({"a": 150.0}, ["a"], tmp_path)) == {"a": ("killed", 60.0)}


def test_a_session_that_still_runs_lost_nothing(tmp_path):
    parent = psutil.Process(os.getppid())
    alive = {"where": this_machine(), "pid": parent.pid, "born": parent.create_time()}
    journal(tmp_path, lines("a", 0, 100, 200, **alive))
    assert lost(find({"a": 150.0}, ["a"], tmp_path)) == {}
    dead = alive | {"born": parent.create_time() - 3600}  # the number was given to another process since
    journal(tmp_path / "dead", lines("a", 0, 100, 200, **dead))
    assert lost(find({"a": 150.0}, ["a"], tmp_path / "dead")) == {"a": ("killed", 50.0)}
    where, pid, born = process_facts()
    assert (where, pid) == (this_machine(), os.getpid())
    assert where.startswith(host_id())
    assert born < time.time()


def test_a_checkpoint_that_was_ahead_of_the_journal_stands(tmp_path):
    journal(tmp_path, lines("a", 0, 100))
    found = find({"a": 130.0}, ["a"], tmp_path)
    assert lost(found) == {"a": ("killed", 0.0)}
    assert found.found[0].taken.uj == {"gpu0": 130 * J}


def test_what_was_settled_before_is_not_lost_again(tmp_path):
    journal(tmp_path, lines("a", 0, 300), lines("b", 0, 50, resumes=["a"]))
    assert lost(find({"a": 300.0, "b": 20.0}, ["b"], tmp_path)) == {"b": ("killed", 30.0)}


@pytest.mark.parametrize("place", ["same directory", "beside"])
def test_a_branch_that_came_to_nothing_is_lost_whole(tmp_path, place):
    journal(tmp_path / "0", lines("a", 0, 100))
    there = tmp_path / ("0" if place == "same directory" else "1")
    journal(there, lines("b", 0, 40, resumes=["a"]), lines("c", 0, 7, resumes=["a", "b"]))
    beside(there, "c", ["a", "b"])
    journal(tmp_path / "2", lines("stranger", 0, 1000, resumes=["somebody"]))
    beside(tmp_path / "2", "stranger", ["somebody"])
    found = find({"a": 60.0}, ["a"], tmp_path / "0")
    assert lost(found) == {"a": ("killed", 40.0), "b": ("killed", 40.0), "c": ("killed", 7.0)}


def test_a_branch_that_lives_on_is_nobodys_loss(tmp_path):
    journal(tmp_path, lines("a", 0, 100))
    journal(tmp_path, lines("b", 0, 40, resumes=["a"]), lines("c", 0, 7, resumes=["a", "b"], status="completed"))
    # Another one on another machine, which wrote a line just now.
    fresh = lines("d", 0, 5, resumes=["a"])
    fresh[-1].t = NOW - 2
    journal(tmp_path, fresh)
    assert lost(find({"a": 60.0}, ["a"], tmp_path)) == {"a": ("killed", 40.0)}


def test_every_rank_s_journal_is_read(tmp_path):
    journal(tmp_path, lines("a", 0, 100))
    journal(tmp_path, lines("node1", 0, 90), name="watt.rank2.jsonl")
    assert lost(find({"a": 60.0, "node1": 10.0}, ["a", "node1"], tmp_path)) == {
        "a": ("killed", 40.0),
        "node1": ("killed", 80.0),
    }


def test_a_journal_that_is_not_there_is_told(tmp_path):
    journal(tmp_path, lines("b", 0, 5))
    (sentence,) = find({"a": 60.0}, ["a"], tmp_path).unknown
    assert "not known" in sentence
    assert str(tmp_path) in sentence


def test_a_copied_directory_is_counted_once(tmp_path):
    for place, joules in (("1", (0, 100, 200)), ("copy", (0, 100)), ("later", (0, 100, 200, 300))):
        journal(tmp_path / place, lines("a", *joules))
    assert lost(find({"a": 60.0}, ["a"], *(tmp_path / place for place in ("1", "copy", "later")))) == {
        "a": ("killed", 240.0)
    }


# ---- a record, brought up to date ----


def a_running_record(directory: Path, status: str = "running") -> Path:
    """Of two nodes, as rank zero wrote it at an epoch's end."""

    def device(label: str, joules: float) -> DeviceEnergy:
        return DeviceEnergy(joules=joules, name="a board", uuid="GPU-0", source="nvml-counter", provenance="measured")

    stages = {"train": Stage(joules=130.0, seconds=1.0)}
    devices = {"gpu0": device("gpu0", 100.0), "node1/gpu0": device("node1/gpu0", 30.0)}
    record = Record(
        schema_version=1,
        status=status,
        energy=Energy(
            total_j=130.0, total_kwh=0.0, uncertainty_j=5.0, provenance="measured", by_stage=stages, by_device=devices
        ),
        accuracy=Accuracy(),
        sam=Sam(alpha=5.0, beta=5.0, unit="kWh"),
        session="a",
        run="a",
        nodes=[
            NodeEnergy(session="a", device_uj={"gpu0": 100 * J}, stage_uj={"train": 100 * J}, ns=10**9),
            NodeEnergy(session="b", rank=2, node=1, device_uj={"gpu0": 30 * J}, stage_uj={"train": 30 * J}, ns=10**9),
        ],
        updated_unix=NOW - 600,
    )
    RecordWriter(directory).write(record)
    return directory


@pytest.mark.parametrize("status", ["running", "failed"])
def test_a_directory_s_record_knows_what_its_journals_know(tmp_path, status):
    a_running_record(tmp_path, status)
    mine, theirs = lines("a", 0, 100, 200, run="a"), lines("b", 0, 30, 60, 90, run="a", rank=2, node=1)
    mine[-1].stage_uj, theirs[-1].stage_uj = {"train": 150 * J, "validate": 50 * J}, {"train": 80 * J, "validate": 10 * J}
    third = lines("c", 0, 7, run="a", rank=4, node=2)  # killed before it told anything
    third[-1].stage = "train"
    journal(tmp_path, mine, lines("before", 0, 1000, run="before"))
    journal(tmp_path, theirs, name="watt.rank2.jsonl")
    journal(tmp_path, third, name="watt.rank4.jsonl")
    record = read_record(tmp_path)
    energy = record.energy
    assert energy.total_j == pytest.approx(200 + 90 + 7)
    assert energy.total_kwh == pytest.approx(297 / 3.6e6)
    assert {label: device.joules for label, device in energy.by_device.items()} == pytest.approx(
        {"gpu0": 200, "node1/gpu0": 90, "node2/gpu0": 7}
    )
    assert {stage: entry.joules for stage, entry in energy.by_stage.items()} == pytest.approx(
        {"train": 150 + 80 + 7, "validate": 60}
    )
    assert record.updated_unix == NOW - 497
    assert record.status == status
    assert sorted(node.session for node in record.nodes) == ["a", "b", "c"]
    # The file itself is read as it is.
    assert read_record(tmp_path / "watt.json").energy.total_j == 130


def test_a_record_beside_hostile_journals_is_what_was_written(tmp_path):
    a_running_record(tmp_path)
    journal(tmp_path, [Line(t=NOW, session="a", device_uj={"gpu0": 2**61}, ns=10**10)])
    os.mkfifo(tmp_path / "watt.rank2.jsonl")
    assert read_record(tmp_path).energy.total_j == 130


# ---- broken and hostile ----


def test_a_last_line_that_was_cut_off_is_what_a_kill_leaves(tmp_path):
    file = journal(tmp_path, lines("a", 0, 100, 200))
    file.write_bytes(file.read_bytes()[:-20])
    traces = read_traces([tmp_path])
    assert traces.problems == []
    assert traces.by_session["a"].total_uj == 100 * J


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense",
        bytes(range(1, 10)) * 400,
        b"\0" * 4096,
        b"[" * 2_500_000,
        b"[" * 500_000,
        b'{"t": 1e9, "session": "a"',
        b'{"t": 1e9}',
        b'{"t": 1e999, "session": "a", "device_uj": {"gpu0": 300000000}, "ns": 3000000000}',
        b'{"t": 1e9, "session": "a", "device_uj": {"gpu0": 4000000000000000000}, "ns": 3000000000}',
        b'{"t": 1e9, "session": "a", "device_uj": {"gpu0": 99999999999999999999999}, "ns": 3000000000}',
        b'{"t": 1e9, "session": "a", "device_uj": {"gpu0": 100}, "ns": 3000000000}',
        b'{"t": 1e9, "session": "a", "device_uj": {}, "ns": 3000000000}',
        b'{"t": 1e9, "session": "a", "device_uj": {"gpu0": 300000000}, "ns": 1}',
        b'{"t": 1e9, "session": "a", "device_uj": {"gpu0": -300000000}, "ns": 3000000000}',
        b'{"t": "now", "session": "a", "device_uj": {"gpu0": "much"}, "ns": {}}',
        b'{"t": 1e9, "session": "' + b"a" * 300 + b'"}',
    ],
)
def test_a_line_that_makes_no_sense_is_left_out_and_told(tmp_path, raw):
    before, after = lines("a", 0, 100, 200), lines("a", 0, 100, 200, 250)[3:]
    file = journal(tmp_path, before)
    with file.open("ab") as out:
        out.write(raw + b"\n")
    journal(tmp_path, after)
    traces = read_traces([tmp_path])
    assert list(traces.by_session) == ["a"]
    assert traces.by_session["a"].total_uj == 250 * J
    (problem,) = traces.problems
    assert "were left out" in problem


@pytest.mark.parametrize("kind", ["pipe", "device", "directory", "link to itself", "nobody's"])
def test_what_is_no_journal_is_not_opened(tmp_path, kind):
    file = tmp_path / JOURNAL_NAME
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "directory":
        file.mkdir()
    elif kind == "nobody's":
        file.symlink_to(tmp_path / "gone")
    else:
        file.symlink_to("/dev/zero" if kind == "device" else file)
    traces = read_traces([tmp_path, tmp_path / "nowhere"])
    assert traces.by_session == {}
    assert len(traces.problems) == 1


def test_a_line_is_what_read_journal_gives(tmp_path):
    writer = RecordWriter(tmp_path)
    for line in lines("a", 0, 100, status="failed"):
        writer.append(line)
    writer.close()
    first, last = read_journal(tmp_path)
    assert {"t", "total_j", "power_w", "stage", "epoch"} <= set(last)  # whatever their values
    assert read_traces([tmp_path]).by_session["a"].total_uj == 100 * J
    assert first["t"] < last["t"]
    assert (last["session"], last["device_uj"], last["status"]) == ("a", {"gpu0": 100 * J}, "failed")
    assert "resumes" not in last
