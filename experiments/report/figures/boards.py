"""The same recipes on each device: how much energy one takes by what another takes."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from experiments.report.comparison import Comparison, Recipe, base_device, by_recipe
from experiments.report.figures.style import COLOURS, MARKERS, MOST_ROWS, Picture, log_axis, new_figure, safe
from experiments.report.metrics import Amount
from experiments.report.tables import MOST_DEVICES, device_ratio


def draw(comparison: Comparison) -> Picture:
    """Draw the ratio between devices with its plus or minus, a row a recipe, for training (left) and inference (right)."""
    title = "The same recipes on each device"
    recipes = by_recipe(comparison)
    base = base_device(recipes)
    names = sorted({name for recipe in recipes for name in (*recipe.trained, *recipe.ran)} - {base})[: MOST_DEVICES - 1]
    found = [(recipe, _ratios(recipe, names, base)) for recipe in recipes]
    shown = [(recipe, ratios) for recipe, ratios in found if ratios][:MOST_ROWS]
    if not shown:
        why = "No recipe was run on two devices. `device=0,1` with -m sweeps over the GPUs of a machine."
        return Picture("boards", title, "", why=why)
    figure = new_figure(9.5, 1.9 + 0.4 * len(shown))
    panels = dict(zip(("train", "inference"), figure.subplots(1, 2, sharey=True), strict=True))
    for which, axes in panels.items():
        _panel(axes, which, [ratios for _, ratios in shown], names)
        axes.set_xlabel(f"energy by that on {safe(base, 30)} (log scale)")
    left = panels["train"]
    left.set_yticks(range(len(shown)), [safe(recipe.label) for recipe, _ in shown])
    left.set_ylim(len(shown) - 0.4, -0.6)
    handles = [
        Line2D([], [], ls="", marker=MARKERS[n % len(MARKERS)], color=COLOURS[n % len(COLOURS)], label=safe(name))
        for n, name in enumerate(names)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    caption = (
        f"Each row is one recipe; everything but the device and the seed is the same. 1 is the energy on {base}. Whiskers: "
        "the ratio's ±, with both devices' gain errors and the spread over seeds. A row whose whisker crosses 1 shows no "
        "difference. Hollow: the energies are estimated or mixed."
    )
    return Picture("boards", title, caption, figure)


def _ratios(recipe: Recipe, names: list[str], base: str) -> dict[tuple[str, str], tuple[Amount, bool]]:
    """The recipe's ratios by what was measured and device, with whether they are measured."""
    found = {}
    for name in names:
        for which, by_device, energy in (("train", recipe.trained, "train_j"), ("inference", recipe.ran, "per_sample_j")):
            ratio = device_ratio(by_device, name, base, energy)
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
            off = ratio.plus_minus or 0.0
            axes.errorbar(
                ratio.value,
                row + apart,
                xerr=[[min(off, 0.999 * ratio.value)], [off]],
                color=colour,
                marker=marker,
                mfc=colour if measured else "white",
                capsize=3,
                lw=1.2,
            )
    axes.axvline(1, color="black", lw=1, ls="--", zorder=1)
    axes.set_title(which)
    axes.grid(visible=False, axis="y")
    if not any((which, name) in ratios for ratios in rows for name in names):
        axes.text(0.5, 0.5, "no run on two devices", transform=axes.transAxes, ha="center")
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.8), max(high, 1.25))
    if low > 0:
        log_axis(axes, "x")
