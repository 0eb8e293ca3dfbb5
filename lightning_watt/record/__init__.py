"""What is on disk of a run, and nothing else: the record `watt.json`, its journal `watt.jsonl`, and the batches' table.

- `schema`: the keys of a record. `record`: the class `Record`.
- `read`: reads a record, or all in a directory. `journal`: reads the journal. `lines`: its lines as they are written.
- `writer`: writes a run's files. `claim`: which names they get in their directory. `remote`: directories with a URL.
- `files`: names, places and size limits, and how files are opened.
- `summary`: the table at the end of a run, and the line. `printed`: how much of it is printed.
"""

from __future__ import annotations

from lightning_watt.record.journal import read_journal
from lightning_watt.record.read import read_record, read_records, record_from_json
from lightning_watt.record.record import Record
from lightning_watt.record.schema import (
    Accuracy,
    BatchRow,
    DeviceEnergy,
    Energy,
    Epoch,
    Idle,
    Inherited,
    LostWork,
    NodeEnergy,
    Sam,
    Stage,
    Status,
    StepPart,
)
from lightning_watt.sources.base import Gap

__all__ = [
    "Accuracy",
    "BatchRow",
    "DeviceEnergy",
    "Energy",
    "Epoch",
    "Gap",
    "Idle",
    "Inherited",
    "LostWork",
    "NodeEnergy",
    "Record",
    "Sam",
    "Stage",
    "Status",
    "StepPart",
    "read_journal",
    "read_record",
    "read_records",
    "record_from_json",
]
