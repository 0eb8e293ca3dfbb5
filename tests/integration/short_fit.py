"""A fit of some two seconds whose record's sums were found right, and boards for it that may have faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lightning_watt import read_record
from lightning_watt.record import Record, read_journal
from lightning_watt.testing import Board, Fault, Lab, constant
from tests.integration.tiny import loader, module, trainer


def board(watts: float, *faults: Fault, **options: Any) -> Board:
    return Board(power=constant(watts), faults=faults, **{"counter_ms": 10} | options)


def lab_of(*boards: Board) -> Lab:
    """Their faults' times count from the first reading, however long a fit takes to begin."""
    return Lab(boards, start="first_reading")


def fit(pl: Any, directory: Path, callback: Any, *others: Any, step_s: float = 0.05, **options: Any) -> Record:
    """A fit of some two seconds; returns its record, the sums found right."""
    trained = trainer(pl, directory, callback, *others, **options)
    trained.fit(module(pl, step_s=step_s), loader(12), loader(4))
    assert trained.state.finished
    record = read_record(directory)
    assert record.status == "completed"
    if record.energy.total_j is not None:
        assert sum(stage.joules for stage in record.energy.by_stage.values()) == pytest.approx(record.energy.total_j)
        assert sum(device.joules for device in record.energy.by_device.values()) == pytest.approx(record.energy.total_j)
        assert all(device.joules >= 0 for device in record.energy.by_device.values())
    totals = [line["total_j"] for line in read_journal(directory)]
    assert totals == sorted(totals)
    return record


def seconds(record: Record) -> float:
    return sum(stage.seconds for stage in record.energy.by_stage.values())
