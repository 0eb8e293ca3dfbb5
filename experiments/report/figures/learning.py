"""Accuracy as a function of the energy spent: the learning curve over joules."""

from __future__ import annotations

from collections import Counter

from matplotlib.axes import Axes

from experiments.report.comparison import Comparison
from experiments.report.figures.style import (
    MOST_CURVES,
    Look,
    Picture,
    line_looks,
    log_axis,
    new_figure,
    percent_axis,
    safe,
)
from experiments.report.inputs.run import Run
from experiments.report.metrics import scaled

LETTERS = 90
"""So many, beside the lines that they stand for, fit into the legend's width."""


def draw(comparison: Comparison) -> Picture:
    """Draw each training's accuracy after each epoch, over its own energy (left) and with what it inherited (right)."""
    title = "Accuracy over energy spent"
    known = _curves(comparison)
    if not known:
        why = (
            "Reference trainings have no accuracy by epoch."
            if comparison.reference
            else "No run logged an accuracy by epoch."
        )
        return Picture("learning", title, "", why=why)
    shown = sorted(known, key=lambda known: -known[1].curve[-1][1])[:MOST_CURVES]
    styles = line_looks(comparison.families, [family for _, _, family in shown])
    figure = new_figure(10, 4.6)
    left, right = figure.subplots(1, 2, sharey=True)
    largest = max(run.curve[-1][0] + run.inherited_j for _, run, _ in shown)
    size, unit = scaled(largest)
    for (name, run, _), look in zip(shown, styles, strict=True):
        _curve(left, run, 0.0, size, look, name)
        _curve(right, run, run.inherited_j, size, look, name)
    for axes, words in ((left, "own energy"), (right, "energy, inherited energy included")):
        axes.set_xlabel(f"{words} ({unit}, log scale)")
        axes.set_title(words)
        log_axis(axes, "x")
    left.set_ylabel(f"{comparison.metric} after the epoch (%)")
    percent_axis(left, "y")
    handles, labels = left.get_legend_handles_labels()
    columns = max(1, min(4, LETTERS // max(len(label) for label in labels)))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, handlelength=4)
    left_out = (
        f" Shown: the {len(shown)} of {len(known)} trainings with the highest last accuracy."
        if len(known) > len(shown)
        else ""
    )
    caption = (
        "Each line is one training. Each mark is an epoch: the energy of training and validation so far, and the "
        f"validation's {comparison.metric}. Long runs show only some epochs. Hollow: the energy is estimated or mixed."
        + left_out
    )
    return Picture("learning", title, caption, figure)


def _curves(comparison: Comparison) -> list[tuple[str, Run, str]]:
    """The trainings that end in a classifier, each once, with its result's label and family."""
    found: dict[int, tuple[str, Run, str]] = {}
    for result in comparison.results:
        for lineage in result.lineages:
            run = lineage.trained
            if run is None or run.task_accuracy is None or id(run) in found:
                continue
            if len(run.curve) > 1 and run.curve[0][0] > 0:  # a log axis has no zero
                status = "" if run.status == "completed" or run.status in result.label else f", {run.status}"
                found[id(run)] = (result.label + status, run, result.family)
    return _told_apart(list(found.values()))


def _told_apart(known: list[tuple[str, Run, str]]) -> list[tuple[str, Run, str]]:
    """Repetitions get their seed's number behind their name, and a number of their own where that is the same."""
    repeated = Counter(name for name, _, _ in known)
    seeded = [
        (f"{name}, seed {run.seed}" if repeated[name] > 1 and run.seed is not None else name, run, family)
        for name, run, family in known
    ]
    again = Counter(name for name, _, _ in seeded)
    seen: Counter[str] = Counter()
    told = []
    for name, run, family in seeded:
        seen[name] += 1
        told.append((f"{name} ({seen[name]} of {again[name]})" if again[name] > 1 else name, run, family))
    return told


def _curve(axes: Axes, run: Run, before: float, size: float, look: Look, name: str) -> None:
    x = [(before + joules) / size for joules, _ in run.curve]
    y = [accuracy for _, accuracy in run.curve]
    measured = run.provenance == "measured"
    axes.plot(
        x,
        y,
        color=look.colour,
        ls=look.dash,
        lw=1.4,
        marker=look.marker,
        ms=5,
        mfc=look.colour if measured else "white",
        markevery=max(1, len(x) // 8),
        label=safe(name),
    )
