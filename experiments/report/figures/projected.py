"""What whole trainings would take, projected from parts of them: a row each, hollow, because nothing here was measured."""

from __future__ import annotations

import pandas as pd

from experiments.report.figures.style import COLOURS, GREY, MARKERS, MOST_ROWS, Picture, log_axis, new_figure, safe
from lightning_watt.units import J_PER, unit_that_fits


def draw(frame: pd.DataFrame) -> Picture:
    """Draw the projected energy of each row, with its 95 % interval and, if the training was run too, what it took.

    Args:
        frame: the rows of `projection.tables.held_against`.
    """
    title = "Projected, not measured: whole trainings"
    shown = frame[frame["projected_energy_j"] > 0].head(MOST_ROWS)
    if shown.empty:
        return Picture("projected", title, "", why="No projection has an energy above zero.")
    unit = unit_that_fits(shown["projected_energy_j"].median())
    figure = new_figure(8.0, 1.6 + 0.32 * len(shown))
    axes = figure.subplots()
    for row, (_, one) in enumerate(shown.iterrows()):
        value, low, high, same, truth = (
            one[name] / J_PER[unit]
            for name in ("projected_energy_j", "projected_low_j", "projected_high_j", "projected_plus_minus_j", "truth_j")
        )
        axes.plot([max(low, value / 1000), high], [row, row], color=GREY, lw=1.2, solid_capstyle="butt")
        axes.plot([max(value - same, value / 1000), value + same], [row, row], color=COLOURS[0], lw=4, solid_capstyle="butt")
        axes.plot(value, row, marker=MARKERS[0], color=COLOURS[0], mfc="white", ms=8, zorder=3)
        if not pd.isna(truth):
            axes.plot(truth, row, marker=MARKERS[3], color=COLOURS[1], zorder=4)
    names = [
        safe(f"{one['timm_name'] or one['model']}, {one['data']}, {one['projects']}", 48) for _, one in shown.iterrows()
    ]
    axes.set_yticks(range(len(shown)), names)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel(f"projected energy of the whole training, {unit} (log scale)")
    axes.grid(visible=False, axis="y")
    log_axis(axes, "x")
    caption = (
        "Each circle is projected from a part of a training; hollow, because the whole was not measured. Thick line: 95 % "
        "interval by the same devices' reckoning. Thin line: with the devices' errors of scale. Diamond: what the training "
        "took when it was run with the same settings, by the same devices."
    )
    return Picture("projected", title, caption, figure)
