"""The journal's lines: what they cost, and that what short lines leave out is told from the whole ones around them."""

from __future__ import annotations

import msgspec
import pytest

from lightning_watt.record.files import JOURNAL_NAME
from lightning_watt.record.journal import read_traces
from lightning_watt.record.lines import MAX_SHORT, JournalLine, LineWriter, to_line
from tests.unit.record.made import BOARD

J = 1_000_000
START = 1.7e9
DAY_S = 86_400


def a_line(second: int, watts: float = 300.0, *, others_j: float = 0.0, **more: object) -> JournalLine:
    """A session's line of a second: two boards, the second draws a third; mostly training."""
    uj = round(second * watts * J)
    return JournalLine(
        t=START + second + 0.25,
        session="mine",
        total_j=others_j + uj / J,
        power_w=watts,
        stage="train",
        epoch=second // 60,
        device_uj={"gpu0": uj - uj // 3, "gpu1": uj // 3},
        stage_uj={"train": uj - uj // 10, "validate": uj // 10},
        ns=second * 10**9,
        **more,
    )


def heading(second: int = 0, **more: object) -> JournalLine:
    board = msgspec.to_builtins(BOARD)
    boards = {"gpu0": board, "gpu1": board | {"uuid": "GPU-1"}}
    return a_line(second, devices=boards, resumes=[], where="another machine", interval_s=1.0, **more)


def test_a_month_of_one_line_a_second_is_under_100_mb():
    writer = LineWriter()
    first = len(writer.to_line(heading()))
    day = first + sum(len(writer.to_line(a_line(second))) for second in range(1, DAY_S))
    # From here on the lines do not get longer: whole ones come as seldom, and a month's joules have one digit more.
    steady = sum(len(writer.to_line(a_line(29 * DAY_S + second))) for second in range(MAX_SHORT + 1))
    assert day + 29 * DAY_S * steady / (MAX_SHORT + 1) < 100e6


@pytest.mark.parametrize("last", [3, 100, 1003, 4000])
def test_a_journal_that_was_cut_off_anywhere_knows_the_joules_of_its_last_line(tmp_path, last):
    writer = LineWriter()
    lines = [writer.to_line(heading()), *(writer.to_line(a_line(second)) for second in range(1, last + 1))]
    (tmp_path / JOURNAL_NAME).write_bytes(b"".join(lines) + b'{"t":17')
    traces = read_traces([tmp_path])
    trace = traces.by_session["mine"]
    assert not traces.problems
    assert trace.total_uj == 300 * J * last == sum(trace.last.stage_uj.values())
    assert trace.last.device_uj["gpu1"] == pytest.approx(100 * J * last, abs=2)
    assert trace.last.stage_uj["validate"] == pytest.approx(30 * J * last, abs=2)
    assert trace.last.ns == pytest.approx(last * 10**9, abs=1e9)
    assert trace.last.t == pytest.approx(START + last, abs=1)


def test_what_other_sessions_used_is_not_taken_for_this_ones(tmp_path):
    writer = LineWriter()
    lines = [writer.to_line(heading()), *(writer.to_line(a_line(second)) for second in range(1, 200))]
    lines += [writer.to_line(a_line(second, others_j=5000.0)) for second in range(200, 300)]
    (tmp_path / JOURNAL_NAME).write_bytes(b"".join(lines))
    assert read_traces([tmp_path]).by_session["mine"].total_uj == 300 * J * 299


def test_a_whole_line_after_short_ones_counts_even_if_they_knew_a_little_more(tmp_path):
    writer = LineWriter()
    lines = [writer.to_line(heading()), *(writer.to_line(a_line(second)) for second in range(1, 400))]
    end = a_line(400, status="completed")
    end.ns = 398 * 10**9  # the clock of the lines' times was ahead of the meter's
    (tmp_path / JOURNAL_NAME).write_bytes(b"".join([*lines, writer.to_line(end)]))
    traces = read_traces([tmp_path])
    assert not traces.problems
    assert traces.by_session["mine"].last.status == "completed"
    assert traces.by_session["mine"].total_uj == 300 * J * 400


@pytest.mark.parametrize("raw", [b'{"t":1.7e9}', b'{"t":1.6e9,"total_j":9e9}', b'{"t":1700000401,"total_j":1e30}'])
def test_a_short_line_that_makes_no_sense_is_left_out(tmp_path, raw):
    writer = LineWriter()
    lines = [writer.to_line(heading()), *(writer.to_line(a_line(second)) for second in range(1, 400))]
    (tmp_path / JOURNAL_NAME).write_bytes(b"".join([*lines, raw + b"\n", writer.to_line(a_line(400, status="failed"))]))
    traces = read_traces([tmp_path])
    assert traces.by_session["mine"].total_uj == 300 * J * 400
    assert len(traces.problems) == 1


def test_a_short_line_before_any_whole_one_is_nobodys(tmp_path):
    (tmp_path / JOURNAL_NAME).write_bytes(b'{"t":1700000401,"total_j":1.0}\n' + LineWriter().to_line(heading(400)))
    traces = read_traces([tmp_path])
    assert len(traces.problems) == 1
    assert traces.by_session["mine"].total_uj == 300 * J * 400


def test_small_energies_keep_their_digits():
    writer = LineWriter()
    lines = [writer.to_line(heading()), *(writer.to_line(a_line(s, watts=0.000_125)) for s in range(1, 100))]
    assert b'"total_j":0.012375}' in b"".join(lines)


@pytest.mark.parametrize("known_j", [999.999_999, 1093.734_682, 1_505_580.718])
def test_a_journals_total_never_falls_by_its_own_rounding(known_j):
    writer = LineWriter()
    lines = [writer.to_line(heading()), *(writer.to_line(a_line(second, watts=known_j)) for second in [1] * 99)]
    lines.append(to_line(a_line(1, watts=known_j)))
    totals = [msgspec.json.decode(line)["total_j"] for line in lines]
    assert totals == sorted(totals)
    assert totals[-2] == pytest.approx(known_j, rel=1e-6)
