"""The nodes of a run: each reader tells rank zero what its node has used, at every epoch's end and at the end.

At an epoch's end all ranks meet anyway (Lightning's own hooks, and our broadcast), so the parts travel in one collective. At
the end they do not: a rank may have died, and a collective would wait for it. There each reader leaves its part in the
process group's key-value store, and rank zero looks for it with a limit. What comes by neither way is in the journals.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import torch.distributed as dist

from lightning_watt.journal import JOURNAL_NAME, RECORD_NAME, Trace, file_of, read_traces
from lightning_watt.parts import Part
from lightning_watt.ranks import Agreement
from lightning_watt.wasted import Taken

log = logging.getLogger(__name__)
POLL_S = 0.02
STORE_LIMIT_S = 2.0
"""How long a reader's own end waits for the store, which may be on a machine that is gone."""


class Nodes:
    """The readers of one run, as one of its ranks sees them.

    Args:
        agreement: who reads.
        rank: this process's rank.
        turn: how many fits and tests this process has begun; the same on every rank.
    """

    def __init__(self, agreement: Agreement, rank: int, turn: int) -> None:
        self.run = agreement.run
        self.rank = rank
        self.readers = agreement.readers
        self._turn = turn
        self._broken = False

    @property
    def many(self) -> bool:
        """Whether more than one process reads."""
        return len(self.readers) > 1

    @property
    def node(self) -> int:
        """The number of this process's node."""
        return self.readers.index(self.rank) if self.rank in self.readers else 0

    def gather(self, part: Part | None) -> list[Part]:
        """Tell and hear all parts; called by every rank at the same moment. Where a rank is gone, nobody is asked again."""
        if not self.many or self._broken:
            return []
        everyone: list[Any] = [None] * dist.get_world_size()
        try:
            dist.all_gather_object(everyone, msgspec.json.encode(part) if part is not None and self.rank else None)
        except Exception:
            self._broken = True
            raise
        return [msgspec.json.decode(raw, type=Part) for raw in everyone if raw is not None] if self.rank == 0 else []

    def tell_end(self, part: Part) -> None:
        """Leave the last part for rank zero."""
        raw = msgspec.json.encode(part)
        # In a thread, because the machine that holds the store may be gone.
        thread = threading.Thread(target=self._put, args=(raw,), name="lightning_watt tells its end", daemon=True)
        thread.start()
        thread.join(STORE_LIMIT_S)

    def hear_ends(self, limit_s: float) -> list[Part]:
        """The last parts of the other nodes, as far as they come within the limit."""
        store = _store()
        waiting, found = [rank for rank in self.readers if rank != self.rank], []
        until_s = time.monotonic() + limit_s
        while waiting and store is not None:
            try:
                there = [rank for rank in waiting if store.check([self._key(rank)])]
                found += [msgspec.json.decode(store.get(self._key(rank)), type=Part) for rank in there]
            except Exception as error:
                log.debug("the store is gone", exc_info=error)
                break
            waiting = [rank for rank in waiting if rank not in there]
            if not waiting or time.monotonic() > until_s:
                break
            time.sleep(POLL_S)
        return found

    def untold(self, known: Iterable[Part]) -> list[int]:
        """The other readers that have not told their end."""
        told = {part.rank for part in known if part.final}
        return [rank for rank in self.readers if rank not in told and rank != self.rank]

    def sentence(self, rank: int, known: Iterable[Part]) -> str:
        """What to say of one that did not."""
        there = rank in {part.rank for part in known}
        what = "what it told last, or its journal here, is in the total" if there else "nothing of it is in the total"
        return (
            f"node{self.readers.index(rank)} (rank {rank}) did not tell its end: {what}. Its own files, "
            f"{file_of(RECORD_NAME, rank)} and {file_of(JOURNAL_NAME, rank)}, are in the log directory of its machine; "
            "beside this one, read_record(directory) adds what they know."
        )

    def _put(self, raw: bytes) -> None:
        try:
            store = _store()
            if store is not None:
                store.set(self._key(self.rank), raw)
        except Exception as error:
            log.debug("the store is gone", exc_info=error)

    def _key(self, rank: int) -> str:
        return f"lightning_watt/{self.run}/{self._turn}/{rank}"


def _store() -> Any:
    """The key-value store that the processes met in; None where torch does not show it."""
    try:
        from torch.distributed.distributed_c10d import _get_default_store

        return _get_default_store()
    except Exception as error:
        log.debug("no store", exc_info=error)
        return None


def from_journals(directory: Path, run: str, own: str, known: Iterable[Part]) -> list[Part]:
    """What the other nodes' journals know beyond what their readers told; for readers that are gone."""
    told = {part.session: part for part in known}
    traces = read_traces([directory]).by_session.values()
    newer = [
        _brought_up(told.get(trace.session), trace)
        for trace in traces
        if trace.session != own and (trace.session in told or (run and trace.run == run))
    ]
    return [part for part in newer if part is not None]


def _brought_up(part: Part | None, trace: Trace) -> Part | None:
    """A part with what its journal knows of it; None where that is nothing new."""
    before = part.taken.uj if part is not None else {}
    rise = {label: uj - before.get(label, 0) for label, uj in trace.last.device_uj.items()}
    if sum(rise.values()) <= 0:
        return None
    account = [trace.last.stage or "other", trace.last.epoch, rise, max(0, trace.last.ns - (part.taken.ns if part else 0))]
    return Part(
        session=trace.session,
        rank=trace.rank,
        node=trace.node,
        host=next((about.host for about in trace.devices.values()), ""),
        ledger=[*(part.ledger if part is not None else []), [*account, 0, 0, 0.0]],
        devices=trace.devices,
        taken=Taken(dict(trace.last.device_uj), trace.last.ns),
        outer_edges=part.outer_edges if part is not None else 0.0,
        gaps=part.gaps if part is not None else [],
        missing=part.missing if part is not None else [],
        final=trace.last.status is not None,
    )
