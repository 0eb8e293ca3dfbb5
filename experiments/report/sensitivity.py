"""How SAM's ranking depends on alpha, beta and the unit. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from experiments.report.certainty import places
from experiments.report.comparison import Comparison
from experiments.report.metrics import SamSettings, kendall_tau, ranks, sam
from experiments.report.results import ModelResult
from lightning_watt.units import EnergyUnit

ALPHAS: Final = (1.0, 2.0, 5.0, 10.0)
BETAS: Final = (1.0, 2.0, 5.0)
UNITS: Final[tuple[EnergyUnit, ...]] = ("kWh", "Wh", "J")


@dataclass(frozen=True)
class Setting:
    """One way to take SAM, and the ranking that it gives.

    Attributes:
        settings: alpha, beta and unit.
        shifted: which form.
        ranks: rank of each result by the value alone; None if SAM is undefined.
        places: the best and the worst place of each within its plus or minus; None if SAM is undefined.
        undefined: how many have no SAM.
        tau: Kendall's tau to the ranking of the comparison's own settings, over the results that both rank.
    """

    settings: SamSettings
    shifted: bool
    ranks: tuple[int | None, ...]
    places: tuple[tuple[int, int] | None, ...]
    undefined: int
    tau: float | None


def peers(comparison: Comparison) -> list[ModelResult]:
    """The results that are ranked together: those of the provenance that most of them have."""
    groups = [comparison.ranked(provenance) for provenance in comparison.provenances()]
    return max(groups, key=len, default=[])


def settings_to_try(base: SamSettings) -> Iterator[SamSettings]:
    """Change alpha, beta and unit one at a time; the base itself comes first."""
    yield base
    yield from (replace(base, alpha=alpha) for alpha in ALPHAS if alpha != base.alpha)
    yield from (replace(base, beta=beta) for beta in BETAS if beta != base.beta)
    yield from (replace(base, unit=unit) for unit in UNITS if unit != base.unit)


def sensitivity(results: Sequence[ModelResult], base: SamSettings) -> list[Setting]:
    """Rank the results by SAM, then by shifted SAM, under each of the settings.

    Args:
        results: those that may be ranked together.
        base: what the others are compared with.
    """
    found = []
    for shifted in (False, True):
        scores_of_base: list[float | None] | None = None
        for settings in settings_to_try(base):
            scores = [sam(result.accuracy, result.train_j, settings, shifted=shifted) for result in results]
            scores_of_base = scores_of_base or scores
            both = [(a, b) for a, b in zip(scores_of_base, scores, strict=True) if a is not None and b is not None]
            tau = kendall_tau([a for a, _ in both], [b for _, b in both])
            which = "sam_shifted" if shifted else "sam"
            within = places([result.estimate(which, settings) for result in results])
            undefined = sum(score is None for score in scores)
            found.append(Setting(settings, shifted, tuple(ranks(scores)), tuple(within), undefined, tau))
    return found


def swapped(first: Setting, second: Setting) -> int:
    """How many results have another rank in the second, by the values alone."""
    return sum(a != b for a, b in zip(first.ranks, second.ranks, strict=True))


def surely_swapped(first: Setting, second: Setting) -> int:
    """How many results have no place in the second that they may have in the first."""
    both = [(a, b) for a, b in zip(first.places, second.places, strict=True) if a and b]
    return sum(a[1] < b[0] or b[1] < a[0] for a, b in both)


def path_of(settings: Sequence[Setting], which: str, *, shifted: bool) -> list[Setting]:
    """The settings that differ in `alpha` or in `unit` alone, in rising order (of units: the largest first)."""
    base = next(setting for setting in settings if setting.shifted == shifted)
    order = {unit: place for place, unit in enumerate(UNITS)}
    others = {"alpha": ("beta", "unit"), "unit": ("alpha", "beta")}[which]
    alike = [
        setting
        for setting in settings
        if setting.shifted == shifted
        and all(getattr(setting.settings, name) == getattr(base.settings, name) for name in others)
    ]
    return sorted(alike, key=lambda setting: order[setting.settings.unit] if which == "unit" else setting.settings.alpha)


def moves(path: Sequence[Setting]) -> int:
    """How many ranks change from one setting to the next, over a path."""
    return sum(swapped(first, second) for first, second in pairwise(path))
