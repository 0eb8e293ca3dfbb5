"""The sets within which results may be compared, and their labels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from experiments.report.certainty import on_the_front
from experiments.report.inputs.lineage import Lineage
from experiments.report.inputs.reference import Training
from experiments.report.inputs.run import Run
from experiments.report.metrics import SamSettings, sam
from experiments.report.results import LEARNT, ModelResult, repetitions
from experiments.tasks import CLASSIFY

TOP1: Final = "top-1"
"""What the accuracy of a classifier is called."""


@dataclass(frozen=True)
class Comparison:
    """Entries that were trained for the same task, so that they may be compared.

    Attributes:
        title: what they have in common.
        results: in the order of their labels.
        settings: how SAM is taken.
        reference: whether somebody else measured them.
        runs: the runs behind them; none for a reference.
        families: all families of the report, those of other sets too.
        metric: what its accuracy is called.
    """

    title: str
    results: Sequence[ModelResult]
    settings: SamSettings
    reference: bool = False
    runs: Sequence[Run] = field(default_factory=tuple)
    families: Sequence[str] = ()
    metric: str = TOP1

    def ranked(self, provenance: str) -> list[ModelResult]:
        """The results that are ranked together: of one provenance."""
        return [result for result in self.results if result.ranked and result.provenance == provenance]

    def provenances(self) -> list[str]:
        """Those that it holds, the most reliable first."""
        held = {result.provenance for result in self.results}
        return [provenance for provenance in ("measured", "mixed", "estimated", "") if provenance in held]

    def pareto(self) -> dict[str, str]:
        """By label, whether a result is on the Pareto front of accuracy and training energy: "yes", "perhaps" or "no".

        Each provenance has a front of its own. Results without an entry are not ranked.
        """
        found: dict[str, str] = {}
        for provenance in self.provenances():
            peers = self.ranked(provenance)
            accuracies, energies = ([one.estimate(which) for one in peers] for which in ("accuracy", "train_j"))
            found |= dict(zip((one.label for one in peers), on_the_front(accuracies, energies), strict=True))
        return found

    def sam(self, result: ModelResult, *, shifted: bool = False) -> float | None:
        """SAM of a result, of its training with all it inherited."""
        return sam(result.accuracy, result.train_j, self.settings, shifted=shifted)


def compare(
    lineages: Sequence[Lineage], trainings: Sequence[Training] = (), settings: SamSettings | None = None
) -> list[Comparison]:
    """Sort lineages and reference trainings into sets that may be compared.

    There is one for each data set of each task, and one for the reference.

    Args:
        lineages: the lineages of the runs.
        trainings: what others measured.
        settings: how SAM is taken; None: as the records of a set say if they agree, else its defaults.

    Returns:
        The set with most results first, the reference last.
    """
    by_data: dict[tuple[str, str], list[Lineage]] = {}
    for lineage in lineages:
        by_data.setdefault((lineage.end.task, lineage.end.facts["data"] or "data not named"), []).append(lineage)
    found = [_of_lineages(*key, members, settings) for key, members in by_data.items()]
    found.sort(key=lambda comparison: (-len(comparison.results), comparison.title))
    if trainings:
        found.append(_of_reference(trainings, settings or SamSettings()))
    # One's own families first: the first eleven have markers that no other one has.
    families = list(
        dict.fromkeys(
            family
            for comparison in found
            for family in sorted({result.family for result in comparison.results}, key=str.lower)
        )
    )
    return [replace(comparison, families=families) for comparison in found]


def _of_lineages(task: str, data: str, lineages: Sequence[Lineage], settings: SamSettings | None) -> Comparison:
    results = label(repetitions(lineages))
    runs = list({id(run): run for lineage in lineages for run in lineage.runs}.values())
    title = data if task == CLASSIFY else f"{task}: {data}"
    metric = lineages[0].end.facts["metric"] or TOP1
    return Comparison(title, results, settings or _agreed(runs), runs=runs, metric=metric)


def _agreed(runs: Sequence[Run]) -> SamSettings:
    found = {run.sam for run in runs}
    if len(found) != 1:
        return SamSettings()
    alpha, beta, unit = found.pop()
    return SamSettings(alpha, beta, unit)  # type: ignore[arg-type]


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
            provenance=training.provenance,
            status=training.status,
            learnt=training.accuracy is None or training.accuracy >= LEARNT,
            year=training.year,
            params=None,
            gflops=None,
            accuracy=training.accuracy,
            own_j=training.joules,
            train_j=training.joules,
            train_uncertainty_j=training.uncertainty_j,
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
    labelled = [replace(result, label=text) for result, text in zip(results, labels(results, by_name=by_name), strict=True)]
    return sorted(labelled, key=lambda result: result.label.lower())


def labels(results: Sequence[ModelResult], *, by_name: bool = False) -> list[str]:
    """The shortest text for each result that no other one has, as `label` gives it."""
    texts = [
        ", ".join(part for part in (result.name if by_name else result.base, result.variant) if part) for result in results
    ]
    for more in ("scale", "phases", "status", "name", "device", "provenance", "recipe", "processes"):
        groups: dict[str, set[str]] = {}
        for text, result in zip(texts, results, strict=True):
            groups.setdefault(text, set()).add(getattr(result, more))
        texts = [
            f"{text}, {short(getattr(result, more), result.family)}"
            if len(groups[text]) > 1 and getattr(result, more)
            else text
            for text, result in zip(texts, results, strict=True)
        ]
    return list(_numbered(texts))


def short(text: str, family: str = "") -> str:
    """A device's name without its maker and socket, a model's without its family.

    Example:
        >>> short("8 x NVIDIA A100-SXM4-40GB"), short("vit (vit_tiny)", "vit")
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
