"""The trainings that are compared on two ranks: every way of logging that makes ranks speak with each other."""

from __future__ import annotations

from typing import Any

from tests.differential.cases import alone, every_entry, listed, resumed, stopping
from tests.differential.modules import batches
from tests.differential.training import Case

DDP = {"devices": 2, "strategy": "ddp", "max_epochs": 2}


def data() -> dict[str, Any]:
    """Each rank sees its own half."""
    return {"train_dataloaders": batches(6, shuffle=True), "val_dataloaders": batches(4)}


def case(module: str = "Synced", **options: Any) -> Case:
    trainer = DDP | options.pop("options", {})
    return Case(module, trainer, **{"data": data, **options})


_LONGER = {"max_epochs": 4}
_NO_VALIDATION = {"limit_val_batches": 0, "max_epochs": 4}
_SAVING = {"enable_checkpointing": True}

LOGGING = {
    name: case(name)
    for name in (
        "Plain",
        "Synced",
        "SyncedOnBoth",
        "SyncedInTheBar",
        "SyncedLate",
        "SyncedEverywhere",
        "LogsOnRankZero",
        "MetricOnEpoch",
        "MetricOnBoth",
        "MetricUpdatedLate",
        "MetricInValidation",
        "MetricCollected",
    )
}
OTHERS = {
    "no validation": case(options=_NO_VALIDATION),
    "validation within the epoch": case("SyncedEverywhere", options={"val_check_interval": 2}),
    "accumulated": case(options={"accumulate_grad_batches": 2}),
    "drawn": case("SyncedInTheBar", options={"enable_progress_bar": True}),
    "stopping on training": case(options=_NO_VALIDATION, after=stopping("train_acc")),
    "stopping on training, before": case(options=_LONGER, before=stopping("train_acc", check_on_train_epoch_end=True)),
    "stopping on a late metric": case("MetricUpdatedLate", options=_NO_VALIDATION, after=stopping("train_metric")),
    "stopping on validation": case("MetricInValidation", options=_LONGER, after=stopping("val_metric")),
    "stopping by time": case(options={"max_time": "00:00:00:04", "max_epochs": -1}),
    "saving on validation": case(
        options=_SAVING,
        after=listed("ModelCheckpoint", monitor="val_acc", filename="{epoch}-{val_acc:.6f}", save_top_k=2, save_last=True),
    ),
    "saving on training": case(
        "MetricOnBoth",
        options=_SAVING,
        after=listed(
            "ModelCheckpoint",
            monitor="train_metric_epoch",
            filename="{epoch}-{train_metric_epoch:.6f}",
            save_on_train_epoch_end=True,
        ),
    ),
    "swa": case(options={"max_epochs": 3}, after=listed("StochasticWeightAveraging", 1e-2, swa_epoch_start=1)),
    "validate alone": case("MetricInValidation", run=alone("validate")),
    "every entry": case("SyncedEverywhere", run=every_entry),
    "resumed": case("SyncedLate", run=resumed),
    "all ranks fail": case(
        module_raises=("on_train_batch_end", ValueError), ends="ValueError: the module fails in on_train_batch_end"
    ),
    "all ranks fail in validation": case(
        module_raises=("on_validation_epoch_end", ValueError), ends="ValueError: the module fails in on_validation_epoch_end"
    ),
}
CASES = LOGGING | OTHERS

MISBEHAVING = {
    "Reduces": "all_reduce(torch.float32 (1,))",  # of no other tensor here
    "ReducesBelow": "collectives of the group",
    "Broadcasts": "all collectives",
    "ComputesEarly": "to_be_computed",
    "Draws": "random",
}
"""Callbacks of `arms.misbehaving`, and a word of what the harness finds."""
