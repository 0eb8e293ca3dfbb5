"""What whole trainings would take, projected from parts of them: a row each, and by year; hollow, as none was measured."""

from __future__ import annotations

from collections import Counter
from typing import Final

import pandas as pd

from experiments.report.figures.style import (
    COLOURS,
    GREY,
    MARKERS,
    MOST_ROWS,
    SHORTEST,
    Picture,
    Spot,
    log_axis,
    name_spots,
    new_figure,
    percent_axis,
    safe,
    whisker,
)
from experiments.report.figures.years import draw_line, said_exponential, said_linear
from experiments.report.inputs.frames import SETUP
from experiments.report.metrics import fit
from lightning_watt.units import J_PER, unit_that_fits

MOST_CHARACTERS: Final = 100  # of a row's name


def draw(frame: pd.DataFrame) -> Picture:
    """Draw the projected energy of each row, with its 95 % interval and, if the training was run too, what it took.

    Args:
        frame: the rows of `projection.tables.held_against`.
    """
    title = "Projected, not measured: whole trainings"
    shown = frame[frame["projected_energy_j"] > 0].head(MOST_ROWS)
    if shown.empty:
        return Picture("projected", title, "", why="No projection has an energy above zero.")
    shown = shown.assign(name=row_names(shown)).sort_values("name", kind="stable")
    unit = unit_that_fits(shown["projected_energy_j"].median())
    figure = new_figure(10.0, 1.6 + 0.32 * len(shown))
    axes = figure.subplots()
    for row, (_, one) in enumerate(shown.iterrows()):
        value, low, high, same, truth = (
            one[name] / J_PER[unit]
            for name in ("projected_energy_j", "projected_low_j", "projected_high_j", "projected_plus_minus_j", "truth_j")
        )
        shortest = SHORTEST * value
        axes.plot([max(low, shortest), high], [row, row], color=GREY, lw=1.2, solid_capstyle="butt")
        axes.plot([max(value - same, shortest), value + same], [row, row], color=COLOURS[0], lw=4, solid_capstyle="butt")
        axes.plot(value, row, marker=MARKERS[0], color=COLOURS[0], mfc="white", ms=8, zorder=3)
        if not pd.isna(truth):
            axes.plot(truth, row, marker=MARKERS[3], color=COLOURS[1], zorder=4)
    axes.set_yticks(range(len(shown)), [safe(name, MOST_CHARACTERS) for name in shown["name"]], fontsize=8)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel(f"projected energy of the whole training, {unit} (log scale)")
    axes.grid(visible=False, axis="y")
    log_axis(axes, "x")
    caption = (
        "Each circle is projected from a part of a training; hollow, because the whole was not measured. Thick line: 95 % "
        "interval by the same devices' reckoning. Thin line: with the devices' errors of scale. Diamond: what the training "
        "took when it was run with the same settings, by the same devices. Rows of one training are named by what differs. "
        f"A line that would reach zero ends at {SHORTEST:g} of the value."
    )
    return Picture("projected", title, caption, figure)


def row_names(frame: pd.DataFrame) -> list[str]:
    """What each projection is of; those of one training also by the settings in which they differ, and by their round."""
    base = (frame["timm_name"].fillna(frame["model"]) + ", " + frame["data"] + ", " + frame["projects"]).tolist()
    names = list(base)
    for setting in SETUP:
        values = frame[setting.replace(".", "_")].astype(str)
        varies = (values.groupby(base).transform("nunique") > 1).tolist()
        for n, value in enumerate(values):
            names[n] += f", {setting.rpartition('.')[2]}={value}" if varies[n] else ""
    seen = Counter(names)
    rounds = frame["round"].tolist()
    return [
        name if seen[name] == 1 or pd.isna(turn) else f"{name}, round {turn:.0f}"
        for name, turn in zip(names, rounds, strict=True)
    ]


def draw_years(frame: pd.DataFrame) -> Picture:
    """Draw the published accuracy (left) and the projected energy of a training (right) over the year of the model's paper.

    Args:
        frame: the rows of `projection.tables.held_against`.
    """
    title = "Published accuracy and projected training energy by the model's year"
    known = frame[(frame["projected_energy_j"] > 0) & frame["year"].notna() & frame["published_top1"].notna()]
    known = known.drop_duplicates("timm_name", keep="last").sort_values("year")
    if known["year"].nunique() < 3:
        why = (
            "Fewer than three years have a model with a published accuracy and a projection. `study=years_training` has 33."
        )
        return Picture("projected_years", title, "", why=why)
    unit = unit_that_fits(known["projected_energy_j"].median())
    years = known["year"].tolist()
    energies = (known["projected_energy_j"] / J_PER[unit]).tolist()
    figure = new_figure(9.5, 4.3)
    left, right = figure.subplots(1, 2)
    log_axis(right, "y")
    on_one = known["device"].nunique() == 1  # whose error of scale is in all of them
    off_j = known["projected_plus_minus_j"] if on_one else known["projected_energy_j"] - known["projected_low_j"]
    offs = (off_j / J_PER[unit]).tolist()
    for axes, values in ((left, known["published_top1"].tolist()), (right, energies)):
        for year, value, off in zip(years, values, offs, strict=True):
            bar = whisker(value, off) if axes is right else None
            axes.errorbar(year, value, yerr=bar, fmt="o", ms=5, color=COLOURS[0], mfc="white", elinewidth=0.9, capsize=2)
        line = fit(years, values, exponential=axes is right)
        draw_line(axes, line, years)
        axes.set_title(f"accuracy: {said_linear(line)}" if axes is left else f"energy: {said_exponential(line)}")
        axes.set_xlabel("year of the model's paper")
        axes.set_xlim(min(years) - 0.7, max(years) + 0.7)
    left.set_ylabel("published top-1 on ImageNet (%)")
    right.set_ylabel(f"projected energy of the training ({unit}, log scale)")
    percent_axis(left, "y")
    names = known["timm_name"].str.partition(".")[0].tolist()
    dearest, cheapest = energies.index(max(energies)), energies.index(min(energies))
    marked = {dearest: names[dearest], cheapest: names[cheapest]}
    name_spots(right, [Spot(*spot, marked.get(n, "")) for n, spot in enumerate(zip(years, energies, strict=True))])
    scale = "without the device's error of scale, which is in all of them" if on_one else "with the devices' errors of scale"
    caption = (
        "Hollow: no training was run. Each energy is projected from a part, for the published number of epochs of "
        "ImageNet-1k, on the machine of the part and with this project's recipe, not with that of the paper. Whiskers: "
        f"the 95 % interval {scale}. Left: a straight line fitted to the accuracies, which are published, often of younger "
        "weights. Right: an exponential fitted to the logarithms of the energies. A slope that may be chance has no line "
        "(p is 0.05 or more). Named: the most and the fewest kWh."
    )
    return Picture("projected_years", title, caption, figure)
