"""What happens in a run, as plain values: what a mark stands for, and what is logged once its energy is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from lightning_watt.accounts.forecast import Forecast, LogSpan
from lightning_watt.accounts.ledger import Account, Point
from lightning_watt.meter.marks import Mark


class Switch(NamedTuple):
    """From here on another account is charged."""

    account: Account
    batches: int
    samples: int


class LogPoint(NamedTuple):
    """Here the trainer wants a log row.

    Attributes:
        step: the loggers' step.
        epoch: the trainer's epoch.
        accuracy: the last known accuracy.
        batches: batches so far.
        samples: samples so far.
        ahead: batches still to come, by stage, for the forecast; None if the end is not known.
        trained: training batches so far, by the Trainer's own count.
        per_batch: joules per batch are wanted; not at a validation inside a fit, whose curve they would cut up.
        left_s: seconds until the Trainer's own time is up; None if it has no limit.
    """

    step: int
    epoch: int
    accuracy: float | None
    batches: int
    samples: int
    ahead: dict[str, int] | None
    trained: int = 0
    per_batch: bool = True
    left_s: float | None = None


class LastCounted(NamedTuple):
    """The samples of all batches up to here are known, and of the next one they are not."""

    batches: int
    samples: int


class BatchEnd(msgspec.Struct, frozen=True):
    """A batch ended here, and each batch is wanted; made once a batch, so of the kind that is made the fastest."""

    account: Account
    batch: int
    batches: int
    samples: int


class StepPartStart(NamedTuple):
    """A part of a training step begins here: one of `batches.PARTS`."""

    part: str


FORWARD, BACKWARD, OPTIMIZER = StepPartStart("forward"), StepPartStart("backward"), StepPartStart("optimizer")


class Moment(NamedTuple):
    """Somebody wants to know what had been used by now.

    Attributes:
        batches: batches so far.
        samples: samples so far.
        take: called with the `Totals` of this moment, in the reader's thread, while the session is locked.
    """

    batches: int
    samples: int
    take: Callable[[Any], None]


class BatchesLeftOut(NamedTuple):
    """Batches ended up to here and were not noted, because too many marks waited for a driver."""

    batches: int
    samples: int


class EpochEnd(NamedTuple):
    """An epoch of a stage ended here; `step` is the loggers'."""

    account: Account
    accuracy: float | None
    step: int
    batches: int
    samples: int


class RunEnd(NamedTuple):
    """The run ended here; what its devices use while its last readings are waited for is not its own."""

    batches: int
    samples: int


Note = LogPoint | BatchEnd | StepPartStart | EpochEnd | LastCounted | Moment | RunEnd
"""What the trainer's thread notes beside the switches."""


@dataclass(frozen=True)
class Snapshot:
    """Where the run stands at one moment, everything up to it charged.

    Attributes:
        point: the log point that asked for it.
        total_j: joules of the run so far, earlier parts included.
        uncertainty_j: plus or minus of that.
        stage_j: joules by stage.
        power_w: watts by device, mean since the snapshot before.
        span: what the current stage used since the snapshot before.
        forecast: joules at the end of the schedule, if it is known.
    """

    point: LogPoint
    total_j: float
    uncertainty_j: float
    stage_j: dict[str, float]
    power_w: dict[str, float]
    span: LogSpan
    forecast: Forecast | None = None


def point_of(mark: Mark[Any], before: Point | None) -> Point:
    """A settled mark as a point of the ledger.

    Args:
        mark: the mark.
        before: the last point; a mark without counts has its counts, because no batch ended there.
    """
    assert mark.energy_uj is not None
    assert mark.edge_uj is not None
    batches = getattr(mark.payload, "batches", before.batches if before else 0)
    samples = getattr(mark.payload, "samples", before.samples if before else 0)
    return Point(mark.t_ns, mark.energy_uj.tolist(), mark.edge_uj.tolist(), batches, samples, mark.gap_uj, mark.peak_w)
