"""Small Lightning trainings whose batches are the load's, shared by the parts that look at the callback."""

from __future__ import annotations

import contextlib
import csv
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, IterableDataset

from experiments.bench.gpu_evidence.load import HEAVY, LIGHT, Load

BATCHES_NAME = "watt_batches.csv"


class Ones(IterableDataset[torch.Tensor]):
    """So many batches of one number.

    Args:
        length: how many.
    """

    def __init__(self, length: int) -> None:
        self.length = length

    def __iter__(self) -> Iterator[torch.Tensor]:
        for _ in range(self.length):
            yield torch.ones(1)


class Work(pl.LightningModule):
    """Training steps that put one batch of the load on the device, and train a tiny real model too.

    Args:
        load: the work.
        kinds: the kind of each batch in turn, over and over.
        log_accuracy: log an accuracy at each step, as many trainings do; it stays on the device.
    """

    def __init__(self, load: Load, kinds: Sequence[str] = (HEAVY, LIGHT), *, log_accuracy: bool = False) -> None:
        super().__init__()
        self.load, self.kinds, self.log_accuracy = load, kinds, log_accuracy
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        """One batch of the load, and a loss."""
        self.load.batch(self.kinds[batch_idx % len(self.kinds)])
        loss = self.layer(batch).square().sum()
        self.log("train_loss", loss.detach())
        if self.log_accuracy:
            self.log("train_acc", torch.sigmoid(loss.detach()))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain SGD."""
        return torch.optim.SGD(self.parameters(), 1e-9)


def loader(data: IterableDataset[Any]) -> DataLoader[Any]:
    """The data as it is: the loader's batches are not batched again."""
    return DataLoader(data, batch_size=None)


def trainer(load: Load, directory: Path, callbacks: Sequence[pl.Callback], **options: Any) -> pl.Trainer:
    """A quiet Trainer on the load's device, one epoch."""
    settings: dict[str, Any] = {
        "accelerator": "gpu" if load.on_gpu else "cpu",
        "devices": 1,
        "max_epochs": 1,
        "logger": False,
        "default_root_dir": directory,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "callbacks": list(callbacks),
    }
    return pl.Trainer(**settings | options)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Turn off Lightning's messages and the callback's table."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(None):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A directory for a run's files, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="gpu_evidence_") as name:
        yield Path(name)


def read_batches(directory: Path) -> list[dict[str, float]]:
    """The training batches of `watt_batches.csv`: `batch`, `joules`, `seconds`, `uncertainty_j`."""
    with (directory / BATCHES_NAME).open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["stage"] == "train"]
    return [{key: float(row[key]) for key in ("batch", "joules", "seconds", "uncertainty_j")} for row in rows]


class TimedBatches(pl.Callback):
    """Times the batches from `first` to the last, with the device's work done at both ends.

    Args:
        load: whose device it is.
        first: the batch before which the time begins.
        last: the batch after which it ends.
    """

    def __init__(self, load: Load, first: int, last: int) -> None:
        self.load, self.first, self.last = load, first, last
        self.seconds = float("nan")
        self._started = 0.0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Begin."""
        if batch_idx == self.first:
            self.load.synchronise()
            self._started = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """End."""
        if batch_idx == self.last:
            self.load.synchronise()
            self.seconds = time.perf_counter() - self._started
