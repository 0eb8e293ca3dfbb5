"""What a part works with: the board, the load, and how long things may take."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.bench.gpu_evidence.board import Board
from experiments.bench.gpu_evidence.load import BATCH_S, Load, open_load

if TYPE_CHECKING:
    from lightning_watt.sources.base import EnergySource


class NotPossibleError(RuntimeError):
    """A part cannot do this here; the message gives the reason."""


@dataclass
class Bench:
    """What every part is given.

    Attributes:
        board: the board that is looked at.
        directory: where the evidence goes; a part may leave one more file in it.
        scale: every duration times this; 1 is the real thing.
        limit_s: seconds that the current part may take.
        begin_ns: when a plan of heavy and light periods begins (CLOCK_MONOTONIC), for a board whose power follows the
            clock and not the load; None is at once.
        options: the command line's, for the parts that have some.
    """

    board: Board
    directory: Path
    scale: float = 1.0
    limit_s: float = 60.0
    begin_ns: int | None = None
    options: argparse.Namespace = field(default_factory=argparse.Namespace)

    def __post_init__(self) -> None:
        self.started_s = time.monotonic()

    @cached_property
    def load(self) -> Load:
        """The work, on the GPU if torch has one, else on the CPU."""
        return open_load(BATCH_S)

    def seconds(self, whole: float, least: float = 0.2) -> float:
        """A duration at this scale."""
        return max(whole * self.scale, min(least, whole))

    def times(self, whole: int, least: int = 1) -> int:
        """A number of repetitions at this scale."""
        return max(round(whole * self.scale), least)

    @property
    def left_s(self) -> float:
        """Seconds that the current part has left."""
        return self.limit_s - (time.monotonic() - self.started_s)

    def begin_part(self, limit_s: float) -> None:
        """Another part's time begins."""
        self.limit_s, self.started_s = limit_s, time.monotonic()

    def sources(self) -> list[EnergySource]:
        """This board alone, for a callback whose joules are to be the board's and no CPU's."""
        from lightning_watt.sources.nvml import NvmlSource

        return [NvmlSource(gpus=[self.board.uuid])]

    def watt_options(self) -> dict[str, Any]:
        """The callback's arguments: none if a GPU trains, as users have it; every board if a CPU trains."""
        return {} if self.load.on_gpu else {"gpus": "all"}
