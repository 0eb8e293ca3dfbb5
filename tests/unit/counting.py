"""Asks the hook of a batch's end whether it counts a batch itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from lightning_watt.run.tally import Tally, counted


def is_counted(tally: Tally, batch: Any, batch_idx: int, *, trains: bool = False, report: Any = None) -> bool:
    """Whether the hook counts a batch, and does not leave it to the run."""
    left: list[Any] = []

    def hook(*given: Any) -> None:
        left.append(given)

    counted(report, trains=trains)(hook)(SimpleNamespace(_tally=tally), None, None, None, batch, batch_idx)
    return not left
