"""The report's tables, as plain values; `output` and `page` write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from experiments.report.breakeven import repayments
from experiments.report.comparison import Comparison, ModelResult
from experiments.report.household import USES, as_home, as_kettles
from experiments.report.inputs.records import Broken, Run
from experiments.report.metrics import Amount, net_score, ranks, sam_amount, wh_per_1000
from experiments.report.sensitivity import peers, sensitivity, swapped
from lightning_watt.units import kwh

Cell = str | int | float | Amount | None
MOST_ROWS_SHOWN: Final = 200
MOST_DEVICES: Final = 6


@dataclass(frozen=True)
class Table:
    """A table of plain values.

    Attributes:
        key: its file's name, without an ending.
        title: its heading.
        columns: their headings, with units.
        rows: one cell a column.
        note: how to read it.
        quiet: rows shown in grey: those that are not ranked.
    """

    key: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    quiet: frozenset[int] = frozenset()


def models(comparison: Comparison) -> Table:
    """Table 1: what each model is, costs and achieves."""
    settings = comparison.settings
    results = _in_order(comparison)
    rows = [
        (
            result.label,
            result.state,
            result.provenance or "no energy",
            result.year,
            None if result.params is None else result.params / 1e6,
            result.gflops,
            _percent(result),
            _kwh(result.own_j, None),
            _kwh(result.train_j, result.train_uncertainty_j),
            None if result.train_j is None else as_home(result.train_j),
            _inference(result),
            sam_amount(result.accuracy, result.own_j, None, settings),
            sam_amount(result.accuracy, result.own_j, None, settings, shifted=True),
            sam_amount(result.accuracy, result.train_j, result.train_uncertainty_j, settings),
            sam_amount(result.accuracy, result.train_j, result.train_uncertainty_j, settings, shifted=True),
            net_score(result.accuracy, result.params, result.gflops),
            result.count,
            None if result.spread_j is None else kwh(result.spread_j),
        )
        for result in results
    ]
    columns = (
        "model",
        "state",
        "energy is",
        "year",
        "parameters (10^6)",
        "GFLOPs an image",
        "top-1 (%)",
        "train, own (kWh)",
        "train, with inherited (kWh)",
        "is a UK home's",
        "inference (Wh per 1,000)",
        "SAM, own",
        "SAM shifted, own",
        "SAM, with inherited",
        "SAM shifted, with inherited",
        "NetScore",
        "runs",
        "standard deviation over runs (kWh)",
    )
    note = (
        f"SAM with alpha = {settings.alpha:g}, beta = {settings.beta:g}, E in {settings.unit}; empty if it is undefined "
        f"(at or below 1 {settings.unit}). The ± is the measurement's uncertainty; for top-1 it is the standard deviation "
        "over runs. Own: only the last training run. With inherited: also the runs that it started from. NetScore: "
        "20 log10(a² / sqrt(parameters x multiply-adds)), a in percent, parameters in 10^6, multiply-adds in 10^9."
    )
    quiet = frozenset(n for n, result in enumerate(results) if not result.ranked)
    return Table("table1_models", "Table 1: models", columns, rows, note, quiet)


def model_ranks(comparison: Comparison) -> Table:
    """Table 1's ranks: separately for each provenance, completed and learnt trainings only."""
    fronts = comparison.pareto()
    rows: list[Sequence[Cell]] = []
    for provenance in comparison.provenances():
        group = comparison.ranked(provenance)
        placed = [
            ranks([result.accuracy for result in group]),
            ranks([result.train_j for result in group], high_is_good=False),
            ranks([result.per_sample_j.value if result.per_sample_j else None for result in group], high_is_good=False),
            ranks([comparison.sam(result) for result in group]),
            ranks([comparison.sam(result, shifted=True) for result in group]),
            ranks([net_score(result.accuracy, result.params, result.gflops) for result in group]),
        ]
        found = [
            (provenance, result.label, *(column[n] for column in placed), fronts.get(result.label))
            for n, result in enumerate(group)
        ]
        rows += sorted(found, key=lambda row: (row[6] or len(found) + 1, row[1]))
    columns = (
        "energy is",
        "model",
        "by top-1",
        "by train kWh",
        "by inference Wh",
        "by SAM",
        "by SAM shifted",
        "by NetScore",
        "Pareto front",
    )
    note = (
        "1 is best. Measured, mixed and estimated energies are ranked apart. Trainings that did not finish or learn are "
        "not ranked. SAM and energy include inherited energy. Pareto front 1: no model is both more "
        "accurate and cheaper to train."
    )
    return Table("table1_ranks", "Table 1, ranks", columns, rows, note)


def devices(comparison: Comparison) -> Table:
    """Table 2: the same models side by side on each device."""
    names = sorted({name for result in comparison.results for name in (result.device, result.inference_device) if name})
    shown = names[:MOST_DEVICES]
    cells: dict[tuple[str, str, str, str], dict[tuple[str, str], Cell]] = {}
    for result in comparison.results:
        if not result.ranked:
            continue
        row = cells.setdefault((result.name, result.variant or result.phases, result.scale, result.provenance), {})
        row.setdefault(("top-1 (%)", result.device), _percent(result))
        row.setdefault(("train (kWh)", result.device), _kwh(result.train_j, result.train_uncertainty_j))
        row.setdefault(("inference (Wh per 1,000)", result.inference_device), _inference(result))
    what = ("top-1 (%)", "train (kWh)", "inference (Wh per 1,000)")
    # One measure after the other, so that the devices stand side by side.
    places = [(measure, name) for measure in what for name in shown]
    places = [place for place in places if any(row.get(place) is not None for row in cells.values())]
    rows = [(*key, *(row.get(place) for place in places)) for key, row in sorted(cells.items(), key=lambda item: item[0])]
    columns = ("model", "trained", "scale", "energy is", *(f"{measure}: {name}" for measure, name in places))
    left_out = f" {len(names) - len(shown)} more devices are in Table 1 only." if len(names) > len(shown) else ""
    note = f"Training includes inherited energy. Only trainings that finished and learnt are listed.{left_out}"
    return Table("table2_devices", "Table 2: by device", columns, rows, note)


def sensitivities(comparison: Comparison) -> Table:
    """How the ranking changes with alpha, beta and unit."""
    group = peers(comparison)
    found = sensitivity(group, comparison.settings) if len(group) > 1 else []
    rows = []
    for setting in found:
        base = next(other for other in found if other.shifted == setting.shifted)
        order = sorted((place, result.label) for result, place in zip(group, setting.places, strict=True) if place)
        rows.append(
            (
                "SAM shifted" if setting.shifted else "SAM",
                setting.settings.alpha,
                setting.settings.beta,
                setting.settings.unit,
                setting.undefined,
                None if setting is base else swapped(base, setting),
                None if setting is base else setting.tau,
                "; ".join(name for _, name in order[:3]),
            )
        )
    columns = ("score", "alpha", "beta", "unit", "undefined", "ranks changed", "Kendall's tau", "first three")
    kinds = f" Only {group[0].provenance} energies are used." if len(comparison.provenances()) > 1 and group else ""
    note = (
        "The other rows of a score are compared with its first row, over the models that both rank. Beta scales all scores "
        f"by the same factor, so it changes no rank.{kinds}"
    )
    return Table("sensitivity", "SAM's sensitivity", columns, rows, note)


def break_evens(comparison: Comparison) -> Table:
    """The number of inferences after which a model that costs more to train has saved the difference."""
    rows = [
        (
            pair.dearer.label,
            pair.cheaper.label,
            _percent(pair.dearer),
            _percent(pair.cheaper),
            kwh((pair.dearer.train_j or 0.0) - (pair.cheaper.train_j or 0.0)),
            wh_per_1000(_per_sample(pair.cheaper) - _per_sample(pair.dearer)),
            100 * (1 - _per_sample(pair.dearer) / _per_sample(pair.cheaper)),
            pair.inferences,
            pair.dearer.provenance,
        )
        for pair in repayments(comparison)
    ]
    columns = (
        "dearer to train, cheaper to run",
        "than",
        "its top-1 (%)",
        "the other's top-1 (%)",
        "more training (kWh)",
        "saved (Wh per 1,000)",
        "saved (%)",
        "repaid after inferences",
        "energy is",
    )
    note = (
        "Only models on the same devices and with the same kind of energy are paired: a device's gain error is then the "
        "same for both and cancels. The less an inference saves, the less certain the break-even."
    )
    return Table("breakeven", "Break-even", columns, rows, note)


def runs(found: Sequence[Run]) -> Table:
    """Every run, also those that failed."""
    rows = [
        (
            run.path,
            run.status,
            run.phase,
            run.name,
            run.facts["scale"],
            run.facts["data"],
            None if run.accuracy is None else 100 * run.accuracy,
            run.metric,
            None
            if run.own_j is None
            else Amount(kwh(run.own_j), None if run.uncertainty_j is None else kwh(run.uncertainty_j)),
            kwh(run.inherited_j) if run.inherited else None,
            run.provenance or "no energy",
            run.sources,
            run.devices,
            "; ".join(run.notes),
        )
        for run in found
    ]
    columns = (
        "run",
        "status",
        "phase",
        "model",
        "scale",
        "data",
        "accuracy (%)",
        "metric",
        "own energy (kWh)",
        "inherited (kWh)",
        "energy is",
        "source",
        "device",
        "notes",
    )
    quiet = frozenset(n for n, run in enumerate(found) if run.status != "completed")
    note = (
        "All runs, also those that failed, were interrupted or still run. Self-supervised pretraining logs an accuracy of "
        "visual tokens or captions. That is not top-1, and is not compared."
    )
    return Table("runs", "All runs", columns, rows, note, quiet)


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
        f"The trainings add up to {kwh(joules):.3g} kWh ({kinds}; each model counted once). A typical UK home "
        f"uses this in {as_home(joules)}. It would boil {as_kettles(joules):.3g} full kettles.{ranked}"
    )


def _in_order(comparison: Comparison) -> list[ModelResult]:
    """Ranked results by shifted SAM, separately for each provenance, then those that are not ranked."""
    kinds = {kind: place for place, kind in enumerate(comparison.provenances())}

    def key(result: ModelResult) -> tuple[bool, int, float, str]:
        score = comparison.sam(result, shifted=True)
        return (not result.ranked, kinds[result.provenance], -(score if score is not None else -1.0), result.label)

    return sorted(comparison.results, key=key)


def _percent(result: ModelResult) -> Amount | None:
    if result.accuracy is None:
        return None
    return Amount(100 * result.accuracy, None if result.accuracy_spread is None else 100 * result.accuracy_spread)


def _kwh(joules: float | None, uncertainty_j: float | None) -> Amount | None:
    return None if joules is None else Amount(kwh(joules), None if uncertainty_j is None else kwh(uncertainty_j))


def _inference(result: ModelResult) -> Amount | None:
    one = result.per_sample_j
    return one and Amount(wh_per_1000(one.value), None if one.plus_minus is None else wh_per_1000(one.plus_minus))


def _per_sample(result: ModelResult) -> float:
    return result.per_sample_j.value if result.per_sample_j else 0.0
