"""The matrix: what trainings are compared, by name. Each is a few epochs of a few tiny batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from pytorch_lightning.utilities import CombinedLoader
from torch.utils.data import DataLoader

from tests.differential.modules import batches, stream
from tests.differential.training import Case, Run

Listed = Callable[[ModuleType], list[Any]]


def loaders(train: Any, validate: Any = None) -> Callable[[], dict[str, Any]]:
    """Makes the loaders anew for each arm."""
    return lambda: {"train_dataloaders": train(), "val_dataloaders": validate() if validate else batches(1)}


def listed(name: str, *args: Any, **options: Any) -> Listed:
    """One of Lightning's own callbacks."""
    return lambda pl: [getattr(pl.callbacks, name)(*args, **options)]


def combined(mode: str, **counts: int) -> Callable[[], Any]:
    return lambda: CombinedLoader({name: batches(count) for name, count in counts.items()}, mode)


# ---- what the module logs, and how it optimises ----

_MODULES = [
    "OnStepToo",
    "InTheBar",
    "LogsLate",
    "LogsEverywhere",
    "Reduced",
    "MetricOnEpoch",
    "MetricOnBoth",
    "MetricUpdatedLate",
    "MetricCollected",
    "Manual",
    "Lbfgs",
    "NoLoss",
    "Scheduled",
    "ScheduledByEpoch",
    "OnPlateau",
    "OnPlateauOfTraining",
    "Hyper",
]
CASES: dict[str, Case] = {"plain": Case(options={"enable_checkpointing": True})}
CASES |= {name: Case(name) for name in _MODULES}
CASES |= {
    "NanLoss": Case("NanLoss", said="never was a number"),
    "MetricFails": Case("MetricFails", ends="ValueError: this metric cannot be computed"),
    "metric updated late, validation within the epoch": Case("MetricUpdatedLate", {"val_check_interval": 2}),
    "logs everywhere, seldom": Case("LogsEverywhere", {"log_every_n_steps": 3}),
    "logs everywhere, no validation": Case("LogsEverywhere", {"limit_val_batches": 0}),
    "in the bar, drawn": Case("InTheBar", {"enable_progress_bar": True}, after=listed("TQDMProgressBar")),
    "in the bar, drawn by rich": Case("InTheBar", {"enable_progress_bar": True}, before=listed("RichProgressBar")),
    "summary": Case(options={"enable_model_summary": True}),
}

# ---- schedules ----

CASES |= {
    name: Case(options=options)
    for name, options in {
        "val_check_interval 0.5": {"val_check_interval": 0.5},
        "val_check_interval 3": {"val_check_interval": 3},
        "val_check_interval over epochs": {"val_check_interval": 6, "check_val_every_n_epoch": None, "max_epochs": 3},
        "check_val_every_n_epoch": {"check_val_every_n_epoch": 2, "max_epochs": 3},
        "limits as shares": {"limit_train_batches": 0.5, "limit_val_batches": 1.0},
        "no training batches": {"limit_train_batches": 0},
        "no validation batches": {"limit_val_batches": 0},
        "max_steps": {"max_steps": 6, "max_epochs": -1},
        "max_time": {"max_time": "00:00:00:06", "max_epochs": -1},
        "min_epochs and max_time": {"max_time": "00:00:00:02", "min_epochs": 2, "max_epochs": 4},
        "whole sanity check": {"num_sanity_val_steps": -1},
        "no sanity check": {"num_sanity_val_steps": 0},
        "overfit_batches": {"overfit_batches": 2},
        "fast_dev_run": {"fast_dev_run": 2},
        "accumulate_grad_batches": {"accumulate_grad_batches": 3},
        "gradient clipping": {"gradient_clip_val": 0.1},
        "clipping by value": {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
        "anomalies": {"detect_anomaly": True, "max_epochs": 1},
        "no inference mode": {"inference_mode": False},
        "double precision": {"precision": "64-true"},
        "profiler": {"profiler": "simple", "max_epochs": 1},
        "no epochs": {"max_epochs": 0},
    }.items()
}

_BARE = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary", "log_every_n_steps")
CASES["barebones"] = Case(options={"barebones": True, **dict.fromkeys(_BARE)})

# ---- loaders ----

CASES |= {
    "several validation loaders": Case(data=loaders(batches, lambda: [batches(2), batches(1)])),
    "combined, min_size": Case(data=loaders(combined("min_size", a=4, b=2))),
    "combined, max_size": Case(data=loaders(combined("max_size", a=2, b=3))),
    "combined, max_size_cycle": Case(data=loaders(combined("max_size_cycle", a=2, b=3))),
    "combined, sequential": Case(data=loaders(batches, combined("sequential", a=2, b=1))),
    "combined, sequential in training": Case(
        data=loaders(combined("sequential", a=2, b=2)), ends="ValueError: `_FitLoop` does not support the `CombinedLoader"
    ),
    "iterable": Case(data=loaders(stream, lambda: stream(2))),
    "iterable, interval": Case(options={"val_check_interval": 2}, data=loaders(stream)),
    "reloaded": Case(options={"reload_dataloaders_every_n_epochs": 1}, run=lambda run: run.trainer.fit(run.module)),
    "last batch is small": Case(data=loaders(lambda: DataLoader(batches(3).dataset, batch_size=5, shuffle=True))),
}


# ---- other callbacks ----


def skips(pl: ModuleType) -> list[Any]:
    class Skips(pl.Callback):  # type: ignore[name-defined, misc]
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> int | None:
            return -1 if batch_idx == 2 else None

    return [Skips()]


def stops(pl: ModuleType) -> list[Any]:
    class Stops(pl.Callback):  # type: ignore[name-defined, misc]
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            trainer.should_stop = trainer.should_stop or trainer.global_step >= 6

    return [Stops()]


def logs(pl: ModuleType) -> list[Any]:
    class Logs(pl.Callback):  # type: ignore[name-defined, misc]
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            self.log("callback_acc", float(trainer.current_epoch) / 4)

        def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            self.log("val_callback_acc", 0.5)

    return [Logs()]


def saving(**options: Any) -> Case:
    kind = listed("ModelCheckpoint", **{"save_top_k": 2, **options})
    return Case("MetricOnBoth", {"enable_checkpointing": True, "max_epochs": 3}, after=kind)


def stopping(monitor: str, module: str = "Plain", **options: Any) -> Listed:
    return listed("EarlyStopping", monitor, **{"patience": 1, "mode": "max", "min_delta": 1.0, **options})


_LONGER = {"max_epochs": 4}
_NO_VALIDATION = {"limit_val_batches": 0, "max_epochs": 4}
CASES |= {
    "skips": Case(before=skips),
    "stops": Case(after=stops, options=_LONGER),
    "logs from a callback, before": Case(before=logs),
    "logs from a callback, after": Case(after=logs),
    "stopping on validation, before": Case(options=_LONGER, before=stopping("val_acc")),
    "stopping on validation, after": Case(options=_LONGER, after=stopping("val_acc")),
    "stopping on training, before": Case(options=_LONGER, before=stopping("train_acc", check_on_train_epoch_end=True)),
    "stopping on training, after": Case(options=_NO_VALIDATION, after=stopping("train_acc")),
    "stopping on a late metric": Case("MetricUpdatedLate", _NO_VALIDATION, after=stopping("train_metric")),
    "stopping on what is logged late": Case("LogsLate", _LONGER, before=stopping("late_acc", check_on_train_epoch_end=True)),
    "stopping on what is missing": Case(
        after=stopping("nothing"), ends="RuntimeError: Early stopping conditioned on metric `nothing`"
    ),
    "saving on validation": saving(monitor="val_acc", mode="max", filename="{epoch}-{val_acc:.6f}", save_last=True),
    "saving on training": saving(monitor="train_metric_epoch", save_on_train_epoch_end=True),
    "saving on the step": saving(monitor="train_loss", every_n_train_steps=2, filename="{step}-{train_loss:.6f}"),
    "saving everything": saving(monitor="val_loss", save_top_k=-1, save_last="link"),
    "saving a late metric": Case(
        "MetricUpdatedLate",
        {"enable_checkpointing": True, "limit_val_batches": 0},
        after=listed("ModelCheckpoint", monitor="train_metric", mode="max", filename="{epoch}-{train_metric:.6f}"),
    ),
    "swa": Case(options={"max_epochs": 3}, after=listed("StochasticWeightAveraging", 1e-2, swa_epoch_start=1)),
    "swa, before": Case("Scheduled", {"max_epochs": 3}, before=listed("StochasticWeightAveraging", 1e-2, swa_epoch_start=1)),
    "learning rates": Case("Scheduled", after=listed("LearningRateMonitor", "step"), any_logger=False),
    "timer": Case(options=_LONGER, before=listed("Timer", "00:00:00:06")),
    "accumulation by epoch": Case(before=listed("GradientAccumulationScheduler", {0: 1, 1: 2})),
    "learning rate finder": Case(
        before=listed("LearningRateFinder", num_training_steps=15), data=loaders(lambda: batches(16))
    ),
    "batch size finder": Case(
        before=listed("BatchSizeFinder", max_trials=2, steps_per_trial=1), run=lambda run: run.trainer.fit(run.module)
    ),
    "weights averaged": Case(after=listed("EMAWeightAveraging")),
}


# ---- what is run ----


def every_entry(run: Run) -> None:
    run.fit()
    for name in ("validate", "test"):
        getattr(run.trainer, name)(run.module, batches(2), verbose=False)
    run.trainer.predict(run.module, batches(2))


def alone(name: str) -> Callable[[Run], None]:
    return lambda run: getattr(run.trainer, name)(run.module, batches(2))


def twice(run: Run) -> None:
    run.fit()
    run.trainer.fit_loop.max_epochs = 3
    run.fit()


def resumed(run: Run) -> None:
    path = run.directory / "first.ckpt"
    run.fit()
    run.trainer.save_checkpoint(path)
    run.new_module()
    run.new_trainer(max_epochs=3)
    run.fit(ckpt_path=path, weights_only=False)


def resumed_within(run: Run) -> None:
    """From a checkpoint that was written in the middle of an epoch."""
    run.fit()
    run.new_module()
    run.new_trainer()
    run.fit(ckpt_path=next(run.directory.rglob("*step=6*.ckpt")), weights_only=False)


def after_a_fault(run: Run) -> None:
    try:
        run.fit()
    except ValueError as error:
        run.trace.note("raised", error)
    run.module.raises = None
    run.fit()


def tuned(run: Run) -> None:
    from importlib import import_module

    tuner = import_module(f"{run.pl.__name__}.tuner").Tuner(run.trainer)
    tuner.lr_find(run.module, batches(16), batches(2), num_training=15)
    tuner.scale_batch_size(run.module, max_trials=2, steps_per_trial=1)
    run.trainer.fit(run.module)


# Lightning itself does not come back from it.
def nested(pl: ModuleType) -> list[Any]:
    class Nested(pl.Callback):  # type: ignore[name-defined, misc]
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 0:
                trainer.validate(pl_module, batches(1), verbose=False)

    return [Nested()]


CASES |= {
    "validate alone": Case(run=alone("validate")),
    "test alone": Case(run=alone("test")),
    "predict alone": Case(run=alone("predict")),
    "every entry": Case("LogsEverywhere", run=every_entry),
    "fit twice": Case(run=twice),
    "resumed": Case("Scheduled", run=resumed),
    "resumed within an epoch": Case(
        "MetricOnBoth",
        {"enable_checkpointing": True},
        after=listed("ModelCheckpoint", every_n_train_steps=3, save_top_k=-1, filename="{step}"),
        run=resumed_within,
    ),
    "after a fault": Case(run=after_a_fault, module_raises=("on_train_batch_end", ValueError)),
    "tuned": Case(run=tuned),
    "validation within a fit, before": Case(before=nested, options={"max_epochs": 3}, ends="AssertionError"),
    "validation within a fit, after": Case(after=nested, options={"max_epochs": 3}, ends="AssertionError"),
}


# ---- whatever raises ----

_RAISING = [
    "setup",
    "on_fit_start",
    "on_sanity_check_start",
    "on_sanity_check_end",
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
    "on_train_epoch_end",
    "on_validation_start",
    "on_validation_epoch_start",
    "on_validation_batch_start",
    "on_validation_batch_end",
    "on_validation_epoch_end",
    "on_validation_end",
    "on_train_end",
    "on_fit_end",
    "teardown",
    "state_dict",
    "on_save_checkpoint",
]


def raiser(hook: str, kind: type[BaseException]) -> Listed:
    def make(pl: ModuleType) -> list[Any]:
        def raises(self: Any, *args: Any, **options: Any) -> None:
            if not (hook.startswith("on_validation") and args[0].sanity_checking):
                raise kind(f"a callback fails in {hook}")

        return [type("Raiser", (pl.Callback,), {hook: raises})()]

    return make


def raising(hooks: Iterable[str], kind: type[BaseException]) -> dict[str, Case]:
    found = {}
    for hook in hooks:
        options = {"max_epochs": 1, "enable_checkpointing": hook in ("state_dict", "on_save_checkpoint")}
        ends = "SystemExit: 1" if kind is KeyboardInterrupt else f"{kind.__name__}: a callback fails in {hook}"
        found[f"{kind.__name__} of a callback in {hook}"] = Case(options=options, after=raiser(hook, kind), ends=ends)
        if "sanity" not in hook and hook != "state_dict":
            ends = ends.replace("a callback", "the module")
            found[f"{kind.__name__} of the module in {hook}"] = Case(options=options, module_raises=(hook, kind), ends=ends)
    return found


RAISING = raising(_RAISING, ValueError)
RAISING |= raising(("on_train_batch_end", "on_validation_batch_end", "on_train_epoch_end"), KeyboardInterrupt)
RAISING |= raising(("on_train_batch_end", "on_validation_batch_end"), SystemExit)
RAISING["ValueError of a callback before, in setup"] = Case(
    before=raiser("setup", ValueError), ends="ValueError: a callback fails in setup"
)
