"""Every collective of a process, in order: the functions of `torch.distributed` are wrapped, and the group's own count read.

Install it before Lightning and torchmetrics are imported, because they may take the functions by name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.distributed_c10d as c10d

NAMES = (
    "all_gather",
    "all_gather_coalesced",
    "all_gather_into_tensor",
    "all_gather_object",
    "all_reduce",
    "all_reduce_coalesced",
    "all_to_all",
    "all_to_all_single",
    "barrier",
    "batch_isend_irecv",
    "broadcast",
    "broadcast_object_list",
    "gather",
    "gather_object",
    "irecv",
    "isend",
    "monitored_barrier",
    "new_group",
    "new_subgroups",
    "recv",
    "recv_object_list",
    "reduce",
    "reduce_scatter",
    "reduce_scatter_tensor",
    "scatter",
    "scatter_object_list",
    "send",
    "send_object_list",
)


class Collectives:
    """What was called, in order, each with the kinds of its arguments."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def install(self) -> None:
        for name in NAMES:
            original = getattr(c10d, name, None)
            if original is not None:  # older torch has fewer
                wrapped = self._wrap(name, original)
                setattr(c10d, name, wrapped)
                setattr(dist, name, wrapped)

    def _wrap(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def recorded(*args: Any, **options: Any) -> Any:
            told = [_kind(one) for one in (*args, *options.values())]
            self.calls.append(f"{name}({', '.join(text for text in told if text)})")
            return original(*args, **options)

        return recorded

    def count(self) -> int:
        return len(self.calls)


def _kind(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {tuple(value.shape)}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_kind, value))}]"
    return str(value) if isinstance(value, (c10d.ReduceOp, c10d.ReduceOp.RedOpType)) else ""


def group_count() -> int | None:
    """How many collectives the default group has run, whoever asked for them (DDP's C++ too); None without a group."""
    return c10d._get_default_group()._get_sequence_number_for_group() if dist.is_initialized() else None
