"""The end of `study=choose`: recipes beside each other on the validation part, each over the same seeds."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from typing_extensions import override

from experiments.outcome import NAME
from experiments.report.cells import Cell, Energy, Table
from experiments.report.certainty import plus_minus_of_mean
from experiments.report.metrics import Amount
from experiments.sweep import SHOWN, SweepReport, overrides_of, swept
from experiments.tasks.base import TASKS
from lightning_watt import energy_of
from lightning_watt.errors import RecordError

SEED: Final = "seed"
NOTE: Final = (
    "Accuracy is on the validation part, which another seed cuts off elsewhere; the test part was not read. `behind` is how "
    "much the family's best has more, seed by seed, with its ± at 95 % (Student's t). Where a recipe is behind by less than "
    "its ±, nothing is known to be better than it. Energy is the training's, all phases, a mean over the seeds."
)


class ChoiceTable(SweepReport):
    """Prints it before the sweep's own table; Hydra makes it from `conf/study/choose.yaml`."""

    name = "choose"

    @override
    def tables(self, directory: Path) -> list[Table]:
        return [chosen([json.loads(file.read_text()) for file in sorted(directory.glob(f"*/{NAME}"))])]


def chosen(outcomes: list[dict[str, Any]]) -> Table:
    """One row a recipe, those of a model together, the best first.

    Args:
        outcomes: what `save_outcome` wrote, read back; those that did not complete are passed over.
    """
    complete = [outcome for outcome in outcomes if outcome["status"] == "completed"]
    keys = [key for key in swept(complete) if key not in (SEED, *SHOWN)]
    found: dict[str, dict[tuple[str, ...], list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for outcome in complete:
        given = overrides_of(outcome)
        found[outcome["model"]][tuple(given.get(key, "") for key in keys)].append(outcome)
    rows: list[list[Cell]] = []
    for model, recipes in found.items():
        by_seed = {recipe: _accuracies(runs) for recipe, runs in recipes.items()}
        ranked = sorted((recipe for recipe in by_seed if by_seed[recipe]), key=lambda one: -_mean(by_seed[one]))
        for recipe in ranked:
            accuracy = list(by_seed[recipe].values())
            behind = _behind(by_seed[recipe], by_seed[ranked[0]]) if recipe != ranked[0] else "the best"
            mean = Amount(statistics.fmean(accuracy), plus_minus_of_mean(accuracy))
            rows.append([model, *recipe, len(accuracy), mean, behind, _training(recipes[recipe])])
    columns = ["model", *keys, "seeds", "accuracy", "behind", "training"]
    return Table("choose", "Recipes on the validation part", columns, rows, NOTE)


def _accuracies(runs: list[dict[str, Any]]) -> dict[str, float]:
    """The accuracy of each seed; without those that are no number."""
    metric = {one.name: one.logged for one in TASKS.values()}
    found = {overrides_of(run).get(SEED, "0"): run["metrics"].get(metric[run.get("task") or "classify"]) for run in runs}
    return {seed: value for seed, value in found.items() if value is not None}


def _mean(by_seed: Mapping[str, float]) -> float:
    return statistics.fmean(by_seed.values())


def _behind(own: Mapping[str, float], best: Mapping[str, float]) -> Cell:
    """By how much the best has more in the seeds that both have."""
    differences = [best[seed] - own[seed] for seed in own.keys() & best.keys()]
    return Amount(statistics.fmean(differences), plus_minus_of_mean(differences)) if differences else None


def _training(runs: list[dict[str, Any]]) -> Energy | None:
    """What the trainings used, on average; None if nothing was measured."""
    try:
        return Energy(statistics.fmean(energy_of(_trained(run)).total_j for run in runs))
    except RecordError:
        return None


def _trained(run: dict[str, Any]) -> str:
    """The directory of a job's last training, which carries the energy of those before it."""
    return str(run.get("parts", {}).get("finetune", run)["directory"])
