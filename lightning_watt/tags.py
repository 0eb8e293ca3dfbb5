"""What a snapshot looks like in the log: the tags, and SAM. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lightning_watt.events import Snapshot
from lightning_watt.sam import sustainable_accuracy
from lightning_watt.units import EnergyUnit, kwh

TAGS = (
    "watt/energy_kwh",
    "watt/uncertainty_kwh",
    "watt/power_w",
    "watt/joules_per_batch",
    "watt/joules_per_sample",
    "watt/accuracy",
    "watt/sam",
    "watt/sam_shifted",
    "watt/co2e_g",
    "watt/forecast_kwh",
    "watt/forecast_uncertainty_kwh",
)
"""The tags among the Trainer's metrics, those of a stage or a device aside."""
PLACE_TAGS = ("energy_kwh", "power_w")
"""What is said of one stage or device: `watt/train/energy_kwh`, `watt/gpu0/power_w`."""


@dataclass(frozen=True)
class Scoring:
    """How energy is turned into a score and into what stands beside the kWh.

    Attributes:
        alpha: SAM's alpha.
        beta: SAM's beta.
        unit: the unit of E in SAM.
        pue: power usage effectiveness of the building; it enters CO2e and cost, never the kWh.
        carbon_intensity: grams of CO2e a kWh; None where it is not given.
        electricity_price: what a kWh costs, in any currency; None where it is not given.
    """

    alpha: float
    beta: float
    unit: EnergyUnit
    pue: float = 1.0
    carbon_intensity: float | None = None
    electricity_price: float | None = None

    def sam(self, accuracy: float | None, joules: float) -> tuple[float | None, float | None]:
        """SAM and its shifted form; None where undefined."""
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


def tags(snapshot: Snapshot, scoring: Scoring) -> dict[str, float]:
    """The `watt/...` tags of a snapshot; what is not known has no tag."""
    found: dict[str, float | None] = {
        "watt/energy_kwh": kwh(snapshot.total_j),
        "watt/uncertainty_kwh": kwh(snapshot.uncertainty_j),
        "watt/accuracy": snapshot.point.accuracy,
        "watt/co2e_g": scoring.co2e_g(snapshot.total_j),
        **{f"watt/{stage}/energy_kwh": kwh(joules) for stage, joules in snapshot.stage_j.items()},
        **{f"watt/{label}/power_w": watts for label, watts in snapshot.power_w.items()},
    }
    if snapshot.power_w:
        found["watt/power_w"] = sum(snapshot.power_w.values())
    if snapshot.stretch_batches and snapshot.point.per_batch:
        found["watt/joules_per_batch"] = snapshot.stretch_j / snapshot.stretch_batches
    if snapshot.stretch_samples and snapshot.point.per_batch:
        found["watt/joules_per_sample"] = snapshot.stretch_j / snapshot.stretch_samples
    found["watt/sam"], found["watt/sam_shifted"] = scoring.sam(snapshot.point.accuracy, snapshot.total_j)
    if snapshot.forecast is not None:
        found["watt/forecast_kwh"] = kwh(snapshot.forecast.joules)
        found["watt/forecast_uncertainty_kwh"] = kwh(snapshot.forecast.plus_minus_j)
    return {tag: float(value) for tag, value in found.items() if value is not None and math.isfinite(value)}


def tags_over_energy(snapshot: Snapshot, scoring: Scoring) -> dict[str, float]:
    """The tags whose step axis is joules: what has been reached for the energy spent."""
    found = {
        "watt_vs_energy/accuracy": snapshot.point.accuracy,
        "watt_vs_energy/sam_shifted": scoring.sam(snapshot.point.accuracy, snapshot.total_j)[1],
    }
    return {tag: float(value) for tag, value in found.items() if value is not None}
