"""Which process reads which device: each board and each host's CPU once, whatever the number of processes and nodes.

Every rank calls `share_out` and then `agree`, once each, when a run is set up: the only two exchanges there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch.distributed as dist

from lightning_watt.journal import host_id
from lightning_watt.sources.base import Device


class Share(NamedTuple):
    """What this process reads.

    Attributes:
        reads: whether it reads anything; one process a node does.
        boards: the boards that all processes of this node use, each once.
        hosts: the number of hosts.
        processes: the other processes of this node.
    """

    reads: bool
    boards: list[str]
    hosts: int
    processes: tuple[int, ...] = ()


class Agreement(NamedTuple):
    """Who reads, and what this process leaves to another one.

    Attributes:
        run: the id of the run: rank zero's session.
        readers: the ranks that read something, rank zero first; a rank's place in here is the number of its node.
        leaves: labels of this process's devices that another process of this host reads too, and counts.
    """

    run: str
    readers: list[int]
    leaves: set[str]


def is_alone() -> bool:
    """Whether there is no other process in this run."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1


def share_out(mine: Sequence[str], host: str | None = None, node: int = 0) -> Share:
    """Agree with the other processes who reads what. Every rank calls this once, when the run is set up.

    Args:
        mine: UUIDs of the boards that this process uses.
        host: this host.
        node: the number of this process's node, where several are on one host (a container each, or a test).

    Returns:
        The lowest rank of each node reads all boards that its node's ranks use.
    """
    if is_alone():
        return Share(True, list(mine), 1)
    here = (host or host_id(), node)
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, (here, list(mine), os.getpid()))
    first = next(rank for rank, (other, _, _) in enumerate(everyone) if other == here)
    boards = dict.fromkeys(uuid for other, uuids, _ in everyone if other == here for uuid in uuids)
    processes = tuple(pid for other, _, pid in everyone if other == here and pid != os.getpid())
    return Share(first == dist.get_rank(), list(boards), len({other[0] for other, _, _ in everyone}), processes)


def agree(session: str, devices: Sequence[Device], host: str | None = None) -> Agreement:
    """Agree, once the sources are open, who counts a device that several processes opened: the lowest rank of the host.

    An estimate is of the process's own work, so no two of them are one device.

    Args:
        session: the id of this process's session; empty where it reads nothing.
        devices: what it opened.
        host: this host.
    """
    if is_alone():
        return Agreement(session, [0], set())
    measured = {device.label: (host or host_id(), device.uuid) for device in devices if device.provenance == "measured"}
    estimated = len(devices) - len(measured)
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, (session, list(measured.values()), estimated))
    taken: set[tuple[str, str]] = set()
    readers, leaves = [0], set()
    for rank, (_, found, estimates) in enumerate(everyone):
        if rank == dist.get_rank():
            leaves = {label for label, device in measured.items() if device in taken}
        if rank and (estimates or set(found) - taken):
            readers.append(rank)
        taken |= set(found)
    return Agreement(everyone[0][0], readers, leaves)
