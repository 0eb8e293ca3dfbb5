"""Measures a part of a training in rounds: how long it goes on, and what each round used."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from typing_extensions import override

from experiments.phases.measure import synchronise
from experiments.projection.conditions import Conditions, conditions
from experiments.projection.interval import FEWEST_BLOCKS, NOTHING, Round, Use, block_ends
from lightning_watt import EnergyMeter

if TYPE_CHECKING:
    from lightning_watt import Window

MOST_ROUNDS = 100_000
TICKS = 20
"""A block is at least this many updates of the slowest counter long, so that an edge is a twentieth of it at most."""
LEAST_S = 0.5
"""The least length of a block whatever the counters: a meter reads no source more often than ten times a second."""


@dataclass(frozen=True)
class Sampling:
    """How a part of a training is taken.

    Args:
        round_batches: training batches of a round; fewer if the training's epoch has fewer.
        val_batches: validation batches of a round, at most.
        warmup_batches: training batches before the first measured round, in whole rounds.
        warmup_seconds: and at least so many seconds.
        blocks: how many blocks the interval is made of.
        block_seconds: the least length of a block; longer if a counter ticks slowly.
        max_seconds: no more blocks are begun after so many seconds of measuring, if there are enough for an interval.

    Raises:
        ValueError: if a value means nothing.
    """

    round_batches: int = 50
    val_batches: int = 20
    warmup_batches: int = 50
    warmup_seconds: float = 0.0
    blocks: int = 10
    block_seconds: float = 1.0
    max_seconds: float = 300.0

    def __post_init__(self) -> None:
        if self.round_batches < 1 or self.val_batches < 1 or self.blocks < FEWEST_BLOCKS:
            raise ValueError(
                f"A projection needs phase.round_batches and phase.val_batches of at least 1 and phase.blocks of at least "
                f"{FEWEST_BLOCKS}; got {self.round_batches}, {self.val_batches} and {self.blocks}."
            )

    def block_s(self, meter: EnergyMeter) -> float:
        """The least length of a block, seconds, by the meter's counters."""
        return max(self.block_seconds, LEAST_S, TICKS * max(meter.ticks_s.values(), default=0.0))

    def is_enough(self, seconds: list[float], block_s: float) -> bool:
        """Whether rounds of these lengths are enough."""
        blocks = len(block_ends(seconds, block_s))
        return blocks >= self.blocks or (blocks >= FEWEST_BLOCKS and sum(seconds) >= self.max_seconds)


class Excerpt(Callback):
    """Measures rounds, each of them one epoch of a Trainer whose epochs are short, and stops it when they are enough.

    Args:
        sampling: how much is measured.
        skip: training batches at the beginning of a round that are not counted as such: they may have waited in the loaders'
            queues, which are full after a validation.

    Attributes:
        rounds: what was measured.
        start: from the beginning to the first measured round.
        warm_ups: rounds before that.
        block_s: the least length of a block, seconds.
        conditions: the machine when the first measured round began, and when the last one had ended.
    """

    def __init__(self, sampling: Sampling, skip: int) -> None:
        self.sampling, self.skip = sampling, skip
        self.block_s = sampling.block_seconds
        self.warm_ups = 0
        self.conditions: list[Conditions] = []
        self._meter: EnergyMeter | None = None
        self._start: Window | None = None
        self._rounds: list[_Windows] = []
        self._lengths: list[float] = []
        self._is_measuring = False
        self._began = self._round_began = time.perf_counter()
        self._warmed = 0

    def batches(self, most: int | float | None, accumulate: int) -> int:
        """Training batches of a round, so that it has whole updates and more than are left out.

        Args:
            most: the epoch's own batches; other limits of a Trainer say nothing here.
            accumulate: batches of an update.
        """
        wanted = max(self.sampling.round_batches, 2 * self.skip)
        whole = math.ceil(wanted / accumulate) * accumulate
        batches = min(whole, most) if isinstance(most, int) else whole
        self.skip = min(self.skip, batches // 2)
        return batches

    def begin(self, meter: EnergyMeter | None) -> None:
        """The training begins.

        Args:
            meter: a running meter; None on the ranks that do not measure.
        """
        self._meter = meter
        self._began = self._round_began = time.perf_counter()
        self._start = self._window("start")

    @property
    def start(self) -> Use:
        """From the beginning to the first measured round."""
        return _use(self._start)

    @property
    def rounds(self) -> list[Round]:
        """What each whole round used; waits until the counters have passed its end."""
        return [one.measured() for one in self._rounds if one.counted]

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._turn(pl_module)
        if not self._is_measuring and self._is_warm():
            self._begin_measuring(pl_module)
        if not self._is_measuring:
            self.warm_ups += 1
        elif self._meter is not None:
            self._rounds.append(_Windows(self._window("round")))

    @override
    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        if self._in_a_round and batch_idx == self.skip:
            self._edge(pl_module)
            self._rounds[-1].train = self._window("train")

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._warmed += not self._is_measuring
        if self._in_a_round and batch_idx + 1 == trainer.num_training_batches:
            self._edge(pl_module)
            self._rounds[-1].end_training(batch_idx + 1, self.skip)

    @override
    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self._in_a_round and not batch_idx and not dataloader_idx:
            self._edge(pl_module)
            self._rounds[-1].validation = self._window("validate")

    @override
    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._in_a_round:
            self._rounds[-1].val_batches += 1

    @override
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._in_a_round and self._rounds[-1].validation is not None:
            self._edge(pl_module)
            self._rounds[-1].validation.end()

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        lengths = [*self._lengths, time.perf_counter() - self._round_began]
        enough = self._is_measuring and self.sampling.is_enough(lengths, self.block_s)
        trainer.should_stop = trainer.should_stop or trainer.strategy.broadcast(enough)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._turn(pl_module)
        if self._meter is not None:
            self.conditions.append(conditions(self._meter.devices))

    @property
    def _in_a_round(self) -> bool:
        return bool(self._rounds)

    def _is_warm(self) -> bool:
        passed_s = time.perf_counter() - self._began
        return self._warmed >= self.sampling.warmup_batches and passed_s >= self.sampling.warmup_seconds

    def _begin_measuring(self, module: pl.LightningModule) -> None:
        self._is_measuring = True
        if self._meter is None:
            return
        self._start.end()
        self.block_s = self.sampling.block_s(self._meter)
        self.conditions.append(conditions(self._meter.devices))
        self._edge(module)
        self._round_began = time.perf_counter()

    def _turn(self, module: pl.LightningModule) -> None:
        """One round ends here, and another may begin."""
        self._edge(module)
        now = time.perf_counter()
        if self._is_measuring:
            self._lengths.append(now - self._round_began)
        if self._rounds:
            self._rounds[-1].whole.end()
        self._round_began = now

    def _edge(self, module: pl.LightningModule) -> None:
        """A window begins or ends here: the device's work until now belongs before it."""
        synchronise(module.device)
        if self._meter is not None:
            self._meter.ask()

    def _window(self, name: str) -> Window | None:
        return None if self._meter is None else self._meter.window(name).begin()


@dataclass
class _Windows:
    """The windows of one round."""

    whole: Window
    train: Window | None = None
    validation: Window | None = None
    batches: int = 0
    counted: int = 0
    val_batches: int = 0

    def end_training(self, batches: int, skipped: int) -> None:
        """The last training batch of the round ended."""
        assert self.train is not None
        self.train.end()
        self.batches, self.counted = batches, batches - skipped

    def measured(self) -> Round:
        """What it used."""
        return Round(_use(self.whole), _use(self.train), _use(self.validation), self.batches, self.counted, self.val_batches)


def _use(window: Window | None) -> Use:
    return NOTHING if window is None else Use(window.joules, window.seconds, window.boundary_j)
