"""What happens in a run, as plain values: what a mark stands for, and what is told of it once its energy is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from lightning_watt.run.forecast import Forecast
from lightning_watt.run.ledger import Account


class Switch(NamedTuple):
    """From here on another account is charged."""

    account: Account
    batches: int
    samples: int


class LogPoint(NamedTuple):
    """Here the trainer wants to know where it stands.

    Attributes:
        step: the loggers' step.
        epoch: the trainer's epoch.
        accuracy: the last known accuracy.
        batches: batches so far.
        samples: samples so far.
        ahead: batches still to come, by stage, for the forecast.
        trained: training batches so far, by the Trainer's own count.
        per_batch: joules per batch are wanted; not at a validation inside a fit, whose curve they would cut up.
    """

    step: int
    epoch: int
    accuracy: float | None
    batches: int
    samples: int
    ahead: dict[str, int]
    trained: int = 0
    per_batch: bool = True


class BatchEnd(NamedTuple):
    """A batch ended here, and each batch is wanted."""

    account: Account
    batch: int
    batches: int
    samples: int


class PartStart(NamedTuple):
    """A part of a training step begins here: one of `batches.PARTS`."""

    part: str


class EpochEnd(NamedTuple):
    """An epoch of a stage ended here; `step` is the loggers'."""

    account: Account
    accuracy: float | None
    step: int
    batches: int
    samples: int


@dataclass(frozen=True)
class Snapshot:
    """Where the run stands at one moment, everything up to it charged.

    Attributes:
        point: the log point that asked for it.
        total_j: joules of the run so far, earlier parts included.
        uncertainty_j: plus or minus of that.
        stage_j: joules by stage.
        power_w: watts by device, mean since the snapshot before.
        stretch_j: joules of the current stage since the snapshot before.
        stretch_batches: its batches.
        stretch_samples: its samples.
        forecast: joules at the end of the schedule, if it can be told.
    """

    point: LogPoint
    total_j: float
    uncertainty_j: float
    stage_j: dict[str, float]
    power_w: dict[str, float]
    stretch_j: float
    stretch_batches: int
    stretch_samples: int
    forecast: Forecast | None = None
