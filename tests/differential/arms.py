"""The callbacks that a training is run with: none, an empty one, WattCallback, and those that the harness must catch."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist

from lightning_watt import WattCallback
from tests.integration.tiny import Steady

Arm = Callable[[ModuleType], list[Any]]
"""Makes the callbacks to be tested, of that package; they are made after the seed is set, so making them counts too."""


def none(pl: ModuleType) -> list[Any]:
    """What the others are compared with."""
    return []


def empty(pl: ModuleType) -> list[Any]:
    """The control: a training that differs already by this one cannot be tested."""
    return [pl.Callback()]


def source() -> Steady:
    """A source of the test's own; on another node it is another device."""
    return Steady(label=f"gpu{os.environ.get('GROUP_RANK', '0')}")


def watt(pl: ModuleType) -> list[Any]:
    """WattCallback on a source of its own, with all that it can write."""
    return [WattCallback(sources=[source()], interval=0.1, batches=True, carbon_intensity=400.0)]


def budget(pl: ModuleType) -> list[Any]:
    """The same with a budget that no training here comes near, and a row in the loggers now and then."""
    return [WattCallback(sources=[source()], interval=0.1, budget_kwh=1000.0, log_every_n_steps=2)]


@cache
def misbehaving(pl: ModuleType) -> dict[str, Arm]:
    """Callbacks that change the training; by what they do."""

    class ComputesEarly(pl.Callback):  # type: ignore[name-defined, misc]
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            _ = trainer.callback_metrics

    class ComputesForTheBar(pl.Callback):  # type: ignore[name-defined, misc]
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            _ = trainer.progress_bar_metrics

    class ReadsEarly(pl.Callback):  # type: ignore[name-defined, misc]
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            _ = trainer.callback_metrics

    class Draws(pl.Callback):  # type: ignore[name-defined, misc]
        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            torch.rand(1)

    class DrawsWhenMade(pl.Callback):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            torch.rand(1)

    class Stops(pl.Callback):  # type: ignore[name-defined, misc]
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            trainer.should_stop = True

    class Reorders(pl.Callback):  # type: ignore[name-defined, misc]
        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            trainer.callbacks = list(reversed(trainer.callbacks))

    class Logs(pl.Callback):  # type: ignore[name-defined, misc]
        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            trainer.logger.log_metrics(metrics={"mine": 1.0}, step=0)

    class LogsAMetric(pl.Callback):  # type: ignore[name-defined, misc]
        def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            self.log("mine", 1.0)

    class TouchesAWeight(pl.Callback):  # type: ignore[name-defined, misc]
        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            weight = pl_module.layer.weight.data
            weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(9.0))

    class TouchesTheOptimizer(pl.Callback):  # type: ignore[name-defined, misc]
        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            trainer.optimizers[0].state[pl_module.layer.bias]["momentum_buffer"] *= 1.5

    class WritesACheckpoint(pl.Callback):  # type: ignore[name-defined, misc]
        def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
            trainer.save_checkpoint(trainer.default_root_dir + "/mine.ckpt")

    class TouchesACheckpoint(pl.Callback):  # type: ignore[name-defined, misc]
        def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
            checkpoint["mine"] = 1

    class RaisesAnother(pl.Callback):  # type: ignore[name-defined, misc]
        def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
            raise RuntimeError("another one") from exception

    class Reduces(pl.Callback):  # type: ignore[name-defined, misc]
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            dist.all_reduce(torch.ones(1))

    class ReducesBelow(pl.Callback):  # type: ignore[name-defined, misc]
        """Past torch's functions, as C++ does."""

        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            dist.distributed_c10d._get_default_group().allreduce([torch.ones(1)]).wait()

    class Broadcasts(pl.Callback):  # type: ignore[name-defined, misc]
        def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
            trainer.strategy.broadcast({"mine": 1})

    class WaitsOnRankZero(pl.Callback):  # type: ignore[name-defined, misc]
        """For what the other rank does not send, while that one waits for it in Lightning's next collective."""

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.is_global_zero:
                dist.recv(torch.ones(1), src=1)

    class ComputesOnRankZero(pl.Callback):  # type: ignore[name-defined, misc]
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.is_global_zero:
                _ = trainer.callback_metrics

    found = [value for value in locals().values() if isinstance(value, type) and issubclass(value, pl.Callback)]
    return {kind.__name__: lambda pl, kind=kind: [kind()] for kind in found}
