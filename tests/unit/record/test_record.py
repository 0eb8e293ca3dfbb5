"""The class `Record`: a notebook shows it as the run's table."""

from __future__ import annotations

import copy
import pickle

import msgspec

from lightning_watt.record.record import Record
from lightning_watt.record.schema import RecordFields
from lightning_watt.record.text.summary import summary, summary_html
from lightning_watt.record.writer import to_json
from tests.unit.record.made import a_record


def test_a_notebook_shows_the_table():
    record = a_record()
    assert record._repr_html_() == summary_html(record)
    assert "<table>" in record._repr_html_()


def test_it_is_printed_as_the_table():
    record = a_record()
    assert str(record) == summary(record)
    assert repr(record) == "<Record: Running; energy 2 ± 0.1 kWh, measured, in 63 s; accuracy 0.8000 (val_acc).>"
    [board] = record.energy.by_device.values()
    assert repr(board) == "<DeviceEnergy: H100, 7.2e+06 J, nvml-counter, measured, ± 5%>"


def test_it_adds_nothing_to_the_fields():
    assert Record.__struct_fields__ == RecordFields.__struct_fields__
    fields = msgspec.json.decode(to_json(a_record()), type=RecordFields)
    assert msgspec.structs.asdict(fields) == msgspec.structs.asdict(a_record())


def test_it_is_copied_and_pickled():
    record = a_record()
    assert pickle.loads(pickle.dumps(record)) == record
    assert copy.deepcopy(record) == record
