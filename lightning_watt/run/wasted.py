"""What a resumed run's earlier parts used after the checkpoint that it goes on from: spent, and its result lost.

The rules, for a run that goes on from a checkpoint:

- What the session that saved it used from there on is lost, however it ended, unless it ended well ("completed") or still
  runs: then somebody has its result, and it is in that run's own record.
- A session that once went on from this run's line and came to nothing is lost whole: killed, resumed, and killed again
  before the next checkpoint is the usual case. One that ended well, still runs, or lives on in another is another branch.
- What a checkpoint says was taken over is not taken again, so a chain of crashes counts every joule once. Two runs that go
  on from one checkpoint both carry its loss, as both carry what came before it: what each used itself is
  `total_j - resumed_j - wasted_j`, and those never overlap.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from lightning_watt.record.files import MAX_RECORD_BYTES, RECORD_NAME, read_bounded
from lightning_watt.record.journal import About, JournalLine, Trace, beyond, read_traces

MAX_BESIDE = 500
"""Run directories beside this one that are looked into for a branch that came to nothing; the newest ones."""
MAX_LISTED = 5000
"""Entries of the directory above that are looked at for it, which may be on a slow file system."""


class Taken(msgspec.Struct):
    """What of a session is in the accounts already: microjoules by its own device labels, and nanoseconds."""

    uj: dict[str, int]
    ns: int = 0


@dataclass(frozen=True)
class Loss:
    """What one session used and nobody has the result of.

    Attributes:
        session: its id.
        directory: where its journal is.
        status: how it ended: `killed`, `failed` or `interrupted`.
        uj: microjoules by device.
        ns: nanoseconds.
        devices: what the devices are.
        taken: what of the session is in the accounts once this loss is.
        unseen_s: seconds that the last line may lack of it, for a session that was killed.
        unseen_j: the joules that its last known power comes to over them.
    """

    session: str
    directory: Path
    status: str
    uj: Mapping[str, int]
    ns: int
    devices: Mapping[str, About]
    taken: Taken
    unseen_s: float = 0.0
    unseen_j: float = 0.0

    @property
    def total_uj(self) -> int:
        """Microjoules over all devices."""
        return sum(self.uj.values())


@dataclass
class Losses:
    """What was lost, and sentences about what is not known of it."""

    found: list[Loss] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def taken_of(state: Mapping[str, Any]) -> dict[str, Taken]:
    """What a checkpoint says is in its accounts, by session.

    Raises:
        ValueError: the state is not one of `Session.state_dict`.
    """
    try:
        return msgspec.convert(state["taken"], dict[str, Taken])
    except (KeyError, msgspec.ValidationError) as error:
        raise ValueError(f"This is not the state of a run: {error!r}.") from error


def find_losses(
    taken: Mapping[str, Taken], unfinished: Iterable[str], directories: Sequence[Path], own: Iterable[str], now_unix: float
) -> Losses:
    """Look for what was lost.

    Args:
        taken: what the checkpoint has in its accounts, by session.
        unfinished: the sessions among them whose end was not known when it was saved.
        directories: where their journals may be.
        own: the sessions of the run that goes on.
        now_unix: seconds since 1970.
    """
    traces = read_traces([*directories, *_beside(directories, set(taken))])
    by_session = {session: trace for session, trace in traces.by_session.items() if session not in set(own)}
    losses = Losses(unknown=traces.problems)
    nowhere = 0
    for session in unfinished:
        trace = by_session.get(session)
        if trace is None:
            nowhere += 1
        elif not trace.lives(now_unix, if_elsewhere=False):
            _add(losses, trace, taken.get(session, Taken({})))
    if nowhere:
        places = ", ".join(dict.fromkeys(str(directory) for directory in directories))
        losses.unknown.append(
            "What this run's earlier part used after its checkpoint is not known, and missing from the total: no journal "
            f"(watt.jsonl) of it was found in {places}. Keep it beside the checkpoint, or resume in the same directory."
        )
    for trace in _dead_ends(by_session, set(taken), now_unix):
        _add(losses, trace, Taken({}))
    return losses


def _add(losses: Losses, trace: Trace, taken: Taken) -> None:
    end, kept = trace.last, trace.kept or JournalLine(t=0.0, session=trace.session)
    # What is in the accounts is not lost, nor what the session had used when it last ended well.
    settled_uj = {label: max(uj, kept.device_uj.get(label, 0)) for label, uj in {**kept.device_uj, **taken.uj}.items()}
    rise = beyond(trace, settled_uj, max(taken.ns, kept.ns))
    killed = end.status is None
    loss = Loss(
        session=trace.session,
        directory=trace.file.parent,
        status=trace.status,
        uj=rise.device_uj,
        ns=rise.ns,
        devices=trace.devices,
        taken=Taken(rise.known_uj, rise.known_ns),
        unseen_s=trace.interval_s if killed else 0.0,
        unseen_j=max(0.0, trace.interval_s * end.power_w) if killed else 0.0,
    )
    if loss.total_uj or killed:
        losses.found.append(loss)


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
