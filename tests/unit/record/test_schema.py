"""The keys of a run record: those that others read are there, and a value that cannot be is refused by its name."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from lightning_watt.errors import RecordError
from lightning_watt.record import Record, record_from_json
from lightning_watt.record.schema import RecordFields, Stage
from tests.unit.record.made import a_record, as_json


def changed(path: str, value: Any) -> bytes:
    """A good record with one value replaced; `energy.by_device.gpu0.joules` names it."""
    whole = as_json(a_record())
    *inner, last = path.split(".")
    at: Any = whole
    for key in inner:
        at = at[int(key)] if isinstance(at, list) else at[key]
    at[int(last) if isinstance(at, list) else last] = value
    return json.dumps(whole).encode()


def test_the_contracts_keys_are_in_the_file():
    plain = as_json(a_record())
    assert set(plain) >= {
        "schema_version", "status", "energy", "accuracy", "sam", "epochs", "inherited", "hardware", "model", "software",
    }  # fmt: skip
    assert set(plain["energy"]) >= {"total_j", "total_kwh", "uncertainty_j", "provenance", "by_stage", "by_device"}
    assert set(plain["energy"]["by_stage"]["train"]) >= {"joules", "seconds", "batches", "samples"}
    assert set(plain["energy"]["by_device"]["gpu0"]) >= {"joules", "name", "uuid", "source", "provenance"}
    assert set(plain["accuracy"]) == {"metric", "last", "best"}
    assert set(plain["sam"]) >= {"alpha", "beta", "unit", "value", "shifted"}
    assert set(plain["epochs"][0]) == {"epoch", "stage", "joules", "seconds", "accuracy"}
    (inherited,) = plain["inherited"]
    assert (inherited["path"], inherited["total_j"], inherited["uncertainty_j"]) == ("runs/pretrain", 1e6, None)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("energy.total_j", -1.0),
        ("energy.total_j", "7"),
        ("energy.total_j", True),
        ("energy.total_j", [1]),
        ("energy.total_j", float("nan")),
        ("energy.total_j", float("inf")),
        ("energy.total_kwh", -0.5),
        ("energy.uncertainty_j", -1),
        ("energy.provenance", "trust me"),
        ("energy.by_stage.train.joules", -2.0),
        ("energy.by_stage.train.batches", -1),
        ("energy.by_stage.train.batches", 1.5),
        ("energy.by_stage", []),
        ("energy.by_device.gpu0.joules", -1),
        ("energy.by_device.gpu0.name", None),
        ("energy.by_device.gpu0.name", {"$ref": "file:///etc/passwd"}),
        ("inherited.0.total_j", -1),
        ("epochs.0.seconds", -1e9),
        ("sam.unit", "MWh"),
        ("accuracy", 0.9),
        ("resumed_j", -5),
    ],
)
def test_a_value_that_cannot_be_is_refused(path, value):
    with pytest.raises(RecordError, match="this is not a run record") as caught:
        record_from_json(changed(path, value), "here")
    assert str(caught.value).startswith("here: ")


def test_the_message_names_the_field():
    with pytest.raises(RecordError, match=r"\$\.energy\.by_stage.*train|\$\.energy\.by_stage\[\.\.\.\]\.joules"):
        record_from_json(changed("energy.by_stage.train.joules", -2.0), "here")


@pytest.mark.parametrize("joules", [-1e-3, 0.0, 5.0])
def test_a_part_of_a_run_may_be_negative_by_an_edges_width(joules):
    """By a GPU's own clock a stage may end microseconds before it begins."""
    assert (
        record_from_json(changed("energy.by_stage.train.joules", joules), "here").energy.by_stage["train"].joules == joules
    )


def test_an_old_record_with_the_first_versions_keys_alone_is_read():
    old = {name: as_json(a_record())[name] for name in ("schema_version", "status", "energy", "accuracy", "sam")}
    record = record_from_json(json.dumps(old).encode(), "here")
    assert (record.epochs, record.nodes, record.wasted_j, record.idle, record.pue) == ([], [], 0.0, None, 1.0)


def test_two_records_share_no_lists():
    first, second = a_record(), a_record()
    first.warnings.append("one")
    first.energy.by_stage["test"] = Stage(joules=1.0, seconds=1.0)
    assert second.warnings == []
    assert "test" not in second.energy.by_stage


def test_what_users_need_has_public_names():
    """Every struct that a record holds is a name of the room, so that a user can name the type of what was read."""
    room = importlib.import_module("lightning_watt.record")
    structs = {kind.cls.__name__ for kind in _structs(msgspec.inspect.type_info(Record), set())}
    assert {"Stage", "Epoch", "LostWork", "NodeEnergy"} <= structs
    assert structs <= set(room.__all__)
    assert all(hasattr(room, name) for name in room.__all__)
    assert issubclass(Record, RecordFields)
    assert Record.__struct_fields__ == RecordFields.__struct_fields__


def _structs(kind: Any, seen: set[type]) -> Iterator[msgspec.inspect.StructType]:
    if isinstance(kind, msgspec.inspect.StructType):
        if kind.cls in seen:
            return
        seen.add(kind.cls)
        yield kind
        for entry in kind.fields:
            yield from _structs(entry.type, seen)
    for inner in ("item_type", "value_type"):
        if hasattr(kind, inner):
            yield from _structs(getattr(kind, inner), seen)
    for option in getattr(kind, "types", ()):
        yield from _structs(option, seen)
