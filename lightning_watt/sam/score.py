"""SAM, the Sustainable-Accuracy Metric: what an accuracy is worth at the electricity that it cost.

`SAM = beta * accuracy^alpha / log10(E)`, E in kWh: "Watt For What: Rethinking Deep Learning's Energy-Performance
Relationship", arXiv 2310.06522. The equation has a pole at 1 kWh and is negative below, so there it is undefined (NaN) and
never a score. The shifted form `beta * accuracy^alpha / log10(10 + E)` is finite for every E >= 0, falls as E grows, and
tends to the same value for large E. alpha = beta = 5 is this package's default.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from lightning_watt.carbon import CarbonIntensity
from lightning_watt.units import J_PER, J_PER_KWH, EnergyUnit, kwh

if TYPE_CHECKING:
    from torch import Tensor

NAMES: dict[EnergyUnit, str] = {"kWh": "kilowatt-hour", "Wh": "watt-hour", "J": "joule"}


def check_sam_arguments(alpha: float, beta: float, unit: str) -> None:
    """Refuse what the metric is not defined for.

    Raises:
        ValueError: alpha or beta is not finite, or the unit is unknown.
    """
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{name} is {value!r}: SAM needs a finite number; the usual one is 5.")
    if not isinstance(unit, str) or unit not in J_PER:
        meant = [known for known in J_PER if str(unit).lower() in (known.lower(), NAMES[known])]
        write = f" Did you mean {meant[0]!r}?" if meant else ""
        raise ValueError(f"The unit {unit!r} is unknown: choose one of {', '.join(J_PER)}.{write}")


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
        TypeError: an accuracy or energy that is no number.

    Source: arXiv 2310.06522; the shifted form is this package's.

    Example:
        >>> round(sustainable_accuracy(0.8, 100.0), 6), sustainable_accuracy(0.9, 0.5)
        (0.8192, nan)
        >>> round(sustainable_accuracy(0.9, 0.0, shifted=True), 6)
        2.95245
    """
    check_sam_arguments(alpha, beta, unit)
    given: dict[str, Any] = {"accuracy": accuracy, "energy_kwh": energy_kwh}
    for name, value in given.items():
        if isinstance(value, (str, bytes)) or value is None:
            raise TypeError(f"{name} is {value!r}: give a number or a tensor.")
    if isinstance(accuracy, (int, float)) and isinstance(energy_kwh, (int, float)):  # a hundredth of what tensors take
        return _of_numbers(accuracy, energy_kwh, alpha, beta, unit, shifted)
    return _of_tensors(accuracy, energy_kwh, alpha, beta, unit, shifted)


def _of_tensors(
    accuracy: Tensor | float, energy_kwh: Tensor | float, alpha: float, beta: float, unit: EnergyUnit, shifted: bool
) -> Tensor | float:
    import torch  # only here: numbers do without
    from torch import Tensor

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


def unit_that_sees(joules: float) -> EnergyUnit:
    """The largest unit of E in which SAM is defined for an energy; the smallest if it is in none.

    Example:
        >>> unit_that_sees(5000.0), unit_that_sees(3.6e6), unit_that_sees(0.5)
        ('Wh', 'Wh', 'J')
    """
    return next((unit for unit, size in J_PER.items() if joules > size), "J")


def _not_an_accuracy(value: Any) -> ValueError:
    return ValueError(f"accuracy is {value}: it must lie in [0, 1]. Is it in percent? Then divide by 100.")


def _negative(value: Any) -> ValueError:
    return ValueError(f"energy_kwh is {value}: energy cannot be negative.")


def co2e_g(joules: float, g_per_kwh: float, pue: float) -> float:
    """Grams of CO2e of an energy.

    Args:
        joules: the energy of the devices.
        g_per_kwh: grams that a kWh causes.
        pue: power usage effectiveness of the building.

    Example:
        >>> co2e_g(3.6e6, 400.0, 1.5)
        600.0
    """
    return kwh(joules) * pue * g_per_kwh


@dataclass(frozen=True)
class Scoring:
    """How energy is turned into a score and into what stands beside the kWh.

    Attributes:
        alpha: SAM's alpha.
        beta: SAM's beta.
        unit: the unit of E in SAM.
        pue: power usage effectiveness of the building; it enters CO2e and cost, never the kWh.
        carbon: what a kWh causes; None if it is not given.
        electricity_price: what a kWh costs, in any currency; None if it is not given.
    """

    alpha: float
    beta: float
    unit: EnergyUnit
    pue: float = 1.0
    carbon: CarbonIntensity | None = None
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

    def sam_plus_minus(
        self, accuracy: float | None, joules: float, plus_minus_j: float
    ) -> tuple[float | None, float | None]:
        """What the plus or minus of an energy makes of SAM and its shifted form; None if it reaches where SAM is undefined.

        Example:
            >>> scoring = Scoring(alpha=5.0, beta=5.0, unit="J")
            >>> [round(value, 4) for value in scoring.sam_plus_minus(0.8, 1000.0, 100.0)]
            [0.0085, 0.0083]
        """
        here = self.sam(accuracy, joules)
        ends = [self.sam(accuracy, end) for end in (joules - plus_minus_j, joules + plus_minus_j)]
        both: list[float | None] = []
        for value, *others in zip(here, *ends, strict=True):
            known = [abs(other - value) for other in others if other is not None and value is not None]
            both.append(max(known) if len(known) == len(others) else None)
        return both[0], both[1]

    def co2e_g(self, joules: float) -> float | None:
        """Grams of CO2e, the building's share included; None without an intensity."""
        return None if self.carbon is None else co2e_g(joules, self.carbon.g_per_kwh, self.pue)

    def cost(self, joules: float) -> float | None:
        """What the energy costs, the building's share included, in the price's currency; None without a price."""
        return None if self.electricity_price is None else kwh(joules) * self.pue * self.electricity_price
