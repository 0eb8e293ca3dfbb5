"""What a run has used at one moment: a frozen value, and the pure functions that make everything else of it.

`Session.totals()` takes it under one lock. The record, the log rows, the journal's line, a node's report and the state in a
checkpoint are made of it afterwards, so that each of them is of one moment, whatever other threads do meanwhile.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import time as unix_time
from typing import Any, NamedTuple

import msgspec

from lightning_watt.accounts.epochs import IN_CHECKPOINT, FinishedEpochs, all_rows_of, merged_rows, rows_of, to_plain
from lightning_watt.accounts.events import LogPoint, Snapshot
from lightning_watt.accounts.forecast import LogSpan, Rate, forecast, within
from lightning_watt.accounts.ledger import NOTHING, STAGES, Account, Ledger, Usage, merged
from lightning_watt.host import process_facts
from lightning_watt.record.lines import JournalLine
from lightning_watt.record.schema import DeviceEnergy, Energy, Epoch, NodeEnergy, Stage, Status, StepPart
from lightning_watt.run.node_reports import Counted, NodeReport, merged_gaps, part_of
from lightning_watt.run.other_sessions import OtherSessions
from lightning_watt.run.sums import Sums, gain_of, sums_of
from lightning_watt.sources.base import Device, Gap
from lightning_watt.units import UJ_PER_J, joules, kwh, seconds


class Place(NamedTuple):
    """Where a session stands in its run: the run's id (empty if it has one session), its global rank, its node's number."""

    run: str = ""
    rank: int = 0
    node: int = 0


@dataclass(frozen=True)
class Totals:
    """What a run has used at one moment.

    Attributes:
        session: the id of this process's session.
        started_unix: when it was made, seconds since 1970.
        place: where it stands in its run.
        account: the account that the trainer is in.
        settled: this session's accounts as far as they are settled; a copy that nobody changes.
        ahead: what has been used since, by the devices' last known power, account by account.
        devices: this session's devices, by label.
        power_w: their last known power over all of them, watts.
        others: what other sessions of the run have used.
        epochs: the finished epochs.
        step_parts: what the parts of the training steps used, if that is measured.
        gaps: what this session's counters lost.
        outer_edges: squared microjoules that may lie beyond this session's beginnings and ends.
        interval_s: seconds between two reads.
        is_over: the session does not measure any more.
        since: what was charged to each account since the last totals that have this; empty if it was not asked for.
    """

    session: str
    started_unix: float
    place: Place
    account: Account
    settled: Ledger
    ahead: tuple[tuple[Account, Usage], ...]
    devices: Mapping[str, Device]
    power_w: float
    others: OtherSessions
    epochs: FinishedEpochs
    step_parts: Mapping[str, StepPart]
    gaps: tuple[Gap, ...]
    outer_edges: float
    interval_s: float
    is_over: bool
    since: Mapping[Account, Usage] = field(default_factory=dict)

    def now(self) -> Totals:
        """The same with what is ahead of the settled accounts as if it was settled."""
        return replace(self, settled=self.until_now(), ahead=())

    def until_now(self) -> Ledger:
        """This session's accounts, what is ahead of the settled ones included."""
        ledger = self.settled.copy()
        for account, usage in self.ahead:
            ledger.add(account, usage)
        return ledger

    @property
    def total_uj(self) -> int:
        """Microjoules of the whole run that are settled."""
        return self.settled.total_uj + sum(ledger.total_uj for ledger in self.others.ledgers)

    @property
    def total_j(self) -> float:
        """Joules of the whole run that are settled."""
        return joules(self.total_uj)

    def by_stage(self) -> dict[str, Usage]:
        """What the whole run used by stage, in the order of `STAGES`; stages that never ran are absent."""
        stages = [ledger.by_stage() for ledger in (self.settled, *self.others.ledgers)]
        return {
            stage: sum((found[stage] for found in stages if stage in found), NOTHING)
            for stage in STAGES
            if any(stage in found for found in stages)
        }

    def by_device(self) -> dict[str, int]:
        """Microjoules of the whole run by device label."""
        return dict(sum((Usage(ledger.by_device()) for ledger in (self.settled, *self.others.ledgers)), NOTHING).uj)

    def all_devices(self) -> dict[str, Device]:
        """The devices of the whole run by label, this session's first."""
        return {**self.devices, **{label: d for label, d in self.others.all_devices.items() if label not in self.devices}}

    def all_gaps(self) -> list[Gap]:
        """What the counters of all sessions lost."""
        return [*self.others.all_gaps, *self.gaps]

    def sums(self) -> Sums:
        """What the settled accounts of the whole run come to."""
        return sums_of([self.settled], self.devices, self.outer_edges, self.gaps).and_more(self.others.sums)


# -- log rows --


def snapshot_of(
    sums: Sums,
    point: LogPoint,
    power_w: dict[str, float],
    span: LogSpan,
    rates: dict[str, Rate],
    pace: Mapping[str, Usage],
) -> Snapshot:
    """The snapshot for a log point.

    Args:
        sums: what the whole run's accounts come to at that point.
        point: the point.
        power_w: watts by device.
        span: what the current stage used since the snapshot before.
        rates: joules a batch by stage.
        pace: what this session used by stage, for how long a batch takes.
    """
    ahead, total_j = point.ahead, joules(sums.total_uj)
    if ahead is not None and point.left_s is not None:
        ahead = within(ahead, point.left_s, pace)
    return Snapshot(
        point=point,
        total_j=total_j,
        uncertainty_j=sums.uncertainty.total_j,
        stage_j={stage: joules(sums.stage_uj[stage]) for stage in STAGES if stage in sums.stage_uj},
        power_w=power_w,
        span=span,
        forecast=forecast(total_j, ahead, rates),
    )


# -- the record --


def record_energy(totals: Totals) -> Energy:
    """The energy part of the record; `total_j` is None if no device was ever read."""
    devices = totals.all_devices()
    if not devices:
        return Energy(total_j=None, total_kwh=None, uncertainty_j=None, provenance=None)
    by_device = totals.by_device()
    kinds = {device.provenance for device in devices.values()}
    uncertainty = totals.sums().uncertainty
    return Energy(
        total_j=totals.total_j,
        total_kwh=kwh(totals.total_j),
        uncertainty_j=uncertainty.total_j,
        provenance="mixed" if len(kinds) > 1 else kinds.pop(),
        boundary_j=uncertainty.boundary_j,
        gain_j=uncertainty.gain_j,
        typical_j=_typical_j(by_device, devices, uncertainty.boundary_j),
        by_stage={
            stage: Stage(
                joules=joules(usage.total_uj),
                seconds=seconds(usage.ns),
                batches=usage.batches,
                samples=usage.samples,
                uncertainty_j=math.hypot(joules(math.sqrt(usage.edge_variance)), gain_of(usage.uj, devices) / UJ_PER_J),
            )
            for stage, usage in totals.by_stage().items()
        },
        by_device={
            label: DeviceEnergy(joules=joules(by_device.get(label, 0)), **msgspec.structs.asdict(device))
            for label, device in devices.items()
        },
    )


def _typical_j(uj: Mapping[str, int], devices: Mapping[str, Device], boundary_j: float) -> float | None:
    """Plus or minus by the errors that are typical of the devices; None if none of them has one."""
    used = [(devices[label], value) for label, value in uj.items() if label in devices]
    if not any(device.typical_gain for device, _ in used):
        return None
    gain_uj = sum((device.typical_gain or device.gain) * value for device, value in used)
    return math.hypot(boundary_j, joules(gain_uj))


def record_epochs(totals: Totals) -> list[Epoch]:
    """The finished epochs of every stage, in order; validation that runs several times in an epoch is one row."""
    last = rows_of(totals.settled.accounts, totals.epochs.accuracies)
    nodes = totals.others.nodes
    parts = [*all_rows_of(totals.others.earlier.accounts), *nodes.rows.newest(), *all_rows_of(nodes.ledger.accounts)]
    return merged_rows([*totals.others.rows, *totals.epochs.past.newest(), *last], parts)


def record_nodes(totals: Totals) -> list[NodeEnergy]:
    """What each node's reader has used in this run, this one first."""
    own = totals.settled
    mine = NodeEnergy(
        session=totals.session,
        rank=totals.place.rank,
        node=totals.place.node,
        host=platform.node(),
        device_uj=own.by_device(),
        stage_uj={stage: usage.total_uj for stage, usage in own.by_stage().items()},
        ns=own.ns,
    )
    return [mine, *totals.others.nodes.energies()]


# -- what others are sent, or find --


def journal_line(totals: Totals, status: Status | None = None, *, with_heading: bool) -> JournalLine:
    """The journal's line.

    Args:
        totals: the totals.
        status: how the run ended, in its last line.
        with_heading: add the devices, the process and its place, as in a first line.
    """
    own = totals.settled
    line = JournalLine(
        t=unix_time(),
        total_j=totals.total_j,
        power_w=totals.power_w,
        stage=totals.account.stage,
        epoch=totals.account.epoch,
        session=totals.session,
        device_uj=own.by_device() if totals.devices else {},
        stage_uj={stage: usage.total_uj for stage, usage in own.by_stage().items()},
        ns=own.ns,
        status=status,
    )
    if with_heading:
        line.devices, line.resumes = msgspec.to_builtins(totals.devices), list(totals.others.counted)
        line.where, line.pid, line.born = process_facts()
        line.run, line.rank, line.node = totals.place
        line.interval_s = totals.interval_s
    return line


def node_report(totals: Totals, missing: Sequence[str] = ()) -> NodeReport:
    """This session's share of the run until now, for rank zero; `Reporter` adds what is new in it.

    Args:
        totals: the totals.
        missing: what could not be measured here, why, and the remedy.
    """
    ledger = totals.until_now()
    labels = list(ledger.by_device())
    return NodeReport(
        session=totals.session,
        rank=totals.place.rank,
        node=totals.place.node,
        host=platform.node(),
        labels=labels,
        stages={stage: part_of(usage, labels) for stage, usage in ledger.by_stage().items()},
        ns=ledger.ns,
        devices=dict(totals.devices),
        outer_edges=totals.outer_edges,
        gaps=merged_gaps(totals.gaps),
        missing=list(missing),
        final=totals.is_over,
    )


def checkpoint_state(totals: Totals) -> dict[str, Any]:
    """The accounts until now as plain values, which load without running code.

    What is not settled yet is in them by the last known power. A resume that finds the journal corrects it.
    """
    others, ahead, until_now = totals.others, Ledger(), totals.until_now()
    for account, usage in totals.ahead:
        ahead.add(account, replace(usage, edge_variance=float(usage.total_uj) ** 2))
    own = {totals.session: Counted(until_now.by_device(), until_now.ns)}
    counted = {**others.counted, **own, **{session: report.counted for session, report in others.nodes.reports.items()}}
    accuracies = {**totals.epochs.accuracies, **totals.epochs.noted}
    rows = [*others.rows[-IN_CHECKPOINT:], *totals.epochs.past.newest(IN_CHECKPOINT)][-IN_CHECKPOINT:]
    return {
        "sessions": list(counted),
        "unfinished": [*own, *others.nodes.reports],
        "taken": msgspec.to_builtins(counted),
        "lost": msgspec.to_builtins(list(others.lost)),
        "ledger": merged([totals.settled, *others.ledgers]).state_dict(),
        "settled": {stage: [usage.total_uj, usage.edge_variance] for stage, usage in totals.settled.by_stage().items()},
        "ahead": ahead.state_dict(),
        "devices": msgspec.to_builtins(totals.all_devices()),
        "accuracies": [[account.stage, account.epoch, value] for account, value in accuracies.items()],
        "rows": to_plain(merged_rows(rows, others.nodes.rows.newest(IN_CHECKPOINT))),
        "older_rows": len(others.rows) + totals.epochs.past.count - len(rows),
        "outer_edges": totals.outer_edges + float(ahead.total_uj) ** 2 + others.all_edges,
        "gaps": msgspec.to_builtins(totals.all_gaps()),
    }
