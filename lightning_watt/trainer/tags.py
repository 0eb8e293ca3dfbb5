"""What a snapshot looks like in the log: the tags, and SAM. Pure."""

from __future__ import annotations

import math

from lightning_watt.accounts.events import Snapshot
from lightning_watt.sam.score import Scoring
from lightning_watt.units import kwh

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
"""The tags of one stage or device: `watt/train/energy_kwh`, `watt/gpu0/power_w`."""


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
    if snapshot.span.batches and snapshot.point.per_batch:
        found["watt/joules_per_batch"] = snapshot.span.joules / snapshot.span.batches
    if snapshot.span.samples and snapshot.point.per_batch:
        found["watt/joules_per_sample"] = snapshot.span.joules / snapshot.span.samples
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
