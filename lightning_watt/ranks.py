"""Which process reads which device: each board and each host once, whatever the number of processes."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch.distributed as dist


class Share(NamedTuple):
    """What this process reads.

    Attributes:
        reads: whether it reads anything; one process a host does.
        boards: the boards that all processes of this host use, each once.
        hosts: the number of hosts.
    """

    reads: bool
    boards: list[str]
    hosts: int


def share_out(mine: Sequence[str], host: str | None = None) -> Share:
    """Agree with the other processes who reads what. Every rank calls this once, when the run is set up.

    Args:
        mine: UUIDs of the boards that this process uses.
        host: this host's name.

    Returns:
        The lowest rank of each host reads all boards that its host's ranks use.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return Share(True, list(mine), 1)
    here = host or platform.node()
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, (here, list(mine)))
    first = next(rank for rank, (other, _) in enumerate(everyone) if other == here)
    boards = dict.fromkeys(uuid for other, uuids in everyone if other == here for uuid in uuids)
    return Share(first == dist.get_rank(), list(boards), len({other for other, _ in everyone}))
