"""The journal: its lines, its sessions without what makes no sense, and what it knows beyond what is known."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_watt.errors import RecordError
from lightning_watt.host import host_id, process_facts, this_machine
from lightning_watt.record import journal as journals
from lightning_watt.record.files import JOURNAL_NAME
from lightning_watt.record.journal import Trace, beyond, read_journal, read_traces
from lightning_watt.record.lines import JournalLine, to_line
from tests.unit.record.made import BOARD, NOW, J, a_journal, a_session

# ---- its lines as they are in the file ----


def test_a_line_is_what_read_journal_gives(tmp_path):
    a_journal(tmp_path, a_session("a", 0, 100, status="failed"))
    first, last = read_journal(tmp_path)
    assert {"t", "total_j", "power_w", "stage", "epoch"} <= set(last)  # whatever their values
    assert read_traces([tmp_path]).by_session["a"].total_uj == 100 * J
    assert first["t"] < last["t"]
    assert (last["session"], last["device_uj"], last["status"]) == ("a", {"gpu0": 100 * J}, "failed")
    assert "resumes" not in last
    assert read_journal(str(tmp_path / JOURNAL_NAME)) == [first, last]


def test_a_line_is_one_line():
    assert to_line(JournalLine(t=1.0, session="a\nb")).count(b"\n") == 1


def test_lines_of_other_programs_are_read_too(tmp_path):
    """`read_journal` gives what is there: more keys are fine, and so are other ones."""
    (tmp_path / JOURNAL_NAME).write_bytes(b'{"t": 1, "note": "mine"}\n{"t": 2}\n')
    assert read_journal(tmp_path) == [{"t": 1, "note": "mine"}, {"t": 2}]


@pytest.mark.parametrize("half", [b'{"t": 17', b'{"t": 1, "stage": "tr\xc3', b"{"])
def test_a_last_line_that_was_cut_off_is_left_out(tmp_path, half):
    file = a_journal(tmp_path, a_session("a", 0, 100))
    whole = read_journal(tmp_path)
    with file.open("ab") as out:
        out.write(half)
    assert read_journal(tmp_path) == whole


def test_a_journal_of_one_half_line_has_no_line(tmp_path):
    (tmp_path / JOURNAL_NAME).write_bytes(b'{"t": 17')
    assert read_journal(tmp_path) == []


@pytest.mark.parametrize("line", [b"nonsense", b"", b"[1]", b"7", b'"text"', b"\xff\xfe", b"[" * 100_000])
def test_a_line_of_the_journal_that_is_none_is_named(tmp_path, line):
    (tmp_path / JOURNAL_NAME).write_bytes(b'{"t": 1}\n' + line + b'\n{"t": 2}\n')
    with pytest.raises(RecordError, match="line 2"):
        read_journal(tmp_path)


def test_a_journal_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RecordError, match=JOURNAL_NAME):
        read_journal(tmp_path)


def test_a_journal_that_is_too_large_is_not_loaded(tmp_path, monkeypatch):
    a_journal(tmp_path, a_session("a", 0, 100, 200))
    monkeypatch.setattr(journals, "MAX_JOURNAL_BYTES", 100)
    with pytest.raises(RecordError, match="more than 100 bytes"):
        read_journal(tmp_path)
    traces = read_traces([tmp_path])
    assert traces.by_session == {}
    (problem,) = traces.problems
    assert problem.startswith(f"{tmp_path / JOURNAL_NAME} cannot be read")


# ---- its sessions ----


def test_a_last_line_that_was_cut_off_is_what_a_kill_leaves(tmp_path):
    file = a_journal(tmp_path, a_session("a", 0, 100, 200))
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
def test_a_line_that_makes_no_sense_is_left_out_and_reported(tmp_path, raw):
    before, after = a_session("a", 0, 100, 200), a_session("a", 0, 100, 200, 250)[3:]
    file = a_journal(tmp_path, before)
    with file.open("ab") as out:
        out.write(raw + b"\n")
    a_journal(tmp_path, after)
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


@pytest.mark.parametrize("t", [b"NaN", b"-Infinity"])
def test_a_line_without_a_time_or_a_session_makes_no_sense(tmp_path, t):
    (tmp_path / JOURNAL_NAME).write_bytes(b'{"t": ' + t + b', "session": "a"}\n{"t": 1.0, "session": ""}\n{}\n')
    traces = read_traces([tmp_path])
    assert traces.by_session == {}
    (problem,) = traces.problems
    assert "2 lines make no sense" in problem


def test_more_sessions_than_a_directory_can_have_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(journals, "MAX_SESSIONS", 2)
    a_journal(tmp_path, *(a_session(name, 0, 5) for name in "abc"))
    traces = read_traces([tmp_path])
    assert sorted(traces.by_session) == ["a", "b"]
    assert len(traces.problems) == 1


def test_every_ranks_journal_is_read_once(tmp_path):
    a_journal(tmp_path, a_session("a", 0, 100))
    a_journal(tmp_path, a_session("b", 0, 90), name="watt.rank2.jsonl")
    (tmp_path / "link").symlink_to(tmp_path)
    traces = read_traces([tmp_path, tmp_path, tmp_path / "link"])
    assert {session: trace.total_uj for session, trace in traces.by_session.items()} == {"a": 100 * J, "b": 90 * J}
    assert traces.problems == []


def test_of_a_copied_directory_the_longer_journal_counts(tmp_path):
    for place, joules in (("1", (0, 100, 200)), ("copy", (0, 100)), ("later", (0, 100, 200, 300))):
        a_journal(tmp_path / place, a_session("a", *joules))
    trace = read_traces([tmp_path / place for place in ("1", "copy", "later")]).by_session["a"]
    assert trace.total_uj == 300 * J
    assert trace.file.parent == tmp_path / "later"


def test_what_a_first_line_says_of_its_session_is_kept(tmp_path):
    a_journal(tmp_path, a_session("a", 0, 100, 200, resumes=["x", "y"], run="r", rank=2, node=1, pid=7))
    trace = read_traces([tmp_path]).by_session["a"]
    assert (trace.run, trace.rank, trace.node, trace.pid, trace.where) == ("r", 2, 1, 7, "another machine")
    assert (trace.resumes, trace.devices, trace.interval_s) == ({"x", "y"}, {"gpu0": BOARD}, 1.0)


def test_how_a_session_ended(tmp_path):
    a_journal(tmp_path, *(a_session(str(status), 0, 5, status=status) for status in (None, "failed", "completed")))
    traces = read_traces([tmp_path]).by_session
    assert {name: trace.status for name, trace in traces.items()} == {
        "None": "killed",
        "failed": "failed",
        "completed": "completed",
    }
    assert traces["failed"].kept is None
    assert traces["completed"].kept == traces["completed"].last


def test_a_session_on_this_machine_lives_if_its_process_does(tmp_path):
    parent = psutil.Process(os.getppid())
    alive = {"where": this_machine(), "pid": parent.pid, "born": parent.create_time()}
    # The number of a process that ended, given to another process since.
    dead = alive | {"born": parent.create_time() - 3600}
    own = alive | {"pid": os.getpid(), "born": psutil.Process().create_time()}
    a_journal(tmp_path, a_session("alive", 0, 5, **alive), a_session("dead", 0, 5, **dead), a_session("own", 0, 5, **own))
    a_journal(tmp_path, a_session("ended", 0, 5, status="failed", **alive))
    traces = read_traces([tmp_path]).by_session
    assert {name for name, trace in traces.items() if trace.lives(NOW, if_elsewhere=True)} == {"alive"}
    where, pid, born = process_facts()
    assert (where, pid) == (this_machine(), os.getpid())
    assert where.startswith(host_id())
    assert born < time.time()


@pytest.mark.parametrize(("silent_s", "lives"), [(0.0, True), (32.0, True), (34.0, False)])
def test_a_session_elsewhere_lives_while_it_writes(tmp_path, silent_s, lives):
    """Thirty seconds and three intervals of a second."""
    a_journal(tmp_path, a_session("a", 0, 5))
    trace = read_traces([tmp_path]).by_session["a"]
    assert trace.lives(trace.last.t + silent_s, if_elsewhere=True) is lives
    assert not trace.lives(trace.last.t + silent_s, if_elsewhere=False)


# ---- what a journal knows beyond what is known ----


def a_trace(device_uj: dict[str, int], ns: int, stage_uj: dict[str, int] | None = None) -> Trace:
    line = JournalLine(t=NOW, session="a", device_uj=device_uj, stage_uj=stage_uj or {}, ns=ns)
    return Trace("a", Path("watt.jsonl"), line)


def test_of_a_session_that_nobody_knew_all_is_new():
    rise = beyond(a_trace({"gpu0": 7, "cpu0": 2}, 10, {"train": 9}), {}, 0)
    assert (rise.device_uj, rise.stage_uj, rise.ns, rise.total_uj) == ({"gpu0": 7, "cpu0": 2}, {"train": 9}, 10, 9)
    assert (rise.known_uj, rise.known_ns) == ({"gpu0": 7, "cpu0": 2}, 10)


def test_the_rise_is_what_the_journal_has_more():
    trace = a_trace({"gpu0": 7, "cpu0": 2}, 10, {"train": 5, "validate": 4})
    rise = beyond(trace, {"gpu0": 4}, 6, {"train": 4})
    assert (rise.device_uj, rise.ns, rise.total_uj) == ({"gpu0": 3, "cpu0": 2}, 4, 5)
    assert rise.stage_uj == {"train": 1, "validate": 4}
    assert (rise.known_uj, rise.known_ns) == ({"gpu0": 7, "cpu0": 2}, 10)


def test_a_journal_that_is_behind_takes_nothing_back():
    rise = beyond(a_trace({"gpu0": 7}, 10, {"train": 7}), {"gpu0": 9, "gpu1": 3}, 12, {"train": 9})
    assert (rise.device_uj, rise.stage_uj, rise.ns, rise.total_uj) == ({"gpu0": 0}, {"train": 0}, 0, 0)
    assert (rise.known_uj, rise.known_ns) == ({"gpu0": 9, "gpu1": 3}, 12)


def test_a_device_that_is_ahead_does_not_hide_the_rise_of_another():
    rise = beyond(a_trace({"gpu0": 7, "gpu1": 7}, 10), {"gpu0": 9, "gpu1": 4}, 9)
    assert (rise.device_uj, rise.total_uj) == ({"gpu0": 0, "gpu1": 3}, 3)
    assert rise.known_uj == {"gpu0": 9, "gpu1": 7}


energies = st.dictionaries(st.sampled_from(["gpu0", "gpu1", "cpu0"]), st.integers(0, 2**62))


@given(energies, energies, st.integers(0, 2**62), st.integers(0, 2**62))
def test_known_and_rise_sum_to_what_is_known_now(now, known, now_ns, known_ns):
    """And a second look finds nothing more: no joule is counted twice."""
    trace = a_trace(now, now_ns)
    before = dict(known)
    rise = beyond(trace, known, known_ns)
    assert known == before
    assert all(uj >= 0 for uj in rise.device_uj.values())
    assert sum(rise.known_uj.values()) == sum(known.values()) + rise.total_uj
    assert rise.known_ns == known_ns + rise.ns
    again = beyond(trace, rise.known_uj, rise.known_ns)
    assert (again.total_uj, again.ns, again.known_uj) == (0, 0, rise.known_uj)
