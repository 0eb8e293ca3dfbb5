"""TensorBoard's table of hyperparameters: beside what a run was configured with, what it cost and what it reached.

The table shows the metrics that a run's event file declares, and of two declarations in one file only the first counts.
Lightning declares `hp_metric` when the run begins, so ours, which names it too, goes before it. A logger with
`default_hp_metric=False` is left to its user: our row is added at the end, and counts only if the user declared
nothing. The values are the last rows of the tags that are logged anyway.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from lightning_watt.trainer.loggers import each_tensorboard
from lightning_watt.warn_once import WarnOnce

METRICS = ("watt/energy_kwh", "watt/accuracy", "watt/sam_shifted")
DEFAULT = "hp_metric"


class HParamsTable:
    """Declares a run's row, once for each logger."""

    def __init__(self) -> None:
        self._declared: list[Any] = []

    def begin(self, trainer: Any, module: Any, warn_once: WarnOnce) -> None:
        """Declare what the module and the data were saved with (`save_hyperparameters`), before Lightning does."""
        params = _saved(module) | _saved(trainer.datamodule)
        if params and getattr(trainer, "enable_autolog_hparams", True):
            loggers = [logger for logger in trainer.loggers if _has_default(logger)]
            each_tensorboard(loggers, warn_once, lambda logger: self._declare(logger, params, (DEFAULT, *METRICS)))

    def end(self, trainer: Any, warn_once: WarnOnce) -> None:
        """Declare what the loggers were given, those of them that declare nothing by themselves."""
        loggers = [logger for logger in trainer.loggers if not _has_default(logger) and getattr(logger, "hparams", None)]
        each_tensorboard(loggers, warn_once, lambda logger: self._declare(logger, logger.hparams, METRICS))

    def _declare(self, logger: Any, params: Any, metrics: tuple[str, ...]) -> None:
        if any(logger is known for known in self._declared):
            return
        self._declared.append(logger)
        writer = logger.experiment
        # torch's writer or tensorboardX's: whichever Lightning found has the same function beside it.
        summaries = import_module(f"{type(writer).__module__.rpartition('.')[0]}.summary")
        for summary in summaries.hparams(flat(params), dict.fromkeys(metrics, 0.0)):
            writer._get_file_writer().add_summary(summary)


def flat(params: Any, prefix: str = "") -> dict[str, bool | int | float | str]:
    """Hyperparameters as the table holds them: nested names joined by "/", as Lightning joins them; other values as text.

    Example:
        >>> flat({"lr": 0.1, "optimizer": {"name": "sgd", "betas": (0.9, 0.99)}, "seed": None})
        {'lr': 0.1, 'optimizer/name': 'sgd', 'optimizer/betas': '(0.9, 0.99)'}
    """
    if dataclasses.is_dataclass(params) and not isinstance(params, type):
        params = dataclasses.asdict(params)
    elif isinstance(params, argparse.Namespace):
        params = vars(params)
    if isinstance(params, Mapping):
        return {
            name: value
            for key, inner in params.items()
            for name, value in flat(inner, f"{prefix}/{key}".lstrip("/")).items()
        }
    if params is None or not prefix:
        return {}
    if getattr(params, "ndim", None) == 0:  # a number of torch's or NumPy's
        params = params.item()
    return {prefix: params if isinstance(params, (bool, int, float, str)) else str(params)}


def _saved(owner: Any) -> dict[str, Any]:
    """What a module or data module has saved for its loggers."""
    wanted = getattr(owner, "_log_hyperparams", False)  # what `save_hyperparameters(logger=...)` sets
    return {name: value for name, value in owner.hparams_initial.items() if name != "_class_path"} if wanted else {}


def _has_default(logger: Any) -> bool:
    return bool(getattr(logger, "_default_hp_metric", True))
