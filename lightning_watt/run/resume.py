"""How a run goes on from a checkpoint: its energy is added, and what was wasted after the checkpoint is looked for.

A checkpoint holds what was not settled when it was saved by the last known power. What that came to stands in the journal
of its session, which gets a line of that moment: where it is found, it takes the place of the guess, stage by stage.

The rules, for a run that goes on from a checkpoint:

- What the session that saved it used from there on is lost, however it ended, unless it ended well ("completed") or still
  runs: then somebody has its result, and it is in that run's own record.
- A session that once went on from this run's line, and whose result nobody has, is lost whole. Usually it was killed,
  resumed, and killed again before the next checkpoint. A session that ended well, still runs, or lives on in another one
  is another branch.
- What a checkpoint says was taken over is not taken again, so a chain of crashes counts every joule once. Two runs that go
  on from one checkpoint both carry its loss, as both carry what came before it: what each used itself is
  `total_j - resumed_j - wasted_j`, and those never overlap.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import accumulate, islice, pairwise, takewhile
from pathlib import Path
from time import time as unix_time
from typing import Any

import msgspec

from lightning_watt.accounts.epochs import to_plain
from lightning_watt.accounts.ledger import NOTHING, STAGES, Account, Ledger
from lightning_watt.errors import RecordError
from lightning_watt.record.files import MAX_RECORD_BYTES, RECORD_NAME, place_of, read_bounded, records_in
from lightning_watt.record.journal import Trace, Traces, beyond, read_traces
from lightning_watt.record.lines import JournalLine
from lightning_watt.record.read import Heading, read_heading
from lightning_watt.record.remote import at_hand
from lightning_watt.record.schema import Accuracy, Epoch
from lightning_watt.run.node_reports import Counted
from lightning_watt.run.other_sessions import WastedWork, counted_in
from lightning_watt.run.session import Session
from lightning_watt.run.state import RunState
from lightning_watt.run.totals import Totals, journal_line

MAX_BESIDE = 500
"""Run directories beside this one that are looked into for a branch without a result; the newest ones."""
MAX_LISTED = 5000
"""Entries of the directory above that are looked at for it, which may be on a slow file system."""
MAX_PATH = 4096


@dataclass
class Found:
    """What was wasted, and sentences about what is not known of it."""

    work: list[WastedWork] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def go_on(session: Session, run: RunState, state: Mapping[str, Any], checkpoint: str | None, *, adds: bool) -> None:
    """Add what the run had used when the checkpoint was saved, and what was lost after it.

    Args:
        session: the run that goes on.
        run: what is known of it.
        state: what the callback saved.
        checkpoint: the checkpoint's path, beside which a journal may be.
        adds: whether this process is the one that adds; the readers of other nodes only note whose run they go on with.
    """
    places = _places(run, state, checkpoint)
    if adds and run.remote and state.get("directory") == run.remote:  # no other URL in a checkpoint is asked
        try:
            with at_hand(run.remote) as copied:
                found = _go_on(session, run, state, checkpoint, [*places, copied])
                found.work = [replace(work, directory=run.remote) for work in found.work]
        except RecordError as error:
            found = _go_on(session, run, state, checkpoint, places)
            found.unknown = [f"What this run's earlier part used after its checkpoint is not known: {error}"]
    else:
        found = _go_on(session, run, state, checkpoint, places, adds=adds)
    session.add_earlier({}, found.work)
    for sentence in found.unknown:
        run.warn_missing(sentence)
    if run.files is not None:
        run.files.resumed()


def _go_on(
    session: Session,
    run: RunState,
    state: Mapping[str, Any],
    checkpoint: str | None,
    places: Sequence[Path],
    *,
    adds: bool = True,
) -> Found:
    earlier = state.get("session")
    try:
        if not isinstance(earlier, Mapping):
            raise ValueError("it holds no accounts")  # noqa: TRY004 - one kind of error for whatever is wrong in there
        counted = counted_in(earlier) if "taken" in earlier else {}
        if not adds:
            session.add_earlier(counted_in(earlier), ())
            return Found()
        is_here = bool(counted.keys() & {session.id, *session.others.counted})
        traces = Traces() if is_here else read_traces([*places, *_beside(places, set(counted))])
        if not session.resume(_with_older_rows(run, corrected(earlier, traces.by_session), places)):
            return Found()
        run.inherit_saved(state)
        if run.metric.metric is None:
            run.metric = Accuracy(**state.get("accuracy", {}))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        run.warn_missing(
            f"The energy in the checkpoint {checkpoint} cannot be read ({error}), so what this run used before is missing "
            "from its total. Did lightning_watt write it?"
        )
        return Found()
    return _wasted(session, earlier, places, traces)


def saved_line(totals: Totals, number: int) -> JournalLine:
    """The journal's line of the moment at which a checkpoint was saved.

    Args:
        totals: the totals of that moment, once it is settled.
        number: the checkpoint's number in its session.
    """
    line = journal_line(totals, with_heading=False)
    line.saved = number
    line.stage_edges = {stage: usage.edge_variance for stage, usage in totals.settled.by_stage().items()}
    return line


def corrected(state: Mapping[str, Any], traces: Mapping[str, Trace]) -> Mapping[str, Any]:
    """A checkpoint's accounts with what the journal of its session knows better.

    Args:
        state: the accounts, as `totals.checkpoint_state` gives them.
        traces: the sessions that are known from journals.

    Returns:
        The same, with `ahead` as it was settled; that very state if no journal tells that.

    Raises:
        ValueError: the state is none.
    """
    own = str(next(iter(state.get("unfinished", ())), ""))
    line = traces[own].saved.get(state.get("saved", 0)) if own in traces else None
    if line is None or "settled" not in state:
        return state
    guess = Ledger()
    guess.absorb(state["ahead"])
    counted, guessed_uj = counted_in(state)[own], guess.by_device()
    settled_uj = {label: uj - guessed_uj.get(label, 0) for label, uj in counted.uj.items()}
    settled = {str(stage): (int(uj), float(variance)) for stage, (uj, variance) in state["settled"].items()}
    by_stage = {stage: uj - settled.get(stage, (0, 0.0))[0] for stage, uj in line.stage_uj.items()}
    by_device = {label: uj - settled_uj.get(label, 0) for label, uj in line.device_uj.items()}
    amounts = [*by_stage.values(), *by_device.values()]
    fits = min(amounts, default=0) >= 0 and sum(by_stage.values()) == sum(by_device.values())
    if not fits or not by_stage.keys() <= set(STAGES) or not all(map(math.isfinite, line.stage_edges.values())):
        return state  # the line is of another checkpoint, or somebody has changed one of the two
    edges = {stage: max(0.0, line.stage_edges.get(stage, 0.0) - settled.get(stage, (0, 0.0))[1]) for stage in by_stage}
    known = Counted({**counted.uj, **line.device_uj}, max(line.ns, counted.ns))
    return {
        **state,
        "ahead": _laid_out(guess, by_stage, by_device, edges).state_dict(),
        "taken": {**state["taken"], own: msgspec.to_builtins(known)},
        "outer_edges": max(0.0, float(state.get("outer_edges", 0.0)) - float(guess.total_uj) ** 2),
    }


def _laid_out(
    guess: Ledger, by_stage: Mapping[str, int], by_device: Mapping[str, int], edges: Mapping[str, float]
) -> Ledger:
    """The accounts of a guess with other energies, whose sums by stage and by device are known; within a stage by time."""
    whole, laid_uj = Ledger(), 0
    shares = list(accumulate(by_device.values(), initial=0))

    def by_then(uj: int) -> list[int]:  # of each device, cumulative, so that both sums are right to the last microjoule
        return [upper - lower for lower, upper in pairwise(uj * share // max(1, shares[-1]) for share in shares)]

    for stage, stage_uj in by_stage.items():
        accounts = {account: usage for account, usage in guess.accounts.items() if account.stage == stage}
        accounts = accounts or {Account(stage, 0): NOTHING}
        times = list(accumulate((max(1, usage.ns) for usage in accounts.values()), initial=0))
        for (account, usage), (since, until) in zip(accounts.items(), pairwise(times), strict=True):
            before, after = (by_then(laid_uj + stage_uj * ns // times[-1]) for ns in (since, until))
            uj = {label: now - was for label, now, was in zip(by_device, after, before, strict=True)}
            whole.add(account, replace(usage, uj=uj, edge_variance=0.0 if since else edges[stage]))
        laid_uj += stage_uj
    return whole


def _places(run: RunState, state: Mapping[str, Any], checkpoint: str | None) -> list[Path]:
    """Where the journals of a checkpoint's run may be."""
    said = state.get("directory")
    places = [run.directory] if run.directory is not None else []
    if isinstance(said, str) and 0 < len(said) < MAX_PATH and "\0" not in said:
        places.append(Path(said))
    if checkpoint is not None:  # a run directory that was moved, and its checkpoints with it
        places += [Path(checkpoint).parent, Path(checkpoint).parent.parent]
    return [place for place in dict.fromkeys(place_of(place.absolute()) for place in places) if place.is_dir()]


def _with_older_rows(run: RunState, state: Mapping[str, Any], places: Sequence[Path]) -> Mapping[str, Any]:
    """A checkpoint's accounts with the epochs that it left out, from the record of the session that saved it."""
    count = state.get("older_rows", 0)
    if not isinstance(count, int) or count <= 0:
        return state
    first = tuple(state["rows"][0][:2])
    for record in _records(places):
        older = list(takewhile(lambda row: (row.stage, row.epoch) != first, record.epochs))
        if record.session in state["sessions"] and len(older) < len(record.epochs):
            return {**state, "rows": [*to_plain(older), *state["rows"]]}
    run.unknown.append(
        f"The first {count} rows of this run's earlier part are not among this record's epochs: no record (watt.json) of it "
        f"was found in {', '.join(str(place) for place in places)}. Their energy is in the totals."
    )
    return state


def _records(places: Sequence[Path]) -> Iterator[_Epochs]:
    for place in places:
        for file in records_in(place):
            with suppress(OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                yield msgspec.json.decode(read_bounded(file, MAX_RECORD_BYTES), type=_Epochs)


class _Epochs(msgspec.Struct):
    session: str = ""
    epochs: list[Epoch] = []


def _wasted(session: Session, earlier: Mapping[str, Any], places: Sequence[Path], traces: Traces) -> Found:
    unfinished = earlier.get("unfinished")
    if unfinished is None:
        return Found(unknown=["This checkpoint is of an older lightning_watt: what was lost after it is not known."])
    unfinished = [str(one) for one in unfinished]
    return find_wasted(session.others.counted, unfinished, places, {session.id}, unix_time(), traces)


def find_wasted(
    counted: Mapping[str, Counted],
    unfinished: Iterable[str],
    directories: Sequence[Path],
    own: Iterable[str],
    now_unix: float,
    traces: Traces | None = None,
) -> Found:
    """Look for what was lost.

    Args:
        counted: what the checkpoint has in its accounts, by session.
        unfinished: the sessions among them whose end was not known when it was saved.
        directories: where their journals may be.
        own: the sessions of the run that goes on.
        now_unix: seconds since 1970.
        traces: what those journals say, if they were read already.
    """
    traces = traces or read_traces([*directories, *_beside(directories, set(counted))])
    by_session = {session: trace for session, trace in traces.by_session.items() if session not in set(own)}
    found = Found(unknown=traces.problems)
    nowhere = 0
    for session in unfinished:
        trace = by_session.get(session)
        if trace is None:
            nowhere += 1
        elif not trace.lives(now_unix, if_elsewhere=False):
            _add(found, trace, counted.get(session, Counted({})))
    if nowhere:
        places = ", ".join(dict.fromkeys(str(directory) for directory in directories))
        found.unknown.append(
            "What this run's earlier part used after its checkpoint is not known, and missing from the total: no journal "
            f"(watt.jsonl) of it was found in {places}. Keep it beside the checkpoint, or resume in the same directory."
        )
    for trace in _dead_ends(by_session, set(counted), now_unix):
        _add(found, trace, Counted({}))
    return found


def _add(found: Found, trace: Trace, counted: Counted) -> None:
    end, kept = trace.last, trace.kept or JournalLine(t=0.0, session=trace.session)
    # What is in the accounts is not lost, nor what the session had used when it last ended well.
    settled_uj = {label: max(uj, kept.device_uj.get(label, 0)) for label, uj in {**kept.device_uj, **counted.uj}.items()}
    rise = beyond(trace, settled_uj, max(counted.ns, kept.ns))
    killed = end.status is None
    work = WastedWork(
        session=trace.session,
        directory=trace.file.parent,
        status=trace.status,
        uj=rise.device_uj,
        ns=rise.ns,
        devices=trace.devices,
        counted=Counted(rise.known_uj, rise.known_ns),
        unseen_s=trace.interval_s if killed else 0.0,
        unseen_j=max(0.0, trace.interval_s * end.power_w) if killed else 0.0,
    )
    if work.total_uj or killed:
        found.work.append(work)


def _dead_ends(traces: Mapping[str, Trace], line: set[str], now_unix: float) -> list[Trace]:
    branches = {session: trace for session, trace in traces.items() if session not in line and trace.resumes & line}
    alive = [trace for trace in branches.values() if trace.kept is not None or trace.lives(now_unix, if_elsewhere=True)]
    # Whatever a living branch went on from lives in it.
    living = {trace.session for trace in alive}.union(*(trace.resumes for trace in alive))
    return [trace for session, trace in branches.items() if session not in living]


def _beside(directories: Sequence[Path], line: set[str]) -> list[Path]:
    """Run directories beside these whose record says that they went on from this line."""
    found: dict[Path, float] = {}
    for parent in dict.fromkeys(directory.resolve().parent for directory in directories):
        try:
            with os.scandir(parent) as listed:
                entries = [Path(entry.path) for entry in islice(listed, MAX_LISTED) if entry.is_dir()]
        except OSError:
            continue
        for entry in entries:
            with suppress(OSError):
                found[entry / RECORD_NAME] = (entry / RECORD_NAME).stat().st_mtime
    newest = sorted(found, key=lambda record: found[record], reverse=True)[:MAX_BESIDE]
    records = [record for one in newest for record in records_in(one.parent)]
    return list(dict.fromkeys(record.parent for record in records if line.intersection(read_heading(record).resumes)))


def holds(session: Session, heading: Heading, *, adds: bool) -> bool:
    """Whether a run's record holds every joule of the record with this heading, so that it may take its place.

    A session that completed and was then resumed from an earlier checkpoint has a record of its own for good: what it used
    after that checkpoint is in no other one.

    Args:
        session: the run that would take its place.
        heading: of the record that is there.
        adds: whether this process is the one that adds the earlier sessions' energy. The others' records hold their own part
            alone, and what an earlier one had is in the record of the process that adds, and in the journal.
    """
    if heading.session == session.id:
        return True
    counted = session.others.counted
    if not adds:
        return heading.session in counted
    return counted.keys() >= {heading.session, *heading.resumes} and all(
        node.session in counted and counted[node.session].uj.get(label, 0) >= uj
        for node in heading.nodes
        for label, uj in node.device_uj.items()
    )
