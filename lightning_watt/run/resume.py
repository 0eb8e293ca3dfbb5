"""How a run goes on from a checkpoint: its energy is added, and what was wasted after the checkpoint is looked for.

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

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice, takewhile
from pathlib import Path
from time import time as unix_time
from typing import Any

import msgspec

from lightning_watt.record.files import MAX_RECORD_BYTES, RECORD_NAME, place_of, read_bounded
from lightning_watt.record.journal import Trace, beyond, read_traces
from lightning_watt.record.lines import JournalLine
from lightning_watt.record.schema import Accuracy, Epoch, Inherited
from lightning_watt.run.epochs import to_plain
from lightning_watt.run.other_sessions import Counted, WastedWork, counted_in
from lightning_watt.run.session import Session
from lightning_watt.run.state import RunState

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
    earlier = state.get("session")
    try:
        if not isinstance(earlier, Mapping):
            raise ValueError("it holds no accounts")  # noqa: TRY004 - one kind of error for whatever is wrong in there
        if not adds:
            session.note_earlier(counted_in(earlier))
            return
        places = _places(run, state, checkpoint)
        if not session.resume(_with_older_rows(run, earlier, places)):
            return
        run.inherit_known(Inherited(**known) for known in state.get("inherited", ()))
        if run.metric.metric is None:
            run.metric = Accuracy(**state.get("accuracy", {}))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        run.warn_missing(
            f"The energy in the checkpoint {checkpoint} cannot be read ({error}), so what this run used before is missing "
            "from its total. Did lightning_watt write it?"
        )
        return
    found = _wasted(session, state, places)
    session.add_wasted(found.work)
    for sentence in found.unknown:
        run.warn_missing(sentence)


def _places(run: RunState, state: Mapping[str, Any], checkpoint: str | None) -> list[Path]:
    """The directories in which the earlier part's files may be."""
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
        for file in sorted(place.glob(f"{Path(RECORD_NAME).stem}*{Path(RECORD_NAME).suffix}")):
            with suppress(OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                yield msgspec.json.decode(read_bounded(file, MAX_RECORD_BYTES), type=_Epochs)


class _Epochs(msgspec.Struct):
    session: str = ""
    epochs: list[Epoch] = []


def _wasted(session: Session, state: Mapping[str, Any], known: Sequence[Path]) -> Found:
    unfinished = state["session"].get("unfinished")
    if unfinished is None:
        return Found(unknown=["This checkpoint is of an older lightning_watt: what was lost after it is not known."])
    return find_wasted(session.others.counted, [str(one) for one in unfinished], known, {session.id}, unix_time())


def find_wasted(
    counted: Mapping[str, Counted],
    unfinished: Iterable[str],
    directories: Sequence[Path],
    own: Iterable[str],
    now_unix: float,
) -> Found:
    """Look for what was lost.

    Args:
        counted: what the checkpoint has in its accounts, by session.
        unfinished: the sessions among them whose end was not known when it was saved.
        directories: where their journals may be.
        own: the sessions of the run that goes on.
        now_unix: seconds since 1970.
    """
    traces = read_traces([*directories, *_beside(directories, set(counted))])
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


class _Resumes(msgspec.Struct):
    session: str = ""
    resumes: list[str] = []


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
    return list(dict.fromkeys(record.parent for record in newest if _resumed(record) & line))


def _resumed(record: Path) -> set[str]:
    try:
        return set(msgspec.json.decode(read_bounded(record, MAX_RECORD_BYTES), type=_Resumes).resumes)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return set()
