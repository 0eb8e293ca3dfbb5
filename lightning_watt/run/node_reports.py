"""What the nodes of a run tell rank zero of their energy, and the one sum that it makes of it, in one pass over them all.

A report holds sums by stage and device, which are the whole truth and never grow, and names the accounts that the rise since
the report before belongs to, so that each epoch's row is right too. Reports are numbered: one that comes twice, or after
a later one, adds nothing; if one was lost, the sums of the next bring what it brought.

Pure. Nothing here is ever changed: taking reports gives a new value.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import sub

import msgspec

from lightning_watt.accounts.epochs import Rows, all_rows_of
from lightning_watt.accounts.ledger import NOTHING, STAGES, Account, Ledger, Usage
from lightning_watt.record.schema import NodeEnergy
from lightning_watt.sources.base import Device, Gap

LATE_EPOCHS = 8
"""Epochs whose accounts are kept apart for reports that come late."""
MOST_GAPS = 100
"""Gaps that stand one by one."""
MOST_ACCOUNTS = 8
"""Accounts that a report tells apart, the latest ones; between two epochs' ends a trainer enters fewer."""


# Plain values without a circle, thousands of them at once: the garbage collector need not look at them (`gc=False`).


class Counted(msgspec.Struct, gc=False):
    """How much of a session is in the accounts already: microjoules by its own device labels, and nanoseconds."""

    uj: dict[str, int]
    ns: int = 0


class Part(msgspec.Struct, array_like=True, gc=False):
    """A part of a node's energy: microjoules in the order of the report's labels, and squared microjoules of its edges."""

    uj: list[int] = []
    edge_variance: float = 0.0


class Share(msgspec.Struct, array_like=True, gc=False):
    """What one account got since the report before; the last account of a stage gets what the others leave."""

    stage: str
    epoch: int
    part: Part | None = None


class NodeReport(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """One node's share of the run so far, as its reader sends it to rank zero.

    Its seconds, batches and samples are not in it: rank zero counts the same ones.

    Attributes:
        session: the id of the reader's session.
        rank: its global rank.
        node: the number of its node.
        host: its host.
        number: counts the session's reports from 1; what a journal adds to a report has that report's number.
        labels: its own labels of its devices, in the order of all its parts.
        stages: what it has used by stage, until now.
        since: the accounts that were charged since the report before, in the order in which they were entered.
        ns: nanoseconds that it has measured.
        devices: its devices, by its own labels; None here and below: as in the report before.
        gaps: what its counters lost.
        missing: what it could not measure, why, and the remedy.
        outer_edges: squared microjoules that may lie beyond its beginning and end.
        final: nothing comes after it.
    """

    session: str
    rank: int
    node: int
    host: str
    number: int = 0
    labels: list[str] = []
    stages: dict[str, Part] = {}
    since: list[Share] = []
    ns: int = 0
    devices: dict[str, Device] | None = None
    gaps: list[Gap] | None = None
    missing: list[str] | None = None
    outer_edges: float = 0.0
    final: bool = False

    @property
    def counted(self) -> Counted:
        """How much of its session is in it."""
        sums = [sum(uj) for uj in zip(*(part.uj for part in self.stages.values()), strict=True)]
        return Counted(dict(zip(self.labels, sums, strict=False)), self.ns)  # without stages there are no sums

    def label(self, own: str) -> str:
        """The label that a device of this node has in the run's record: `node1/gpu0`."""
        return f"node{self.node}/{own}"


class Reporter:
    """Makes one session's reports: each tells of what changes seldom only if it has changed."""

    def __init__(self) -> None:
        self._number = 0
        self._told: tuple[object, ...] = (None, None, None)
        self._guessed: dict[Account, Usage] = {}

    def report(
        self, report: NodeReport, since: Mapping[Account, Usage], ahead: Iterable[tuple[Account, Usage]]
    ) -> NodeReport:
        """The next report.

        Args:
            report: all that is to be told.
            since: what was charged to each account since the report before, as far as it is settled.
            ahead: what is not settled yet, by the last known power; the next report has it by the counter.
        """
        charged, guessed = dict(since), dict[Account, Usage]()
        for account, usage in ahead:
            guessed[account] = guessed.get(account, NOTHING) + usage
            charged[account] = charged.get(account, NOTHING) + usage
        for account, usage in self._guessed.items():
            charged[account] = charged.get(account, NOTHING) + _less(usage)
        self._guessed = guessed
        last = {account.stage: account for account in charged}
        report.since = [
            Share(account.stage, account.epoch, None if last[account.stage] == account else part_of(usage, report.labels))
            for account, usage in list(charged.items())[-MOST_ACCOUNTS:]
        ]
        self._number += 1
        report.number = self._number
        # The last one tells everything, should the one before it not have come.
        before, self._told = self._told, (report.devices, report.gaps, report.missing)
        if not report.final:
            now = zip(("devices", "gaps", "missing"), self._told, before, strict=True)
            for name, value, was in now:
                setattr(report, name, None if value == was else value)
        return report


@dataclass(frozen=True)
class OtherNodes:
    """What the other nodes have reported.

    Attributes:
        ledger: the sum of their accounts, devices by their labels in the run's record.
        reports: each one's last report, by session, with all that it and those before it told.
        devices: their devices, by their labels in the run's record.
        rows: what their accounts of earlier epochs were, without seconds and accuracies.
    """

    ledger: Ledger = field(default_factory=Ledger)
    reports: Mapping[str, NodeReport] = field(default_factory=dict)
    devices: Mapping[str, Device] = field(default_factory=dict)
    rows: Rows = field(default_factory=Rows)

    def with_reports(self, reports: Iterable[NodeReport]) -> OtherNodes:
        """Add what these reports tell beyond those before them; the order of one node's reports is that of its list."""
        rises: defaultdict[Account, _Rise] = defaultdict(_Rise)
        latest, devices = dict(self.reports), dict(self.devices)
        for report in reports:
            before = latest.get(report.session)
            if before is not None and report.number < before.number:
                continue
            _lay_out(report, before, rises)
            latest[report.session] = _completed(report, before)
            for own, device in (report.devices or {}).items():
                label = report.label(own)
                devices[label] = msgspec.structs.replace(device, label=label)
        ledger = self.ledger.copy()
        for account, rise in rises.items():
            ledger.add(account, rise.usage())
        # What comes even later for an epoch is a row of its own; the record adds it to the epoch's.
        newest = max((account.epoch for account in ledger.accounts), default=0)
        past = ledger.fold(lambda account: account.epoch <= newest - LATE_EPOCHS)
        return OtherNodes(ledger, latest, devices, self.rows.and_more(all_rows_of(past)))

    @property
    def gaps(self) -> list[Gap]:
        """What their counters lost."""
        found = [(report, gap) for report in self.reports.values() for gap in report.gaps or ()]
        return [msgspec.structs.replace(gap, device=report.label(gap.device)) for report, gap in found]

    @property
    def outer_edges(self) -> float:
        """Squared microjoules beyond the ends of what they measure."""
        return sum(report.outer_edges for report in self.reports.values())

    @property
    def missing(self) -> list[str]:
        """What they could not measure, why, and the remedy."""
        return [f"node{report.node}: {said}" for report in self.reports.values() for said in report.missing or ()]

    def energies(self) -> list[NodeEnergy]:
        """What each has used, for the record."""
        return [
            NodeEnergy(
                session=report.session,
                rank=report.rank,
                node=report.node,
                host=report.host,
                device_uj=report.counted.uj,
                stage_uj={stage: sum(part.uj) for stage, part in report.stages.items()},
                ns=report.ns,
            )
            for report in self.reports.values()
        ]


def part_of(usage: Usage, labels: Sequence[str]) -> Part:
    """What was used, for a report with these labels."""
    return Part([usage.uj.get(label, 0) for label in labels], usage.edge_variance)


def merged_gaps(gaps: Sequence[Gap]) -> list[Gap]:
    """Gaps of one device and one kind as one, so that their number does not grow with the run."""
    sums: dict[tuple[str, str], tuple[float, float]] = {}
    for gap in gaps:
        known_s, known_j = sums.get((gap.device, gap.why), (0.0, 0.0))
        sums[gap.device, gap.why] = known_s + gap.seconds, known_j + gap.joules
    return [Gap(device=device, seconds=s, joules=j, why=why) for (device, why), (s, j) in sums.items()]


def few_gaps(gaps: list[Gap]) -> list[Gap]:
    """These gaps, or if they are many, those of one device and one kind as one."""
    return merged_gaps(gaps) if len(gaps) > MOST_GAPS else gaps


def _lay_out(report: NodeReport, before: NodeReport | None, rises: defaultdict[Account, _Rise]) -> None:
    """Add a node's rise since the report before, account by account."""
    labels = [report.label(own) for own in report.labels]
    shares: dict[str, list[Share]] = {}
    for share in report.since if before is None or report.number > before.number else report.since[-1:]:
        shares.setdefault(share.stage, []).append(share)
    for stage, part in report.stages.items():
        was, was_variance = _before(report, before, stage)
        left = list(map(sub, part.uj, was))
        variance = part.edge_variance - was_variance
        named = shares.get(stage, [])
        for share in named[:-1]:
            if share.part is not None:
                left = list(map(sub, left, share.part.uj))
                variance -= share.part.edge_variance
                rises[_account(stage, share.epoch)].add(labels, share.part.uj, share.part.edge_variance)
        if any(left) or variance:
            latest = (named or report.since)[-1:]
            rises[_account(stage, latest[0].epoch if latest else 0)].add(labels, left, variance)


def _before(report: NodeReport, before: NodeReport | None, stage: str) -> tuple[list[int], float]:
    """What a stage had used by the report before, in the order of this one's labels."""
    part = before.stages.get(stage) if before is not None else None
    if before is None or part is None:
        return [0] * len(report.labels), 0.0
    if before.labels == report.labels:
        return part.uj, part.edge_variance
    known = dict(zip(before.labels, part.uj, strict=True))
    return [known.get(own, 0) for own in report.labels], part.edge_variance


def _account(stage: str, epoch: int) -> Account:
    return Account(stage if stage in STAGES else "other", epoch)


class _Rise:
    """What many nodes add to one account."""

    def __init__(self) -> None:
        self._labels: list[str] = []
        self._uj: list[int] = []
        self._variance = 0.0

    def add(self, labels: Sequence[str], uj: Sequence[int], variance: float) -> None:
        self._labels += labels
        self._uj += uj
        self._variance += variance

    def usage(self) -> Usage:
        uj = dict(zip(self._labels, self._uj, strict=True))
        if len(uj) < len(self._labels):  # two reports of one node
            uj = dict.fromkeys(uj, 0)
            for label, value in zip(self._labels, self._uj, strict=True):
                uj[label] += value
        return Usage(uj, edge_variance=self._variance)


def _completed(report: NodeReport, before: NodeReport | None) -> NodeReport:
    if before is None:
        return report
    return msgspec.structs.replace(
        report,
        devices=before.devices if report.devices is None else report.devices,
        gaps=before.gaps if report.gaps is None else report.gaps,
        missing=before.missing if report.missing is None else report.missing,
    )


def _less(usage: Usage) -> Usage:
    return Usage({label: -uj for label, uj in usage.uj.items()}, edge_variance=-usage.edge_variance)
