"""Table 2: what each recipe takes on each device, the ratio between devices, and whether the order of models changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Final

from experiments.report.cells import Cell, Table
from experiments.report.certainty import Estimate, came_in_turn, places, surely_more
from experiments.report.comparison import Comparison
from experiments.report.devices.recipes import Recipe, base_device, device_ratio, in_order, side_by_side
from experiments.report.metrics import SamSettings, kendall_tau
from experiments.report.results import ModelResult
from experiments.report.tables import amount_of, inference_energy, percent, place_text, train_energy

MOST_DEVICES: Final = 6
"""So many devices are held against each other, and drawn."""
MOST_PAIRS: Final = 3
MOST_IN_ORDER: Final = 12
ALWAYS: Final = ("recipe", "device", "energy is", "state", "runs")
RANKED_BY: Final = {
    "train energy": ("train_j", False),
    "inference energy": ("per_sample_j", False),
    "SAM": ("sam", True),
    "SAM shifted": ("sam_shifted", True),
}
"""What models are put in order by, and whether more of it is better."""


def by_device(comparison: Comparison) -> Table:
    """Table 2: the same recipes side by side on each device, with the ratio between devices."""
    recipes = side_by_side(comparison)
    base = base_device(recipes)
    rows: list[dict[str, Cell]] = []
    for recipe in recipes:
        for name in in_order([recipe]):
            trained, ran = recipe.trained.get(name), recipe.ran.get(name)
            known = [one for one in (trained, ran) if one is not None]
            row: dict[str, Cell] = dict(zip(ALWAYS, (recipe.label, name, recipe.provenance or "no energy"), strict=False))
            row["state"] = "; ".join(dict.fromkeys(one.state for one in known))
            row["runs"] = max(one.count for one in known)
            if trained is not None:
                row |= _of_training(trained, comparison)
                row[f"train: by {base}"] = device_ratio(recipe.trained, name, base, "train_j")
            if ran is not None:
                row["1,000 inferences"] = inference_energy(ran)
                row["inferences a second"] = _mean([one.inference and one.inference.per_second for one in ran.lineages])
                row[f"inference: by {base}"] = device_ratio(recipe.ran, name, base, "per_sample_j")
            row["rounds"] = _in_turn(recipe, name)
            rows.append(row)
    columns = [
        name for name in _columns(base, comparison) if name in ALWAYS or any(row.get(name) is not None for row in rows)
    ]
    note = (
        "What stands under one recipe differs in nothing but the device and the seed. Training includes inherited energy. "
        f"A ratio is to {base or 'the device with the most recipes'}; its ± has both devices' gain errors and the spread "
        "over seeds, at 95 %. Where both ran in the same rounds, the rounds are compared one by one, with the machine's "
        "drift. A ratio whose ± reaches 1 shows no difference. Boards of one name stand apart if each recipe ran on each "
        "of them. What did not complete or ran on one device is in Table 1 only."
    )
    return Table(
        "table2_devices", "Table 2: by device", columns, [[row.get(name) for name in columns] for row in rows], note
    )


def _columns(base: str, comparison: Comparison) -> list[str]:
    return [
        *ALWAYS,
        f"{comparison.metric} (%)",
        "train",
        f"train: by {base}",
        "train time (s)",
        "SAM, with inherited",
        "SAM shifted, with inherited",
        "1,000 inferences",
        f"inference: by {base}",
        "inferences a second",
        "rounds",
    ]


def _of_training(result: ModelResult, comparison: Comparison) -> dict[str, Cell]:
    return {
        f"{comparison.metric} (%)": percent(result),
        "train": train_energy(result),
        "train time (s)": _mean([lineage.train_s for lineage in result.lineages]),
        "SAM, with inherited": amount_of(result.estimate("sam", comparison.settings)),
        "SAM shifted, with inherited": amount_of(result.estimate("sam_shifted", comparison.settings)),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _in_turn(recipe: Recipe, name: str) -> str | None:
    """Whether a device's repetitions came in turn with those of the others; None if the recipe has one device."""
    starts: dict[str, list[float]] = {}
    for device in recipe.devices:
        one = recipe.trained.get(device) or recipe.ran[device]
        starts[device] = [
            run.started_s for run in (lineage.runs[0] for lineage in one.lineages) if run.started_s is not None
        ]
    if len(starts) < 2 or not starts[name]:
        return None
    if len(starts[name]) < 2:
        return "not repeated"
    others = [found for device, found in starts.items() if device != name]
    return "in turn" if came_in_turn(starts[name], others) else "not in turn with the others"


@dataclass(frozen=True)
class Orders:
    """The order of the same models on two devices.

    Attributes:
        by: what they are put in order by.
        provenance: of their energies.
        devices: the two.
        labels: the models.
        first: of each, its number on the first device.
        second: on the second.
        high_is_good: whether more of it is better.
    """

    by: str
    provenance: str
    devices: tuple[str, str]
    labels: Sequence[str]
    first: Sequence[Estimate]
    second: Sequence[Estimate]
    high_is_good: bool

    @property
    def sides(self) -> list[tuple[str, Sequence[Estimate]]]:
        """Each device with its numbers."""
        return list(zip(self.devices, (self.first, self.second), strict=True))

    def swapped(self, *, surely: bool) -> list[tuple[str, str]]:
        """The pairs of models whose order is another one on the second device: by value, or by more than the ± on both."""
        found = []
        for a, b in combinations(range(len(self.labels)), 2):
            for one, other in ((a, b), (b, a)):
                if self._more(self.first, one, other, surely) and self._more(self.second, other, one, surely):
                    found.append((self.labels[a], self.labels[b]))
        return found

    @staticmethod
    def _more(estimates: Sequence[Estimate], one: int, other: int, surely: bool) -> bool:
        if surely:
            return surely_more(estimates[one], estimates[other])
        return estimates[one].value > estimates[other].value


Ranked = dict[str, dict[str, Estimate]]
"""By device, each model's number."""


def _ranked(recipes: Sequence[Recipe], which: str, settings: SamSettings) -> Ranked:
    """What models are put in order by, on each device; without those that may not be ranked by it."""
    found: Ranked = {}
    for recipe in recipes:
        for device, result in (recipe.ran if which == "per_sample_j" else recipe.trained).items():
            estimate = result.estimate(which, settings) if which == "per_sample_j" or result.ranked else None
            if estimate is not None:
                found.setdefault(device, {})[recipe.label] = estimate
    return found


def orders_of(comparison: Comparison) -> list[Orders]:
    """The order of the models on each two devices, where at least two models are on both."""
    recipes = side_by_side(comparison)
    devices = in_order(recipes)[:MOST_DEVICES]
    found = []
    for provenance in comparison.provenances():
        group = [recipe for recipe in recipes if recipe.provenance == provenance]
        for by, (which, high_is_good) in RANKED_BY.items():
            ranked = _ranked(group, which, comparison.settings)
            for one, other in combinations([device for device in devices if device in ranked], 2):
                both = [label for label in ranked[one] if label in ranked[other]]
                first, second = ([ranked[device][label] for label in both] for device in (one, other))
                if len(both) > 1:
                    found.append(Orders(by, provenance, (one, other), both, first, second, high_is_good))
    return found


def orders(comparison: Comparison) -> Table:
    """Table 2's ranks: the order of the models on each device, and whether it is surely another one than on the first."""
    found = orders_of(comparison)
    base = base_device(side_by_side(comparison))
    columns = (
        *("by", "energy is", "device", "models", "order"),
        *(f"pairs in another order than on {base}", "surely", "Kendall's tau"),
    )
    rows: list[list[Cell]] = []
    for by, provenance in dict.fromkeys((one.by, one.provenance) for one in found):
        of_it = [one for one in found if (one.by, one.provenance) == (by, provenance)]
        shown = {device: (one, which) for one in reversed(of_it) for device, which in one.sides}
        for device in in_order(side_by_side(comparison)):
            if device not in shown:
                continue
            one, estimates = shown[device]
            row: list[Cell] = [by, provenance, device, len(estimates), _order(one.labels, estimates, one.high_is_good)]
            if one.devices == (base, device):
                tau = kendall_tau([e.value for e in one.first], [e.value for e in one.second])
                row += [len(one.swapped(surely=False)), len(one.swapped(surely=True)), tau]
            rows.append([*row, *[None] * (len(columns) - len(row))])
    note = (
        f"{verdict(found)} A pair of models is surely in another order if the two differ by more than their ± on each of "
        "the two devices, in opposite directions. On one device the ± is the boundary part and the spread over seeds at "
        "95 %; in brackets are the places that a model may have within it. A single run has no spread of its own."
    )
    return Table("table2_ranks", "Table 2, ranks: does the order change between devices?", columns, rows, note)


def _order(texts: Sequence[str], estimates: Sequence[Estimate], high_is_good: bool) -> str:
    """Models from the best, each with the places that it may have within its plus or minus."""
    within = places(estimates, high_is_good=high_is_good)
    ordered = sorted(zip(estimates, texts, within, strict=True), key=lambda one: one[0].value, reverse=high_is_good)
    shown = [f"{label} ({place_text(place)})" for _, label, place in ordered[:MOST_IN_ORDER]]
    return "; ".join(shown + (["..."] if len(ordered) > MOST_IN_ORDER else []))


def verdict(found: Sequence[Orders]) -> str:
    """One sentence for each quantity: whether the order of the models changes between devices, and whether that is sure."""
    if not found:
        return "No two models were run on two devices, so nothing is known of their order."
    said = []
    for by in dict.fromkeys(one.by for one in found):
        of_it = [one for one in found if one.by == by]
        sure = [(pair, one.devices) for one in of_it for pair in one.swapped(surely=True)]
        if sure:
            named = "; ".join(f"{' and '.join(pair)} between {' and '.join(devices)}" for pair, devices in sure[:MOST_PAIRS])
            more = f", and {len(sure) - MOST_PAIRS} more" if len(sure) > MOST_PAIRS else ""
            said.append(f"By {by} the order changes by more than the ±: {named}{more}.")
        elif any(one.swapped(surely=False) for one in of_it):
            said.append(f"By {by} the order changes, but by no more than the ±.")
        else:
            said.append(f"By {by} the order is the same on all devices.")
    return " ".join(said)
