"""Figure 2: accuracy and training energy by the model's year, with a linear and an exponential fit."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.report.comparison import Comparison
from experiments.report.figures.style import (
    Dot,
    Look,
    Picture,
    draw_dots,
    log_axis,
    looks,
    new_figure,
    percent_axis,
    result_legend,
    scaled,
)
from experiments.report.metrics import Fit, fit
from experiments.report.results import ModelResult


def draw(comparison: Comparison) -> Picture:
    """Draw accuracy (left) and energy (right) over the year of the model's paper."""
    title = "Accuracy and training energy by the model's year"
    # A training from random weights is there to compare a pretraining with; it is no evidence about its year.
    dated = [result for result in comparison.results if result.year and not result.variant]
    known = [result for result in dated if result.accuracy is not None and result.train_j]
    if not known:
        why = "No run has a model year, an accuracy and an energy."
        return Picture("years", title, "", why=why)
    families = looks(comparison.families)
    size, unit = scaled(max(result.train_j or 0.0 for result in known))
    figure = new_figure(9.5, 4.3)
    left, right = figure.subplots(1, 2)
    draw_dots(
        left,
        [
            Dot(result.year or 0, result.accuracy or 0.0, result, y_off=result.estimate("accuracy").plus_minus)
            for result in known
        ],
        families,
    )
    draw_dots(
        right,
        [
            Dot(
                result.year or 0,
                (result.train_j or 0.0) / size,
                result,
                y_off=result.estimate("train_j").plus_minus / size,
            )
            for result in known
        ],
        families,
    )
    fitted = _peers(comparison, known)
    years = [float(result.year or 0) for result in fitted]
    straight = fit(years, [result.accuracy or 0.0 for result in fitted])
    rising = fit(years, [(result.train_j or 0.0) / size for result in fitted], exponential=True)
    # A point says nothing about a time when nothing was built.
    for axes, line in ((left, straight), (right, rising)):
        _line(axes, line, years)
    left.set_ylabel("top-1 accuracy (%)")
    left.set_title("accuracy: " + _linear(straight))
    percent_axis(left, "y")
    right.set_ylabel(f"training energy ({unit}, log scale)")
    right.set_title("energy: " + _exponential(rising))
    log_axis(right, "y")
    for axes in (left, right):
        axes.set_xlabel("year of the model's paper")
        first, last = min(result.year or 0 for result in known), max(result.year or 0 for result in known)
        axes.set_xlim(first - 0.7, last + 0.7)
        axes.set_xticks(range(first, last + 1, max(1, (last - first) // 6)))
    _legend(figure, known, families)
    held = {result.provenance for result in known if result.ranked}
    alone = f" The fits use {fitted[0].provenance} energies only." if len(held) > 1 and fitted else ""
    caption = (
        "Left: a straight line fitted to the accuracies. Right: an exponential fitted to the logarithms of the "
        "energies; R² is that of the logarithms. Whiskers: the ±. Runs that did not learn or finish are not fitted." + alone
    )
    return Picture("years", title, caption, figure)


def _peers(comparison: Comparison, known: list[ModelResult]) -> list[ModelResult]:
    """The ranked results of the provenance that most of them have."""
    peers = [
        [result for result in known if result.ranked and result.provenance == kind] for kind in comparison.provenances()
    ]
    return max(peers, key=len, default=[])


def _line(axes: Axes, line: Fit | None, years: list[float]) -> None:
    if line is not None:
        x = np.linspace(min(years), max(years), 200)
        y = line.at(x)
        possible = (y > 0) & (line.exponential | (y <= 1))  # no accuracy is above 1
        axes.plot(x[possible], y[possible], color="black", lw=1.2, ls="--", zorder=2)


def _linear(line: Fit | None) -> str:
    if line is None:
        return "too few years for a fit"
    return f"{100 * line.slope:+.2g} points a year, R² = {line.r2:.2f}"


def _exponential(line: Fit | None) -> str:
    if line is None:
        return "too few years for a fit"
    if line.doubling is None:
        return f"falls {100 * (1 - np.exp(line.slope)):.2g} % a year, R² = {line.r2:.2f}"
    return f"doubles every {line.doubling:.2g} years, R² = {line.r2:.2f}"


def _legend(figure: Figure, known: list[ModelResult], families: dict[str, Look]) -> None:
    figure.legend(handles=result_legend(known, families), loc="outside lower center", ncols=6)
