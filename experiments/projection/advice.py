"""Which way of computing takes the fewest joules for the same samples, by how much, and whether that is sure.

Candidates are projections of one training that differ in how it is computed. Each is repeated in rounds, in which all
candidates come in turn, early and late alike (`order`), so that what changes slowly (a room, a board that warms up) is in
all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd

from experiments.report.cells import Cell, Energy, Table
from experiments.report.certainty import Estimate, came_in_turn, drift_per_s
from experiments.report.inputs.frames import SETUP
from experiments.report.metrics import Amount
from lightning_watt.units import digits

WORK: Final = ("family", "timm_name", "scale", "data", "projects", "projected_epochs")
"""What is the same in all candidates of one comparison."""
HOTTER_C: Final = 5.0
"""A candidate that began so much hotter than the coolest one had other leakage currents, and maybe other clocks."""
FAIR: Final = "fair"
ENOUGH_ROUNDS: Final = 3
"""With so many rounds, how they differ says more than what each projection states of itself."""


@dataclass(frozen=True)
class Candidate:
    """One way of computing, over its rounds.

    Attributes:
        setup: by the command line's names.
        rows: its projections, a row each, by round.
    """

    setup: dict[str, str]
    rows: pd.DataFrame

    @property
    def per_sample_j(self) -> pd.Series:
        """Joules a sample by round, with what comes once as it mostly was: the first job of a process pays for imports."""
        joules = self.rows["projected_energy_j"] - self.rows["projected_once_j"] + self.once_j
        return (joules / self.rows["projected_samples"]).groupby(self.rows["round"]).mean()

    @property
    def once_j(self) -> float:
        """Joules of what comes once in the training, the median over the rounds."""
        return float(self.rows["projected_once_j"].median())

    @property
    def estimate(self) -> Estimate:
        """Joules a sample, with the spread over the rounds; with few rounds, also what each projection states of itself."""
        joules = self.per_sample_j
        each = self.rows["projected_plus_minus_j"] / self.rows["projected_samples"]
        stated = math.hypot(*each) / len(each) if len(joules) < ENOUGH_ROUNDS else 0.0
        return Estimate(float(joules.mean()), stated, stated, tuple(joules))

    @property
    def gain_j(self) -> float:
        """Plus or minus of a sample's joules by the devices' scales."""
        return float((self.rows["projected_gain_j"] / self.rows["projected_samples"]).mean())

    @property
    def repeats(self) -> list[tuple[float, float]]:
        """When each projection began, in seconds, and its joules."""
        return list(zip(self.rows["started_unix_s"], self.rows["projected_energy_j"], strict=True))

    @property
    def devices(self) -> set[tuple[str, str]]:
        """What it ran on."""
        return set(zip(self.rows["device"], self.rows["device_count"], strict=True))


def advice(runs: pd.DataFrame) -> list[Table]:
    """A table for each training of which at least two ways of computing were projected.

    Args:
        runs: the rows of `load_runs(directory)`.
    """
    columns = {name.replace(".", "_"): name for name in SETUP}
    found = []
    for _, work in runs[runs["projects"].notna()].groupby(list(WORK), dropna=False, sort=False):
        candidates = [
            Candidate(dict(zip(columns.values(), map(str, setup), strict=True)), rows.sort_values("round"))
            for setup, rows in work.groupby(list(columns), dropna=False, sort=False)
        ]
        if len(candidates) > 1:
            found.append(_table(work, sorted(candidates, key=lambda one: one.estimate.value)))
    return found


def more_than(one: Candidate, other: Candidate, drift: float = 0.0) -> Amount:
    """By how many joules a sample one takes more than another, with its plus or minus at 95 %.

    The rounds are compared one by one, which takes out what they have in common; the ± is how they differ. With fewer than
    three rounds it has what the projections state of themselves, too, and between devices their errors of scale.

    Args:
        one: the dearer.
        other: the cheaper.
        drift: by which share the joules of all candidates rise in a second.
    """
    first, second = one.per_sample_j, other.per_sample_j
    common = first.index.intersection(second.index)
    apart = (first - second)[common] if len(common) else pd.Series([first.mean() - second.mean()])
    stated = math.hypot(one.estimate.boundary, other.estimate.boundary)
    over_rounds = Estimate(0.0, whole=stated, repeats=tuple(apart)).plus_minus
    scales = math.hypot(one.gain_j, other.gain_j) if one.devices != other.devices else 0.0
    later_s = one.rows["started_unix_s"].mean() - other.rows["started_unix_s"].mean()
    drifted = abs(drift * later_s) * second.mean() if not pd.isna(later_s) else 0.0
    return Amount(float(apart.mean()), math.hypot(over_rounds, scales, drifted))


def unfair(one: Candidate, candidates: Sequence[Candidate]) -> str:
    """Why comparing this candidate with the others is unfair; `FAIR` if nothing is known against it."""
    said = []
    coolest = min((other.rows["start_temperature_c"].mean() for other in candidates), default=math.nan)
    hotter = one.rows["start_temperature_c"].mean() - coolest
    if hotter > HOTTER_C:
        said.append(f"began {hotter:.0f} °C hotter")
    others = one.rows["others"].dropna()
    if len(others):
        said.append(f"others at work in {len(others)} of {len(one.rows)} rounds")
    rounds = {tuple(other.rows["round"]) for other in candidates}
    if len(one.rows) < 2:
        said.append("not repeated")
    elif len(rounds) > 1:
        said.append("not all have the same rounds")
    elif not _came_in_turn(one, candidates):
        said.append("not in turn with the others")
    return "; ".join(said) or FAIR


def _came_in_turn(one: Candidate, candidates: Sequence[Candidate]) -> bool:
    """Whether each of its rounds began after the same number of rounds of all others: theirs, but for one round."""
    others = [list(other.rows["started_unix_s"]) for other in candidates if other is not one]
    return came_in_turn(list(one.rows["started_unix_s"]), others)


def _table(work: pd.DataFrame, candidates: Sequence[Candidate]) -> Table:
    best, drift = candidates[0], drift_per_s(one.repeats for one in candidates)
    swept = [name for name in best.setup if len({one.setup[name] for one in candidates}) > 1]
    samples = float(work["projected_samples"].max())
    rows: list[list[Cell]] = []
    differences = [more_than(one, best, drift) for one in candidates]
    for one, more in zip(candidates, differences, strict=True):
        estimate = one.estimate
        temperature, others = one.rows["start_temperature_c"].mean(), one.rows["others_cpus"].mean()
        rows.append(
            [
                *(one.setup[name] for name in swept),
                Energy(samples * estimate.value, samples * estimate.plus_minus),
                Amount(1000 * estimate.value, 1000 * estimate.plus_minus),
                Energy(one.once_j),
                None if one is best else _percent(more, best),
                "fewest" if one is best else "yes" if _is_sure(more) else "no",
                float(one.rows["projected_duration_s"].mean() / 3600 * samples / one.rows["projected_samples"].mean()),
                None if pd.isna(temperature) else round(temperature),
                None if pd.isna(others) else round(others, 1),
                len(one.rows),
                unfair(one, candidates),
            ]
        )
    columns = (
        *swept,
        f"projected for {samples:,.0f} samples",
        "projected mJ a sample",
        "of that once",
        "more than the fewest (%)",
        "larger than its ±?",
        "projected hours",
        "°C at the start",
        "CPUs others used",
        "rounds",
        "comparison",
    )
    first = work.iloc[0]
    name = first["timm_name"] if isinstance(first["timm_name"], str) else first["model"]
    title = f"Advice, projected: {first['projects']} of {name}, {first['data']}, {first['scale']}"
    return Table("advice", title, columns, rows, f"{_verdict(candidates, differences, swept)} {_NOTE}")


def _percent(more: Amount, best: Candidate) -> Amount:
    joules = best.estimate.value
    return Amount(100 * more.value / joules, 100 * (more.plus_minus or 0.0) / joules)


def _is_sure(more: Amount) -> bool:
    return more.value > (more.plus_minus or 0.0)


def _verdict(candidates: Sequence[Candidate], differences: Sequence[Amount], swept: Sequence[str]) -> str:
    """One sentence: what to take, and how sure that is."""
    best = candidates[0]
    named = " ".join(f"{name}={best.setup[name]}" for name in swept)
    unsure = sum(not _is_sure(more) for more in differences[1:])
    said = f"{named} takes the fewest joules"
    if not unsure:
        more = _percent(differences[1], best)
        said += f"; the next takes {digits(more.value, 3)} ± {digits(more.plus_minus or 0.0, 2)} % more."
    elif unsure == len(candidates) - 1:
        said += ", but no difference is larger than its ±: nothing is known to be better than the others."
    else:
        said += f", but {unsure} other{'s are' if unsure > 1 else ' is'} within the ± of it."
    if any(unfair(one, candidates) != FAIR for one in candidates):
        said += " The comparison was not fair in all rows: see the last column."
    return said


_NOTE: Final = (
    "All numbers are projected from parts of trainings. The candidates come in turn, in rounds of different orders, and are "
    "compared round by round: the ± of a difference is how the rounds differ, at 95 %, with the machine's drift as far as "
    "one came earlier than the other; with fewer than three rounds also what the projections state of themselves, and "
    "between devices their errors of scale. Once: set-up, compilation, the median over the rounds. Equal samples say "
    "nothing of equal accuracy: another batch size or precision may need another number of epochs."
)
