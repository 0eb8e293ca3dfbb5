"""SAM, the Sustainable-Accuracy Metric: what an accuracy is worth at the electricity that it cost.

`SAM = beta * accuracy^alpha / log10(E)`, E in kWh: "Watt For What: Rethinking Deep Learning's Energy-Performance
Relationship", arXiv 2310.06522. The equation has a pole at 1 kWh and is negative below, so there it is undefined (NaN) and
never a score. The shifted form `beta * accuracy^alpha / log10(10 + E)` is finite for every E >= 0, falls as E grows, and
tends to the same value for large E. alpha = beta = 5 is this package's default.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, overload

import torch
import torchmetrics
from torch import Tensor

from lightning_watt.units import J_PER, J_PER_KWH, EnergyUnit, kwh


def check_sam_arguments(alpha: float, beta: float, unit: str) -> None:
    """Refuse what the metric is not defined for.

    Raises:
        ValueError: alpha or beta is not finite, or the unit is unknown.
    """
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{name} is {value!r}: SAM needs a finite number; the usual one is 5.")
    if not isinstance(unit, str) or unit not in J_PER:
        raise ValueError(f"The unit {unit!r} is unknown: choose one of {', '.join(J_PER)}.")


@overload
def sustainable_accuracy(
    accuracy: float,
    energy_kwh: float,
    *,
    alpha: float = ...,
    beta: float = ...,
    unit: EnergyUnit = ...,
    shifted: bool = ...,
) -> float: ...


@overload
def sustainable_accuracy(
    accuracy: Tensor | float,
    energy_kwh: Tensor | float,
    *,
    alpha: float = ...,
    beta: float = ...,
    unit: EnergyUnit = ...,
    shifted: bool = ...,
) -> Tensor | float: ...


def sustainable_accuracy(
    accuracy: Tensor | float,
    energy_kwh: Tensor | float,
    *,
    alpha: float = 5.0,
    beta: float = 5.0,
    unit: EnergyUnit = "kWh",
    shifted: bool = False,
) -> Tensor | float:
    """The Sustainable-Accuracy Metric.

    Args:
        accuracy: in [0, 1]; a number or a tensor of any shape. NaN stays NaN.
        energy_kwh: kilowatt-hours, zero or more; a number or a tensor that broadcasts with `accuracy`.
        alpha: how much accuracy counts.
        beta: scale.
        unit: the unit that E in the equation is taken in; the paper's is kWh.
        shifted: use `log10(10 + E)`, which is finite for every E >= 0.

    Returns:
        A float for two numbers, else a float64 tensor. NaN if the equation is undefined: at and below one `unit`
        (not in the shifted form).

    Raises:
        ValueError: accuracy outside [0, 1], negative energy, alpha or beta not finite, unknown unit.

    Source: arXiv 2310.06522; the shifted form is this package's.

    Example:
        >>> round(sustainable_accuracy(0.8, 100.0), 6), sustainable_accuracy(0.9, 0.5)
        (0.8192, nan)
        >>> round(sustainable_accuracy(0.9, 0.0, shifted=True), 6)
        2.95245
    """
    check_sam_arguments(alpha, beta, unit)
    if isinstance(accuracy, (int, float)) and isinstance(energy_kwh, (int, float)):  # a hundredth of what tensors take
        return _of_numbers(accuracy, energy_kwh, alpha, beta, unit, shifted)
    plain = not isinstance(accuracy, Tensor) and not isinstance(energy_kwh, Tensor)
    device = next((x.device for x in (accuracy, energy_kwh) if isinstance(x, Tensor)), torch.device("cpu"))
    device = torch.device("cpu") if device.type == "mps" else device  # MPS has no float64
    a = torch.as_tensor(accuracy, dtype=torch.float64, device=device)
    energy = torch.as_tensor(energy_kwh, dtype=torch.float64, device=device) * (J_PER_KWH / J_PER[unit])
    if bool(((a < 0) | (a > 1)).any()):
        raise _not_an_accuracy(accuracy)
    if bool((energy < 0).any()):
        raise _negative(energy_kwh)
    if shifted:
        score = beta * a**alpha / torch.log10(10 + energy)
    else:
        score = beta * a**alpha / torch.log10(energy)
        score = torch.where(energy > 1, score, torch.full_like(score, torch.nan))
    return score.item() if plain else score


def _of_numbers(accuracy: float, energy_kwh: float, alpha: float, beta: float, unit: EnergyUnit, shifted: bool) -> float:
    energy = energy_kwh * (J_PER_KWH / J_PER[unit])
    if accuracy < 0 or accuracy > 1:
        raise _not_an_accuracy(accuracy)
    if energy < 0:
        raise _negative(energy_kwh)
    if math.isnan(energy) or not (shifted or energy > 1):
        return math.nan
    try:
        power: float = float(accuracy) ** alpha
    except (OverflowError, ZeroDivisionError):  # a tensor's is infinite
        power = math.inf
    return beta * power / math.log10(10 + energy if shifted else energy)


def _not_an_accuracy(value: Any) -> ValueError:
    return ValueError(f"accuracy is {value}: it must lie in [0, 1]. Is it in percent? Then divide by 100.")


def _negative(value: Any) -> ValueError:
    return ValueError(f"energy_kwh is {value}: energy cannot be negative.")


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


@dataclass(frozen=True)
class Scoring:
    """How energy is turned into a score and into what stands beside the kWh.

    Attributes:
        alpha: SAM's alpha.
        beta: SAM's beta.
        unit: the unit of E in SAM.
        pue: power usage effectiveness of the building; it enters CO2e and cost, never the kWh.
        carbon_intensity: grams of CO2e a kWh; None if it is not given.
        electricity_price: what a kWh costs, in any currency; None if it is not given.
    """

    alpha: float
    beta: float
    unit: EnergyUnit
    pue: float = 1.0
    carbon_intensity: float | None = None
    electricity_price: float | None = None

    def sam(self, accuracy: float | None, joules: float) -> tuple[float | None, float | None]:
        """SAM and its shifted form; None if undefined."""
        if accuracy is None:
            return None, None
        energy_kwh = max(0.0, kwh(joules))
        both = [
            sustainable_accuracy(accuracy, energy_kwh, alpha=self.alpha, beta=self.beta, unit=self.unit, shifted=shifted)
            for shifted in (False, True)
        ]
        return (both[0] if math.isfinite(both[0]) else None), both[1]

    def co2e_g(self, joules: float) -> float | None:
        """Grams of CO2e, the building's share included; None without an intensity."""
        return None if self.carbon_intensity is None else kwh(joules) * self.pue * self.carbon_intensity

    def cost(self, joules: float) -> float | None:
        """What the energy costs, the building's share included, in the price's currency; None without a price."""
        return None if self.electricity_price is None else kwh(joules) * self.pue * self.electricity_price
