"""What a clip's decoding and augmentation take, what a step takes alone, and how long steps wait for their clips."""

from __future__ import annotations

import csv
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytorch_lightning as pl
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch.utils.data import DataLoader

from experiments.command_line import CONF
from experiments.data.video.clips import ClipSet
from experiments.job import Job, prepare_torch
from experiments.phases.build import build, learner
from experiments.settings import recipe_of
from lightning_watt import read_record

MIB = 2**20
ALONE = "none"
"""In the place of a number of workers: nothing is decoded, all steps have the same batch."""


@dataclass(frozen=True)
class ClipCost:
    """What a clip takes in one process, in milliseconds.

    Args:
        decoding: of opening the file, seeking and decoding.
        augmentation: of cutting out, resizing, mirroring and normalising.
    """

    decoding: float
    augmentation: float


@dataclass(frozen=True)
class Fit:
    """One training.

    Args:
        workers: of the loader, or `ALONE`.
        step_ms: of forward, backward and optimiser, a batch.
        waiting_ms: between the steps, a batch: with workers for them, without for the clips themselves.
        ms: what each batch took, from its step's beginning to its end.
        rss_mib: resident memory of the process and its workers at each batch's end.
    """

    workers: str
    step_ms: float
    waiting_ms: float
    ms: Sequence[float]
    rss_mib: Sequence[float]

    @property
    def waits(self) -> float:
        """The waiting's share of the time, in [0, 1]."""
        return self.waiting_ms / (self.step_ms + self.waiting_ms)

    def growth_mib(self, window: int) -> float:
        """How much larger the memory is over the last `window` batches than after the first `window`, in MiB."""
        return statistics.fmean(self.rss_mib[-window:]) - statistics.fmean(self.rss_mib[window : 2 * window])


def composed(model: str, overrides: Iterable[str]) -> DictConfig:
    """The config by which a video model is trained."""
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        given = ["task=action", f"model={model}", "phase=finetune", "watt=batches"]
        silent = ["+trainer.enable_progress_bar=false", "trainer.limit_val_batches=0"]
        return compose("run", [*given, *silent, *overrides])


def clip_cost(cfg: DictConfig, directory: Path, count: int) -> ClipCost:
    """Load so many of the training's clips, one by one, as its loader does."""
    job = Job(cfg, directory)
    clips = job.data(recipe_of(cfg, "finetune"), "finetune").train_set.dataset
    transform = _Timed(clips.transform)
    timed = ClipSet(clips.videos, clips.clip, transform, clips.clips)
    timed[0]  # the first pays for imports
    transform.ms, begun = 0.0, time.perf_counter()
    for index in range(count):
        timed[index % len(timed)]
    whole = 1000 * (time.perf_counter() - begun)
    return ClipCost((whole - transform.ms) / count, transform.ms / count)


class _Timed:
    """A call, and the milliseconds that all calls took."""

    def __init__(self, call: Callable[[Any], Any]) -> None:
        self.call, self.ms = call, 0.0

    def __call__(self, given: Any) -> Any:
        begun = time.perf_counter()
        try:
            return self.call(given)
        finally:
            self.ms += 1000 * (time.perf_counter() - begun)


def fit(cfg: DictConfig, directory: Path, *, alone: bool = False) -> Fit:
    """Train by the config, from random weights, with the callback that measures a step's parts.

    Args:
        cfg: what `composed` gave.
        directory: where the record and all else goes.
        alone: give all steps the same batch, so that nothing is decoded.
    """
    prepare_torch(cfg)
    job, recipe = Job(cfg, directory), recipe_of(cfg, "finetune")
    data = job.data(recipe, "finetune")
    module = learner(job, build(job, data, recipe), recipe, data)
    module.watt_model_info = {"phase": "finetune"}
    memory = _Memory()
    trainer = job.trainer(recipe, [memory])
    loader = data.train_dataloader()
    if alone:
        loader = DataLoader([next(iter(loader))] * len(loader), batch_size=None)
    trainer.fit(module, loader)
    record = read_record(directory)
    with (directory / "watt_batches.csv").open(newline="") as file:
        ms = [1000 * float(row["seconds"]) for row in csv.DictReader(file)]
    parts_ms = {name: 1000 * part.seconds / len(ms) for name, part in record.parts.items()}
    waiting_ms = parts_ms.pop("data")
    return Fit(ALONE if alone else str(cfg.num_workers), sum(parts_ms.values()), waiting_ms, ms, memory.mib)


class _Memory(pl.Callback):
    """Resident memory of this process and its children at each batch's end."""

    def __init__(self) -> None:
        self.mib: list[float] = []
        self._process = psutil.Process()

    def on_train_batch_end(self, *args: Any) -> None:
        """Look."""
        processes = [self._process, *self._process.children()]
        self.mib.append(sum(one.memory_info().rss for one in processes) / MIB)
