"""The ranks of one run, as one of them sees them: each reader's report of the energy, and the values that all ranks share.

At an epoch's end each reader leaves its report in the ranks' key-value store; rank zero alone reads them, adds them up, and
leaves the values for all. At the end each reader leaves its last report. What arrives in neither way is in the journals. No
step of this is a collective and each has a limit, so a rank that has died, or on which nobody measures, holds nobody up.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from lightning_watt.distributed.ranks import Agreement, Arrangement
from lightning_watt.distributed.store import SharedStore, StoreGone
from lightning_watt.meter.reader import END_LIMIT_S
from lightning_watt.record.files import JOURNAL_NAME, RECORD_NAME, file_of
from lightning_watt.record.journal import Trace, beyond, read_traces
from lightning_watt.record.schema import Status
from lightning_watt.run.node_reports import NodeReport, Part, Share
from lightning_watt.run.session import Session
from lightning_watt.run.state import RunState
from lightning_watt.run.totals import node_report

log = logging.getLogger(__name__)

REPORT_LIMIT_S = 5.0
"""How long rank zero waits at an epoch's end for a reader's report; one that was late is not waited for again, and what it
leaves later is taken at the next epoch's end."""
VALUES_LIMIT_S = 300.0
"""How long a rank waits at an epoch's end for rank zero's values. It would wait for it at the next collective anyway, since
rank zero may be busy there for minutes, drawing samples say. One that has failed or died is not waited for."""
STORE_LIMIT_S = 2.0
"""How long a rank's own end waits for the store, which may be on a machine that is gone."""
FAILED_LIMIT_S = 2.0
"""How long rank zero's end waits for the other nodes if something failed; one of them may be gone."""
KEPT = 16
"""Answers that stay in the store; nobody is that many epochs behind."""


class Values(msgspec.Struct):
    """What rank zero gives to all at an epoch's end.

    Attributes:
        tags: what other callbacks find among the Trainer's metrics.
        stop_at: the number of training batches after which the training stops; None while that is not known.
        over: from here on nobody waits for rank zero: it failed, or somebody has waited too long.
    """

    tags: dict[str, float] = {}
    stop_at: int | None = None
    over: bool = False


class Nodes:
    """The ranks of one run.

    Args:
        store: where they meet; None if there is none.
        rank: this process's rank.
        arrangement: what all ranks know of the run.
        agreement: who reads.
    """

    def __init__(self, store: SharedStore | None, rank: int, arrangement: Arrangement, agreement: Agreement) -> None:
        self.rank = rank
        self.arrangement = arrangement
        self.readers = agreement.readers
        self.run = agreement.run
        self._store = store
        self._meetings = 0
        self._answers = 0
        self._late: dict[int, int] = {}  # readers that are not waited for any more, and the meeting that is heard of next
        self._over = False

    @property
    def many(self) -> bool:
        """Whether more than one process reads."""
        return len(self.readers) > 1

    @property
    def leads(self) -> bool:
        """Whether this rank keeps the run's record: rank zero, or the lowest one that measures."""
        return self.rank == self.arrangement.ranks[0]

    @property
    def node(self) -> int:
        """This process's number among the readers."""
        return self.readers.index(self.rank) if self.rank in self.readers else 0

    # -- at an epoch's end --------------------------------------------------------------------------------------------

    def gather(self, report: NodeReport | None) -> list[NodeReport]:
        """Leave this reader's report; the one that leads hears the others' and waits for them, with a limit.

        Every reader calls it at the same moments.

        Args:
            report: this reader's; None if it has none now.
        """
        if self._store is None or not self.many:
            return []
        self._meetings += 1
        try:
            if not self.leads:
                return self._send_report(self._store, report)
            waited = {rank: self._key(rank, self._meetings) for rank in self.readers[1:] if rank not in self._late}
            found = self._store.wait(list(waited.values()), REPORT_LIMIT_S) if waited else {}
            self._late.update((rank, self._meetings) for rank, key in waited.items() if key not in found)
            raws = [*found.values(), *self._from_late(self._store)]
        except StoreGone as error:
            log.debug("the store is gone", exc_info=error)
            return []
        return _decoded(raws)

    @staticmethod
    def _key(rank: int, meeting: int) -> str:
        return f"part/{rank}/{meeting}"

    def _from_late(self, store: SharedStore) -> list[bytes]:
        """What readers that are not waited for have left by now, each one's in order."""
        raws: list[bytes] = []
        for rank in self._late:
            while self._late[rank] <= self._meetings and (found := store.get([self._key(rank, self._late[rank])])):
                raws += found.values()
                self._late[rank] += 1
        return raws

    def _send_report(self, store: SharedStore, report: NodeReport | None) -> list[NodeReport]:
        store.set(self._key(self.rank, self._meetings), msgspec.msgpack.encode(report))
        store.delete(self._key(self.rank, self._meetings - KEPT))
        return []

    @property
    def shares_values(self) -> bool:
        """Whether rank zero's values go to the other ranks."""
        ranks = self.arrangement.ranks
        return self._store is not None and not self._over and len(ranks) > 1 and ranks[0] == 0 and self.rank in ranks

    def share_values(self, values: Values) -> Values | None:
        """Give every rank rank zero's values of this moment; every rank calls it at the same moments.

        Args:
            values: rank zero's; the other ranks' are not looked at.

        Returns:
            The values that all ranks take now, the same on each; None if they have none in common any more. From then on
            nobody waits for anybody, which all of them know from the same word in the store.
        """
        store = self._store
        if store is None or not self.shares_values:
            return None
        self._answers += 1
        key = f"values/{self._answers}"
        try:
            if self.rank == 0:
                raw = store.set_if_absent(key, msgspec.json.encode(values))
                store.delete(f"values/{self._answers - KEPT}")
            else:
                raw = store.wait([key], VALUES_LIMIT_S).get(key) or store.set_if_absent(
                    key, msgspec.json.encode(Values(over=True))
                )
        except StoreGone as error:
            log.debug("the store is gone", exc_info=error)
            self._over = True
            return None
        taken = msgspec.json.decode(raw, type=Values)
        self._over = taken.over
        return None if taken.over else taken

    def abort(self) -> None:
        """Rank zero has failed: nobody waits for its next values."""
        if self.rank == 0 and self.shares_values:
            over, last = msgspec.json.encode(Values(over=True)), self._answers
            self._in_time(lambda store: [store.set_if_absent(f"values/{number}", over) for number in (last, last + 1)])
            self._over = True

    # -- at the end ---------------------------------------------------------------------------------------------------

    def send_end(self, report: NodeReport) -> None:
        """Leave the last report for rank zero."""
        raw = msgspec.msgpack.encode(report)
        self._in_time(lambda store: store.set(f"end/{self.rank}", raw))

    def _in_time(self, call: Callable[[SharedStore], object]) -> None:
        """Do something with the store in a thread, because the machine that holds it may be gone."""
        store = self._store
        if store is None:
            return

        def work() -> None:
            try:
                call(store)
            except StoreGone as error:
                log.debug("the store is gone", exc_info=error)

        thread = threading.Thread(target=work, name="lightning_watt writes to the store", daemon=True)
        thread.start()
        thread.join(STORE_LIMIT_S)

    def receive_ends(self, limit_s: float) -> list[NodeReport]:
        """The last reports of the other readers, as far as they come within the limit; before them, what came late."""
        if self._store is None:
            return []
        try:
            found = self._store.wait([f"end/{rank}" for rank in self.readers if rank != self.rank], limit_s)
            raws = [*self._from_late(self._store), *found.values()]
        except StoreGone as error:
            log.debug("the store is gone", exc_info=error)
            return []
        return _decoded(raws)

    def not_ended(self, known: Iterable[NodeReport]) -> list[int]:
        """The other readers that have not reported their end."""
        ended = {report.rank for report in known if report.final}
        return [rank for rank in self.readers if rank not in ended and rank != self.rank]

    def sentence(self, rank: int, known: Iterable[NodeReport]) -> str:
        """A sentence for the record about one that did not."""
        there = rank in {report.rank for report in known}
        what = "its last report, or its journal here, is in the total" if there else "nothing of it is in the total"
        return (
            f"node{self.readers.index(rank)} (rank {rank}) did not report its end: {what}. Its own files, "
            f"{file_of(RECORD_NAME, rank)} and {file_of(JOURNAL_NAME, rank)}, are in the log directory of its machine; "
            "next to this record, read_record(directory) adds what they know."
        )


def _decoded(raws: Iterable[bytes]) -> list[NodeReport]:
    decoder = msgspec.msgpack.Decoder(NodeReport | None)
    return [report for raw in raws if (report := decoder.decode(raw)) is not None]


def from_journals(directory: Path, run: str, own: str, reported: Mapping[str, NodeReport]) -> list[NodeReport]:
    """What the other nodes' journals know beyond the reports of their readers, by session; for readers that are gone."""
    traces = read_traces([directory]).by_session.values()
    newer = [
        _brought_up(reported.get(trace.session), trace)
        for trace in traces
        if trace.session != own and (trace.session in reported or (run and trace.run == run))
    ]
    return [report for report in newer if report is not None]


def _brought_up(report: NodeReport | None, trace: Trace) -> NodeReport | None:
    """A report with what its journal knows of it; None if that is nothing new."""
    if report is None:
        host = next((about.host for about in trace.devices.values()), "")
        report = NodeReport(session=trace.session, rank=trace.rank, node=trace.node, host=host)
    known = report.counted
    rise = beyond(trace, known.uj, known.ns)
    if rise.total_uj == 0:
        return None
    stage, labels = trace.last.stage or "other", list(rise.known_uj)
    stages = {stage: Part(), **report.stages}
    for name, part in stages.items():
        uj = dict(zip(report.labels, part.uj, strict=False))  # without a report there are none
        more = rise.device_uj if name == stage else {}
        stages[name] = Part([uj.get(label, 0) + more.get(label, 0) for label in labels], part.edge_variance)
    return msgspec.structs.replace(
        report,
        labels=labels,
        stages=stages,
        since=[Share(stage, trace.last.epoch)],
        devices=trace.devices,
        ns=rise.known_ns,
        final=trace.last.status is not None,
    )


# -- with the session --


def meet_readers(nodes: Nodes, session: Session | None, run: RunState, *, measures: bool) -> None:
    """Bring the readers' reports together; every reader comes here at an epoch's end, whatever has failed in it before."""
    report = None
    try:
        if not nodes.leads and session is not None and measures:
            report = _report_of(session, run)
    except Exception as error:  # noqa: BLE001 - the one that leads waits for an answer
        run.warn_once.failed("this node's report", error)
    reports = nodes.gather(report)
    if session is not None and reports:
        session.take_reports(reports)


def end_together(nodes: Nodes, session: Session, run: RunState, status: Status, write: Callable[[], None]) -> None:
    """Bring the nodes' last reports to rank zero.

    Args:
        nodes: the run's nodes.
        session: this process's session, which is over.
        run: what is known of the run.
        status: how it ended here.
        write: writes the record as it stands, should this process be killed while it waits.
    """
    if not nodes.leads:
        nodes.send_end(_report_of(session, run))
        return
    if status != "completed":
        _add_journals(nodes, session, run)
    write()
    session.take_reports(nodes.receive_ends(END_LIMIT_S if status == "completed" else FAILED_LIMIT_S))
    _add_journals(nodes, session, run)
    for sentence in run.silent_nodes:
        run.warn_once.warn(sentence)


def _report_of(session: Session, run: RunState) -> NodeReport:
    totals = session.totals(with_since=True)
    return session.reporter.report(node_report(totals, run.missing), totals.since, totals.ahead)


def _add_journals(nodes: Nodes, session: Session, run: RunState) -> None:
    """Add what the other nodes' journals know and their readers have not reported."""
    known = session.others.nodes.reports
    missing = nodes.not_ended(known.values())
    if missing and run.directory is not None:
        session.take_reports(from_journals(run.directory, nodes.run, session.id, known))
        known = session.others.nodes.reports
    run.silent_nodes = [nodes.sentence(rank, known.values()) for rank in missing]
