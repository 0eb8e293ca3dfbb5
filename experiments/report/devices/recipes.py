"""Sorts results by recipe and device: what stands in one recipe differs in nothing but the device and the seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from experiments.report.certainty import drift_per_s, ratio
from experiments.report.comparison import Comparison, labels
from experiments.report.inputs import clean
from experiments.report.inputs.lineage import Lineage
from experiments.report.metrics import Amount
from experiments.report.results import ModelResult, repetitions

MOST_OF_A_UUID = 12
"""A board's UUID is shown so far: "GPU-" and eight digits."""


@dataclass(frozen=True)
class Recipe:
    """One recipe on the devices that it was trained and run on.

    Attributes:
        label: a short name, different from those of the other recipes.
        provenance: of all its energies.
        trained: its result by the device that trained it.
        ran: its result by the device that ran it.
    """

    label: str
    provenance: str
    trained: Mapping[str, ModelResult]
    ran: Mapping[str, ModelResult]

    @property
    def devices(self) -> set[str]:
        """All that it was trained or run on."""
        return {*self.trained, *self.ran}


def by_recipe(comparison: Comparison) -> list[Recipe]:
    """The completed results by recipe: what stands in one row differs in nothing but the device.

    Two results of one recipe on one device, such as with another version of torch, are two rows.
    """
    complete = [result for result in comparison.results if result.status == "completed"]
    rows: dict[object, list[ModelResult]] = {}
    for result in by_board(complete):
        place = (result.device, result.inference_device)
        # The first row of the recipe that has no result of these devices yet.
        n = 0
        while any((one.device, one.inference_device) == place for one in rows.get((result.recipe_key, n), [])):
            n += 1
        rows.setdefault((result.recipe_key, n), []).append(result)
    texts = labels([replace(row[0], device="", inference_device="") for row in rows.values()])
    found = [
        Recipe(
            text,
            row[0].provenance,
            {result.device: result for result in reversed(row) if result.train_j is not None and result.device},
            {result.inference_device: result for result in reversed(row) if result.per_sample_j},
        )
        for text, row in zip(texts, rows.values(), strict=True)
    ]
    return sorted(found, key=lambda recipe: recipe.label.lower())


def side_by_side(comparison: Comparison) -> list[Recipe]:
    """The recipes that ran on more than one device."""
    return [recipe for recipe in by_recipe(comparison) if len(recipe.devices) > 1]


def by_board(results: Sequence[ModelResult]) -> list[ModelResult]:
    """The results, with boards of one name told apart if each recipe ran on each of them, as in `study=boards`.

    Boards that took whichever job came next are of one kind, and stay one device.
    """
    kinds: dict[tuple[str, str], list[ModelResult]] = {}
    for result in results:
        kinds.setdefault((result.device, result.inference_device), []).append(result)
    found = []
    for kind in kinds.values():
        boards = {_boards(lineage) for result in kind for lineage in result.lineages}
        crossed = len(boards) > 1 and frozenset() not in boards
        crossed = crossed and all({_boards(one) for one in result.lineages} == boards for result in kind)
        found += [one for result in kind for one in _split(result, boards)] if crossed else kind
    return found


def base_device(recipes: Sequence[Recipe]) -> str:
    """The device that the others are held against: the one with the most recipes; empty if there are no devices."""
    counts = Counter(device for recipe in recipes for device in recipe.devices)
    return min(counts, key=lambda device: (-counts[device], device), default="")


def in_order(recipes: Sequence[Recipe]) -> list[str]:
    """All devices of the recipes, the one that the others are held against first."""
    base = base_device(recipes)
    names = {device for recipe in recipes for device in recipe.devices} - {base}
    return [base, *sorted(names)] if base else []


def device_ratio(by_device: Mapping[str, ModelResult], name: str, base: str, which: str) -> Amount | None:
    """An energy on one device by that on another, with its plus or minus; None if one of them is not there.

    Where both ran in the same rounds, such as those of `study=boards`, the rounds are compared one by one, which takes out
    what they have in common; if one of the two on average came first, a drift of the machine is in the plus or minus.

    Args:
        by_device: results of one recipe.
        name: the one device.
        base: the other.
        which: "train_j" or "per_sample_j".
    """
    first, second = by_device.get(name), by_device.get(base)
    if name == base or first is None or second is None:
        return None
    estimates = first.estimate(which), second.estimate(which)
    if estimates[0] is None or estimates[1] is None:
        return None
    one, other = _rounds(first, which), _rounds(second, which)
    paired = len(one) > 1 and one.keys() == other.keys()
    drift = 0.0
    if paired:
        later_s = sum(one[key][0] - other[key][0] for key in one) / len(one)
        drift = abs(later_s * drift_per_s([list(one.values()), list(other.values())]))
    found = ratio(*estimates, [one[key][1] / other[key][1] for key in one] if paired else (), drift)
    return found and Amount(*found)


def _rounds(result: ModelResult, which: str) -> dict[int, tuple[float, float]]:
    """When each repetition began, in seconds, and its energy, by its seed; empty if they cannot be told apart by that."""
    found = {}
    for lineage in result.lineages:
        joules = result.of_lineage(which, lineage)
        seed, started_s = lineage.end.seed, lineage.runs[0].started_s
        if not joules or seed is None or started_s is None or seed in found:
            return {}
        found[seed] = (started_s, joules)
    return found


def _boards(lineage: Lineage) -> frozenset[str]:
    """What all runs of a lineage were measured with; empty if they differ, or one is estimated."""
    found = {run.boards for run in lineage.runs}
    return found.pop() if len(found) == 1 else frozenset()


def _split(result: ModelResult, boards: set[frozenset[str]]) -> list[ModelResult]:
    """A result as one for each board."""
    shared = frozenset.intersection(*boards)
    found = []
    for board in sorted(boards, key=sorted):
        uuids = " + ".join(clean.text(one.rpartition(" ")[2])[:MOST_OF_A_UUID] for one in sorted(board - shared))
        (own,) = repetitions([lineage for lineage in result.lineages if _boards(lineage) == board])
        device, ran = (text and f"{text} ({uuids})" for text in (result.device, result.inference_device))
        found.append(replace(own, label=result.label, device=device, inference_device=ran))
    return found
