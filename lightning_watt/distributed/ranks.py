"""Which process reads which device: each board and each host's CPU once, whatever the number of processes and nodes. Pure.

What the ranks report of themselves goes in, who reads what comes out; how they exchange it is in `rendezvous` and `nodes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import torch.distributed as dist


class Presence(msgspec.Struct, kw_only=True, frozen=True):
    """What a rank says of itself when a run is set up.

    Attributes:
        rank: its global rank.
        host: its host.
        node: the number of its node; several may be on one host (a container each, or a test).
        pid: its process.
        boards: UUIDs of the boards that it uses, or is asked to measure, as far as it sees them.
        directory: where it would write the run's files.
        version: the lowest version that no run has there (`record.files`).
        budget_kwh: the budget that it was given.
        arguments: the callback's arguments, as text.
    """

    rank: int
    host: str
    node: int
    pid: int
    boards: list[str]
    directory: str = ""
    version: int = 0
    budget_kwh: float | None = None
    arguments: str = ""


class Arrangement(msgspec.Struct, kw_only=True, frozen=True):
    """What all ranks know of the run.

    Attributes:
        ranks: those that measure, in order.
        world: the number of all ranks.
        directory: where the run's files go: rank zero's, or that of the lowest rank that measures.
        version: the version that it found for them.
        budget_kwh: rank zero's budget; None also if not every rank measures, because one alone cannot stop.
        unlike: ranks whose arguments are not those of the first.
    """

    ranks: list[int]
    world: int
    directory: str = ""
    version: int = 0
    budget_kwh: float | None = None
    unlike: list[int] = []

    @property
    def complete(self) -> bool:
        """Whether every rank measures."""
        return len(self.ranks) == self.world


class Share(msgspec.Struct, kw_only=True, frozen=True):
    """What one rank reads.

    Attributes:
        reads: whether it reads; the lowest rank of each node does.
        reader: the rank that reads for its node.
        boards: the boards that the ranks of its node use, each once.
        mine: those of them that it uses itself.
        processes: the other processes of its node.
    """

    reads: bool
    reader: int
    boards: list[str] = []
    mine: list[str] = []
    processes: list[int] = []


class Opened(msgspec.Struct, kw_only=True, frozen=True):
    """What a reader says once its sources are open.

    Attributes:
        rank: its global rank.
        host: its host.
        session: the id of its session.
        devices: UUIDs of what it measures, by label.
        estimates: labels of what it only estimates; those are of its own process, so no two of them are one.
        asked: whether the user asked for estimates, by sources of their own.
    """

    rank: int
    host: str
    session: str
    devices: dict[str, str] = {}
    estimates: list[str] = []
    asked: bool = False


class Agreement(msgspec.Struct, kw_only=True, frozen=True):
    """Who reads.

    Attributes:
        run: the id of the run: the session of rank zero, or of the lowest rank that measures.
        readers: the ranks that read something, the first of all ranks before them; a rank's place in here is its number in
            the record (`node1/gpu0`).
        leaves: labels of a reader's devices that are not counted, by rank: a reader before it on its host counts them, or
            they are estimates and others measure.
        unmeasured: the ranks of such estimates.
    """

    run: str
    readers: list[int]
    leaves: dict[int, list[str]] = {}
    unmeasured: list[int] = []


def is_alone(world_size: int) -> bool:
    """Whether there is no other process in this run; a process group that is not the Trainer's own does not count.

    Args:
        world_size: the number of the Trainer's processes.
    """
    return world_size == 1 or not (dist.is_available() and dist.is_initialized())


def arrange(present: Sequence[Presence], world: int) -> tuple[Arrangement, dict[int, Share]]:
    """Who reads what, by what the ranks say of themselves.

    Args:
        present: those that measure.
        world: the number of all ranks.

    Returns:
        What all of them know, and each one's share: the lowest rank of each node reads all boards that its node's ranks use.
    """
    present = sorted(present, key=lambda one: one.rank)
    nodes: dict[tuple[str, int], list[Presence]] = {}
    for one in present:
        nodes.setdefault((one.host, one.node), []).append(one)
    shares = {}
    for members in nodes.values():
        boards = list(dict.fromkeys(uuid for member in members for uuid in member.boards))
        for member in members:
            others = [other.pid for other in members if other is not member]
            shares[member.rank] = Share(
                reads=member is members[0],
                reader=members[0].rank,
                boards=boards,
                mine=member.boards,
                processes=others,
            )
    first = present[0]
    arrangement = Arrangement(
        ranks=[one.rank for one in present],
        world=world,
        directory=first.directory,
        version=first.version,
        budget_kwh=first.budget_kwh if first.rank == 0 and len(present) == world else None,
        unlike=[one.rank for one in present if one.arguments != first.arguments],
    )
    return arrangement, shares


def uncovered(boards: Sequence[str], reader: Opened) -> list[str]:
    """The boards of a rank that its node's reader does not see: in a container, or under Slurm, a rank may see its own only.

    Example:
        >>> uncovered(["GPU-a", "b"], Opened(rank=0, host="h", session="s", devices={"gpu0": "GPU-b"}))
        ['GPU-a']
    """
    seen = {_bare(uuid) for uuid in reader.devices.values()}
    return [board for board in boards if _bare(board) not in seen]


def count_once(opened: Sequence[Opened], first: int) -> Agreement:
    """Who counts a device that several processes opened: the lowest rank of the host.

    A rank that has nothing but estimates counts nothing if another one measures: no estimate joins a measured total unasked.

    Args:
        opened: what the readers say.
        first: the lowest rank that measures; it heads the readers, even if it could open nothing.
    """
    by_rank = {one.rank: one for one in sorted(opened, key=lambda one: one.rank)}
    measures = any(one.devices for one in opened)
    unmeasured = [r for r, one in by_rank.items() if measures and one.estimates and not one.devices and not one.asked]
    taken: set[tuple[str, str]] = set()
    readers, leaves = [first], {}
    for rank, one in by_rank.items():
        measured: Mapping[str, tuple[str, str]] = {label: (one.host, uuid) for label, uuid in one.devices.items()}
        leaves[rank] = [label for label, device in measured.items() if device in taken]
        leaves[rank] += one.estimates if rank in unmeasured else []
        counts_estimates = one.estimates and rank not in unmeasured
        if rank != first and (counts_estimates or set(measured.values()) - taken):
            readers.append(rank)
        taken |= set(measured.values())
    run = by_rank[first].session if first in by_rank else ""
    leaves = {rank: labels for rank, labels in leaves.items() if labels}
    return Agreement(run=run, readers=readers, leaves=leaves, unmeasured=unmeasured)


def _bare(uuid: str) -> str:
    """A UUID without the prefix that NVML says it with and torch does not."""
    return uuid.removeprefix("GPU-")
