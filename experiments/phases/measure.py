"""Measures a test epoch, and repeats it until the measurement is long enough to mean something."""

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.data import extract_batch_size
from typing_extensions import override

from experiments.job import Job
from lightning_watt import EnergyMeter

if TYPE_CHECKING:
    from lightning_watt.meter.window import Window

SPARE = 1.1  # passes are planned this much longer than the first measurement asks for


class Repeated:
    """A loader gone through several times, as one epoch.

    Args:
        loader: the batches of one pass.
        passes: how many.
    """

    def __init__(self, loader: Iterable[Any], passes: int) -> None:
        self.loader = loader
        self.passes = passes

    def __len__(self) -> int:
        return self.passes * len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.passes):
            yield from self.loader


class Stopwatch(Callback):
    """Measures a test epoch, from its first batch to the end of the device's work on its last, and counts its images.

    Args:
        meter: a running meter; None: only the time is measured.
    """

    def __init__(self, meter: EnergyMeter | None = None) -> None:
        self.meter = meter
        self.seconds = math.nan
        self.images = 0
        self._measuring = ExitStack()
        self._window: Window | None = None
        self._started = 0.0

    @override
    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.images = 0
        synchronise(pl_module.device)
        self._started = time.perf_counter()
        if self.meter is not None:
            self._window = self._measuring.enter_context(self.meter.window("inference"))

    @override
    def on_test_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *loader: int
    ) -> None:
        self.images += trainer.world_size * extract_batch_size(batch)

    @override
    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        synchronise(pl_module.device)
        self.seconds = time.perf_counter() - self._started
        self._measuring.close()

    @property
    def joules(self) -> float:
        """Joules of the last test epoch; not a number if nothing was measured."""
        return math.nan if self._window is None else self._window.joules

    @property
    def share(self) -> float:
        """The edges' share of those joules."""
        if self._window is None:
            return math.nan
        return self._window.boundary_j / self.joules if self.joules > 0 else math.inf


@dataclass(frozen=True)
class Goal:
    """When a measurement is long enough.

    Args:
        boundary_share: the edges' largest share of the energy.
        min_seconds: the shortest that it may be.
        max_seconds: the longest that all attempts may take together.
    """

    boundary_share: float
    min_seconds: float
    max_seconds: float

    def passes(self, passes: int, share: float, seconds: float) -> int:
        """How many passes are needed, if that many had this share of edges and took so many seconds.

        The edges' joules stay the same however long the measurement, so their share falls as one over its length.
        """
        longer = max(share / self.boundary_share, self.min_seconds / seconds)
        return passes if longer <= 1 else math.ceil(passes * longer * SPARE)


def repeat(
    trainer: pl.Trainer, module: pl.LightningModule, loader: Iterable[Any], stopwatch: Stopwatch, goal: Goal
) -> tuple[dict[str, float], int, str]:
    """Go through the test set until the edges weigh little or the time is up; say which."""
    started = time.perf_counter()
    passes, images = 1, 0
    while True:
        metrics = test_once(trainer, module, Repeated(loader, passes))
        is_longer, images = stopwatch.images > images, stopwatch.images
        share, left = stopwatch.share, goal.max_seconds - (time.perf_counter() - started)
        weight = f"the edges weigh {share:.1%} of {stopwatch.joules:.4g} J in {stopwatch.seconds:.3g} s"
        wanted = passes if math.isinf(share) else goal.passes(passes, share, stopwatch.seconds)
        if wanted <= passes and not math.isinf(share):
            return metrics, passes, f"stopped by precision: {weight}, {goal.boundary_share:.1%} is asked for"
        if not is_longer:
            return metrics, passes, f"stopped by trainer.limit_test_batches: {weight}"
        affordable = int(left / (stopwatch.seconds / passes))
        if affordable <= passes:
            return metrics, passes, f"stopped by time, {goal.max_seconds:g} s: {weight}"
        passes = affordable if math.isinf(share) else min(wanted, affordable)


def test_once(trainer: pl.Trainer, module: pl.LightningModule, loader: Repeated) -> dict[str, float]:
    """Test once over a loader."""
    return dict(trainer.test(module, dataloaders=loader, verbose=False)[0])


def meter_for(job: Job) -> EnergyMeter:
    """A meter over what the job's energy callback measures."""
    settings = instantiate(job.cfg.watt, _partial_=True, _convert_="all").keywords
    gpus = settings.get("gpus", "auto")
    if gpus == "auto":
        on_cuda = job.boards and job.cfg.device.accelerator != "cpu"
        gpus = [_uuid(board) for board in job.boards] if on_cuda else list(job.boards)
    return EnergyMeter(gpus, settings.get("sources", "auto"), settings.get("interval", 1.0))


def _uuid(board: int) -> str:
    """NVML's name of a CUDA device."""
    return f"GPU-{torch.cuda.get_device_properties(board).uuid}"


def synchronise(device: torch.device) -> None:
    """Wait for the device's work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
