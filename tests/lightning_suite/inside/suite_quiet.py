"""The arm `quiet`: a `WattCallback` that measures and keeps it to itself. Copied into the throw-away distribution."""

from __future__ import annotations

from typing import Any

from lightning_watt.trainer import ending, hparams
from lightning_watt.trainer import facts as trainer_facts
from lightning_watt.trainer import publisher as outlet
from lightning_watt.zero_code import EnvironmentCallback


def nothing(*_: Any) -> None:
    """What a silenced outlet does."""


def silence() -> None:
    """Shut every way out: loggers, metrics, progress bar, the table of hyperparameters.

    Files are shut by `record=False`, the printed table by `summary="none"`. A sentence that warns is not shut: it is there
    in every training.
    """
    outlet.log_record = outlet.log_snapshot = outlet.log_histogram = outlet.save = ending.log_record = nothing
    trainer_facts.give_metrics = trainer_facts.show_in_bar = nothing
    hparams.HParamsTable.begin = hparams.HParamsTable.end = nothing
    trainer_facts.stop_live_bar = nothing  # it makes room for the printed table


silence()


class QuietCallback(EnvironmentCallback):
    """A class of its own, so that a spawned rank that unpickles it imports this module and is silent too."""


def callbacks() -> list[QuietCallback]:
    return [QuietCallback(record=False, summary="none")]
