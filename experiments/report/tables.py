"""The report's tables, as plain values; `output` and `page` write them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from experiments.report.breakeven import repayments
from experiments.report.cells import Cell, Energy, Table
from experiments.report.certainty import Estimate, places
from experiments.report.comparison import Comparison
from experiments.report.household import USES, as_home, as_kettles
from experiments.report.inputs.frames import runs_frame
from experiments.report.inputs.records import Broken, FailedJob
from experiments.report.inputs.run import Run
from experiments.report.metrics import Amount, net_score, sam_amount
from experiments.report.results import ModelResult
from experiments.report.sensitivity import peers, sensitivity, surely_swapped, swapped
from lightning_watt.units import human_energy


def models(comparison: Comparison) -> Table:
    """Table 1: what each model is, costs and achieves."""
    settings = comparison.settings
    results = _in_order(comparison)
    columns: dict[str, Callable[[ModelResult], Cell]] = {
        "model": lambda one: one.label,
        "state": lambda one: one.state,
        "energy is": lambda one: one.provenance or "no energy",
        "year": lambda one: one.year,
        "parameters (10^6)": lambda one: None if one.params is None else one.params / 1e6,
        "GFLOPs an inference": lambda one: one.gflops,
        f"{comparison.metric} (%)": percent,
        "train, own": lambda one: _energy(one.own_j),
        "train, with inherited": train_energy,
        "is a UK home's": lambda one: None if one.train_j is None else as_home(one.train_j),
        "1,000 inferences": inference_energy,
        "SAM, own": lambda one: sam_amount(one.accuracy, one.own_j, None, settings),
        "SAM shifted, own": lambda one: sam_amount(one.accuracy, one.own_j, None, settings, shifted=True),
        "SAM, with inherited": lambda one: amount_of(one.estimate("sam", settings)),
        "SAM shifted, with inherited": lambda one: amount_of(one.estimate("sam_shifted", settings)),
        "NetScore": lambda one: net_score(one.accuracy, one.params, one.gflops),
        "runs": lambda one: one.count,
        "standard deviation over runs": lambda one: _energy(one.spread_j),
    }
    note = (
        f"SAM with alpha = {settings.alpha:g}, beta = {settings.beta:g}, E in {settings.unit}; empty if it is undefined "
        f"(at or below 1 {settings.unit}). The ± of an energy is the measurement's; that of the accuracy is the standard "
        "deviation over runs; that of SAM has both. Runs are averaged only if their records agree in all but the seed. "
        "Own: only the last training run. With inherited: also the runs that it started from. NetScore: "
        "20 log10(a² / sqrt(parameters x multiply-adds)), a in percent, parameters in 10^6, multiply-adds in 10^9."
    )
    quiet = frozenset(n for n, result in enumerate(results) if not result.ranked)
    rows = [[cell(result) for cell in columns.values()] for result in results]
    return Table("table1_models", "Table 1: models", list(columns), rows, note, quiet)


def model_ranks(comparison: Comparison) -> Table:
    """Table 1's ranks: separately for each provenance, completed and learnt trainings only."""
    fronts = comparison.pareto()
    by = {
        f"by {comparison.metric}": ("accuracy", True),
        "by train energy": ("train_j", False),
        "by inference energy": ("per_sample_j", False),
        "by SAM": ("sam", True),
        "by SAM shifted": ("sam_shifted", True),
        "by NetScore": ("net_score", True),
    }
    frames = []
    for provenance in comparison.provenances():
        group = comparison.ranked(provenance)
        frame = pd.DataFrame({"energy is": provenance, "model": [result.label for result in group]})
        for column, (which, high_is_good) in by.items():
            frame[column] = places([one.estimate(which, comparison.settings) for one in group], high_is_good=high_is_good)
        frames.append(frame.sort_values(["by SAM shifted", "model"], key=lambda cells: cells.map(_in_text_order)))
    frame = pd.concat(frames) if frames else pd.DataFrame(columns=["energy is", "model", *by])
    frame["Pareto front"] = frame["model"].map(fronts)
    frame[list(by)] = frame[list(by)].map(place_text)
    note = (
        '1 is best. Results that differ by less than their ± share places: "1 to 3" may be any of the three. On one device '
        "the ± is the boundary part and the spread over seeds at 95 %, because a device's gain error is the same for all; "
        "between devices it has the gain error too. A single run has no spread of its own: it is given that of the result "
        "beside it if there is one, else none, so add seeds before you believe a place. Measured, mixed and estimated "
        "energies are ranked apart. Trainings that did not finish or learn are not ranked. SAM and energy include inherited "
        "energy. Pareto front: no model is both more accurate and cheaper to train; perhaps: within the ±. A model that ran "
        "on several devices has a place for each of them; Table 2 compares the devices."
    )
    return Table("table1_ranks", "Table 1, ranks", list(frame), frame.to_numpy(object).tolist(), note)


def sensitivities(comparison: Comparison) -> Table:
    """How the ranking changes with alpha, beta and unit."""
    group = peers(comparison)
    found = sensitivity(group, comparison.settings) if len(group) > 1 else []
    rows = []
    for setting in found:
        base = next(other for other in found if other.shifted == setting.shifted)
        ranked = zip(setting.ranks, group, setting.places, strict=True)
        order = sorted((rank, result.label, place_text(place)) for rank, result, place in ranked if rank)
        rows.append(
            (
                "SAM shifted" if setting.shifted else "SAM",
                setting.settings.alpha,
                setting.settings.beta,
                setting.settings.unit,
                setting.undefined,
                None if setting is base else swapped(base, setting),
                None if setting is base else surely_swapped(base, setting),
                None if setting is base else setting.tau,
                "; ".join(f"{name} ({place})" for _, name, place in order[:3]),
            )
        )
    columns = ("score", "alpha", "beta", "unit", "undefined", "ranks changed", "surely", "Kendall's tau", "first three")
    kinds = f" Only {group[0].provenance} energies are used." if len(comparison.provenances()) > 1 and group else ""
    note = (
        "The other rows of a score are compared with its first row, over the models that both rank. Beta scales all scores "
        "by the same factor, so it changes no rank. Ranks and tau are by the values alone; in brackets are the places that "
        f"a model may have within its ±, and a rank has surely changed if no place is among both.{kinds}"
    )
    return Table("sensitivity", "SAM's sensitivity", columns, rows, note)


def break_evens(comparison: Comparison) -> Table:
    """The number of inferences after which a model that costs more to train has saved the difference."""
    rows = [
        (
            pair.dearer.label,
            pair.cheaper.label,
            percent(pair.dearer),
            percent(pair.cheaper),
            Energy((pair.dearer.train_j or 0.0) - (pair.cheaper.train_j or 0.0)),
            Energy(1000 * (_per_sample(pair.cheaper) - _per_sample(pair.dearer))),
            100 * (1 - _per_sample(pair.dearer) / _per_sample(pair.cheaper)),
            pair.inferences,
            pair.dearer.provenance,
        )
        for pair in repayments(comparison)
    ]
    columns = (
        "dearer to train, cheaper to run",
        "than",
        f"its {comparison.metric} (%)",
        f"the other's {comparison.metric} (%)",
        "more training",
        "saved by 1,000 inferences",
        "saved (%)",
        "repaid after inferences",
        "energy is",
    )
    note = (
        "Only models on the same devices and with the same kind of energy are paired: a device's gain error is then the "
        "same for both and cancels. Pairs whose differences are within their ± are left out."
    )
    return Table("breakeven", "Break-even", columns, rows, note)


def runs(found: Sequence[Run]) -> Table:
    """Every run, also those that failed."""
    frame = runs_frame(found)
    own = zip(frame["energy_j"], frame["energy_uncertainty_j"], strict=True)
    shown = pd.DataFrame(
        {
            **{name: frame[name] for name in ("run", "status", "task", "phase", "model", "scale", "data")},
            "accuracy (%)": 100 * frame["accuracy"],
            "metric": frame["metric"],
            "own energy": [_energy(_none(joules), _none(plus_minus)) for joules, plus_minus in own],
            "inherited": [_energy(_none(joules)) for joules in frame["energy_inherited_j"]],
            "energy is": frame["energy_is"].fillna("no energy"),
            **{name: frame[name] for name in ("source", "device", "processes", "notes")},
        },
        dtype=object,
    )
    note = (
        "All runs that left a record, also those that failed, were interrupted or still run. Self-supervised pretraining "
        "logs an accuracy of visual tokens or captions. That is not the task's, and is not compared. As data: "
        "`experiments.load_runs`."
    )
    quiet = frozenset(n for n, status in enumerate(frame["status"]) if status != "completed")
    rows = [[_none(cell) for cell in row] for row in shown.itertuples(index=False)]
    return Table("runs", "All runs", list(shown), rows, note, quiet)


def failed(jobs: Sequence[FailedJob]) -> Table:
    """Jobs of the study that did not complete, whether they left a record or not."""
    rows = [(job.path, job.status, job.asked, job.why) for job in jobs]
    note = "What `outcome.json` says. A job that failed before it trained left no record, so it is in no other table."
    return Table("failed", "Jobs that did not complete", ("job", "status", "what", "why"), rows, note)


def household_uses() -> Table:
    """The electricity that homes and appliances use, with sources."""
    rows = [(use.item, use.energy_kwh, use.per, use.source) for use in USES]
    return Table("household", "Household electricity", ("use", "kWh", "per", "source"), rows)


def unread(found: Sequence[Broken]) -> Table:
    """What could not be read, and why."""
    return Table("unread", "Not read", ("file", "why"), [(broken.path, broken.why) for broken in found])


def summary(comparison: Comparison) -> str:
    """One sentence on what a comparison's ranked trainings have used together."""
    known = [result for result in comparison.results if result.train_j]
    joules = sum(result.train_j or 0.0 for result in known)
    if not joules:
        return "No training energy is known."
    states = [result for result in comparison.results if not result.ranked]
    ranked = f" {len(states)} of {len(comparison.results)} models are shown but not ranked." if states else ""
    kinds = " and ".join(kind for kind in comparison.provenances() if kind)
    return (
        f"The trainings add up to {human_energy(joules, 3)} ({kinds}; one run of each model on each device). A typical UK "
        f"home uses this in {as_home(joules)}. It would boil {as_kettles(joules):.3g} full kettles.{ranked}"
    )


def _in_order(comparison: Comparison) -> list[ModelResult]:
    """Ranked results by shifted SAM, separately for each provenance, then those that are not ranked."""
    kinds = {kind: place for place, kind in enumerate(comparison.provenances())}

    def key(result: ModelResult) -> tuple[bool, int, float, str]:
        score = comparison.sam(result, shifted=True)
        return (not result.ranked, kinds[result.provenance], -(score if score is not None else -1.0), result.label)

    return sorted(comparison.results, key=key)


def percent(result: ModelResult) -> Amount | None:
    """A result's accuracy in percent, with the standard deviation over its runs."""
    if result.accuracy is None:
        return None
    return Amount(100 * result.accuracy, None if result.accuracy_spread is None else 100 * result.accuracy_spread)


def _energy(joules: float | None, plus_minus_j: float | None = None) -> Energy | None:
    return None if joules is None else Energy(joules, plus_minus_j)


def train_energy(result: ModelResult) -> Energy | None:
    """A result's energy of training, with what it inherited."""
    return _energy(result.train_j, result.train_uncertainty_j)


def inference_energy(result: ModelResult) -> Energy | None:
    """A result's energy of 1,000 inferences."""
    one = result.per_sample_j
    return one and Energy(1000 * one.value, None if one.plus_minus is None else 1000 * one.plus_minus)


def amount_of(estimate: Estimate | None) -> Amount | None:
    """An estimate; without a plus or minus if that has no end, or nobody knows it."""
    if estimate is None:
        return None
    return Amount(estimate.value, estimate.plus_minus if 0 < estimate.plus_minus < math.inf else None)


def place_text(place: tuple[int, int] | None) -> str | int | None:
    """A place as people read it: one, or from the best to the worst that it may be."""
    if place is None:
        return None
    return place[0] if place[0] == place[1] else f"{place[0]} to {place[1]}"


def _in_text_order(cell: object) -> object:
    return cell if cell is not None else (math.inf, math.inf)


def _none(cell: Any) -> Any:
    """A cell; None where pandas has no value."""
    return None if isinstance(cell, float) and math.isnan(cell) else cell


def _per_sample(result: ModelResult) -> float:
    return result.per_sample_j.value if result.per_sample_j else 0.0
