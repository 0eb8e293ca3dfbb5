"""What is compared with what: one result a model and setting, and the sets within which results may be compared."""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from experiments.report.inputs.lineage import WORST_FIRST, Lineage
from experiments.report.inputs.records import Run
from experiments.report.inputs.reference import Training
from experiments.report.metrics import Amount, SamSettings, pareto_ranks, sam

LEARNT: Final = 0.1
"""An accuracy below this is no use for anything, so the training counts as failed to learn."""
LEARNT_OVER_CHANCE: Final = 1.5
"""The same, in multiples of one over the number of classes, if that is known."""


@dataclass(frozen=True)
class ModelResult:
    """One model in one setting: the mean over its runs. Energy in joules, accuracy in [0, 1].

    Attributes:
        name: the model, in full.
        variant: what it started from, by its record, e.g. "from scratch"; often nothing.
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
        accuracy: top-1.
        own_j: the last training run alone.
        train_j: training with all that it inherited.
        train_uncertainty_j: plus or minus, of measuring.
        per_sample_j: one inference, with its plus or minus.
        count: how many runs.
        spread_j: standard deviation of `train_j` over the runs; None for one run.
        accuracy_spread: standard deviation of the accuracy over the runs.
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
    lineages: tuple[Lineage, ...] = ()

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
    def state(self) -> str:
        """Its status, with what else a reader has to know."""
        return self.status if self.learnt else f"{self.status}, did not learn"


@dataclass(frozen=True)
class Comparison:
    """Entries that were trained for the same task, so that they may be compared.

    Attributes:
        title: what they have in common.
        results: in the order of their labels.
        settings: how SAM is taken.
        reference: whether somebody else measured them.
        runs: the runs behind them; none for a reference.
    """

    title: str
    results: Sequence[ModelResult]
    settings: SamSettings
    reference: bool = False
    runs: Sequence[Run] = field(default_factory=tuple)

    def ranked(self, provenance: str) -> list[ModelResult]:
        """The results that are ranked together: of one provenance."""
        return [result for result in self.results if result.ranked and result.provenance == provenance]

    def provenances(self) -> list[str]:
        """Those that it holds, the most reliable first."""
        held = {result.provenance for result in self.results}
        return [provenance for provenance in ("measured", "mixed", "estimated", "") if provenance in held]

    def pareto(self) -> dict[str, int]:
        """Pareto rank over accuracy and training energy by label, separately for each provenance."""
        found: dict[str, int] = {}
        for provenance in self.provenances():
            peers = self.ranked(provenance)
            fronts = pareto_ranks([result.accuracy or 0.0 for result in peers], [result.train_j or 0.0 for result in peers])
            found |= dict(zip((result.label for result in peers), fronts, strict=True))
        return found

    def sam(self, result: ModelResult, *, shifted: bool = False) -> float | None:
        """SAM of a result, of its training with all it inherited."""
        return sam(result.accuracy, result.train_j, self.settings, shifted=shifted)


def compare(
    lineages: Sequence[Lineage], trainings: Sequence[Training] = (), settings: SamSettings | None = None
) -> list[Comparison]:
    """Sort lineages and reference trainings into sets that may be compared: one for each data set, one for the reference.

    Args:
        lineages: the lineages of the runs.
        trainings: what others measured.
        settings: how SAM is taken; None: as the records of a set say if they agree, else its defaults.

    Returns:
        The set with most results first, the reference last.
    """
    by_data: dict[str, list[Lineage]] = {}
    for lineage in lineages:
        by_data.setdefault(lineage.end.facts["data"] or "data not named", []).append(lineage)
    found = [_of_lineages(data, members, settings) for data, members in by_data.items()]
    found.sort(key=lambda comparison: (-len(comparison.results), comparison.title))
    if trainings:
        found.append(_of_reference(trainings, settings or SamSettings()))
    return found


def _of_lineages(data: str, lineages: Sequence[Lineage], settings: SamSettings | None) -> Comparison:
    groups: dict[object, list[Lineage]] = {}
    for lineage in lineages:
        groups.setdefault(_key(lineage), []).append(lineage)
    results = label([_model_result(group) for group in groups.values()])
    runs = list({id(run): run for lineage in lineages for run in lineage.runs}.values())
    return Comparison(data, results, settings or _agreed(runs), runs=runs)


def _agreed(runs: Sequence[Run]) -> SamSettings:
    found = {run.sam for run in runs}
    if len(found) != 1:
        return SamSettings()
    alpha, beta, unit = found.pop()
    return SamSettings(alpha, beta, unit)  # type: ignore[arg-type]


def _key(lineage: Lineage) -> object:
    """What two lineages have in common if they are repetitions; a lineage that isn't completed stands alone."""
    end, trained = lineage.end, lineage.trained
    if lineage.status != "completed":
        return end.place, end.path
    return (
        end.name,
        tuple(sorted(end.facts.items())),
        end.numbers.get("image_size"),
        # Repetitions have the same settings, and see as many samples.
        tuple(
            (run.phase, run.facts["settings"], run.stages["train"].samples if "train" in run.stages else 0)
            for run in lineage.runs
        ),
        bool(end.inherited and not trained),
        trained.devices if trained else "",
        end.devices,
        lineage.provenance,
    )


def _model_result(group: Sequence[Lineage]) -> ModelResult:
    end, trained, inference = group[0].end, group[0].trained, group[0].inference
    accuracies = [lineage.accuracy for lineage in group if lineage.accuracy is not None]
    energies = [lineage.train_j for lineage in group if lineage.train_j is not None]
    accuracy = _mean(accuracies)
    classes = end.numbers.get("num_classes")
    variant = ""
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
        provenance=group[0].provenance,
        status=min((lineage.status for lineage in group), key=WORST_FIRST.index),
        learnt=accuracy is None or accuracy >= max(LEARNT, LEARNT_OVER_CHANCE / classes if classes else 0.0),
        year=int(year) if year else None,
        params=end.numbers.get("params"),
        gflops=end.numbers.get("gflops_per_sample"),
        accuracy=accuracy,
        own_j=_mean([lineage.own_j for lineage in group if lineage.own_j is not None]),
        train_j=_mean(energies),
        train_uncertainty_j=_mean_of_all([lineage.train_uncertainty_j for lineage in group]),
        per_sample_j=_per_sample(group),
        count=len(group),
        spread_j=statistics.stdev(energies) if len(energies) > 1 else None,
        accuracy_spread=statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        lineages=tuple(group),
    )


def _per_sample(group: Sequence[Lineage]) -> Amount | None:
    measured = [lineage.inference.per_sample_j for lineage in group if lineage.inference and lineage.inference.per_sample_j]
    if not measured:
        return None
    return Amount(math.fsum(joules for joules, _ in measured) / len(measured), _mean([plus for _, plus in measured]))


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _mean_of_all(values: Sequence[float | None]) -> float | None:
    """The mean; None if one is unknown. Most of a plus or minus is a board's gain, which averaging does not shrink."""
    known = [value for value in values if value is not None]
    return _mean(known) if len(known) == len(values) else None


def _of_reference(trainings: Sequence[Training], settings: SamSettings) -> Comparison:
    results = [
        ModelResult(
            name=training.name,
            variant="",
            label=training.name,
            family=training.family,
            scale="",
            device=training.device,
            inference_device="",
            provenance="measured",
            status="completed",
            learnt=training.accuracy >= LEARNT,
            year=training.year,
            params=None,
            gflops=None,
            accuracy=training.accuracy,
            own_j=training.joules,
            train_j=training.joules,
            train_uncertainty_j=None,
            per_sample_j=None,
        )
        for training in trainings
    ]
    epochs = {training.epochs for training in trainings}
    length = f", {epochs.pop()} epochs" if len(epochs) == 1 and 0 not in epochs else ""
    return Comparison(
        f"reference ({len(results)} trainings{length})", label(results, by_name=True), settings, reference=True
    )


def label(results: Sequence[ModelResult], *, by_name: bool = False) -> list[ModelResult]:
    """Give each result the shortest label that no other result has, and sort them by it.

    A label is the family (or the model's name if `by_name`) and the variant, then scale, phases, status, full
    name, device, energy's origin and recipe as far as these are needed, then a number.
    """
    texts = [
        ", ".join(part for part in (result.name if by_name else result.family, result.variant) if part) for result in results
    ]
    for more in ("scale", "phases", "status", "name", "device", "provenance", "recipe"):
        groups: dict[str, set[str]] = {}
        for text, result in zip(texts, results, strict=True):
            groups.setdefault(text, set()).add(getattr(result, more))
        texts = [
            f"{text}, {_short(getattr(result, more), result.family)}"
            if len(groups[text]) > 1 and getattr(result, more)
            else text
            for text, result in zip(texts, results, strict=True)
        ]
    labelled = [replace(result, label=text) for text, result in zip(_numbered(texts), results, strict=True)]
    return sorted(labelled, key=lambda result: result.label.lower())


def _short(text: str, family: str = "") -> str:
    """A device's name without its maker and socket, a model's without its family.

    Example:
        >>> _short("8 x NVIDIA A100-SXM4-40GB"), _short("vit (vit_tiny)", "vit")
        ('8 x A100', 'vit_tiny')
    """
    own = re.fullmatch(re.escape(family) + r" \((.+)\)", text)
    if own:
        return own[1]
    return re.sub(r"NVIDIA |GeForce |Quadro |-(SXM|PCIE)\S*| PCIe", "", text)


def _numbered(texts: Iterable[str]) -> list[str]:
    """Texts with a number behind those that come again."""
    seen: Counter[str] = Counter()
    found = []
    taken: set[str] = set()
    for text in texts:
        seen[text] += 1
        name = text if seen[text] == 1 else f"{text} #{seen[text]}"
        while name in taken:
            seen[text] += 1
            name = f"{text} #{seen[text]}"
        taken.add(name)
        found.append(name)
    return found
