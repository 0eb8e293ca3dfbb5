"""What the Trainer knows: its devices, place in the schedule, model, machine and metrics. Both Lightning packages."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch

from lightning_watt.accounts.forecast import Schedule
from lightning_watt.host import ray_trial
from lightning_watt.origin.project import project_facts
from lightning_watt.origin.slurm import slurm_facts
from lightning_watt.record.files import BESIDE, beside
from lightning_watt.record.plain import Plain
from lightning_watt.record.remote import as_local, is_remote
from lightning_watt.run.samples import Count, SaidCount, SampleCount, count_of, expected_of

FAR = 10**9
"""Training batches: farther than any training comes within its limit of time."""
_CLASS_NAMES: WeakKeyDictionary[type, frozenset[str]] = WeakKeyDictionary()


def boards_in_use(trainer: Any) -> list[str]:
    """UUIDs of the boards that this process computes on, as CUDA gives them: without prefix, a MIG slice's too.

    Asked of CUDA itself, they are right under every mask and order. Empty on a CPU.
    """
    device = getattr(trainer.strategy, "root_device", torch.device("cpu"))
    if device.type != "cuda":
        return []
    index = device.index if device.index is not None else torch.cuda.current_device()
    return [str(torch.cuda.get_device_properties(index).uuid)]


def replicas(trainer: Any) -> int:
    """Processes that each train on data of their own; fewer than all processes if a model is spread over several."""
    return int((getattr(trainer.strategy, "distributed_sampler_kwargs", None) or {}).get("num_replicas", 1))


def is_a(logger: Any, *names: str) -> bool:
    """Whether a logger is of one of these classes, of either Lightning package, or of a subclass."""
    kind = type(logger)
    known = _CLASS_NAMES.get(kind)
    if known is None:
        known = _CLASS_NAMES[kind] = frozenset(cls.__name__ for cls in kind.__mro__)
    return not known.isdisjoint(names)


def run_directory(trainer: Any) -> str:
    """Where this run's files go: rank zero's log directory, as `trainer.log_dir` gives it; a path or a URL.

    That property is a broadcast, so it is not asked; on the other ranks, whose loggers know of no version, it is the
    Trainer's root directory. W&B's and MLflow's loggers give all their runs one directory, in which each record would
    replace the one before; there it is the directory of the run that Lightning puts the checkpoints into. Where checkpoints
    lie in that very directory, the files get a directory of their own beside it.
    """
    directory = _log_directory(trainer)
    if (trial := ray_trial()) is not None and not is_remote(directory):
        directory = str(trial.place_of(Path(directory), chosen=bool(trainer.loggers)))
    dirpaths = [getattr(callback, "dirpath", None) for callback in trainer.checkpoint_callbacks]
    holds_them = any(dirpath and os.path.abspath(dirpath) == os.path.abspath(directory) for dirpath in dirpaths)
    if not holds_them:
        return directory
    return f"{directory}{BESIDE}" if is_remote(directory) else str(beside(Path(directory)))


def _log_directory(trainer: Any) -> str:
    root = _place(trainer.default_root_dir)
    logger: Any = trainer.loggers[0] if trainer.loggers else None
    if logger is None or not trainer.is_global_zero:
        return root
    if is_a(logger, "TensorBoardLogger", "CSVLogger"):
        return _place(logger.log_dir or root)
    directory = _place(logger.save_dir or root)
    if is_a(logger, "WandbLogger", "MLFlowLogger") and logger.version is not None:
        return os.path.join(directory, str(logger.name), str(logger.version))
    return directory


def _place(said: str | os.PathLike[str]) -> str:
    """A directory as it is compared: without what means nothing in a path."""
    place = os.fspath(said)
    return place.rstrip("/") if is_remote(place) else str(Path(as_local(place)))


def is_rehearsal(trainer: Any) -> bool:
    """Whether this Trainer leaves nothing on disk by Lightning's own rule: `fast_dev_run` and `barebones`."""
    return bool(trainer.fast_dev_run) or bool(getattr(trainer, "barebones", False))


def logger_step(trainer: Any) -> int:
    """The step that Lightning's own scalars are logged at, so that ours stand beside them."""
    loop = getattr(getattr(trainer, "fit_loop", None), "epoch_loop", None)
    step = getattr(loop, "_batches_that_stepped", None)
    return int(trainer.global_step if step is None else step)


def batches_trained(trainer: Any) -> int:
    """Training batches so far, those of earlier fits and of the run that was resumed included."""
    return int(trainer.fit_loop.epoch_loop.total_batch_idx) + 1


def schedule(trainer: Any) -> Schedule:
    """When the Trainer validates."""
    per_epoch = trainer.num_training_batches
    every = getattr(trainer, "val_check_batch", None) or per_epoch
    return Schedule(
        per_epoch=per_epoch or math.inf,
        every=math.inf if validates_by_time(trainer) else every or math.inf,
        in_epochs=trainer.check_val_every_n_epoch or 0,
        validation=int(sum(n for n in trainer.num_val_batches if math.isfinite(n))),
    )


def validates_by_time(trainer: Any) -> bool:
    """Whether the Trainer validates after so much time, and not after so many batches."""
    return getattr(trainer, "_val_check_time_interval", None) is not None


def end_validation(trainer: Any) -> bool:
    """End the validation that runs after this batch, as if its loaders held no more; False if this Lightning has no way.

    Its hooks and metrics follow as after its last batch, and the next one is whole. A Trainer has no public way to it:
    `limit_val_batches` counts from the next validation on, and an exception would leave those hooks out.
    """
    fetcher: Any = getattr(getattr(trainer, "_active_loop", None), "_data_fetcher", None)
    if not hasattr(fetcher, "done"):
        return False
    fetcher.done = True
    if isinstance(fetched := getattr(fetcher, "batches", None), list):
        fetched.clear()  # one is fetched ahead where the loader's length is not known
    return True


def batches_ahead(trainer: Any, left_s: float | None) -> dict[str, int] | None:
    """Batches still to come by stage, at most; None if the end of the schedule is not known.

    Args:
        trainer: the Trainer.
        left_s: its `seconds_left`; a limit of time alone is an end too, however many batches come before it.
    """
    plan, done = schedule(trainer), batches_trained(trainer)
    ends = [_end_of_epochs(trainer, plan), _end_of_steps(trainer, plan, done)]
    if left_s is not None:
        ends.append(done + FAR)
    known = [end for end in ends if end is not None]
    end = min(known, default=math.inf)
    if len(known) < len(ends) or not math.isfinite(end) or not plan.is_known:
        return None
    train = max(0, int(end) - done)
    validations = max(0, plan.validations(int(end)) - plan.validations(done))
    return {"train": train} | ({"validate": validations * plan.validation} if plan.validation else {})


def _end_of_epochs(trainer: Any, plan: Schedule) -> float | None:
    """Training batches by the last epoch's end, infinite without one; None if that is not known."""
    if trainer.max_epochs in (None, -1):
        return math.inf
    return trainer.max_epochs * plan.per_epoch if math.isfinite(plan.per_epoch) else None


def _end_of_steps(trainer: Any, plan: Schedule, done: int) -> float | None:
    """The same by the last optimizer step."""
    if trainer.max_steps in (None, -1):
        return math.inf
    left = max(0, trainer.max_steps - trainer.global_step)
    if trainer.lightning_module.automatic_optimization:
        return done + plan.batches_of(left, done, trainer.accumulate_grad_batches)
    # The module steps its optimizers itself: as often a batch as so far.
    return done + math.ceil(left * done / trainer.global_step) if trainer.global_step else None


def seconds_left(trainer: Any) -> float | None:
    """Seconds until the Trainer's `max_time` is up; None without such a limit."""
    found = None
    for callback in trainer.callbacks:
        if hasattr(type(callback), "time_remaining") and is_a(callback, "Timer"):  # the quick question first
            left = callback.time_remaining()
            found = left if found is None or (left is not None and left < found) else found
    return found


def minimum(trainer: Any) -> str:
    """The Trainer's own minimum of epochs or steps, while that does not let it stop; empty if it may."""
    if getattr(trainer.fit_loop, "_can_stop_early", True):
        return ""
    limits = {"min_epochs": trainer.fit_loop.min_epochs, "min_steps": trainer.fit_loop.min_steps}
    return " and ".join(f"{name}={value}" for name, value in limits.items() if value)


def stop_live_bar(trainer: Any) -> None:
    """End Rich's live progress bar, which would draw itself over whatever is printed before its own teardown."""
    stop = getattr(trainer.progress_bar_callback, "_stop_progress", None)
    if stop is not None:
        stop()


def sample_count(trainer: Any) -> Count:
    """What counts the samples of the batches that the Trainer runs now."""
    said = getattr(getattr(trainer, "lightning_module", None), "watt_batch_size", None)
    if callable(said):
        return SaidCount(said)
    # The loaders are behind Lightning's own structure, whose batches have the same one, unless they come one by one.
    combined: Any = getattr(getattr(trainer, "_active_loop", None), "_combined_loader", None)
    if getattr(combined, "_mode", "sequential") != "sequential":
        return count_of(combined.iterables)
    return SampleCount(expected_of(getattr(combined, "flattened", ())))


def model_facts(module: Any, datamodule: Any = None) -> dict[str, Any]:
    """The model's name and size, what it says about itself in `watt_model_info`, and saved hyper-parameters.

    Reports average two runs only if all of this is equal but for the seed.
    """
    facts: dict[str, Any] = {
        "name": type(module).__name__,
        "params": sum(p.numel() for p in module.parameters() if not _is_lazy(p)),
    }
    for key, owner in (("hyperparameters", module), ("data_hyperparameters", datamodule)):
        # As they were saved: the property `hparams` would leave an attribute behind, `hparams_initial` copies.
        saved = getattr(owner, "__dict__", {}).get("_hparams_initial")
        if isinstance(saved, Mapping) and saved:
            facts[key] = Plain().of(saved)
    said = getattr(module, "watt_model_info", None)
    told = Plain().of(said) if isinstance(said, Mapping) else {}
    return facts | (told if isinstance(told, dict) else {"watt_model_info": told})


def inherited_paths(module: Any) -> list[str]:
    """Runs and checkpoints that the module says it started from, in `watt_inherits`."""
    said = getattr(module, "watt_inherits", None) or []
    return [os.fspath(path) for path in ([said] if isinstance(said, (str, os.PathLike)) else said)]


def hardware_facts(trainer: Any) -> dict[str, Any]:
    """The machine."""
    return {
        "host": platform.node(),
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "cpu": _cpu_name(),
        "cpus": os.cpu_count(),
        "accelerator": type(trainer.accelerator).__name__,
        "world_size": trainer.world_size,
        "nodes": trainer.num_nodes,
        "precision": str(trainer.precision),
        **slurm_facts(),
    }


def software_facts(trainer: Any) -> dict[str, Any]:
    """The versions that matter to the numbers, and the user's own project's."""
    package = type(trainer).__module__.split(".")[0]
    return {
        "lightning_watt": _version("lightning_watt"),
        package: _version(package),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        **project_facts(),
    }


@cache  # looking for a package's metadata takes milliseconds, and a program may make dozens of Trainers
def _version(package: str) -> str | None:
    """None for a package that was put on the path and not installed."""
    try:
        return version(package.replace("_", "-"))
    except PackageNotFoundError:
        return None


@cache
def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _is_lazy(parameter: Any) -> bool:
    return isinstance(parameter, torch.nn.parameter.UninitializedParameter)


# -- the Trainer's metrics, without asking it to compute any ----------------------------------------------------------
#
# The Trainer's `callback_metrics`, `progress_bar_metrics` and `logged_metrics` are properties that *compute*: at a training
# epoch's end they reduce every metric that was logged for the epoch. Over several ranks that is a collective, which the
# other ranks do not come to; and the value is kept, so what the module's own `on_train_epoch_end` still adds is lost.
# Lightning computes each metric in its own time, on all ranks, and puts it into the dictionaries behind these properties:
# after every batch, after a validation, and after the hooks of a training epoch's end. Only those dictionaries are touched.
#
# Source: `trainer/connectors/logger_connector/logger_connector.py` of Lightning 2.6, `_LoggerConnector`.


def computed_metrics(trainer: Any) -> Mapping[str, Any]:
    """What Lightning has computed so far, as the Trainer's `callback_metrics` would show it: tensors of one value."""
    return _behind(trainer, "_callback_metrics")


def give_metrics(trainer: Any, values: Mapping[str, float]) -> None:
    """Put values among them, for other callbacks and for loggers."""
    if values:
        # One tensor for all, of which each value is a view: a tensor for each would take ten times as long.
        tensors = torch.tensor(list(values.values()), dtype=torch.float64).unbind()
        _behind(trainer, "_callback_metrics").update(zip(values, tensors, strict=True))


def show_in_bar(trainer: Any, values: Mapping[str, float]) -> None:
    """Put values into the progress bar."""
    _behind(trainer, "_progress_bar_metrics").update(values)


def _behind(trainer: Any, name: str) -> dict[str, Any]:
    """The dictionary behind a property; a new one, which nobody sees, if this Lightning has none."""
    found = getattr(getattr(trainer, "_logger_connector", None), name, None)
    return found if isinstance(found, dict) else {}
