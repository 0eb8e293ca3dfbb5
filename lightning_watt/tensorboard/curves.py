"""The curves of one run, for the Watt tab's charts over time and over energy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from lightning_watt.tensorboard.rows import DEVICE_POWER, PATH, POWER, finite


class Curve(msgspec.Struct):
    """Watts over unix seconds."""

    t: list[float] = []
    w: list[float | None] = []


class Curves(msgspec.Struct, kw_only=True):
    """The curves of one run.

    Attributes:
        power: by device; the only key is "total" if devices were not asked for.
        path_j: joules spent when an accuracy was known.
        path_accuracy: that accuracy.
    """

    power: dict[str, Curve] = {}
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
    for tag, all_rows in tags.items():
        rows = [row for row in all_rows if since_unix < row.wall_time <= until_unix]
        device = DEVICE_POWER.fullmatch(tag)
        if device or tag == POWER:
            label = device[1] if device else "total"
            curves.power[label] = Curve([row.wall_time for row in rows], [finite(row.value) for row in rows])
        elif tag == PATH:
            curves.path_j = [float(row.step) for row in rows]
            curves.path_accuracy = [finite(row.value) for row in rows]
    return curves
