"""Energy per stage: what share of each run went to training, validating, testing and the rest."""

from __future__ import annotations

from typing import Final

from matplotlib.patches import Patch

from experiments.report.comparison import Comparison
from experiments.report.figures.style import COLOURS, HATCHES, Picture, edge, new_figure, safe
from experiments.report.inputs.run import Run
from lightning_watt.units import human_energy

MOST_RUNS: Final = 40
STAGES: Final = ("train", "validate", "test", "predict", "sanity_check", "tune", "other", "wasted")
_PALETTE: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#bbbbbb", "#333333")


def draw(comparison: Comparison) -> Picture:
    """Draw a bar a run, divided by Lightning's stages, with the run's own energy next to it."""
    title = "Energy per stage"
    known = [run for run in comparison.runs if sum(use.joules for use in run.stages.values()) > 0]
    if not known:
        why = "Reference trainings have no energy by stage." if comparison.reference else "No run has energy by stage."
        return Picture("stages", title, "", why=why)
    shown = sorted(sorted(known, key=lambda run: -(run.own_j or 0.0))[:MOST_RUNS], key=lambda run: run.path)
    stages = [stage for stage in STAGES if any(stage in run.stages for run in shown)]
    stages += sorted({stage for run in shown for stage in run.stages if stage not in STAGES})
    looks = dict(zip(STAGES, zip(_PALETTE, HATCHES, strict=False), strict=True))
    for n, stage in enumerate(stages):
        looks.setdefault(stage, (COLOURS[n % len(COLOURS)], HATCHES[n % len(HATCHES)]))
    figure = new_figure(9.5, 1.6 + 0.25 * max(3, len(shown)))
    axes = figure.add_subplot()
    for row, run in enumerate(shown):
        total = sum(use.joules for use in run.stages.values())
        start = 0.0
        for stage in stages:
            share = 100 * run.stages[stage].joules / total if stage in run.stages else 0.0
            colour, hatch = looks[stage]
            axes.barh(row, share, left=start, height=0.72, fc=colour, hatch=hatch, **edge(run.provenance))
            start += share
        axes.annotate(_said(run), (100, row), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(range(len(shown)), [f"{_model(run)}: {_end(run.path)}" for run in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the run's own energy (%)")
    axes.grid(visible=False, axis="y")
    handles = [Patch(fc=looks[stage][0], hatch=looks[stage][1], ec="black", lw=0.5, label=safe(stage)) for stage in stages]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)))
    left_out = f" Shown: the {len(shown)} of {len(known)} runs that used the most energy." if len(known) > len(shown) else ""
    caption = (
        "Each bar is one run, divided into Lightning's stages. The label gives the run's own energy, and its status if it "
        f"did not complete. A ~ and a dashed outline: the energy is estimated or mixed.{left_out}"
    )
    return Picture("stages", title, caption, figure)


def _said(run: Run) -> str:
    about = "" if run.provenance == "measured" else "~"
    status = "" if run.status == "completed" else f" ({run.status})"
    return f"{about}{human_energy(run.own_j or 0.0)}{status}"


def _model(run: Run) -> str:
    """A short name of its model, as its path may be a number alone."""
    return safe(run.facts["timm_name"].partition(".")[0] or run.name, 30)


def _end(path: str, most: int = 38) -> str:
    """A path, or its end if it is too long: the end differs between runs."""
    return safe(path if len(path) <= most else "…" + path[-most + 1 :], most)
