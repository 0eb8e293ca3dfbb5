"""Figure 1: the electricity of each training against what homes and appliances use."""

from __future__ import annotations

from matplotlib.lines import Line2D

from experiments.report.comparison import Comparison
from experiments.report.figures.style import GREY, MOST_ROWS, SHORTEST, Picture, log_axis, looks, new_figure, safe, whisker
from experiments.report.household import marks
from lightning_watt.units import kwh


def draw(comparison: Comparison) -> Picture:
    """Draw a row for each result: its training energy with all it inherited, on a log axis, and household uses as lines."""
    title = "Training energy against household electricity"
    known = [(result, kwh(result.train_j)) for result in comparison.results if result.train_j]
    if not known:
        return Picture("household", title, "", why="No run has a training energy.")
    known.sort(key=lambda pair: pair[1])
    shown = known[-MOST_ROWS:]
    figure = new_figure(9, 1.9 + 0.2 * max(4, len(shown)))
    axes = figure.add_subplot()
    families = looks(comparison.families)
    for row, (result, energy_kwh) in enumerate(shown):
        look = families[result.family]
        colour = look.colour if result.ranked else GREY
        filled = result.provenance == "measured"
        if result.train_uncertainty_j:
            off = whisker(energy_kwh, kwh(result.train_uncertainty_j))
            axes.errorbar(energy_kwh, row, xerr=off, color=colour, lw=1, capsize=2)
        face = colour if filled else "white"
        axes.plot(energy_kwh, row, look.marker if result.ranked else "X", color=colour, mfc=face, mew=1.4, ms=6)
    axes.set_yticks(range(len(shown)), [safe(result.label, 44) for result, _ in shown])
    axes.set_ylim(-0.7, len(shown) - 0.3)
    axes.set_xlabel("training energy, inherited energy included (kWh, log scale)")
    # Down to where the whiskers end; a whisker to zero would reach down forever.
    lowest = min(max(value - kwh(result.train_uncertainty_j or 0.0), value * SHORTEST) for result, value in shown)
    smallest = min(lowest, kwh(marks()[0].joules)) if shown[-1][1] < 1e-2 else min(lowest, 0.2)
    axes.set_xlim(smallest / 3, max(shown[-1][1], 2500) * 3)
    log_axis(axes, "x")
    for mark in marks():
        x = kwh(mark.joules)
        if x < axes.get_xlim()[0]:
            continue
        axes.axvline(x, color="black", lw=1, ls="--", zorder=1)
        axes.annotate(
            mark.label,
            (x, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            rotation=40,
            ha="left",
            va="bottom",
            fontsize=8,
        )
    figure.legend(handles=_legend(comparison), loc="outside lower center", ncols=4)
    left_out = (
        f" Shown: the {len(shown)} of {len(known)} models that used the most energy." if len(known) > len(shown) else ""
    )
    caption = (
        "Each row is one model's training, inherited energy included, in its family's colour. Whiskers show the "
        "measurement's uncertainty. "
        "Dashed lines: household electricity; the table of household electricity gives the sources. Log scale." + left_out
    )
    return Picture("household", title, caption, figure)


def _legend(comparison: Comparison) -> list[Line2D]:
    results = [result for result in comparison.results if result.train_j]
    handles = []
    if any(result.provenance == "measured" and result.ranked for result in results):
        handles.append(Line2D([], [], ls="", marker="o", color=GREY, label="measured"))
    if any(result.provenance != "measured" and result.ranked for result in results):
        handles.append(Line2D([], [], ls="", marker="o", color=GREY, mfc="white", mew=1.4, label="estimated or mixed"))
    if any(not result.ranked for result in results):
        handles.append(
            Line2D([], [], ls="", marker="X", color=GREY, label="not ranked: no accuracy, did not learn or finish")
        )
    return [*handles, Line2D([], [], color="black", lw=1, ls="--", label="household use")]
