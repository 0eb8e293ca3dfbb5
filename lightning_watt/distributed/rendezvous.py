"""How the ranks of a run find out, when it is set up, which of them measure and who of them reads what.

There is no collective here, because a rank on which nobody measures would never come to it: ranks leave what they know in
the process group's key-value store and look there for the others, with limits. The first rank decides as soon as it has
heard all of them; a rank that has waited too long decides for those that are there; of two decisions the earlier one stands.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec

from lightning_watt.distributed.ranks import Agreement, Arrangement, Opened, Presence, Share, arrange, count_once, uncovered
from lightning_watt.distributed.store import SharedStore, StoreGone, default_store

PRESENCE_LIMIT_S = 60.0
"""How long the ranks wait for each other. They come from a barrier of Lightning's and go to one, so a slow one holds all of
them up anyway; one that never comes costs this, once a process."""
GRACE_S = 5.0
"""How much longer the others wait for the word of the first, which waits for them."""
OPEN_LIMIT_S = 25.0
"""How long they wait for the readers to open their sources, which have a limit of ten seconds each."""

_turns = itertools.count(1)
_absent: set[int] = set()  # ranks that did not come when they were waited for; not waited for again in this process

Message = TypeVar("Message")


class _Word(msgspec.Struct):
    """A decision, and the rank that took it."""

    by: int
    content: msgspec.Raw


class Rendezvous:
    """One rank's part in setting up a run on several ranks.

    Args:
        store: where they meet; None if torch shows none.
        rank: this process's rank.
        world: the number of all ranks.
        limit_s: how long they wait for each other.
        open_limit_s: how long they wait for the readers to open their sources.

    Attributes:
        store: the same; None once it has not answered.
        arrangement: what all ranks know of the run.
        agreement: who reads.
        problems: sentences for the user.
    """

    def __init__(
        self,
        store: SharedStore | None,
        rank: int,
        world: int,
        limit_s: float = PRESENCE_LIMIT_S,
        open_limit_s: float = OPEN_LIMIT_S,
    ) -> None:
        self.store = store
        self.rank = rank
        self._world = world
        self._limit_s = limit_s
        self._open_limit_s = open_limit_s
        self.arrangement = Arrangement(ranks=[rank], world=world)
        self.agreement = Agreement(run="", readers=[rank])
        self.problems: list[str] = []

    @classmethod
    def of_this_process(cls, rank: int, world: int, limit_s: float, open_limit_s: float = OPEN_LIMIT_S) -> Rendezvous:
        """The ranks of the default process group, for a new run (a fit, a test, ...)."""
        return cls(default_store(f"lightning_watt/{next(_turns)}"), rank, world, limit_s, open_limit_s)

    def arrange(self, presence: Presence, local_rank: int = 0) -> Share:
        """Say that this rank measures, and hear who reads what.

        Args:
            presence: what this rank says of itself.
            local_rank: its place on its node, for a torch without a store.
        """
        alone = Share(reads=local_rank == 0, reader=self.rank, boards=presence.boards, mine=presence.boards)
        if self.store is None:
            self.arrangement = Arrangement(ranks=[self.rank], world=self._world, directory=presence.directory)
            self.problems.append(
                "The ranks of this run have no key-value store to meet in (with MPI there is none), so the first rank of "
                "each node measures for itself and keeps a record of its own. Use gloo or NCCL for one record."
            )
            return alone
        try:
            return self._arrange(self.store, presence)
        except StoreGone as error:
            self.problems.append(f"{error} This rank measures for itself.")
            self.store = None
            return alone

    def _arrange(self, store: SharedStore, presence: Presence) -> Share:
        store.set(f"here/{self.rank}", msgspec.json.encode(presence))
        everyone = [f"here/{rank}" for rank in range(self._world)]
        expected = [f"here/{rank}" for rank in range(self._world) if rank not in _absent or rank == self.rank]
        first = expected[0] == f"here/{self.rank}"
        known = store.wait(expected if first else ["arrangement"], self._limit_s if first else self._limit_s + GRACE_S)
        if first or not known:
            there = [msgspec.json.decode(raw, type=Presence) for raw in store.get(everyone).values()]
            arrangement, shares = arrange(there, self._world)
            self._decide(store, "arrangement", arrangement, shares)
        by, self.arrangement = self._decided(store, "arrangement", Arrangement)
        _absent.update(set(range(self._world)) - set(self.arrangement.ranks))
        mine = store.get([f"arrangement/{by}/{self.rank}"])
        self._note_problems()
        for raw in mine.values():
            return msgspec.json.decode(raw, type=Share)
        return Share(reads=False, reader=self.rank)

    def _note_problems(self) -> None:
        ranks, first = self.arrangement.ranks, self.arrangement.ranks[0]
        if self.rank not in ranks:
            self.problems.append(
                f"Rank {self.rank} came to its setup after the others had waited {self._limit_s:g} s for it, so it is not "
                "measured, unless another rank reads its boards. What takes so long there (a data module's setup)?"
            )
        elif not self.arrangement.complete and self.rank == first:
            absent = _ranges(set(range(self._world)) - set(ranks))
            self.problems.append(
                f"Only {_ranges(ranks)} of {self._world} ranks measure: on {absent} there is no WattCallback, or it did not "
                "come to its setup in time. The boards that only they use are missing. Give the callback, or "
                "LIGHTNING_WATT, to every rank (torchrun and srun: export it on every node; mpirun: -x LIGHTNING_WATT)."
            )
        if self.rank == first and self.arrangement.unlike:
            self.problems.append(
                f"{_ranges(self.arrangement.unlike).capitalize()} got other arguments of WattCallback than rank {first}, "
                "whose arguments count for the whole run; a budget is rank zero's. Give every rank the same."
            )

    def of_unmeasured(self) -> str:
        """A sentence for the record about the ranks that can be estimated only, while others are measured; or nothing."""
        ranks = self.agreement.unmeasured
        if not ranks:
            return ""
        return (
            f"The energy of {_ranges(ranks)} is not in the total: it can only be estimated there, and that of other ranks "
            "is measured. `python -m lightning_watt` on that machine says why, and what to do. To have an estimate in the "
            "total, give WattCallback your own list of sources, with EstimateSource() in it."
        )

    def boards_unseen(self, boards: list[str], share: Share) -> list[str]:
        """The boards of this rank that its node's reader cannot see, once that has opened its sources."""
        if self.store is None or share.reads or not boards or self.rank not in self.arrangement.ranks:
            return []
        try:
            found = self.store.wait([f"opened/{share.reader}"], self._open_limit_s)
        except StoreGone as error:
            self.problems.append(str(error))
            return []
        return [board for raw in found.values() for board in uncovered(boards, msgspec.json.decode(raw, type=Opened))]

    def agree(self, opened: Opened, reads: bool) -> list[str] | None:
        """Say what this rank has opened, and hear what of it another one counts.

        Args:
            opened: what it has opened; every rank reports, even if it has opened nothing.
            reads: whether it has opened something, and so wants to know.

        Returns:
            The labels that it leaves to others; None for one that came too late and leaves everything.
        """
        if self.store is None or self.rank not in self.arrangement.ranks:
            self.agreement = Agreement(run=opened.session, readers=[self.rank])
            return []
        try:
            return self._agree(self.store, opened, reads)
        except StoreGone as error:
            self.problems.append(f"{error} This rank measures for itself.")
            self.agreement = Agreement(run=opened.session, readers=[self.rank])
            return []

    def _agree(self, store: SharedStore, opened: Opened, reads: bool) -> list[str] | None:
        store.set(f"opened/{self.rank}", msgspec.json.encode(opened))
        first = self.rank == self.arrangement.ranks[0]
        if not (first or reads):
            return []
        everyone = [f"opened/{rank}" for rank in self.arrangement.ranks]
        known = store.wait(everyone if first else ["agreement"], self._open_limit_s + (0 if first else GRACE_S))
        if first or not known:
            there = [msgspec.json.decode(raw, type=Opened) for raw in store.get(everyone).values()]
            agreement = count_once(there, self.arrangement.ranks[0])
            self._decide(store, "agreement", agreement, dict.fromkeys((one.rank for one in there), True))
        by, self.agreement = self._decided(store, "agreement", Agreement)
        if not store.get([f"agreement/{by}/{self.rank}"]):
            self.problems.append(
                f"Rank {self.rank} opened its sources after the other ranks had waited {self._open_limit_s:g} s for it, so "
                "what it reads is not measured. Does a driver hang there? Check `nvidia-smi`."
            )
            return None
        return self.agreement.leaves.get(self.rank, [])

    def _decide(self, store: SharedStore, name: str, content: object, answers: Mapping[int, object]) -> None:
        """Leave a decision, and each rank's own answer; it stands if nobody was earlier."""
        for rank, answer in answers.items():
            store.set(f"{name}/{self.rank}/{rank}", msgspec.json.encode(answer))
        store.set_if_absent(name, msgspec.json.encode(_Word(self.rank, msgspec.Raw(msgspec.json.encode(content)))))

    @staticmethod
    def _decided(store: SharedStore, name: str, kind: type[Message]) -> tuple[int, Message]:
        word = msgspec.json.decode(store.get([name])[name], type=_Word)
        return word.by, msgspec.json.decode(word.content, type=kind)


def _ranges(ranks: Iterable[int]) -> str:
    """Ranks in words.

    Example:
        >>> _ranges([0]), _ranges([1, 2, 3, 7])
        ('rank 0', 'ranks 1-3, 7')
    """
    spans: list[list[int]] = []
    for rank in sorted(ranks):
        if spans and rank == spans[-1][-1] + 1:
            spans[-1].append(rank)
        else:
            spans.append([rank])
    words = [f"{span[0]}-{span[-1]}" if len(span) > 1 else str(span[0]) for span in spans]
    return f"rank{'s' if len(words) > 1 or '-' in words[0] else ''} {', '.join(words)}"
