"""Figure 2: accuracy and energy by the model's year, of training and of inference, with a linear and an exponential fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.report.comparison import Comparison
from experiments.report.figures.style import (
    COLOURS,
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
    safe,
    whisker,
)
from experiments.report.metrics import Fit, fit, scaled
from experiments.report.results import ModelResult

YEAR_WIDTH: Final = 0.7
_HOW: Final = (
    "Left: a straight line fitted to the accuracies. Right: an exponential fitted to the logarithms of the energies; R² is "
    "that of the logarithms. A slope that may be chance has no line (p is 0.05 or more). Whiskers: the ±."
)


def draw(comparison: Comparison) -> Picture:
    """Draw accuracy (left) and the energy of training (right) over the year of the model's paper."""
    title = "Accuracy and training energy by the model's year"
    # A training from random weights is there to compare a pretraining with; it is no evidence about its year.
    dated = [result for result in comparison.results if result.year and not result.variant]
    known = [result for result in dated if result.accuracy is not None and result.train_j]
    if not known:
        return Picture("years", title, "", why="No run has a model year, an accuracy and an energy.")
    families = looks(comparison.families)
    ranked = [result for result in known if result.ranked]
    fitted = _peers(comparison, ranked)
    accuracy = [Dot(result.year or 0, result.accuracy or 0.0, result, y_off=_off(result, "accuracy")) for result in known]
    energy = [Dot(result.year or 0, result.train_j or 0.0, result, y_off=_off(result, "train_j")) for result in known]
    energy, unit = _in_unit(energy)
    labels = (f"{comparison.metric} (%)", f"training energy ({unit}, log scale)")
    figure = _figure(accuracy, energy, fitted, labels, families)
    figure.legend(handles=result_legend(known, families), loc="outside lower center", ncols=6)
    alone = f" The fits use {fitted[0].provenance} energies of {fitted[0].device} only." if len(fitted) < len(ranked) else ""
    return Picture("years", title, f"{_HOW} Runs that did not learn or finish are not fitted.{alone}", figure)


def draw_inference(comparison: Comparison) -> Picture:
    """Draw the published accuracy (left) and the energy of an inference (right) over the year of the model's paper."""
    title = "Published accuracy and energy of an inference by the model's year"
    known = [
        result
        for result in comparison.results
        if result.year and result.published_top1 and result.per_sample_j and result.status == "completed"
    ]
    if len({result.year for result in known}) < 3:
        why = "Fewer than three years have a model with a published accuracy and an inference. `study=years` measures 67."
        return Picture("years_inference", title, "", why=why)
    fitted = _peers(comparison, known)
    accuracy = [Dot(result.year or 0, result.published_top1 or 0.0, result) for result in known]
    energy = [
        Dot(result.year or 0, result.per_sample_j.value, result, y_off=_off(result, "per_sample_j"))
        for result in known
        if result.per_sample_j
    ]
    energy, unit = _in_unit(energy)
    labels = ("published top-1 on ImageNet (%)", f"energy of an inference ({unit}, log scale)")
    figure = _figure(accuracy, energy, fitted, labels)
    for axes, dots, best in zip(figure.axes, (accuracy, energy), (1, -1), strict=True):
        spots = zip(_apart(dots), dots, strict=True)
        name_spots(axes, [Spot(x, dot.y, _short(dot) if _is_best(dot, dots, best) else "") for x, dot in spots])
    untrained = sum(any(one.end.is_untrained for one in result.lineages) for result in known)
    weights = (
        f" The weights of {untrained} of {len(known)} models were random: their energy is measured alone."
        if untrained
        else ""
    )
    caption = (
        f"{_HOW} Hollow: the energy is estimated. The accuracies are those of the weights of these names in timm's results, "
        "at the same image size; they were not measured here. Weights are often years younger than the architecture, and "
        f"better for it.{weights} Models of one year stand beside each other. Named: the most accurate by then, and the "
        "cheapest."
    )
    return Picture("years_inference", title, caption, figure)


def _off(result: ModelResult, which: str) -> float:
    estimate = result.estimate(which)
    return estimate.plus_minus if estimate else 0.0


def _in_unit(dots: list[Dot]) -> tuple[list[Dot], str]:
    """Energies in the unit that fits them, and that."""
    size, unit = scaled(max(dot.y for dot in dots))
    return [replace(dot, y=dot.y / size, y_off=dot.y_off / size) for dot in dots], unit


def _figure(
    accuracy: list[Dot],
    energy: list[Dot],
    fitted: list[ModelResult],
    labels: tuple[str, str],
    families: dict[str, Look] | None = None,
) -> Figure:
    """Both panels with their fits; without families in one colour."""
    figure = new_figure(9.5, 4.3)
    left, right = figure.subplots(1, 2)
    log_axis(right, "y")
    for axes, dots, label in zip((left, right), (accuracy, energy), labels, strict=True):
        if families is not None:
            draw_dots(axes, dots, families, shares="y" if axes is left else "")
        else:
            _draw_plain(axes, dots)
        line = _fit([dot for dot in dots if dot.result in fitted], exponential=axes is right)
        # A point says nothing about a time when nothing was built.
        draw_line(axes, line, [dot.x for dot in dots if dot.result in fitted])
        axes.set_title(f"accuracy: {said_linear(line)}" if axes is left else f"energy: {said_exponential(line)}")
        axes.set_xlabel("year of the model's paper")
        first, last = round(min(dot.x for dot in dots)), round(max(dot.x for dot in dots))
        axes.set_xlim(first - 0.7, last + 0.7)
        axes.set_xticks(range(first, last + 1, max(1, (last - first) // 6)))
        axes.set_ylabel(label)
    percent_axis(left, "y")
    return figure


def _draw_plain(axes: Axes, dots: list[Dot]) -> None:
    for x, dot in zip(_apart(dots), dots, strict=True):
        measured = dot.result.provenance == "measured"
        axes.errorbar(
            x,
            dot.y,
            yerr=whisker(dot.y, dot.y_off) if dot.y_off else None,
            fmt="o",
            ms=5,
            color=COLOURS[0],
            mfc=COLOURS[0] if measured else "white",
            elinewidth=0.9,
            capsize=2,
            alpha=0.8,
        )


def _apart(dots: list[Dot]) -> list[float]:
    """Where each is drawn, so that those of one year don't cover each other: in the order of their heights."""
    found = []
    for dot in dots:
        peers = sorted((other.y, n) for n, other in enumerate(dots) if other.x == dot.x)
        place = next(place for place, (_, n) in enumerate(peers) if dots[n] is dot)
        found.append(dot.x + YEAR_WIDTH * ((place + 0.5) / len(peers) - 0.5))
    return found


def _is_best(dot: Dot, dots: list[Dot], sign: int) -> bool:
    """Whether nothing of its year or before is better, the higher the better with a sign of 1."""
    return all(sign * other.y <= sign * dot.y for other in dots if other.x <= dot.x)


def _short(dot: Dot) -> str:
    """The model's name without its weights' tag: "resnet50" of "resnet (resnet50.tv_in1k)"."""
    name = dot.result.lineages[0].end.facts["timm_name"] if dot.result.lineages else dot.result.name
    return safe(name.partition(".")[0], 30)


def _fit(dots: list[Dot], *, exponential: bool) -> Fit | None:
    return fit([dot.x for dot in dots], [dot.y for dot in dots], exponential=exponential)


def _peers(comparison: Comparison, usable: list[ModelResult]) -> list[ModelResult]:
    """Those of the provenance and the devices that most of them have: two boards are no development over the years."""
    alike: dict[tuple[str, str], list[ModelResult]] = {}
    for result in usable:
        if result.provenance in comparison.provenances():
            alike.setdefault((result.provenance, result.device or result.inference_device), []).append(result)
    return max(alike.values(), key=len, default=[])


def draw_line(axes: Axes, line: Fit | None, years: list[float]) -> None:
    """Draw a fit over the years if it is sure, where it has a value that is possible."""
    if line is not None and line.is_sure:
        x = np.linspace(min(years), max(years), 200)
        y = line.at(x)
        possible = (y > 0) & (line.exponential | (y <= 1))  # no accuracy is above 1
        axes.plot(x[possible], y[possible], color="black", lw=1.2, ls="--", zorder=2)


def said_linear(line: Fit | None) -> str:
    """What a line through accuracies says."""
    if line is None:
        return "too few years for a fit"
    if not line.is_sure:
        return f"no sure change, p = {line.p:.2g}"
    return f"{100 * line.slope:+.2g} points a year, R² = {line.r2:.2f}"


def said_exponential(line: Fit | None) -> str:
    """What an exponential through energies says."""
    if line is None:
        return "too few years for a fit"
    if not line.is_sure:
        return f"no sure change, p = {line.p:.2g}"
    if line.doubling is None:
        return f"falls {100 * (1 - np.exp(line.slope)):.2g} % a year, R² = {line.r2:.2f}"
    return f"doubles every {line.doubling:.2g} years, R² = {line.r2:.2f}"
