"""The rows of an event file that the Watt tab reads: their tags, and the record in a text row."""

from __future__ import annotations

import math
import re
from typing import Any

from lightning_watt.record.read import record_from_json
from lightning_watt.record.record import Record

ENERGY, UNCERTAINTY = "watt/energy_kwh", "watt/uncertainty_kwh"
FORECAST, FORECAST_UNCERTAINTY = "watt/forecast_kwh", "watt/forecast_uncertainty_kwh"
EPOCH = "epoch"
ACCURACY, POWER, PATH = "watt/accuracy", "watt/power_w", "watt_vs_energy/accuracy"
RECORD = "watt/record/text_summary"
DEVICE_POWER = re.compile(r"watt/([^/]+)/power_w")


def decoded(row: Any) -> Record:
    """The record in a text row, which stands in a Markdown fence.

    Raises:
        RecordError: it is none.
    """
    return record_from_json(raw_json(row), "watt/record")


def raw_json(row: Any) -> bytes:
    """A record's JSON in its text row."""
    text = row.numpy.reshape(-1)[0] if row.numpy.size else b""
    raw = text if isinstance(text, bytes) else str(text).encode()
    return raw.removeprefix(b"```json").removesuffix(b"```")


def finite(value: float) -> float | None:
    """A number, or None for what is none."""
    return float(value) if math.isfinite(value) else None
