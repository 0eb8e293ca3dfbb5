"""Records and journals for the tests of what is on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning_watt.record import Accuracy, DeviceEnergy, Energy, Epoch, Inherited, Record, Sam, Stage
from lightning_watt.record.files import JOURNAL_NAME
from lightning_watt.record.lines import JournalLine, to_line
from lightning_watt.record.schema import SCHEMA_VERSION
from lightning_watt.record.writer import to_json
from lightning_watt.sources.base import Device

J = 1_000_000
NOW = 1_000_000.0
BOARD = Device(label="gpu0", name="a board", uuid="GPU-0", source="nvml-counter", provenance="measured", gain=0.05)


def a_record(**changes: Any) -> Record:
    energy = Energy(
        total_j=7.2e6,
        total_kwh=2.0,
        uncertainty_j=360_000.0,
        provenance="measured",
        by_stage={
            "train": Stage(joules=7e6, seconds=60.0, batches=100, samples=1600),
            "other": Stage(joules=2e5, seconds=3.0),
        },
        by_device={
            "gpu0": DeviceEnergy(joules=7.2e6, name="H100", uuid="GPU-0", source="nvml-counter", provenance="measured")
        },
    )
    about = {
        "schema_version": SCHEMA_VERSION,
        "status": "running",
        "energy": energy,
        "accuracy": Accuracy(metric="val_acc", last=0.8, best=0.9),
        "sam": Sam(alpha=5.0, beta=5.0, unit="kWh", value=5.4, shifted=1.5),
        "epochs": [Epoch(epoch=0, stage="train", joules=7e6, seconds=60.0, accuracy=0.8)],
        "inherited": [Inherited(path="runs/pretrain", total_j=1e6)],
    }
    return Record(**(about | changes))


def as_json(record: Record) -> dict[str, Any]:
    """What the record's file holds."""
    decoded: dict[str, Any] = json.loads(to_json(record))
    return decoded


def a_session(
    session: str, *joules: float, resumes: list[str] | None = None, status: str | None = None, **facts: Any
) -> list[JournalLine]:
    """The lines of a session that wrote one a second, with these joules so far."""
    made = [
        JournalLine(t=NOW - 500 + i, session=session, device_uj={"gpu0": round(j * J)}, ns=i * 10**9, power_w=100.0)
        for i, j in enumerate(joules)
    ]
    first = made[0]
    first.devices, first.resumes, first.where, first.interval_s = {"gpu0": BOARD}, resumes or [], "another machine", 1.0
    for name, value in facts.items():
        setattr(first, name, value)
    made[-1].status = status  # type: ignore[assignment]
    return made


def a_journal(directory: Path, *sessions: list[JournalLine], name: str = JOURNAL_NAME) -> Path:
    """Add the lines of these sessions to a journal."""
    directory.mkdir(exist_ok=True)
    file = directory / name
    with file.open("ab") as out:
        for session in sessions:
            out.writelines(to_line(line) for line in session)
    return file
