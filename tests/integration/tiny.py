"""The smallest real training: a linear model, made-up batches, and a Trainer of either Lightning package on the CPU."""

from __future__ import annotations

import csv
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightning_watt import WattCallback
from lightning_watt.sources.base import Clock, Device, Failure, Reading
from lightning_watt.testing import Board, Lab, constant, square
from tests import forked

PACKAGES = tuple(name for name in ("pytorch_lightning", "lightning.pytorch") if find_spec(name.split(".")[0]))
"""Of Lightning's two, those that are here: `make test` has both."""
# Lightning's own advice, which small runs on a CPU cannot follow: more loader workers, shuffling, a validation loader,
# fewer log steps, a checkpoint directory that exists. The class lives in each package's fabric.
FABRICS = {"pytorch_lightning": "lightning_fabric", "lightning.pytorch": "lightning.fabric"}
QUIET = tuple(f"ignore::{FABRICS[name]}.utilities.warnings.PossibleUserWarning" for name in PACKAGES)
# How a Trainer is told to read nothing but data from a checkpoint; before Lightning 2.6 it cannot be told.
_LIGHTNING = tuple(int(part) for part in version(PACKAGES[0].split(".")[0].replace("_", "-")).split(".")[:2])
WEIGHTS_ONLY: dict[str, Any] = {"weights_only": True} if _LIGHTNING >= (2, 6) else {}
BATCH = 4
ROOT = Path(__file__).parents[2]
Process = subprocess.Popen[str] | forked.Forked


@cache
def module_class(pl: ModuleType) -> type[Any]:
    """The tiny module, of one package's `LightningModule`."""

    class Tiny(pl.LightningModule):  # type: ignore[name-defined, misc]
        """A linear classifier whose accuracy is whatever the test wants.

        Args:
            accuracy: what is logged in each epoch in turn, the last one from then on; empty logs none.
            name: the metric's name.
            at: the hook that logs it.
            step_s: how long every batch takes.
            on_batch: called with (stage, batch index) in every batch.
            manual: use manual optimisation.
        """

        def __init__(
            self,
            accuracy: Sequence[float] = (0.5, 0.6, 0.7, 0.8),
            name: str = "val_acc",
            at: str = "validation_step",
            step_s: float = 0.0,
            on_batch: Callable[[str, int], None] | None = None,
            manual: bool = False,
        ) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(8, 2)
            self.accuracy, self.name, self.at = tuple(accuracy), name, at
            self.step_s, self.on_batch = step_s, on_batch
            self.automatic_optimization = not manual

        def _step(self, stage: str, batch: Any, index: int) -> torch.Tensor:
            if self.on_batch is not None:
                self.on_batch(stage, index)
            if self.step_s:
                time.sleep(self.step_s)
            pictures, labels = batch
            return torch.nn.functional.cross_entropy(self.layer(pictures), labels)

        def _log_accuracy(self, hook: str) -> None:
            if hook == self.at and self.accuracy:
                self.log(self.name, self.accuracy[min(self.current_epoch, len(self.accuracy) - 1)])

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            loss = self._step("train", batch, batch_idx)
            if not self.automatic_optimization:
                optimizer = self.optimizers()
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()
            self.log("train_loss", loss.detach())
            self._log_accuracy("training_step")
            return loss

        def on_train_epoch_end(self) -> None:
            self._log_accuracy("on_train_epoch_end")

        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            self._step("validate", batch, batch_idx)
            self._log_accuracy("validation_step")

        def on_validation_epoch_end(self) -> None:
            self._log_accuracy("on_validation_epoch_end")

        def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            self._step("test", batch, batch_idx)
            self.log("test_acc", 0.25)

        def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> torch.Tensor:
            return self._step("predict", batch, batch_idx)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    return Tiny


def module(pl: ModuleType, **options: Any) -> Any:
    """A tiny module of that package."""
    return module_class(pl)(**options)


def tensors(batches: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    count = batches * BATCH
    return TensorDataset(torch.randn(count, 8, generator=generator), torch.arange(count) % 2)


def loader(batches: int = 6) -> DataLoader[Any]:
    """That many batches of four."""
    return DataLoader(tensors(batches), batch_size=BATCH)


class Stream(IterableDataset[Any]):
    """The same without a length."""

    def __init__(self, batches: int) -> None:
        self.data = tensors(batches)

    def __iter__(self) -> Any:
        return iter(self.data)


def stream(batches: int) -> DataLoader[Any]:
    """A loader that Lightning does not share out among ranks."""
    return DataLoader(Stream(batches), batch_size=BATCH)


def trainer(pl: ModuleType, directory: Path, *callbacks: Any, **options: Any) -> Any:
    """A quiet CPU Trainer with these callbacks, logging (to nowhere, unless asked) at every step."""
    settings: dict[str, Any] = {
        "accelerator": "cpu",
        "default_root_dir": directory,
        "max_epochs": 2,
        "log_every_n_steps": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return pl.Trainer(callbacks=list(callbacks), **settings | options)


def watt(**options: Any) -> WattCallback:
    """The callback on every board of the lab, read as often as it may be, with the whole table at each end."""
    return WattCallback(**{"gpus": "all", "interval": 0.1, "summary": "table"} | options)


def two_boards(**options: Any) -> Lab:
    """A square wave and a flat line, with a quick counter so that short runs are known well; ten seconds old."""
    boards = [Board(power=square(300, 80, 0.81), **{"counter_ms": 10, **options}), Board(power=constant(120), counter_ms=10)]
    return Lab(boards, age_s=10)


class Steady:
    """A source of constant power whose reads can be made to fail.

    Args:
        watts: what it draws.
        label: its device.
        on_read: called before every read; it may raise.
    """

    name = "steady"
    due_s = 1.0

    def __init__(self, watts: float = 100.0, label: str = "gpu0", on_read: Callable[[], None] | None = None) -> None:
        self.watts, self.label, self.on_read = watts, label, on_read
        self.is_open = False

    def open(self, clock: Clock) -> list[Device]:
        self.clock, self.is_open = clock, True
        return [Device(self.label, "a steady device", f"uuid-{self.label}", self.name, tick_s=0.001)]

    def read(self) -> list[Reading | Failure]:
        if self.on_read is not None:
            self.on_read()
        now = self.clock.now_ns()
        return [Reading(self.label, now, int(now * self.watts / 1000))]  # 1 W is 1 uJ in 1000 ns

    def close(self) -> None:
        self.is_open = False


def package(name: str) -> ModuleType:
    """One of `PACKAGES`, imported."""
    return import_module(name)


def start_child(directory: Path, env: dict[str, str] | None = None, *, fresh: bool = False, **options: Any) -> Process:
    """Start a training in a process of its own; child.py says what the options are.

    Args:
        directory: where it writes.
        env: its whole environment; without it, this process's.
        fresh: start Python anew, instead of forking from a process that has pytorch_lightning imported.
        **options: child.py's.
    """
    directory.mkdir(exist_ok=True)
    given = json.dumps({"directory": str(directory), **options})
    if not fresh:
        return forked.start("tests.integration.child", given, env=env)
    command = [sys.executable, "-m", "tests.integration.child", given]
    return subprocess.Popen(command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ranks_env(ranks: int, port: int, nodes: int = 1) -> list[dict[str, str]]:
    """What torchrun sets for each rank, of as many on every node."""
    each = ranks // nodes
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "ranks", "OMP_NUM_THREADS": "1"}
    shared |= {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(each)}
    return [
        shared | {"RANK": str(rank), "LOCAL_RANK": str(rank % each), "GROUP_RANK": str(rank // each)}
        for rank in range(ranks)
    ]


def ended(processes: Sequence[Process], limit_s: float = 120.0) -> list[str]:
    """What they printed; none of them is left behind."""
    try:
        return [process.communicate(timeout=limit_s)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()


def finished(process: Process, limit_s: float = 240.0) -> str:
    """What it printed, once it has ended well."""
    try:
        out, _ = process.communicate(timeout=limit_s)
    finally:
        process.kill()
    assert process.returncode == 0, out[-5000:]
    return out


def columns(directory: str | Path) -> dict[str, list[tuple[int, float]]]:
    """Every metric of a `metrics.csv` as (step, value)."""
    with (Path(directory) / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [(int(row["step"]), float(row[name])) for row in rows if row[name]] for name in rows[0]}
