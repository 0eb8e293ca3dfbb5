"""The curves of one run, for the Watt tab's charts over time, steps, epochs and energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from lightning_watt.tensorboard.rows import (
    DEVICE_POWER,
    ENERGY,
    EPOCH,
    FORECAST,
    FORECAST_UNCERTAINTY,
    PATH,
    POWER,
    finite,
)
from lightning_watt.units import J_PER_KWH

OF_A_RUN = (ENERGY, FORECAST, FORECAST_UNCERTAINTY, EPOCH, PATH)
"""The tags whose curves a run has whatever is asked of its devices."""


class Curve(msgspec.Struct):
    """Values over unix seconds, and over the steps of the Trainer."""

    t: list[float] = []
    step: list[int] = []
    v: list[float | None] = []


class Curves(msgspec.Struct, kw_only=True):
    """The curves of one run.

    Attributes:
        power: watts by device; the only key is "total" if devices were not asked for.
        energy: joules so far.
        forecast: joules at the end of the schedule.
        forecast_uncertainty: half of the interval of that, joules.
        epoch: the epoch at a step.
        path_j: joules spent when an accuracy was known.
        path_accuracy: that accuracy.
    """

    power: dict[str, Curve] = {}
    energy: Curve = msgspec.field(default_factory=Curve)
    forecast: Curve = msgspec.field(default_factory=Curve)
    forecast_uncertainty: Curve = msgspec.field(default_factory=Curve)
    epoch: Curve = msgspec.field(default_factory=Curve)
    path_j: list[float] = []
    path_accuracy: list[float | None] = []


def curves_of(tags: Mapping[str, Any], since_unix: float, until_unix: float) -> Curves:
    """The curves that lie in a span of time.

    Args:
        tags: the rows by tag.
        since_unix: where it begins, unix seconds.
        until_unix: where it ends.
    """
    curves = Curves()
    found = {tag: [row for row in rows if since_unix < row.wall_time <= until_unix] for tag, rows in tags.items()}
    for tag, rows in found.items():
        device = DEVICE_POWER.fullmatch(tag)
        if device or tag == POWER:
            curves.power[device[1] if device else "total"] = _curve(rows)
        elif tag == PATH:
            curves.path_j = [float(row.step) for row in rows]
            curves.path_accuracy = [finite(row.value) for row in rows]
    curves.energy = _curve(found.get(ENERGY, ()), J_PER_KWH)
    curves.forecast = _curve(found.get(FORECAST, ()), J_PER_KWH)
    curves.forecast_uncertainty = _curve(found.get(FORECAST_UNCERTAINTY, ()), J_PER_KWH)
    curves.epoch = _curve(found.get(EPOCH, ()))
    return curves


def _curve(rows: Sequence[Any], scale: float = 1.0) -> Curve:
    return Curve([row.wall_time for row in rows], [row.step for row in rows], [finite(row.value * scale) for row in rows])
