"""The ranks of one run, as one of them sees them: each reader's report of the energy, and the values that all ranks share.

At an epoch's end each reader leaves its report in the ranks' key-value store; rank zero adds them up and leaves the values
for all. At the end each reader leaves its last report. What arrives in neither way is in the journals. No step of this is a
collective and each has a limit, so a rank that has died, or on which nobody measures, holds nobody up.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from lightning_watt.distributed.ranks import Agreement, Arrangement
from lightning_watt.distributed.store import SharedStore, StoreGone
from lightning_watt.meter.reader import END_LIMIT_S
from lightning_watt.record.files import JOURNAL_NAME, RECORD_NAME, file_of
from lightning_watt.record.journal import Trace, beyond, read_traces
from lightning_watt.record.schema import Status
from lightning_watt.run.other_sessions import Counted, NodeReport
from lightning_watt.run.session import Session
from lightning_watt.run.state import RunState
from lightning_watt.run.totals import node_report

log = logging.getLogger(__name__)

REPORT_LIMIT_S = 5.0
"""How long rank zero waits at an epoch's end for a reader's report; one that was late is not waited for again."""
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
        self._late: set[int] = set()  # readers that are not waited for any more
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
            waited = {rank: f"part/{rank}/{self._meetings}" for rank in self.readers[1:] if rank not in self._late}
            found = self._store.wait(list(waited.values()), REPORT_LIMIT_S) if waited else {}
        except StoreGone as error:
            log.debug("the store is gone", exc_info=error)
            return []
        self._late.update(rank for rank, key in waited.items() if key not in found)
        reports = [msgspec.json.decode(raw, type=NodeReport | None) for raw in found.values()]
        return [report for report in reports if report is not None]

    def _send_report(self, store: SharedStore, report: NodeReport | None) -> list[NodeReport]:
        store.set(f"part/{self.rank}/{self._meetings}", msgspec.json.encode(report))
        store.delete(f"part/{self.rank}/{self._meetings - KEPT}")
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
        raw = msgspec.json.encode(report)
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
        """The last reports of the other readers, as far as they come within the limit."""
        if self._store is None:
            return []
        try:
            found = self._store.wait([f"end/{rank}" for rank in self.readers if rank != self.rank], limit_s)
        except StoreGone as error:
            log.debug("the store is gone", exc_info=error)
            return []
        return [msgspec.json.decode(raw, type=NodeReport) for raw in found.values()]

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


def from_journals(directory: Path, run: str, own: str, known: Iterable[NodeReport]) -> list[NodeReport]:
    """What the other nodes' journals know beyond the reports of their readers; for readers that are gone."""
    reported = {report.session: report for report in known}
    traces = read_traces([directory]).by_session.values()
    newer = [
        _brought_up(reported.get(trace.session), trace)
        for trace in traces
        if trace.session != own and (trace.session in reported or (run and trace.run == run))
    ]
    return [report for report in newer if report is not None]


def _brought_up(report: NodeReport | None, trace: Trace) -> NodeReport | None:
    """A report with what its journal knows of it; None if that is nothing new."""
    rise = beyond(trace, report.counted.uj if report is not None else {}, report.counted.ns if report is not None else 0)
    if rise.total_uj == 0:
        return None
    account = [trace.last.stage or "other", trace.last.epoch, rise.device_uj, rise.ns]
    return NodeReport(
        session=trace.session,
        rank=trace.rank,
        node=trace.node,
        host=next((about.host for about in trace.devices.values()), ""),
        ledger=[*(report.ledger if report is not None else []), [*account, 0, 0, 0.0]],
        devices=trace.devices,
        counted=Counted(rise.known_uj, rise.known_ns),
        outer_edges=report.outer_edges if report is not None else 0.0,
        gaps=report.gaps if report is not None else [],
        missing=report.missing if report is not None else [],
        final=trace.last.status is not None,
    )


# -- with the session --


def meet_readers(nodes: Nodes, session: Session | None, run: RunState, *, measures: bool) -> None:
    """Bring the readers' reports together; every reader comes here at an epoch's end, whatever has failed in it before."""
    report = None
    try:
        if not nodes.leads and session is not None and measures:
            report = node_report(session.totals(), run.missing)
    except Exception as error:  # noqa: BLE001 - the one that leads waits for an answer
        run.warn_once.failed("this node's report", error)
    for other in nodes.gather(report):
        if session is not None:
            session.take_report(other)


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
        nodes.send_end(node_report(session.totals(), run.missing))
        return
    if status != "completed":
        _add_journals(nodes, session, run)
    write()
    for report in nodes.receive_ends(END_LIMIT_S if status == "completed" else FAILED_LIMIT_S):
        session.take_report(report)
    _add_journals(nodes, session, run)
    for sentence in run.silent_nodes:
        run.warn_once.warn(sentence)


def _add_journals(nodes: Nodes, session: Session, run: RunState) -> None:
    """Add what the other nodes' journals know and their readers have not reported."""
    missing = nodes.not_ended(session.others.nodes)
    if missing and run.directory is not None:
        for report in from_journals(run.directory, nodes.run, session.id, session.others.nodes):
            session.take_report(report)
    run.silent_nodes = [nodes.sentence(rank, session.others.nodes) for rank in missing]
