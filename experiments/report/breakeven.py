"""After how many inferences a model that is cheaper to run has repaid its dearer training. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.report.certainty import surely_more
from experiments.report.comparison import Comparison
from experiments.report.metrics import break_even
from experiments.report.results import ModelResult


@dataclass(frozen=True)
class Repayment:
    """A model that is dearer to train and cheaper to run than another, on the same device.

    Attributes:
        dearer: to train.
        cheaper: to train.
        inferences: after so many, both have used the same.
    """

    dearer: ModelResult
    cheaper: ModelResult
    inferences: float


def complete(comparison: Comparison) -> list[ModelResult]:
    """The ranked results whose training and inference energies are both known."""
    return [result for result in comparison.results if result.ranked and result.per_sample_j and result.train_j]


def repayments(comparison: Comparison) -> list[Repayment]:
    """Every pair of which one is dearer to train and cheaper to run, the soonest repaid first.

    Both differences have to be larger than their plus or minus. Only models that were trained and ran on the same devices,
    with energies of the same provenance, are paired: a device's gain error is then the same for both and cancels.
    """
    found = []
    results = complete(comparison)
    for dearer in results:
        for cheaper in results:
            alike = (dearer.device, dearer.inference_device, dearer.provenance)
            if alike != (cheaper.device, cheaper.inference_device, cheaper.provenance):
                continue
            sure = surely_more(dearer.estimate("train_j"), cheaper.estimate("train_j")) and surely_more(
                cheaper.estimate("per_sample_j"), dearer.estimate("per_sample_j")
            )
            inferences = break_even(_pair(dearer, cheaper, "train"), _pair(dearer, cheaper, "run"))
            if inferences and sure:
                found.append(Repayment(dearer, cheaper, inferences))
    return sorted(found, key=lambda pair: pair.inferences)


def _pair(first: ModelResult, second: ModelResult, which: str) -> tuple[float, float]:
    if which == "train":
        return first.train_j or 0.0, second.train_j or 0.0
    return tuple(result.per_sample_j.value if result.per_sample_j else 0.0 for result in (first, second))  # type: ignore[return-value]
