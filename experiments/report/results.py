"""One result for each model and setting: the mean over its repetitions, with what is known about its error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from experiments.report.certainty import Estimate, measured_with_all
from experiments.report.inputs.lineage import WORST_FIRST, Lineage
from experiments.report.inputs.run import TIMM
from experiments.report.metrics import Amount, SamSettings, net_score, sam

UNTRAINED: Final = "random weights"
LEARNT: Final = 0.1
"""An accuracy below this is no use for anything, so the training counts as failed to learn."""
LEARNT_OVER_CHANCE: Final = 1.5
"""The same, in multiples of one over the number of classes, if that is known."""
OF_A_LINEAGE: Final = ("accuracy", "own_j", "train_j", "train_uncertainty_j")


@dataclass(frozen=True)
class ModelResult:
    """One model in one setting: the mean over its runs. Energy in joules, accuracy in [0, 1].

    Attributes:
        name: the model, in full.
        variant: what it started from, by its record, e.g. "from scratch"; "random weights" if they were never trained; often
            nothing.
        label: a short name, different from those of the other results of its set.
        family: its family.
        scale: its size, in the study's words.
        device: what trained it.
        inference_device: what ran it.
        provenance: "measured", "estimated", "mixed", or "" if there is no energy.
        status: "completed", or the worst of its runs' statuses.
        learnt: whether it is better than guessing.
        year: of its paper.
        params: how many.
        gflops: 10^9 operations of one forward pass.
        accuracy: the task's: top-1, mean IoU.
        own_j: the last training run alone.
        train_j: training with all that it inherited.
        train_uncertainty_j: plus or minus, of measuring.
        per_sample_j: one inference, with its plus or minus.
        count: how many runs.
        spread_j: standard deviation of `train_j` over the runs; None for one run.
        accuracy_spread: standard deviation of the accuracy over the runs.
        published_top1: what the published weights of this name reach on ImageNet, in [0, 1].
        lineages: the lineages it stands for; none for a reference.
    """

    name: str
    variant: str
    label: str
    family: str
    scale: str
    device: str
    inference_device: str
    provenance: str
    status: str
    learnt: bool
    year: int | None
    params: float | None
    gflops: float | None
    accuracy: float | None
    own_j: float | None
    train_j: float | None
    train_uncertainty_j: float | None
    per_sample_j: Amount | None
    count: int = 1
    spread_j: float | None = None
    accuracy_spread: float | None = None
    published_top1: float | None = None
    lineages: tuple[Lineage, ...] = ()

    def estimate(self, which: str, settings: SamSettings | None = None) -> Estimate | None:
        """A number of the result with all that is known about its error; None if there is no such number.

        Args:
            which: "accuracy", "train_j", "per_sample_j", "net_score", or with `settings` "sam" or "sam_shifted".
            settings: how SAM is taken.
        """
        repeats = tuple(
            value for lineage in self.lineages if (value := self.of_lineage(which, lineage, settings)) is not None
        )
        if which in ("sam", "sam_shifted"):
            return self._sam_estimate(repeats, settings or SamSettings(), shifted=which == "sam_shifted")
        if which == "net_score":
            score = net_score(self.accuracy, self.params, self.gflops)
            return None if score is None else Estimate(score, repeats=repeats)
        if which == "accuracy":
            return None if self.accuracy is None else Estimate(self.accuracy, repeats=repeats)
        if which == "per_sample_j":
            return self.per_sample_j and Estimate(
                self.per_sample_j.value,
                _first_known(
                    _mean_of_all([self._inference(one, "per_sample_boundary_j") for one in self.lineages]),
                    self.per_sample_j.plus_minus,
                ),
                self.per_sample_j.plus_minus or 0.0,
                repeats,
                measured_with_all(one.inference.boards for one in self.lineages if one.inference),
            )
        if self.train_j is None:
            return None
        boundary = _mean_of_all([lineage.train_boundary_j for lineage in self.lineages])
        whole = self.train_uncertainty_j
        boards = measured_with_all(lineage.train_boards for lineage in self.lineages)
        return Estimate(self.train_j, _first_known(boundary, whole), whole or 0.0, repeats, boards)

    def of_lineage(self, which: str, lineage: Lineage, settings: SamSettings | None = None) -> float | None:
        """The number of one repetition."""
        if which == "net_score":
            return net_score(lineage.accuracy, self.params, self.gflops)
        if which == "per_sample_j":
            found = self._inference(lineage, which)
            return found[0] if found else None
        if which in ("sam", "sam_shifted"):
            return sam(lineage.accuracy, lineage.train_j, settings or SamSettings(), shifted=which == "sam_shifted")
        return getattr(lineage, which)

    @staticmethod
    def _inference(lineage: Lineage, which: str) -> Any:
        return getattr(lineage.inference, which) if lineage.inference else None

    def _sam_estimate(self, repeats: tuple[float, ...], settings: SamSettings, *, shifted: bool) -> Estimate | None:
        """SAM; half its range over the energy's errors is its own. A range that reaches the pole has no end."""
        energy, score = self.estimate("train_j"), sam(self.accuracy, self.train_j, settings, shifted=shifted)
        if energy is None or score is None:
            return None

        def half(plus_minus_j: float) -> float:
            ends = [
                sam(self.accuracy, max(0.0, energy.value + sign * plus_minus_j), settings, shifted=shifted)
                for sign in (1, -1)
            ]
            return math.inf if None in ends else (ends[1] - ends[0]) / 2

        return Estimate(score, half(energy.boundary), half(energy.whole), repeats, energy.boards)

    @property
    def base(self) -> str:
        """What its label begins with: the family; of any other model of timm's, whose families are modules, its name."""
        facts = self.lineages[-1].end.facts if self.lineages else {}
        return facts["timm_name"].partition(".")[0] if facts.get("model") == TIMM and facts["timm_name"] else self.family

    @property
    def recipe_key(self) -> object:
        """Equal in results that differ at most in their device; a reference stands alone."""
        return (self.lineages[0].recipe_key, self.provenance) if self.lineages else self.label

    @property
    def ranked(self) -> bool:
        """Whether it takes part in ranks and Pareto fronts."""
        return self.status == "completed" and self.learnt and self.accuracy is not None and self.train_j is not None

    @property
    def phases(self) -> str:
        """The phases that it went through, e.g. "pretrain + inference"."""
        return " + ".join(run.phase for run in self.lineages[0].runs) if self.lineages else ""

    @property
    def recipe(self) -> str:
        """How its last training went, e.g. "20 epochs, batch 32, lr 0.002"; nothing if the record does not say."""
        facts = self.lineages[0].trained.numbers if self.lineages and self.lineages[0].trained else {}
        words = (("epochs", "{:g} epochs"), ("batch_size", "batch {:g}"), ("lr", "lr {:g}"))
        return ", ".join(text.format(facts[key]) for key, text in words if key in facts)

    @property
    def processes(self) -> str:
        """On how many processes it was trained; nothing if the record does not say."""
        count = self.lineages[0].trained.processes if self.lineages and self.lineages[0].trained else None
        return "" if count is None else f"{count} process{'es' if count > 1 else ''}"

    @property
    def state(self) -> str:
        """Its status, with what else a reader has to know."""
        return self.status if self.learnt else f"{self.status}, did not learn"


def repetitions(lineages: Sequence[Lineage]) -> list[ModelResult]:
    """One result for all lineages that differ in nothing but their seeds."""
    frame = pd.DataFrame(
        {
            "lineage": lineages,
            # As text: pandas would take a tuple for several keys.
            "repetition": [repr((lineage.recipe_key, lineage.machine_key)) for lineage in lineages],
            **{name: pd.Series([getattr(lineage, name) for lineage in lineages], dtype=float) for name in OF_A_LINEAGE},
            "per_sample_j": pd.Series([_inference_of(lineage)[0] for lineage in lineages], dtype=float),
            "per_sample_uncertainty_j": pd.Series([_inference_of(lineage)[1] for lineage in lineages], dtype=float),
        }
    )
    return [_model_result(group) for _, group in frame.groupby("repetition", sort=False)]


def _inference_of(lineage: Lineage) -> tuple[float | None, float | None]:
    """Joules and plus or minus of one inference."""
    return (lineage.inference and lineage.inference.per_sample_j) or (None, None)


def _model_result(group: pd.DataFrame) -> ModelResult:
    lineages = tuple(group["lineage"])
    numbers = group.drop(columns=["lineage", "repetition"])
    mean, spread = (_known(found) for found in (numbers.mean(), numbers.std()))
    # Most of a plus or minus is a board's gain, which averaging does not shrink; one that is unknown makes all unknown.
    in_all = _known(numbers.mean(skipna=False))
    end, trained, inference = lineages[0].end, lineages[0].trained, lineages[0].inference
    accuracy = mean["accuracy"]
    classes = end.numbers.get("num_classes")
    variant = UNTRAINED if end.is_untrained else ""
    if trained is not None and trained.phase == "finetune" and not trained.inherited:
        start = trained.facts["start"]
        variant = f"from {start}" if start else ""
    year = end.numbers.get("year")
    return ModelResult(
        name=end.name,
        variant=variant,
        label=end.name,
        family=end.facts["family"] or end.name,
        scale=end.facts["scale"],
        device=trained.devices if trained else "",
        inference_device=inference.devices if inference else "",
        provenance=lineages[0].provenance,
        status=min((lineage.status for lineage in lineages), key=WORST_FIRST.index),
        learnt=accuracy is None or accuracy >= max(LEARNT, LEARNT_OVER_CHANCE / classes if classes else 0.0),
        year=int(year) if year else None,
        published_top1=end.numbers.get("published_top1"),
        params=end.numbers.get("params"),
        gflops=end.numbers.get("gflops_per_sample"),
        accuracy=accuracy,
        own_j=mean["own_j"],
        train_j=mean["train_j"],
        train_uncertainty_j=in_all["train_uncertainty_j"],
        per_sample_j=None
        if mean["per_sample_j"] is None
        else Amount(mean["per_sample_j"], mean["per_sample_uncertainty_j"]),
        count=len(lineages),
        spread_j=spread["train_j"],
        accuracy_spread=spread["accuracy"],
        lineages=lineages,
    )


def _known(row: pd.Series) -> dict[str, float | None]:
    """A row's numbers; None where pandas has NaN."""
    return {name: None if pd.isna(value) else float(value) for name, value in row.items()}


def _mean_of_all(values: Sequence[float | None]) -> float | None:
    """The mean; None if one is unknown, or there are none."""
    return None if None in values or not values else math.fsum(values) / len(values)


def _first_known(*values: float | None) -> float:
    return next((value for value in values if value is not None), 0.0)
