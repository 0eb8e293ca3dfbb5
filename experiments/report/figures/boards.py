"""The same recipes on each device: the ratio between devices, and the order of the models on each."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from experiments.report.certainty import Estimate, on_one_device
from experiments.report.comparison import Comparison, short
from experiments.report.devices.recipes import Recipe, device_ratio, in_order, side_by_side
from experiments.report.devices.tables import MOST_DEVICES, orders_of, verdict
from experiments.report.figures.style import (
    COLOURS,
    MARKERS,
    MOST_ROWS,
    Look,
    Picture,
    line_looks,
    log_axis,
    new_figure,
    safe,
    whisker,
)
from experiments.report.metrics import Amount, scaled

PANELS = {"train": "train_j", "inference": "per_sample_j"}
"""The two halves of the figure, and the energy that each shows."""


def draw(comparison: Comparison) -> Picture:
    """Draw the ratio between devices (above, a row a recipe) and each recipe's energy by device (below, a line a recipe).

    Training is on the left, inference on the right, as far as there are any.
    """
    title = "The same recipes on each device"
    recipes = side_by_side(comparison)
    devices = in_order(recipes)[:MOST_DEVICES]
    base, names = (devices[0], devices[1:]) if devices else ("", [])
    found = [(recipe, _ratios(recipe, names, base)) for recipe in recipes]
    shown = [(recipe, ratios) for recipe, ratios in found if ratios][:MOST_ROWS]
    if not shown:
        why = "No recipe was run on two devices. `study=boards` runs the same jobs on each board of a machine."
        return Picture("boards", title, "", why=why)
    rows = 0.4 * len(shown)
    halves = [which for which in PANELS if any(kind == which for _, ratios in shown for kind, _ in ratios)]
    figure = new_figure(9.5, 5.4 + rows)
    above, below = figure.subplots(2, len(halves), height_ratios=(1.2 + rows, 2.6), squeeze=False)
    for axes in above[1:]:
        axes.sharey(above[0])
        axes.tick_params(labelleft=False)
    for which, axes in zip(halves, above, strict=True):
        _panel(axes, which, [ratios for _, ratios in shown], names)
        axes.set_xlabel(f"energy by that on {safe(short(base), 30)} (log scale)")
    above[0].set_yticks(range(len(shown)), [safe(recipe.label) for recipe, _ in shown])
    above[0].set_ylim(len(shown) - 0.4, -0.6)
    figure.legend(handles=_devices_legend(names), loc="outside upper center", ncols=4)
    drawn = [recipe for recipe, _ in shown]
    of_lines = line_looks(comparison.families, [_family(recipe) for recipe in drawn])
    for which, axes in zip(halves, below, strict=True):
        _lines(axes, which, drawn, devices, of_lines)
    handles = [
        Line2D([], [], color=look.colour, marker=look.marker, ls=look.dash, label=safe(recipe.label))
        for recipe, look in zip(drawn, of_lines, strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, handlelength=4)
    caption = (
        f"Each recipe is the same on each device but for the seed. Above: its energy by that on {base}. Whiskers: the "
        "ratio's ±, with both devices' gain errors and the spread over seeds. A row whose whisker crosses 1 shows no "
        "difference. Below: its energy on each device. Whiskers: what counts on one device, the boundary part and the "
        f"spread over seeds. Lines that cross: another order. {verdict(orders_of(comparison))} Hollow: the energies are "
        "estimated or mixed."
    )
    return Picture("boards", title, caption, figure)


def _family(recipe: Recipe) -> str:
    return next(iter((*recipe.trained.values(), *recipe.ran.values()))).family


def _devices_legend(names: list[str]) -> list[Line2D]:
    return [
        Line2D([], [], ls="", marker=MARKERS[n % len(MARKERS)], color=COLOURS[n % len(COLOURS)], label=safe(short(name)))
        for n, name in enumerate(names)
    ]


def _ratios(recipe: Recipe, names: list[str], base: str) -> dict[tuple[str, str], tuple[Amount, bool]]:
    """The recipe's ratios by what was measured and device, with whether they are measured."""
    found = {}
    for name in names:
        for which, energy in PANELS.items():
            ratio = device_ratio(recipe.trained if which == "train" else recipe.ran, name, base, energy)
            if ratio is not None:
                found[which, name] = (ratio, recipe.provenance == "measured")
    return found


def _panel(axes: Axes, which: str, rows: list[dict[tuple[str, str], tuple[Amount, bool]]], names: list[str]) -> None:
    for n, name in enumerate(names):
        colour, marker = COLOURS[n % len(COLOURS)], MARKERS[n % len(MARKERS)]
        apart = 0.5 * ((n + 1) / (len(names) + 1) - 0.5)
        for row, ratios in enumerate(rows):
            if (which, name) not in ratios:
                continue
            ratio, measured = ratios[which, name]
            axes.errorbar(
                ratio.value,
                row + apart,
                xerr=whisker(ratio.value, ratio.plus_minus or 0.0),
                color=colour,
                marker=marker,
                mfc=colour if measured else "white",
                capsize=3,
                lw=1.2,
            )
    axes.axvline(1, color="black", lw=1, ls="--", zorder=1)
    axes.set_title(which)
    axes.grid(visible=False, axis="y")
    log_axis(axes, "x")
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.8), max(high, 1.25))
    log_axis(axes, "x")  # whose ticks depend on the limits


def _lines(axes: Axes, which: str, recipes: list[Recipe], devices: list[str], of_lines: list[Look]) -> None:
    """Each recipe's energy on each device, joined by a line."""
    known: list[list[tuple[int, Estimate]]] = []
    for recipe in recipes:
        results = recipe.trained if which == "train" else recipe.ran
        estimates = [results[name].estimate(PANELS[which]) if name in results else None for name in devices]
        known.append([(place, one) for place, one in enumerate(estimates) if one is not None])
    axes.set_title(f"{which}, by device")
    axes.set_xticks(range(len(devices)), [safe(short(name), 22) for name in devices])
    axes.set_xlim(-0.4, len(devices) - 0.6)
    size, unit = scaled(max(one.value for line in known for _, one in line))
    for n, (recipe, line, look) in enumerate(zip(recipes, known, of_lines, strict=True)):
        aside = 0.15 * ((n + 1) / (len(recipes) + 1) - 0.5)
        axes.errorbar(
            [place + aside for place, _ in line],
            [one.value / size for _, one in line],
            yerr=np.hstack([whisker(one.value / size, on_one_device(one) / size) for _, one in line]),
            color=look.colour,
            marker=look.marker,
            mfc=look.colour if recipe.provenance == "measured" else "white",
            ls=look.dash,
            capsize=2,
            lw=1.2,
        )
    axes.set_ylabel(f"{'training energy' if which == 'train' else 'energy of an inference'} ({unit}, log scale)")
    log_axis(axes, "y")
