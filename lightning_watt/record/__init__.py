"""What is on disk of a run, and nothing else: the record `watt.json`, its journal `watt.jsonl`, and the batches' table.

- `schema`: the keys of a record. `record`: the class `Record`.
- `read`: reads a record, or all in a directory. `journal`: reads the journal. `lines`: its lines as they are written.
- `writer`: writes a run's files. `claim`: which names they get in their directory. `remote`: directories with a URL.
- `plain`: makes of a user's own values what a file can hold.
- `files`: names, places and size limits, and how files are opened.
- `difference`: whether two runs differ. `plus_minus`: what is uncertain of a sum of runs. `text/`: the table and the line at
  the end of a run, how much of them is printed, and a statement for a paper.
"""

from __future__ import annotations

from lightning_watt.record.difference import Difference, Uncertain, difference, measured_with
from lightning_watt.record.journal import read_journal
from lightning_watt.record.plus_minus import PlusMinus, inherited_by, plus_minus, together, with_inherited
from lightning_watt.record.read import read_record, read_records, record_from_json, records_below
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
from lightning_watt.record.text.statement import Statement, statement
from lightning_watt.sources.base import Gap

__all__ = [
    "Accuracy",
    "BatchRow",
    "DeviceEnergy",
    "Difference",
    "Energy",
    "Epoch",
    "Gap",
    "Idle",
    "Inherited",
    "LostWork",
    "NodeEnergy",
    "PlusMinus",
    "Record",
    "Sam",
    "Stage",
    "Statement",
    "Status",
    "StepPart",
    "Uncertain",
    "difference",
    "inherited_by",
    "measured_with",
    "plus_minus",
    "read_journal",
    "read_record",
    "read_records",
    "record_from_json",
    "records_below",
    "statement",
    "together",
    "with_inherited",
]
