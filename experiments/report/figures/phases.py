"""Figure 4: where self-supervised models' energy goes: tokenizer, pretrain, finetune, inference, stacked."""

from __future__ import annotations

from typing import Final

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from experiments.report.comparison import Comparison
from experiments.report.figures.style import HATCHES, MOST_ROWS, Picture, edge, new_figure, safe
from experiments.report.metrics import scaled
from experiments.report.results import ModelResult

PHASES: Final = {
    "before": ("inherited, no record here", "#bbbbbb"),
    "tokenizer": ("tokenizer", "#E69F00"),
    "pretrain": ("pretrain", "#0072B2"),
    "train": ("train", "#0072B2"),
    "finetune": ("finetune", "#56B4E9"),
    "inference": ("1,000 inferences", "#D55E00"),
}
INFERENCES: Final = 1000
_HATCH: Final = dict(zip(PHASES, HATCHES, strict=False))


def draw(comparison: Comparison) -> Picture:
    """Draw a stacked bar a model for those that were pretrained without labels, and inference alone on its own scale."""
    title = "BEiT, MAE and CLIP: energy by phase"
    shown = [result for result in comparison.results if _self_supervised(result) and result.train_j][:MOST_ROWS]
    if not shown:
        why = "There is no finetuned run of BEiT, MAE or CLIP: run `phase=lifecycle` with `model=beit,mae,clip`."
        return Picture("phases", title, "", why=why)
    figure = new_figure(9.5, 2.2 + 0.55 * len(shown))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    used = _stack(left, shown)
    _inference(right, shown)
    left.set_yticks(range(len(shown)), [safe(result.label) for result in shown])
    left.set_ylim(-0.6, len(shown) - 0.4)
    left.invert_yaxis()
    handles = [Patch(fc=PHASES[phase][1], hatch=_HATCH[phase], ec="black", label=PHASES[phase][0]) for phase in used]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    guessed = any(_star(result) for result in shown)
    stars = " Dashed outline and *: the energy is estimated or mixed." if guessed else ""
    caption = (
        f"Left: training by phase, then {INFERENCES:,} inferences, which are often too small to see. "
        f"Right: the same {INFERENCES:,} inferences alone, on another scale.{stars}"
    )
    return Picture("phases", title, caption, figure)


def _self_supervised(result: ModelResult) -> bool:
    lineage = result.lineages[0] if result.lineages else None
    if lineage is None or lineage.end.facts["pretraining"] in ("", "supervised"):
        return False
    return any(run.phase == "finetune" and run.inherited for run in lineage.runs)


def _star(result: ModelResult) -> str:
    return "" if result.provenance == "measured" else " *"


def _stack(axes: Axes, shown: list[ModelResult]) -> list[str]:
    """Draw the stacked bars; returns the phases that occur."""
    size, unit = scaled(max(result.train_j or 0.0 for result in shown))
    occurring: set[str] = set()
    for row, result in enumerate(shown):
        start = 0.0
        parts = _mean_shares(result)
        if result.per_sample_j:
            parts["inference"] = INFERENCES * result.per_sample_j.value
        for phase, joules in parts.items():
            kind = phase if phase in PHASES else "train"
            occurring.add(kind)
            look = PHASES[kind]
            axes.barh(row, joules / size, left=start, height=0.6, fc=look[1], hatch=_HATCH[kind], **edge(result.provenance))
            start += joules / size
        axes.annotate(
            f" {start:.3g}{_star(result)}", (start, row), va="center", fontsize=8, xytext=(2, 0), textcoords="offset points"
        )
    axes.set_xlim(0, 1.15 * axes.get_xlim()[1])
    axes.set_xlabel(f"energy ({unit})")
    axes.set_title("all phases")
    axes.grid(visible=False, axis="y")
    return [phase for phase in PHASES if phase in occurring]


def _mean_shares(result: ModelResult) -> dict[str, float]:
    """Joules of training by phase, the mean over the result's runs, in the order of the phases."""
    total: dict[str, float] = {}
    for lineage in result.lineages:
        for phase, joules in lineage.shares().items():
            total[phase] = total.get(phase, 0.0) + joules / len(result.lineages)
    order = list(PHASES)
    return dict(sorted(total.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))


def _inference(axes: Axes, shown: list[ModelResult]) -> None:
    """Draw inference alone, with its plus or minus."""
    known = [
        (row, INFERENCES * result.per_sample_j.value, INFERENCES * (result.per_sample_j.plus_minus or 0.0))
        for row, result in enumerate(shown)
        if result.per_sample_j
    ]
    axes.grid(visible=False, axis="y")
    axes.set_title(f"{INFERENCES:,} inferences alone")
    if not known:
        axes.text(0.5, 0.5, "no inference run", transform=axes.transAxes, ha="center")
        return
    size, unit = scaled(max(joules for _, joules, _ in known))
    look = PHASES["inference"]
    for row, joules, plus_minus in known:
        axes.barh(row, joules / size, height=0.6, fc=look[1], hatch=_HATCH["inference"], **edge(shown[row].provenance))
        low = min(plus_minus, joules)
        axes.errorbar(joules / size, row, xerr=[[low / size], [plus_minus / size]], color="black", lw=1, capsize=3)
    axes.set_xlabel(f"energy ({unit})")
