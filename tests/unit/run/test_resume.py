"""How a run goes on: what a checkpoint adds, and what earlier sessions wasted, from journals as real sessions leave them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from lightning_watt.accounts.ledger import Account, Point
from lightning_watt.host import this_machine
from lightning_watt.record import read
from lightning_watt.record.files import RECORD_NAME
from lightning_watt.record.journal import Trace
from lightning_watt.record.lines import JournalLine
from lightning_watt.record.read import Heading
from lightning_watt.record.schema import NodeEnergy
from lightning_watt.run.resume import Counted, Found, corrected, find_wasted, go_on, holds
from lightning_watt.run.session import Session
from lightning_watt.run.state import RunState
from tests.unit.record.made import NOW, J, a_journal, a_session


def beside(directory: Path, session: str, resumes: list[str]) -> None:
    """A record that says whose run this one goes on with."""
    (directory / RECORD_NAME).write_bytes(msgspec.json.encode({"session": session, "resumes": resumes}))


def lost(found: Found) -> dict[str, tuple[str, float]]:
    return {loss.session: (loss.status, loss.total_uj / J) for loss in found.work}


def find(taken: dict[str, float], unfinished: list[str], *directories: Path, own: str = "me") -> Found:
    return find_wasted(
        {session: Counted({"gpu0": round(j * J)}, 0) for session, j in taken.items()}, unfinished, directories, {own}, NOW
    )


@pytest.mark.parametrize("status", [None, "failed", "interrupted"])
def test_what_a_session_used_after_its_checkpoint(tmp_path, status):
    a_journal(tmp_path, a_session("a", 0, 100, 200, 300, status=status))
    found = find({"a": 220.0}, ["a"], tmp_path)
    assert lost(found) == {"a": (status or "killed", 80.0)}
    (loss,) = found.work
    assert loss.counted.uj == {"gpu0": 300 * J}
    # What a kill cut off is at most an interval, and is said; a session that told its end lacks nothing.
    assert (loss.unseen_s, loss.unseen_j) == ((1.0, 100.0) if status is None else (0.0, 0.0))
    assert found.unknown == []


def test_a_session_that_ended_well_lost_nothing_and_a_test_after_it_did(tmp_path):
    a_journal(tmp_path, a_session("a", 0, 100, 200, status="completed"))
    assert lost(find({"a": 150.0}, ["a"], tmp_path)) == {}
    a_journal(tmp_path, [JournalLine(t=NOW - 400, session="a", device_uj={"gpu0": 260 * J}, ns=9 * 10**9)])
    assert lost(find({"a": 150.0}, ["a"], tmp_path)) == {"a": ("killed", 60.0)}


def test_a_session_that_still_runs_lost_nothing(tmp_path):
    parent = psutil.Process(os.getppid())
    alive = {"where": this_machine(), "pid": parent.pid, "born": parent.create_time()}
    a_journal(tmp_path, a_session("a", 0, 100, 200, **alive))
    assert lost(find({"a": 150.0}, ["a"], tmp_path)) == {}
    dead = alive | {"born": parent.create_time() - 3600}  # the number was given to another process since
    a_journal(tmp_path / "dead", a_session("a", 0, 100, 200, **dead))
    assert lost(find({"a": 150.0}, ["a"], tmp_path / "dead")) == {"a": ("killed", 50.0)}


def test_a_checkpoint_that_was_ahead_of_the_journal_stands(tmp_path):
    a_journal(tmp_path, a_session("a", 0, 100))
    found = find({"a": 130.0}, ["a"], tmp_path)
    assert lost(found) == {"a": ("killed", 0.0)}
    assert found.work[0].counted.uj == {"gpu0": 130 * J}


def test_what_was_settled_before_is_not_lost_again(tmp_path):
    a_journal(tmp_path, a_session("a", 0, 300), a_session("b", 0, 50, resumes=["a"]))
    assert lost(find({"a": 300.0, "b": 20.0}, ["b"], tmp_path)) == {"b": ("killed", 30.0)}


@pytest.mark.parametrize("place", ["same directory", "beside"])
def test_a_branch_that_came_to_nothing_is_lost_whole(tmp_path, place):
    a_journal(tmp_path / "0", a_session("a", 0, 100))
    there = tmp_path / ("0" if place == "same directory" else "1")
    a_journal(there, a_session("b", 0, 40, resumes=["a"]), a_session("c", 0, 7, resumes=["a", "b"]))
    beside(there, "c", ["a", "b"])
    a_journal(tmp_path / "2", a_session("stranger", 0, 1000, resumes=["somebody"]))
    beside(tmp_path / "2", "stranger", ["somebody"])
    found = find({"a": 60.0}, ["a"], tmp_path / "0")
    assert lost(found) == {"a": ("killed", 40.0), "b": ("killed", 40.0), "c": ("killed", 7.0)}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["pipe", "device", "directory", "too large", "nonsense"])
def test_what_is_no_record_beside_is_not_looked_into(tmp_path, monkeypatch, kind):
    """Neither waited for nor read without an end."""
    a_journal(tmp_path / "0", a_session("a", 0, 100))
    a_journal(tmp_path / "1", a_session("b", 0, 40, resumes=["a"]))
    beside(tmp_path / "1", "b", ["a"])
    record = tmp_path / "1" / RECORD_NAME
    assert set(lost(find({"a": 60.0}, ["a"], tmp_path / "0"))) == {"a", "b"}
    raw = record.read_bytes()
    record.unlink()
    if kind == "pipe":
        os.mkfifo(record)
    elif kind == "device":
        record.symlink_to("/dev/zero")
    elif kind == "directory":
        record.mkdir()
    elif kind == "too large":
        record.write_bytes(raw)
        monkeypatch.setattr(read, "MAX_RECORD_BYTES", len(raw) - 1)
    else:
        record.write_bytes(raw[:-5])
    assert set(lost(find({"a": 60.0}, ["a"], tmp_path / "0"))) == {"a"}


def test_what_came_after_the_checkpoint_and_after_a_good_end_is_lost(tmp_path):
    """Device by device: what is in the accounts and what it had used when it ended well are both no loss."""
    lines = a_session("a", 0, 100, 200, status="completed")
    for line, j in zip(lines, (0, 5, 10), strict=True):
        line.device_uj["cpu0"] = j * J
    after = JournalLine(t=NOW - 400, session="a", device_uj={"gpu0": 260 * J, "cpu0": 90 * J}, ns=9 * 10**9)
    a_journal(tmp_path, lines, [after])
    found = find_wasted({"a": Counted({"gpu0": 150 * J, "cpu0": 30 * J}, 3 * 10**9)}, ["a"], [tmp_path], {"me"}, NOW)
    (loss,) = found.work
    assert loss.uj == {"gpu0": 60 * J, "cpu0": 60 * J}
    assert loss.ns == 6 * 10**9
    assert (loss.counted.uj, loss.counted.ns) == (after.device_uj, after.ns)


def test_a_branch_that_lives_on_is_nobodys_loss(tmp_path):
    a_journal(tmp_path, a_session("a", 0, 100))
    a_journal(tmp_path, a_session("b", 0, 40, resumes=["a"]), a_session("c", 0, 7, resumes=["a", "b"], status="completed"))
    # Another one on another machine, which wrote a line just now.
    fresh = a_session("d", 0, 5, resumes=["a"])
    fresh[-1].t = NOW - 2
    a_journal(tmp_path, fresh)
    assert lost(find({"a": 60.0}, ["a"], tmp_path)) == {"a": ("killed", 40.0)}


def test_every_rank_s_journal_is_read(tmp_path):
    a_journal(tmp_path, a_session("a", 0, 100))
    a_journal(tmp_path, a_session("node1", 0, 90), name="watt.rank2.jsonl")
    assert lost(find({"a": 60.0, "node1": 10.0}, ["a", "node1"], tmp_path)) == {
        "a": ("killed", 40.0),
        "node1": ("killed", 80.0),
    }


def test_a_journal_that_is_not_there_is_reported(tmp_path):
    place = tmp_path / "run"  # the directories beside it are looked into
    a_journal(place, a_session("b", 0, 5))
    (sentence,) = find({"a": 60.0}, ["a"], place).unknown
    assert "not known" in sentence
    assert str(place) in sentence


def test_a_copied_directory_is_counted_once(tmp_path):
    for place, joules in (("1", (0, 100, 200)), ("copy", (0, 100)), ("later", (0, 100, 200, 300))):
        a_journal(tmp_path / place, a_session("a", *joules))
    assert lost(find({"a": 60.0}, ["a"], *(tmp_path / place for place in ("1", "copy", "later")))) == {
        "a": ("killed", 240.0)
    }


# -- go_on: what a checkpoint adds --


def a_state(**session: object) -> dict[str, object]:
    """What the callback saved: an earlier session that used 5 J."""
    old = Session(id="old")
    old.ledger.open(["gpu0"], Account("train", 0), Point(0, [0], [0.0], 0, 0))
    old.ledger.close(Point(10**9, [5 * J], [0.0], 2, 8))
    return {"session": old.state_dict() | session, "inherited": [{"path": "pretrain", "total_j": 3.0}]}


@pytest.mark.filterwarnings("ignore::lightning_watt.errors.WattWarning")
@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"session": None},
        {"session": [1, 2]},
        {"session": {}},
        {"session": {"sessions": ["old"]}},
        a_state(ledger=[["mining", 0, {}, 0, 0, 0, 0.0]]),
        a_state(taken=3),
        a_state(devices={"gpu0": 1}),
        a_state(outer_edges="wide"),
    ],
    ids=str,
)
def test_a_broken_state_adds_nothing_and_the_record_names_the_checkpoint(broken):
    session, run = Session(id="me"), RunState()
    go_on(session, run, broken, "last.ckpt", adds=True)
    (sentence,) = run.unknown
    assert sentence.startswith("The energy in the checkpoint last.ckpt cannot be read (")
    assert session.totals().total_uj == 0


@pytest.mark.filterwarnings("ignore::lightning_watt.errors.WattWarning")
def test_a_checkpoint_of_an_older_version_adds_its_energy_and_says_what_is_not_known():
    state = a_state()
    assert isinstance(state["session"], dict)
    del state["session"]["unfinished"], state["session"]["taken"]
    session, run = Session(id="me"), RunState()
    go_on(session, run, state, None, adds=True)
    assert session.totals().total_uj == 5 * J
    assert run.unknown == ["This checkpoint is of an older lightning_watt: what was lost after it is not known."]


@pytest.mark.filterwarnings("ignore::lightning_watt.errors.WattWarning")
def test_a_checkpoint_is_added_once_with_what_its_run_inherited(tmp_path):
    session, run = Session(id="me"), RunState()
    for _ in range(2):
        go_on(session, run, a_state(), str(tmp_path / "last.ckpt"), adds=True)
    assert session.totals().total_uj == 5 * J
    assert [(known.path, known.total_j) for known in run.inherited] == [("pretrain", 3.0)]
    (sentence,) = run.unknown
    assert str(tmp_path) in sentence


def old_rows(count: int, **state: object) -> dict[str, object]:
    """A checkpoint that left rows out."""
    return a_state(rows=[["train", count, 1.0, 1.0, None]], older_rows=count, **state)


def test_the_epochs_that_a_checkpoint_left_out_come_from_the_record_beside_it(tmp_path):
    epochs = [{"epoch": e, "stage": "train", "joules": 1.0, "seconds": 1.0, "accuracy": 0.5} for e in range(9)]
    (tmp_path / RECORD_NAME).write_bytes(msgspec.json.encode({"session": "old", "epochs": epochs}))
    session, run = Session(id="me"), RunState()
    go_on(session, run, old_rows(7), str(tmp_path / "last.ckpt"), adds=True)
    assert [row.epoch for row in session.others.rows] == list(range(8))
    assert not any("rows" in sentence for sentence in run.unknown)


@pytest.mark.filterwarnings("ignore::lightning_watt.errors.WattWarning")
@pytest.mark.parametrize("record", [{}, {"session": "stranger", "epochs": []}, {"session": "old", "epochs": 3}, None])
def test_if_there_is_no_such_record_that_is_said(tmp_path, record):
    if record is not None:
        (tmp_path / RECORD_NAME).write_bytes(msgspec.json.encode(record))
    session, run = Session(id="me"), RunState()
    go_on(session, run, old_rows(7), str(tmp_path / "last.ckpt"), adds=True)
    assert [row.epoch for row in session.others.rows] == [7]
    assert session.totals().total_uj == 5 * J
    assert "The first 7 rows of this run's earlier part are not among" in run.unknown[0]


def test_the_reader_of_another_node_only_notes_whose_run_it_goes_on_with():
    session, run = Session(id="me"), RunState()
    go_on(session, run, a_state(), None, adds=False)
    assert (session.totals().total_uj, list(session.others.counted), run.unknown) == (0, ["old"], [])


# -- corrected: what the journal knows better than the checkpoint --


def a_guess() -> dict[str, Any]:
    """5 J were settled in `train`; 3 J and 1 J of two devices are guessed, most of them in `validate`."""
    guess = [["train", 0, {"gpu0": J}, 10**9, 1, 4, 1.0], ["validate", 0, {"gpu0": 2 * J, "cpu0": J}, 10**9, 1, 4, 1.0]]
    taken = {"old": {"uj": {"gpu0": 8 * J, "cpu0": J}, "ns": 3 * 10**9}}
    settled = {"train": [5 * J, 7.0]}
    return {**a_state(ahead=guess, taken=taken, settled=settled, saved=2)}["session"]  # type: ignore[return-value]


def known(stage_uj: dict[str, int], device_uj: dict[str, int], number: int = 2, **more: Any) -> dict[str, Trace]:
    line = JournalLine(t=NOW, session="old", stage_uj=stage_uj, device_uj=device_uj, ns=3 * 10**9, saved=number, **more)
    trace = Trace("old", Path("watt.jsonl"), JournalLine(t=NOW, session="old"))
    assert trace.take(line, Path("watt.jsonl"))
    return {"old": trace}


def test_a_guess_gives_way_to_what_was_settled_by_stage_and_by_device():
    edges = {"train": 7.5, "validate": 2.0}
    found = corrected(
        a_guess(), known({"train": 7 * J, "validate": 4 * J}, {"gpu0": 9 * J, "cpu0": 2 * J}, stage_edges=edges)
    )
    train, validate = found["ahead"]
    assert [sum(row[2].values()) for row in (train, validate)] == [2 * J, 4 * J]
    assert [train[2][label] + validate[2][label] for label in ("gpu0", "cpu0")] == [4 * J, 2 * J]
    assert [row[3:] for row in (train, validate)] == [[10**9, 1, 4, 0.5], [10**9, 1, 4, 2.0]]
    assert found["taken"]["old"] == {"uj": {"gpu0": 9 * J, "cpu0": 2 * J}, "ns": 3 * 10**9}
    assert found["outer_edges"] == 0.0  # 16 J² less than what was guessed, and nothing else was there


@pytest.mark.parametrize(
    "traces",
    [
        {},
        known({"train": 7 * J}, {"gpu0": 7 * J}, number=1),  # of another checkpoint
        known({"train": 3 * J}, {"gpu0": 3 * J}),  # less than was settled
        known({"train": 9 * J}, {"gpu0": 10 * J}),  # its sums do not agree
        known({"mining": 9 * J}, {"gpu0": 9 * J}),
        known({"train": 9 * J}, {"gpu0": 9 * J}, stage_edges={"train": float("inf")}),
    ],
    ids=["no journal", "another", "too little", "unequal", "no stage", "infinite"],
)
def test_a_line_that_does_not_fit_leaves_the_guess(traces):
    state = a_guess()
    assert corrected(state, traces) is state


def test_a_checkpoint_that_says_nothing_of_its_guess_is_left_as_it_is():
    state = a_guess()
    del state["settled"]
    assert corrected(state, known({"train": 9 * J}, {"gpu0": 9 * J})) is state
    assert corrected({}, {}) == {}


# ---- which record it may replace ----


def heading(session: str, joules: float, *others: tuple[str, float], resumes: tuple[str, ...] = ()) -> Heading:
    nodes = [NodeEnergy(session=name, device_uj={"gpu0": round(j * J)}) for name, j in [(session, joules), *others]]
    return Heading(session, list(resumes), nodes)


@pytest.mark.parametrize(
    ("there", "held"),
    [
        (heading("a", 100), True),
        (heading("a", 99, resumes=("b",)), True),
        (heading("a", 100, ("b", 50)), True),
        (heading("a", 100.000001), False),  # a completed run was resumed from before its end
        (heading("a", 100, ("b", 51)), False),  # another node's part
        (heading("a", 100, ("c", 1)), False),
        (heading("a", 100, resumes=("c",)), False),
        (heading("c", 0), False),  # another run
        (Heading(), False),
    ],
)
def test_a_record_may_be_replaced_by_one_that_holds_every_joule_of_it(there, held):
    session = Session()
    session.add_earlier({"a": Counted({"gpu0": 100 * J}), "b": Counted({"gpu0": 50 * J})}, ())
    assert holds(session, there, adds=True) is held


def test_a_sessions_own_record_is_its_own_whatever_it_says():
    session = Session()
    assert holds(session, heading(session.id, 1e9), adds=True)


def test_another_nodes_reader_goes_on_with_the_files_of_the_session_before_it():
    """What that used after the checkpoint is in its journal, to which it appends, and in rank zero's record."""
    session = Session()
    session.add_earlier({"a": Counted({"gpu0": 100 * J})}, ())
    assert holds(session, heading("a", 130), adds=False)
    assert not holds(session, heading("b", 1), adds=False)
