"""SAM as a torchmetrics metric."""

from __future__ import annotations

from typing import Any

import torch
import torchmetrics
from torch import Tensor

from lightning_watt.sam.score import check_sam_arguments, sustainable_accuracy
from lightning_watt.units import EnergyUnit


class SustainableAccuracy(torchmetrics.Metric):
    """Accuracy and energy accumulated over batches (and ranks), and SAM of the two.

    Args:
        alpha: how much accuracy counts.
        beta: scale.
        unit: the unit that E in the equation is taken in.
        shifted: use the form that is finite for every energy.
        **kwargs: `torchmetrics.Metric`'s own.

    Raises:
        ValueError: alpha or beta not finite, unknown unit.

    Source: arXiv 2310.06522.

    Example:
        >>> metric = SustainableAccuracy(shifted=True)
        >>> metric.update(torch.tensor([1, 0, 2, 2]), torch.tensor([1, 0, 2, 1]), energy_kwh=0.5)
        >>> round(metric.compute().item(), 4)
        1.1619
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    correct: Tensor
    total: Tensor
    energy_kwh: Tensor

    def __init__(
        self,
        alpha: float = 5.0,
        beta: float = 5.0,
        unit: EnergyUnit = "kWh",
        shifted: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_sam_arguments(alpha, beta, unit)
        self.alpha = alpha
        self.beta = beta
        self.unit: EnergyUnit = unit
        self.shifted = shifted
        self.add_state("correct", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("energy_kwh", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, energy_kwh: Tensor | float) -> None:
        """Take one batch.

        Args:
            preds: class indices of shape (N,), or scores of shape (N, C) whose largest is the prediction.
            target: class indices of shape (N,).
            energy_kwh: kilowatt-hours spent since the last update; they are added up, over batches and ranks.

        Raises:
            ValueError: shapes that do not fit, or negative energy.
        """
        labels = preds.argmax(dim=1) if preds.ndim == target.ndim + 1 else preds
        if labels.shape != target.shape:
            raise ValueError(
                f"preds has shape {tuple(preds.shape)} and target {tuple(target.shape)}: "
                "give class indices (N,) or scores (N, C), and class indices (N,)."
            )
        if not float(energy_kwh) >= 0:
            raise ValueError(f"energy_kwh is {float(energy_kwh)}: give what was spent since the last update, zero or more.")
        self.correct += (labels == target).sum()
        self.total += target.numel()
        self.energy_kwh += float(energy_kwh)

    def compute(self) -> Tensor:
        """SAM of the accuracy and the energy so far, a float64 scalar; NaN if it is undefined or nothing was seen."""
        accuracy = self.correct.double() / self.total
        score = sustainable_accuracy(
            accuracy, self.energy_kwh, alpha=self.alpha, beta=self.beta, unit=self.unit, shifted=self.shifted
        )
        return torch.as_tensor(score)
