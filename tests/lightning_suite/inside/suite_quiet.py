"""The arm `quiet`: a `WattCallback` that measures and keeps it to itself. Copied into the throw-away distribution."""

from __future__ import annotations

from typing import Any

import lightning_watt.callback
import lightning_watt.hparams
import lightning_watt.outlet
import lightning_watt.trainer_facts
from lightning_watt.environment import EnvironmentCallback


class MuteTrainer:
    """The Trainer, with nowhere to leave a number."""

    def __init__(self, trainer: Any) -> None:
        vars(self).update(_trainer=trainer, loggers=[], callback_metrics={}, progress_bar_metrics={})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trainer, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._trainer, name, value)


def nothing(*_: Any) -> None:
    """What a silenced outlet does."""


def muted(method: Any) -> Any:
    return lambda self, trainer, *args: method(self, MuteTrainer(trainer), *args)


def silence() -> None:
    """Shut every way out: loggers, metrics, progress bar, the table of hyperparameters, the printed table.

    Files are shut by `record=False`. A sentence that warns is not shut: it is there in every training.
    """
    outlet = lightning_watt.outlet.Outlet
    outlet.catch_up = muted(outlet.catch_up)
    outlet.publish = muted(outlet.publish)
    lightning_watt.callback.log_record = nothing
    lightning_watt.callback.print_summary = nothing
    lightning_watt.trainer_facts.stop_live_bar = nothing  # it makes room for the printed table
    table = lightning_watt.hparams.HParamsTable
    table.begin = table.end = nothing


silence()


class QuietCallback(EnvironmentCallback):
    """A class of its own, so that a spawned rank that unpickles it imports this module and is silent too."""


def callbacks() -> list[QuietCallback]:
    return [QuietCallback(record=False)]
