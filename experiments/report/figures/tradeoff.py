"""Figure 3: accuracy against energy and against SAM, with the Pareto front."""

from __future__ import annotations

import math
from typing import Final, Literal

from matplotlib.axes import Axes
from matplotlib.cbook import STEP_LOOKUP_MAP

from experiments.report.comparison import Comparison
from experiments.report.figures.style import (
    GREY,
    MOST_NAMED,
    Dot,
    Look,
    Picture,
    Spot,
    draw_dots,
    log_axis,
    looks,
    name_spots,
    new_figure,
    percent_axis,
    result_legend,
)
from experiments.report.metrics import pareto_ranks, scaled
from experiments.report.results import ModelResult

MANY: Final = 100


def draw(comparison: Comparison) -> Picture:
    """Draw accuracy over energy, SAM over accuracy and shifted SAM over accuracy; a marker's area shows the energy."""
    title = "Accuracy against energy and SAM"
    known = [result for result in comparison.results if result.accuracy is not None and result.train_j]
    if not known:
        return Picture("tradeoff", title, "", why="No run has both an accuracy and a training energy.")
    families = looks(comparison.families)
    sizes = _sizes(known)
    figure = new_figure(12, 4.8)
    axes = figure.subplots(1, 3)
    unit = comparison.settings.unit
    _over_energy(axes[0], comparison.metric, known, families, sizes)
    undefined = _over_accuracy(axes[1], comparison, known, families, sizes, shifted=False)
    _over_accuracy(axes[2], comparison, known, families, sizes, shifted=True)
    axes[1].set_title(f"SAM (E in {unit})" + (f", {undefined} undefined at or below 1 {unit}" if undefined else ""))
    axes[2].set_title("shifted SAM, defined for every energy")
    figure.legend(handles=result_legend(known, families), loc="outside lower center", ncols=6)
    fronts = comparison.pareto()
    best = [result for result in known if fronts.get(result.label) in ("yes", "perhaps")]
    _front(axes, comparison, known)
    _name(axes, comparison, known, best, sizes)
    settings = comparison.settings
    caption = (
        f"SAM with alpha = {settings.alpha:g}, beta = {settings.beta:g}, E in {settings.unit}, inherited energy "
        "included. The area of a marker grows with the logarithm of the energy. Dashed: the Pareto front over the panel's "
        "two axes, by the values; models within the ± of the front are named too. Whiskers: the ±. Measured and estimated "
        "energies have "
        f"separate fronts. Triangles at the bottom: SAM is undefined at or below 1 {settings.unit}."
    )
    return Picture("tradeoff", title, caption, figure)


def _sizes(known: list[ModelResult]) -> dict[str, float]:
    """Marker areas from 25 to 250 square points (a fifth of that for hundreds), even in the energy's logarithm."""
    shrink = 1.0 if len(known) <= MANY else 0.2
    logs = {result.label: math.log10(result.train_j or 1.0) for result in known}
    low, high = min(logs.values()), max(logs.values())
    return {name: shrink * (25 + 225 * (value - low) / (high - low) if high > low else 80) for name, value in logs.items()}


def _over_energy(
    axes: Axes, metric: str, known: list[ModelResult], families: dict[str, Look], sizes: dict[str, float]
) -> None:
    size, unit = scaled(max(result.train_j or 0.0 for result in known))
    dots = [
        Dot(
            (result.train_j or 0.0) / size,
            result.accuracy or 0.0,
            result,
            sizes[result.label],
            result.estimate("train_j").plus_minus / size,
            result.estimate("accuracy").plus_minus,
        )
        for result in known
    ]
    draw_dots(axes, dots, families, shares="y")
    axes.margins(0.12)
    axes.set_xlabel(f"training energy ({unit}, log scale)")
    axes.set_ylabel(f"{metric} (%)")
    axes.set_title("accuracy over energy")
    log_axis(axes, "x")
    percent_axis(axes, "y")


def _over_accuracy(
    axes: Axes,
    comparison: Comparison,
    known: list[ModelResult],
    families: dict[str, Look],
    sizes: dict[str, float],
    *,
    shifted: bool,
) -> int:
    """Draw SAM over accuracy; returns how many have none."""
    scores = {result.label: comparison.sam(result, shifted=shifted) for result in known}
    found = [(result, scores[result.label]) for result in known]
    which = "sam_shifted" if shifted else "sam"
    offs = {result.label: result.estimate(which, comparison.settings) for result in known}
    dots = [
        Dot(
            result.accuracy or 0.0,
            score,
            result,
            sizes[result.label],
            result.estimate("accuracy").plus_minus,
            _finite(offs[result.label].plus_minus),
        )
        for result, score in found
        if score is not None
    ]
    draw_dots(axes, dots, families, shares="x")
    undefined = [result for result, score in found if score is None]
    axes.margins(0.12)
    for result in undefined:
        axes.plot(result.accuracy or 0.0, 0.01, "v", color=GREY, mfc="white", transform=axes.get_xaxis_transform(), zorder=5)
    if not dots:
        unit = comparison.settings.unit
        why = f"No SAM: every model used\n1 {unit} or less, where it is undefined."
        axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center")
        axes.set_yticks([])
    axes.set_xlabel(f"{comparison.metric} (%)")
    axes.set_ylabel("shifted SAM (no unit)" if shifted else "SAM (no unit)")
    percent_axis(axes, "x")
    return len(undefined)


def _finite(plus_minus: float) -> float:
    """A plus or minus as a whisker can show it; one that reaches SAM's pole has no end, and none is drawn."""
    return plus_minus if math.isfinite(plus_minus) else 0.0


def _front(axes: list[Axes], comparison: Comparison, known: list[ModelResult]) -> None:
    """Draw each panel's own Pareto front as a staircase to the frame, one for each provenance."""
    size, _ = scaled(max(result.train_j or 0.0 for result in known))
    for provenance in comparison.provenances():
        peers = comparison.ranked(provenance)
        ranks = pareto_ranks([e.accuracy or 0.0 for e in peers], [e.train_j or 0.0 for e in peers])
        first = [e for e, rank in zip(peers, ranks, strict=True) if rank == 1]
        spots = sorted(((e.train_j or 0.0) / size, e.accuracy or 0.0) for e in first)
        if spots:
            (low, high), (bottom, top) = axes[0].get_xlim(), axes[0].get_ylim()
            _stairs(axes[0], [(spots[0][0], bottom), *spots, (high, spots[-1][1])], "steps-post")
            axes[0].set(xlim=(low, high), ylim=(bottom, top))
        for panel, shifted in ((axes[1], False), (axes[2], True)):
            scores = [(e.accuracy or 0.0, comparison.sam(e, shifted=shifted)) for e in comparison.ranked(provenance)]
            shown = [(accuracy, score) for accuracy, score in scores if score is not None]
            ranks = pareto_ranks([accuracy for accuracy, _ in shown], [-score for _, score in shown])
            front = sorted(spot for spot, rank in zip(shown, ranks, strict=True) if rank == 1)
            if front:
                (low, high), (bottom, top) = panel.get_xlim(), panel.get_ylim()
                _stairs(panel, [(low, front[0][1]), *front, (front[-1][0], bottom)], "steps-pre")
                panel.set(xlim=(low, high), ylim=(bottom, top))


def _stairs(axes: Axes, spots: list[tuple[float, float]], style: Literal["steps-pre", "steps-post"]) -> None:
    x, y = STEP_LOOKUP_MAP[style](*zip(*spots, strict=True))  # as corners, which names keep clear of
    axes.plot(x, y, color=GREY, lw=1.2, ls=(0, (4, 2)), zorder=2)


def _name(
    axes: list[Axes], comparison: Comparison, known: list[ModelResult], best: list[ModelResult], sizes: dict[str, float]
) -> None:
    """Name the front's models; the others too if there are few."""
    size, _ = scaled(max(result.train_j or 0.0 for result in known))
    front = {result.label for result in best}
    others = [result for result in known if result.label not in front]
    named = {result.label for result in (known if len(known) <= MOST_NAMED else best)}

    def spot(result: ModelResult, x: float, y: float) -> Spot:
        return Spot(x, y, result.label if result.label in named else "", math.sqrt(sizes[result.label]) / 2)

    name_spots(
        axes[0], [spot(result, (result.train_j or 0.0) / size, result.accuracy or 0.0) for result in (*best, *others)]
    )
    for panel, shifted in ((axes[1], False), (axes[2], True)):
        scored = [(result, comparison.sam(result, shifted=shifted)) for result in (*best, *others)]
        name_spots(panel, [spot(result, result.accuracy or 0.0, score) for result, score in scored if score is not None])
