"""When the nodes of a run meet: at every epoch's end, and at its own end, where whoever is gone is not waited for long."""

from __future__ import annotations

from collections.abc import Callable

from lightning_watt.distributed.nodes import Nodes, from_journals
from lightning_watt.meter.reader import END_LIMIT_S
from lightning_watt.record.schema import Status
from lightning_watt.run.session import Session
from lightning_watt.run.state import RunState

FAILED_LIMIT_S = 2.0
"""How long rank zero's end waits for the other nodes where something failed; one of them may be gone."""


def meet(nodes: Nodes, session: Session | None, run: RunState, *, measures: bool) -> None:
    """Bring the readers' parts together; every reader comes here at an epoch's end, whatever has failed in it before."""
    part = None
    try:
        if not nodes.leads and session is not None and measures:
            part = session.part(run.missing)
    except Exception as error:  # noqa: BLE001 - the one that leads waits for an answer
        run.warn_once.failed("this node's part", error)
    for told in nodes.meet(part):
        if session is not None:
            session.join(told)


def end(nodes: Nodes, session: Session, run: RunState, status: Status, write: Callable[[], None]) -> None:
    """Bring the nodes' last parts to rank zero.

    Args:
        nodes: the run's nodes.
        session: this process's session, which is over.
        run: what is known of the run.
        status: how it ended here.
        write: writes the record as it stands, should this process be killed while it waits.
    """
    if not nodes.leads:
        nodes.tell_end(session.part(run.missing))
        return
    if status != "completed":
        _add_journals(nodes, session, run)
    write()
    for part in nodes.hear_ends(END_LIMIT_S if status == "completed" else FAILED_LIMIT_S):
        session.join(part)
    _add_journals(nodes, session, run)
    for sentence in run.untold:
        run.warn_once.warn(sentence)


def _add_journals(nodes: Nodes, session: Session, run: RunState) -> None:
    """Add what the other nodes' journals know and their readers have not told."""
    missing = nodes.untold(session.parts.others)
    if missing and run.directory is not None:
        for part in from_journals(run.directory, nodes.run, session.id, session.parts.others):
            session.join(part)
    run.untold = [nodes.sentence(rank, session.parts.others) for rank in missing]
