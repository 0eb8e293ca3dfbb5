"""Break-even: training and inference together, over the number of inferences."""

from __future__ import annotations

import numpy as np

from experiments.report.breakeven import complete, repayments
from experiments.report.comparison import Comparison
from experiments.report.figures.style import MOST_CURVES, Picture, line_looks, log_axis, new_figure, safe
from experiments.report.metrics import scaled
from experiments.report.results import ModelResult


def draw(comparison: Comparison) -> Picture:
    """Draw each model's training and inferences together; where two lines cross, the more expensive training is repaid."""
    title = "Break-even: when cheaper inference pays for a more expensive training"
    known = complete(comparison)
    if not known:
        why = (
            "Reference trainings have no inference."
            if comparison.reference
            else "No model has both a training and an inference run; run `phase=lifecycle`."
        )
        return Picture("breakeven", title, "", why=why)
    found = repayments(comparison)
    shown = _shown(known)
    labels = {result.label for result in shown}
    crossings = [pair for pair in found if {pair.dearer.label, pair.cheaper.label} <= labels]
    reach = [pair.inferences for pair in crossings] or [_payback(result) for result in shown]
    inferences = np.geomspace(max(1.0, min(reach) / 30), max(1e3, max(reach) * 30), 300)
    size, unit = scaled(max(_total(result, float(inferences[-1])) for result in shown))
    styles = line_looks(comparison.families, [result.family for result in shown])
    figure = new_figure(9.5, 5)
    axes = figure.add_subplot()
    for result, look in zip(shown, styles, strict=True):
        measured = result.provenance == "measured"
        axes.plot(
            inferences,
            [_total(result, float(n)) / size for n in inferences],
            color=look.colour,
            ls=look.dash,
            marker=look.marker,
            mfc=look.colour if measured else "white",
            markevery=40,
            ms=5,
            lw=1.4,
            label=f"{safe(result.label)}, {100 * (result.accuracy or 0.0):.1f} %",
        )
    for pair in crossings:
        axes.plot(pair.inferences, _total(pair.dearer, pair.inferences) / size, "o", color="black", ms=4, zorder=6)
    axes.set_xlim(inferences[0], inferences[-1])
    log_axis(axes, "x")
    log_axis(axes, "y")
    axes.set_xlabel("number of inferences (log scale)")
    axes.set_ylabel(f"training and inferences together ({unit}, log scale)")
    axes.legend(loc="upper left", title=f"model, {comparison.metric}")
    count = (
        f"{len(crossings)} crossings are marked."
        if crossings
        else "No two lines are known to cross: no expensive training pays off by more than its ±."
    )
    left_out = (
        f" Shown: the {len(shown)} of {len(known)} models with the cheapest inference." if len(known) > len(shown) else ""
    )
    caption = (
        "Each line is one model: its training, inherited energy included, plus the inferences. After a dot, the model that "
        f"cost more to train has used less in total. {count} Hollow: energies are estimated or mixed. The legend gives the "
        f"accuracy, because a cheaper model may also be less accurate.{left_out}"
    )
    return Picture("breakeven", title, caption, figure)


def _shown(known: list[ModelResult]) -> list[ModelResult]:
    return sorted(known, key=lambda result: result.per_sample_j.value if result.per_sample_j else 0.0)[:MOST_CURVES]


def _total(result: ModelResult, inferences: float) -> float:
    return (result.train_j or 0.0) + inferences * (result.per_sample_j.value if result.per_sample_j else 0.0)


def _payback(result: ModelResult) -> float:
    """So many inferences use as much as the training did."""
    return (result.train_j or 0.0) / result.per_sample_j.value if result.per_sample_j else 1.0
