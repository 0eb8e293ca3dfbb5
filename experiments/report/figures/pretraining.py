"""Figure 5: what pretraining does for Swin and ViT: accuracy and energy with it and without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from experiments.report.comparison import Comparison
from experiments.report.figures.style import Picture, edge, new_figure, percent_axis, safe
from experiments.report.inputs.run import SCRATCH
from experiments.report.metrics import scaled
from experiments.report.results import ModelResult

FAMILIES: Final = ("swin", "vit")
MOST_PAIRS: Final = 8
_OWN: Final[dict[str, Any]] = {"fc": "#56B4E9", "hatch": "//"}
_BEFORE: Final[dict[str, Any]] = {"fc": "#0072B2", "hatch": ""}
_WITHOUT: Final[dict[str, Any]] = {"fc": "white", "hatch": ".."}


def draw(comparison: Comparison) -> Picture:
    """Draw accuracy and energy for the families that were finetuned both from pretrained and from random weights."""
    title = "Pretraining's effect"
    found = pairs(comparison.results)
    if not found:
        why = (
            "No family was finetuned on one device both from pretrained and from random weights (`start: scratch` in the "
            "record). To add runs from random weights: `phase=finetune checkpoint=scratch` with `model=swin,vit`."
        )
        return Picture("pretraining", title, "", why=why)
    figure = new_figure(9.5, 4.2)
    left, right = figure.subplots(1, 2)
    _accuracy(left, found, comparison.metric)
    _energy(right, found)
    handles = [
        Patch(**_WITHOUT, ec="black", label="finetuned from random weights"),
        Patch(**_OWN, ec="black", label="finetuned from pretrained weights"),
        Patch(**_BEFORE, ec="black", label="its pretraining"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    kinds = {result.provenance for pair in found for result in pair}
    caption = (
        "Each pair: the same model, data and device, finetuned from random and from pretrained weights. Energy is "
        f"{' and '.join(sorted(kind for kind in kinds if kind))} (dashed outline: estimated or mixed). Both "
        "energies of a pair are of the same kind."
    )
    return Picture("pretraining", title, caption, figure)


def pairs(results: Sequence[ModelResult]) -> list[tuple[ModelResult, ModelResult]]:
    """Entries without and with pretraining that are alike in everything else; Swin and ViT first."""
    finetuned: dict[object, dict[bool, ModelResult]] = {}
    for result in results:
        lineage = result.lineages[0] if result.lineages else None
        run = lineage.trained if lineage else None
        if not result.ranked or run is None or run.phase != "finetune":
            continue
        if not run.inherited and run.facts["start"] != SCRATCH:
            continue  # it may have come from published weights, whose energy nobody knows
        alike = (result.family, result.scale, run.facts["timm_name"], result.device, result.provenance)
        finetuned.setdefault(alike, {}).setdefault(bool(run.inherited), result)
    found = [(kinds[False], kinds[True]) for kinds in finetuned.values() if len(kinds) == 2]
    found.sort(key=lambda pair: (pair[0].family not in FAMILIES, pair[0].label))
    return found[:MOST_PAIRS]


def _accuracy(axes: Axes, found: list[tuple[ModelResult, ModelResult]], metric: str) -> None:
    for n, (without, pretrained) in enumerate(found):
        for x, result, look in ((n - 0.2, without, _WITHOUT), (n + 0.2, pretrained, _OWN)):
            axes.bar(x, result.accuracy or 0.0, width=0.38, **look, **edge(result.provenance))
            axes.annotate(
                f"{100 * (result.accuracy or 0.0):.1f}", (x, result.accuracy or 0.0), ha="center", va="bottom", fontsize=8
            )
    axes.set_ylabel(f"{metric} (%)")
    axes.set_title("accuracy")
    axes.set_ylim(0, 1.08)
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    percent_axis(axes, "y")
    _names(axes, found)


def _energy(axes: Axes, found: list[tuple[ModelResult, ModelResult]]) -> None:
    size, unit = scaled(max(result.train_j or 0.0 for pair in found for result in pair))
    for n, (without, pretrained) in enumerate(found):
        own, total = (pretrained.own_j or 0.0) / size, (pretrained.train_j or 0.0) / size
        alone = (without.train_j or 0.0) / size
        outline = edge(pretrained.provenance)
        axes.bar(n - 0.2, alone, width=0.38, **_WITHOUT, **outline)
        axes.bar(n + 0.2, own, width=0.38, **_OWN, **outline)
        axes.bar(n + 0.2, total - own, bottom=own, width=0.38, **_BEFORE, **outline)
        for x, height in ((n - 0.2, alone), (n + 0.2, total)):
            axes.annotate(f"{height:.3g}", (x, height), ha="center", va="bottom", fontsize=8)
    axes.margins(y=0.1)
    axes.set_ylabel(f"training energy ({unit})")
    axes.set_title("energy")
    _names(axes, found)


def _names(axes: Axes, found: list[tuple[ModelResult, ModelResult]]) -> None:
    names = [" ".join(part for part in (pair[0].family, pair[0].scale) if part) for pair in found]
    turn = 0 if len(found) <= 3 else 30
    axes.set_xticks(range(len(found)), [safe(name, 20) for name in names], rotation=turn, ha="right" if turn else "center")
    axes.set_xlim(-0.6, max(len(found), 2) - 0.4)
    axes.grid(visible=False, axis="x")
