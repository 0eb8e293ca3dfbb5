"""The modules of the matrix: each logs, optimises or fails in its own way. What they log changes with their weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import torchmetrics
from torch.utils.data import DataLoader, Dataset, IterableDataset

from tests.differential.trace import Trace

BATCH = 4
# Without the hooks that replace what Lightning does by itself where they are overridden.
HOOKS = [
    "setup",
    "teardown",
    "on_fit_start",
    "on_fit_end",
    "on_train_start",
    "on_train_end",
    "on_train_epoch_start",
    "on_train_epoch_end",
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_save_checkpoint",
    "on_load_checkpoint",
] + [
    f"on_{stage}_{moment}"
    for stage in ("validation", "test", "predict")
    for moment in ("start", "end", "epoch_start", "epoch_end", "batch_start", "batch_end")
]


class Numbered(Dataset[Any]):
    """Samples with their numbers, so that the order in which a module saw them can be told."""

    def __init__(self, count: int) -> None:
        self.pictures = torch.randn(count, 8, generator=torch.Generator().manual_seed(count))

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[int, torch.Tensor, int]:
        return index, self.pictures[index], index % 2


class Endless(IterableDataset[Any]):
    """The same without a length."""

    def __init__(self, count: int) -> None:
        self.samples = Numbered(count)

    def __iter__(self) -> Any:
        return (self.samples[index] for index in range(len(self.samples)))


def batches(count: int = 4, size: int = BATCH, **options: Any) -> DataLoader[Any]:
    return DataLoader(Numbered(count * size), batch_size=size, **options)


def stream(count: int = 4) -> DataLoader[Any]:
    return DataLoader(Endless(count * BATCH), batch_size=BATCH)


@cache
def modules(pl: ModuleType) -> Any:
    """The classes, of one package's `LightningModule`."""

    class Plain(pl.LightningModule):  # type: ignore[name-defined, misc]
        """A linear classifier with dropout, so that whoever draws a random number changes its losses.

        Args:
            trace: where its hooks and its batches are noted.
            raises: a hook, and what it raises.
        """

        on_step = False

        def __init__(self, trace: Trace, raises: tuple[str, type[BaseException]] | None = None) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(8, 2)
            self.drop = torch.nn.Dropout(0.2)
            self.trace, self.raises = trace, raises
            self.lr, self.batch_size = 0.05, BATCH

        def at(self, hook: str) -> None:
            """What a module does in a hook beside being there."""

        def loss(self, batch: Any) -> torch.Tensor:
            while not isinstance(batch[1] if isinstance(batch, (list, tuple)) and len(batch) > 1 else None, torch.Tensor):
                # A combination of loaders: the first batch in it.
                batch = next(one for one in (batch.values() if isinstance(batch, dict) else batch) if one is not None)
            _, pictures, labels = batch
            return torch.nn.functional.cross_entropy(self.layer(self.drop(pictures)), labels)

        def seen(self, step: str, batch: Any, index: int, loader: int = 0) -> torch.Tensor:
            loss = self.loss(batch)
            self.trace.note(f"module.{step}", indices(batch), index, loader, loss)
            return loss

        def good(self) -> torch.Tensor:
            """A made-up accuracy."""
            return torch.sigmoid(self.layer.weight.detach().sum())

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = self.seen("training_step", batch, batch_idx)
            self.log("train_loss", loss.detach())
            self.log("train_acc", self.good(), on_step=self.on_step, on_epoch=True, batch_size=BATCH)
            return loss

        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            loss = self.seen("validation_step", batch, batch_idx, dataloader_idx)
            self.log("val_loss", loss, batch_size=BATCH)
            self.log("val_acc", self.good(), batch_size=BATCH)

        def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            self.log("test_acc", self.seen("test_step", batch, batch_idx, dataloader_idx).exp() / 10, batch_size=BATCH)

        def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
            return self.seen("predict_step", batch, batch_idx, dataloader_idx)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)

        def train_dataloader(self) -> Any:
            return batches(4, self.batch_size)

        def val_dataloader(self) -> Any:
            return batches(2, self.batch_size)

    def hook(name: str) -> Callable[..., None]:
        def heard(self: Any, *told: Any, **options: Any) -> None:
            self.trace.note(f"module.{name}", *(one for one in told if not isinstance(one, dict)))
            self.at(name)
            sanity = name.startswith("on_validation") and self.trainer.sanity_checking
            if self.raises is not None and self.raises[0] == name and not sanity:
                raise self.raises[1](f"the module fails in {name}")

        return heard

    for name in HOOKS:
        setattr(Plain, name, hook(name))

    class OnStepToo(Plain):
        on_step = True

    class InTheBar(Plain):
        def log(self, *args: Any, **options: Any) -> None:
            super().log(*args, prog_bar=True, **options)

    class LogsLate(Plain):
        def at(self, hook: str) -> None:
            if hook == "on_train_epoch_end":
                self.log("late_acc", self.good())

    class LogsEverywhere(Plain):
        def at(self, hook: str) -> None:
            no_log = ("setup", "teardown", "on_fit_end", "on_train_end", "on_validation_end", "on_test_end")
            if (
                hook not in no_log
                and not hook.startswith("on_predict")
                and "checkpoint" not in hook
                and hook != "on_fit_start"
            ):
                self.log(f"at_{hook}", self.good(), batch_size=BATCH)

    class Reduced(Plain):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            for way in ("min", "max", "sum"):
                self.log(f"train_{way}", loss.detach(), reduce_fx=way, on_step=True, on_epoch=True, batch_size=BATCH)
            self.log_dict({"a/loss": loss.detach(), "b/loss": loss.detach() * 2}, on_epoch=True, batch_size=BATCH)
            return loss

    class Synced(Plain):
        def log(self, *args: Any, **options: Any) -> None:
            super().log(*args, sync_dist=True, **options)

    class SyncedOnBoth(Synced):
        on_step = True

    class SyncedInTheBar(Synced, InTheBar):
        pass

    class SyncedLate(Synced, LogsLate):
        pass

    class SyncedEverywhere(Synced, LogsEverywhere):
        pass

    class LogsOnRankZero(Plain):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            if self.trainer.is_global_zero:
                self.log("zero_loss", loss.detach(), on_step=True, on_epoch=True, rank_zero_only=True, batch_size=BATCH)
            return loss

    class MetricOnEpoch(Plain):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.metric = torchmetrics.MeanMetric()

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            self.metric(loss.detach())
            self.log("train_metric", self.metric, on_step=self.on_step, on_epoch=True)
            return loss

    class MetricOnBoth(MetricOnEpoch):
        on_step = True

    class MetricUpdatedLate(MetricOnEpoch):
        def at(self, hook: str) -> None:
            if hook == "on_train_epoch_end":
                self.metric.update(1.0)

    class MetricInValidation(MetricOnEpoch):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            super().validation_step(batch, batch_idx, dataloader_idx)
            self.metric.update(self.good() * (batch_idx + 1))
            self.log("val_metric", self.metric)

    class MetricCollected(Plain):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            kinds = {"mean": torchmetrics.MeanMetric(), "highest": torchmetrics.MaxMetric()}
            self.metrics = torchmetrics.MetricCollection(kinds, prefix="train_")

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            self.metrics(loss.detach())
            self.log_dict(self.metrics, on_step=True, on_epoch=True)
            return loss

    class Failing(torchmetrics.MeanMetric):
        def compute(self) -> torch.Tensor:
            raise ValueError("this metric cannot be computed")

    class MetricFails(MetricOnEpoch):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.metric = Failing()

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.metric.update(1.0)
            self.log("train_metric", self.metric, on_step=False, on_epoch=True)
            return Plain.training_step(self, batch, batch_idx)

    class Manual(Plain):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            for optimizer in self.optimizers():
                optimizer.zero_grad()
                self.manual_backward(super().training_step(batch, batch_idx))
                optimizer.step()

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD([self.layer.weight], lr=0.05), torch.optim.Adam([self.layer.bias], lr=0.01)]

    class Lbfgs(Plain):
        def configure_optimizers(self) -> Any:
            return torch.optim.LBFGS(self.parameters(), lr=0.01, max_iter=3)

    class NoLoss(Plain):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            return None if batch_idx % 2 else loss

    class NanLoss(Plain):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx) * (float("nan") if batch_idx == 2 else 1.0)
            self.log("train_nan", loss.detach(), on_step=True, on_epoch=True, batch_size=BATCH)
            return loss

    class Scheduled(Plain):
        interval = "step"

        def configure_optimizers(self) -> Any:
            optimizer = super().configure_optimizers()
            rule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
            return [optimizer], [{"scheduler": rule, "interval": self.interval}]

    class ScheduledByEpoch(Scheduled):
        interval = "epoch"

    class OnPlateau(Plain):
        monitor = "val_loss"

        def configure_optimizers(self) -> Any:
            optimizer = super().configure_optimizers()
            rule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=10.0)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rule, "monitor": self.monitor}}

    class OnPlateauOfTraining(OnPlateau):
        monitor = "train_acc"

    class Hyper(Plain):
        def __init__(self, *args: Any, width: int = 3, **options: Any) -> None:
            super().__init__(*args, **options)
            self.save_hyperparameters({"width": width})

    return SimpleNamespace(**{name: value for name, value in locals().items() if isinstance(value, type)})


def indices(batch: Any) -> Any:
    """The numbers of a batch's samples, of every loader in it."""
    if isinstance(batch, dict):
        return {name: indices(one) for name, one in batch.items()}
    if isinstance(batch, (list, tuple)) and batch and isinstance(batch[0], torch.Tensor):
        return batch[0].tolist()
    return [indices(one) for one in batch] if isinstance(batch, (list, tuple)) else batch
