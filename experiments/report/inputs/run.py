"""One run as the report uses it: clean texts, possible numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from experiments.report.inputs.projected import PHASE, Projected
from experiments.tasks import CLASSIFY
from lightning_watt.record import PlusMinus

MOST_CURVE_POINTS: Final = 2000
TIMM: Final = "timm"
"""What `model=` is called for any model of timm's that is not one of the study's."""
SCRATCH: Final = "scratch"
"""What a record calls random weights as a start."""
EVALUATING: Final = {"test", "predict"}
"""Stages that an inference run consists of."""


@dataclass(frozen=True)
class StageUse:
    """What one stage of a run used: joules and their plus or minus, seconds, samples, batches."""

    joules: float
    uncertainty_j: float
    seconds: float
    samples: int
    batches: int = 0


class EpochUse(NamedTuple):
    """What one epoch of one stage used, and the accuracy after it in [0, 1]."""

    epoch: int
    stage: str
    joules: float
    seconds: float
    accuracy: float | None


@dataclass(frozen=True)
class Run:
    """One run, as the report uses it. Every text is one clean line, every number finite and possible.

    Attributes:
        path: its directory, relative to where was searched, and the record's name if it is not the first one there; to be
            shown.
        place: its directory, absolute; to be compared, never opened or shown. Several runs may have one.
        status: as in the record.
        name: the model's own name.
        facts: the record's texts about the model: model (as `model=` has it), family, timm_name, task and what its accuracy
            is called (`metric`), phase, scale, data, pretraining, `start`: what a finetune or inference run started from if
            not from another run, `SCRATCH` for random weights; and `settings`: equal in runs that are repetitions of each
            other.
        numbers: the record's numbers about the model: params, gflops_per_sample, year, published_top1, image_size,
            num_classes, and of its training: epochs, batch_size, lr.
        metric: the name under which the accuracy was logged.
        accuracy: the last one, in [0, 1]; None of random weights, whose accuracy is chance.
        own_j: joules of the run itself; None if nothing was measured.
        uncertainty_j: plus or minus.
        provenance: "measured", "estimated", "mixed", or "" if there is no energy.
        inherited: path and joules of what it started from; to be compared, never opened or shown.
        devices: what was measured, e.g. "2 x NVIDIA H100".
        sources: where the joules come from, e.g. "nvml-counter".
        stages: energy by stage.
        epochs: energy by epoch and stage, in order.
        sam: alpha, beta and unit of the record.
        notes: what was left out of it, and how many warnings it has.
        plus_minus: the same in its parts; None if it is not known.
        inherited_plus_minus: what is uncertain of what it started from; None if that is not known.
        boundary_j: the part of the plus or minus that two runs on one board don't share; None if the record does not say.
        boards: what it was measured with, empty if it is estimated, even in part; to be compared, never shown.
        recipe_key: equal in runs that differ at most in seed and machine; empty if the record has no facts to tell by.
        machine_key: equal in runs on machines of one kind.
        processes: of the run, on all nodes; None if the record does not say.
        seed: None if the record does not say.
        started_s: when it began, seconds since 1970; None if the record does not say.
        projection: what a whole training was projected to take, if this run is a part of one and its projection is there.
        is_untrained: whether it put random weights to use, which cost what trained ones do.
    """

    path: str
    place: str
    status: str
    name: str
    facts: Mapping[str, str]
    numbers: Mapping[str, float]
    metric: str
    accuracy: float | None
    own_j: float | None
    uncertainty_j: float | None
    provenance: str
    inherited: tuple[tuple[str, float], ...]
    devices: str
    sources: str
    stages: Mapping[str, StageUse]
    epochs: tuple[EpochUse, ...]
    sam: tuple[float, float, str]
    notes: tuple[str, ...] = ()
    plus_minus: PlusMinus | None = None
    inherited_plus_minus: PlusMinus | None = None
    boundary_j: float | None = None
    boards: frozenset[str] = frozenset()
    recipe_key: str = ""
    machine_key: str = ""
    processes: int | None = None
    seed: int | None = None
    started_s: float | None = None
    projection: Projected | None = None
    is_untrained: bool = False

    @property
    def task(self) -> str:
        """The study's task; a record that does not say is a classifier's."""
        return self.facts["task"] or CLASSIFY

    @property
    def is_part(self) -> bool:
        """Whether it is only a part of a training, whose accuracy and energy are compared with nothing."""
        return self.facts["phase"] == PHASE

    @property
    def inherited_j(self) -> float:
        """Joules of all that it started from."""
        return math.fsum(joules for _, joules in self.inherited)

    @property
    def carried_j(self) -> float | None:
        """Joules, own and inherited."""
        return None if self.own_j is None else self.own_j + self.inherited_j

    @property
    def seconds(self) -> float:
        """How long its stages took."""
        return math.fsum(use.seconds for use in self.stages.values())

    @property
    def phase(self) -> str:
        """The study's phase; of a run from elsewhere, what it did."""
        if self.facts["phase"]:
            return self.facts["phase"]
        return "inference" if self.stages and "train" not in self.stages else "train"

    @property
    def per_sample_j(self) -> tuple[float, float] | None:
        """Joules and plus or minus of one inference; None if the run is not an inference run or counted no samples."""
        used = [use for name, use in self.stages.items() if name in EVALUATING]
        samples = sum(use.samples for use in used)
        joules = sum(use.joules for use in used)
        if self.phase != "inference" or not samples or not joules:
            return None
        return joules / samples, sum(use.uncertainty_j for use in used) / samples

    @property
    def per_second(self) -> float | None:
        """Inferences a second; None if it is no inference run, or counted no samples or no time."""
        used = [use for name, use in self.stages.items() if name in EVALUATING]
        seconds, samples = sum(use.seconds for use in used), sum(use.samples for use in used)
        return samples / seconds if self.phase == "inference" and samples and seconds else None

    @property
    def per_sample_boundary_j(self) -> float | None:
        """The part of an inference's plus or minus that another run on the same board would not share."""
        if self.per_sample_j is None or self.boundary_j is None or not self.own_j or self.uncertainty_j is None:
            return None
        gain = math.sqrt(max(0.0, self.uncertainty_j**2 - self.boundary_j**2)) / self.own_j
        joules, plus_minus = self.per_sample_j
        return math.sqrt(max(0.0, plus_minus**2 - (gain * joules) ** 2))

    @property
    def curve(self) -> list[tuple[float, float]]:
        """Joules spent and accuracy after each trained epoch; long curves are thinned, their end kept."""
        spent = 0.0
        points: list[tuple[float, float]] = []
        last = None
        for epoch in self.epochs:
            spent += epoch.joules
            # The test stage has another set's accuracy, and comes once.
            if epoch.accuracy is None or epoch.stage in EVALUATING:
                continue
            if points and epoch.epoch == last:
                points.pop()  # train and validate carry one accuracy; it has cost both
            points.append((spent, epoch.accuracy))
            last = epoch.epoch
        step = -(-len(points) // MOST_CURVE_POINTS) or 1
        return points[::-1][::step][::-1]

    @property
    def task_accuracy(self) -> float | None:
        """The accuracy if it is the task's: what masked-image pretraining calls accuracy counts visual tokens."""
        supervised = self.facts["pretraining"] in ("", "supervised")
        return self.accuracy if self.phase in ("finetune", "inference", "train") or supervised else None
