"""SAM's sensitivity: the pole in energy, and how ranks change with alpha and with the unit."""

from __future__ import annotations

from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from experiments.report.comparison import Comparison
from experiments.report.figures.style import (
    GREY,
    Dot,
    Look,
    Picture,
    draw_dots,
    line_looks,
    log_axis,
    looks,
    new_figure,
    safe,
)
from experiments.report.metrics import in_unit, sam_equation
from experiments.report.results import ModelResult
from experiments.report.sensitivity import Setting, path_of, peers, sensitivity

MOST_BUMPS: Final = 12
BARS: Final = 0.3
"""How far the bars of one setting lie apart, of the way to the next setting."""
MOST_LINES: Final = 26
"""Lines of text that have room next to a panel of ranks."""


def draw(comparison: Comparison) -> Picture:
    """Draw SAM over energy with its pole, and ranks over alpha and over the unit."""
    title = "SAM's sensitivity to alpha, beta and unit"
    ranked = peers(comparison)
    if len(ranked) < 2:
        why = "Fewer than two models can be ranked together (finished, learnt, with the same kind of energy)."
        return Picture("sensitivity", title, "", why=why)
    found = sensitivity(ranked, comparison.settings)
    figure = new_figure(13, 9)
    top, plain, shifted, units = figure.subplot_mosaic("AAA;BCD", width_ratios=(1, 1, 2), height_ratios=(1, 1.1)).values()
    bumps = _bumped(ranked, found)
    drawn = line_looks(comparison.families, [ranked[n].family for n in bumps])
    styles = {ranked[n].label: look for n, look in zip(bumps, drawn, strict=True)}
    _pole(top, comparison, ranked)
    _alphas(plain, path_of(found, "alpha", shifted=False), ranked, bumps, styles)
    plain.set_title("rank by SAM over alpha")
    _alphas(shifted, path_of(found, "alpha", shifted=True), ranked, bumps, styles)
    shifted.set_title("rank by shifted SAM over alpha")
    _units(units, found, ranked, bumps, styles)
    settings = comparison.settings
    only = f" Only {ranked[0].provenance} energies are used." if len(comparison.provenances()) > 1 else ""
    some = (
        f" Lines: the {len(bumps)} of {len(ranked)} models that rank highest under any setting."
        if len(ranked) > len(bumps)
        else ""
    )
    caption = (
        f"Top: SAM over energy at three accuracies (alpha = {settings.alpha:g}, beta = {settings.beta:g}), with its "
        f"pole at 1 {settings.unit}. Dotted: below the pole the equation is negative, which is not a score. Dashed: shifted "
        "SAM. Markers are the models, as in figure 3. A triangle at an edge is a SAM beyond that edge, or an undefined SAM "
        "left of the pole. "
        "The other panels show how ranks change. Beta scales all scores by the same factor and changes no rank. "
        f"Lines are ranks by the values alone; pale bars are the places that a model may have within its ±.{only}{some}"
    )
    return Picture("sensitivity", title, caption, figure)


def _pole(axes: Axes, comparison: Comparison, ranked: list[ModelResult]) -> None:
    """Draw SAM over energy on both sides of the pole, and the models."""
    settings = comparison.settings
    energies = [in_unit(result.train_j or 0.0, settings.unit) for result in ranked if result.train_j]
    low, high = min([0.1, *energies]) / 2, max([100.0, *energies]) * 2
    best = max(result.accuracy or 0.0 for result in ranked)
    limit = max(2.5 * settings.beta * best**settings.alpha, 1e-9)
    below, above = np.geomspace(low, 0.9999, 400), np.geomspace(1.0001, high, 400)
    every = np.geomspace(low, high, 400)
    for accuracy, width in zip((best, 0.9 * best, 0.75 * best), (1.8, 1.2, 0.8), strict=True):
        curve = sam_equation(accuracy, above, settings.alpha, settings.beta)
        negative = sam_equation(accuracy, below, settings.alpha, settings.beta)
        finite = sam_equation(accuracy, every + 10, settings.alpha, settings.beta)
        axes.plot(above, curve, color="black", lw=width, label=f"accuracy {100 * accuracy:.3g} %")
        axes.plot(below, negative, color=GREY, lw=width, ls=":")
        axes.plot(every, finite, color="black", lw=width, ls="--")
    axes.axvline(1, color="#D55E00", lw=1.4)
    axes.axvspan(low, 1, color="#D55E00", alpha=0.08, lw=0)
    axes.annotate(
        f"pole at 1 {settings.unit}: undefined to its left",
        (1, 0.04),
        xycoords=("data", "axes fraction"),
        xytext=(5, 0),
        textcoords="offset points",
        fontsize=8,
        color="#A04000",
    )
    families = looks(comparison.families)
    dots: list[Dot] = []
    for result in ranked:
        x, score = in_unit(result.train_j or 0.0, settings.unit), comparison.sam(result)
        if score is not None and score < limit:
            dots.append(Dot(x, score, result, 30.0))
        else:
            edge, shape = (-limit, "v") if score is None else (limit, "^")
            axes.plot(x, 0.97 * edge, shape, color="#D55E00", ms=6, zorder=5)
    draw_dots(axes, dots, families)
    axes.set_ylim(-limit, limit)
    axes.set_xlim(low, high)
    log_axis(axes, "x")
    axes.set_xlabel(f"training energy ({settings.unit}, log scale)")
    axes.set_ylabel("SAM (no unit)")
    axes.set_title("SAM over energy")
    handles, labels = axes.get_legend_handles_labels()
    handles += [Line2D([], [], color=GREY, ls=":"), Line2D([], [], color="black", ls="--")]
    axes.legend(handles, [*labels, "equation below its pole: no score", "shifted SAM"], loc="upper right")


def _bumped(ranked: list[ModelResult], found: list[Setting]) -> list[int]:
    """The results whose ranks are drawn: those that come highest under any setting."""
    best = [min((setting.ranks[n] or len(ranked) for setting in found), default=0) for n in range(len(ranked))]
    return sorted(range(len(ranked)), key=lambda n: best[n])[:MOST_BUMPS]


def _alphas(axes: Axes, path: list[Setting], ranked: list[ModelResult], bumps: list[int], styles: dict[str, Look]) -> None:
    """Draw ranks over alpha."""
    _lines(axes, 0, path, ranked, bumps, styles)
    _name_ends(axes, len(path) - 1, path[-1], ranked, bumps)
    axes.set_xticks(range(len(path)), [f"{setting.settings.alpha:g}" for setting in path])
    axes.set_xlim(-0.2, len(path) - 0.8)
    axes.set_xlabel("alpha")
    _rank_axis(axes, [path], bumps)


def _units(axes: Axes, found: list[Setting], ranked: list[ModelResult], bumps: list[int], styles: dict[str, Look]) -> None:
    """Draw ranks over the unit for both forms, side by side on one axis."""
    plain, shifted = (path_of(found, "unit", shifted=shifted) for shifted in (False, True))
    gap = len(plain) + 1
    _lines(axes, 0, plain, ranked, bumps, styles)
    _lines(axes, gap, shifted, ranked, bumps, styles)
    _name_ends(axes, gap + len(shifted) - 1, shifted[-1], ranked, bumps)
    names = [setting.settings.unit + _missing(setting) for setting in plain]
    positions = [*range(len(plain)), *range(gap, gap + len(shifted))]
    axes.set_xticks(positions, [*names, *(setting.settings.unit for setting in shifted)])
    axes.set_xlim(-0.4, gap + len(shifted) - 0.8)
    axes.set_xlabel("unit of E: SAM (left), shifted SAM (right)")
    axes.set_title("rank over the unit")
    _rank_axis(axes, [plain, shifted], bumps)


def _lines(
    axes: Axes, start: int, path: list[Setting], ranked: list[ModelResult], bumps: list[int], styles: dict[str, Look]
) -> None:
    """Draw each result's rank over a row of settings, and what it may be; it breaks off where SAM is undefined."""
    for number, n in enumerate(bumps):
        look = styles[ranked[n].label]
        ranks = [float(setting.ranks[n] or np.nan) for setting in path]
        axes.plot(range(start, start + len(path)), ranks, color=look.colour, marker=look.marker, ls=look.dash, ms=5, lw=1.3)
        beside = BARS * ((number + 1) / (len(bumps) + 1) - 0.5)  # so that bars of one place can be told apart
        for x, setting in enumerate(path, start):
            place = setting.places[n]
            if place and place[0] < place[1]:
                axes.vlines(x + beside, *place, color=look.colour, alpha=0.35, lw=2.5)


def _name_ends(axes: Axes, x: float, last: Setting, ranked: list[ModelResult], bumps: list[int]) -> None:
    """Write names at the right end of their lines, pushed apart if ranks lie too close for a line of text."""
    ends = sorted((place, n) for n in bumps if (place := last.ranks[n]) is not None)
    if not ends:
        return
    worst = max(place for place, _ in ends)
    line = worst / MOST_LINES
    at = -line
    for place, n in ends:
        at = max(place, at + line)
        name = safe(ranked[n].label)
        axes.annotate(name, (x, at), xytext=(10, 0), textcoords="offset points", va="center", fontsize=7)


def _rank_axis(axes: Axes, paths: list[list[Setting]], bumps: list[int]) -> None:
    """Number the ranks from 1 downwards."""
    worst = max(((setting.places[n] or (1, 1))[1] for path in paths for setting in path for n in bumps), default=1)
    step = max(1, -(-worst // 12))
    axes.set_yticks(sorted({1, *range(step, worst + 1, step)} - ({2} if step > 2 else set())))
    axes.set_ylim(worst + 0.6, 0.4)
    axes.set_ylabel("rank (1 is best)")


def _missing(setting: Setting) -> str:
    """How many have no SAM, under a tick's label."""
    if not setting.undefined:
        return ""
    return "\nall\nundef." if setting.undefined == len(setting.ranks) else f"\n{setting.undefined}\nundef."
