"""A measured run without a board, and a check of its record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lightning_watt import WattCallback, read_record
from tests.integration.tiny import Steady, watt


def steady(**options: Any) -> WattCallback:
    """The callback on a source of constant power."""
    return watt(gpus="auto", sources=[Steady()], **options)


def whole(directory: Path) -> Any:
    """The record, its sums found right."""
    record = read_record(directory)
    stages, devices = record.energy.by_stage.values(), record.energy.by_device.values()
    assert sum(stage.joules for stage in stages) == pytest.approx(record.energy.total_j, rel=1e-9)
    assert sum(device.joules for device in devices) == pytest.approx(record.energy.total_j, rel=1e-9)
    return record
