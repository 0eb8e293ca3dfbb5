"""The run's two files: complete or not there, and readable after whatever happened to the process."""

from __future__ import annotations

import json
import math
import os

import numpy as np
import pytest
import torch

from lightning_watt import read_record
from lightning_watt.errors import RecordError
from lightning_watt.record import files
from lightning_watt.record import schema as record
from lightning_watt.record.schema import (
    JOURNAL_NAME,
    RECORD_NAME,
    SCHEMA_VERSION,
    Accuracy,
    DeviceEnergy,
    Energy,
    Epoch,
    Inherited,
    Record,
    Sam,
    Stage,
    read_journal,
    to_json,
)
from lightning_watt.record.writer import RecordWriter


def a_record(**changes) -> Record:
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


# ---- watt.json ----


def test_what_is_written_is_read_back(tmp_path):
    written = a_record()
    RecordWriter(tmp_path / "logs" / "version_0").write(written)
    assert read_record(tmp_path / "logs" / "version_0") == written
    assert read_record(str(tmp_path / "logs" / "version_0" / RECORD_NAME)) == written


def test_the_contracts_keys_are_in_the_file():
    plain = json.loads(to_json(a_record()))
    assert set(plain) >= {
        "schema_version", "status", "energy", "accuracy", "sam", "epochs", "inherited", "hardware", "model", "software",
    }  # fmt: skip
    assert set(plain["energy"]) >= {"total_j", "total_kwh", "uncertainty_j", "provenance", "by_stage", "by_device"}
    assert set(plain["energy"]["by_stage"]["train"]) >= {"joules", "seconds", "batches", "samples"}
    assert set(plain["energy"]["by_device"]["gpu0"]) >= {"joules", "name", "uuid", "source", "provenance"}
    assert set(plain["accuracy"]) == {"metric", "last", "best"}
    assert set(plain["sam"]) >= {"alpha", "beta", "unit", "value", "shifted"}
    assert set(plain["epochs"][0]) == {"epoch", "stage", "joules", "seconds", "accuracy"}
    assert plain["inherited"] == [{"path": "runs/pretrain", "total_j": 1e6}]


def test_what_is_undefined_is_null():
    sam = Sam(alpha=5.0, beta=5.0, unit="kWh", value=math.nan, shifted=math.inf)
    plain = json.loads(to_json(a_record(sam=sam)), parse_constant=pytest.fail)
    assert plain["sam"]["value"] is None
    assert plain["sam"]["shifted"] is None


def test_what_a_model_says_about_itself_never_breaks_the_file(tmp_path):
    said = {"flops": np.int64(7), "ratio": np.float32(0.5), "none": np.float64("nan"), "dtype": torch.float32, (1, 2): {3}}
    RecordWriter(tmp_path).write(a_record(model=said))
    model = read_record(tmp_path).model
    assert model == {"flops": 7, "ratio": 0.5, "none": None, "dtype": "torch.float32", "(1, 2)": [3]}


def test_a_number_of_numpys_is_a_number(tmp_path):
    RecordWriter(tmp_path).write(a_record(pue=np.float64(1.2), started_unix=np.int64(5)))
    assert read_record(tmp_path).pue == 1.2
    assert read_record(tmp_path).started_unix == 5


def test_it_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path):
    writer = RecordWriter(tmp_path)
    writer.write(a_record())
    before = (tmp_path / RECORD_NAME).stat().st_ino
    writer.write(a_record(status="completed"))
    assert read_record(tmp_path).status == "completed"
    assert (tmp_path / RECORD_NAME).stat().st_ino != before
    assert [file.name for file in tmp_path.iterdir()] == [RECORD_NAME]


def test_a_write_that_fails_leaves_the_old_record(tmp_path):
    writer = RecordWriter(tmp_path)
    writer.write(a_record())
    (tmp_path / f".{RECORD_NAME}.{os.getpid()}").mkdir()  # where the half would go
    with pytest.raises(OSError, match=r"watt\.json"):
        writer.write(a_record(status="completed"))
    assert read_record(tmp_path).status == "running"


def test_keys_of_a_newer_minor_version_are_let_through(tmp_path):
    plain = json.loads(to_json(a_record())) | {"water_l": 3}
    plain["energy"]["by_stage"]["train"]["phase_of_the_moon"] = "full"
    (tmp_path / RECORD_NAME).write_text(json.dumps(plain))
    assert read_record(tmp_path) == a_record()


def _without(key: str) -> dict:
    return {name: value for name, value in json.loads(to_json(a_record())).items() if name != key}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a run record"),
        (to_json(a_record())[:-40], "cut off"),
        (b"[]", "not a run record"),
        (b'{"a": "\xff"}', "not a run record"),
        (b"[" * 100_000, "not a run record"),
        (json.dumps(_without("schema_version")).encode(), "schema_version"),
        (json.dumps(_without("energy")).encode(), "energy"),
        (json.dumps(_without("status") | {"status": "tired"}).encode(), "tired"),
        (json.dumps(_without("epochs") | {"epochs": [{"epoch": "one"}]}).encode(), r"\$\.epochs\[0\]"),
        (b'{"schema_version": 99}', "Update lightning_watt"),
        (b'{"schema_version": 0}', "Run the training again"),
    ],
)
def test_a_broken_record_says_what_and_where(tmp_path, content, words):
    file = tmp_path / RECORD_NAME
    file.write_bytes(content)
    with pytest.raises(RecordError, match=words) as caught:
        read_record(tmp_path)
    assert str(file) in str(caught.value)


def test_what_cannot_be_a_record_is_not_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "MAX_BYTES", 100)
    (tmp_path / RECORD_NAME).write_bytes(to_json(a_record()))
    with pytest.raises(RecordError, match="no record is larger"):
        read_record(tmp_path)


def test_a_directory_in_its_place_is_no_record(tmp_path):
    (tmp_path / RECORD_NAME).mkdir()
    with pytest.raises(RecordError, match="cannot be read"):
        read_record(tmp_path)


# ---- watt.jsonl ----


def lines(count: int) -> list[dict]:
    return [{"t": 1e9 + i, "total_j": i * 10.5, "stage": "train"} for i in range(count)]


def test_the_journal_holds_every_line_as_soon_as_it_is_appended(tmp_path):
    writer = RecordWriter(tmp_path / "new")
    for i, line in enumerate(lines(5), start=1):
        writer.append(line)
        assert read_journal(tmp_path / "new") == lines(i)
    writer.close()
    writer.close()
    assert read_journal(tmp_path / "new" / JOURNAL_NAME) == lines(5)


def test_a_resumed_run_appends(tmp_path):
    for part in (lines(3)[:1], lines(3)[1:]):
        writer = RecordWriter(tmp_path)
        for line in part:
            writer.append(line)
        writer.close()
    assert read_journal(tmp_path) == lines(3)


@pytest.mark.parametrize("half", [b'{"t": 17', b'{"t": 1, "stage": "tr\xc3', b"{", b'{"t": 1, "total_j": 5}'])
def test_a_line_that_a_killed_process_cut_off_costs_that_line_only(tmp_path, half):
    writer = RecordWriter(tmp_path)
    for line in lines(3):
        writer.append(line)
    writer.close()
    with (tmp_path / JOURNAL_NAME).open("ab") as file:
        file.write(half)
    assert read_journal(tmp_path)[:3] == lines(3)
    again = RecordWriter(tmp_path)
    again.append({"t": 99})
    again.close()
    assert read_journal(tmp_path) == [*lines(3), {"t": 99}]


def test_a_journal_of_one_half_line_is_begun_again(tmp_path):
    (tmp_path / JOURNAL_NAME).write_bytes(b'{"t": 17')
    assert read_journal(tmp_path) == []
    writer = RecordWriter(tmp_path)
    writer.append({"t": 1})
    writer.close()
    assert read_journal(tmp_path) == [{"t": 1}]


def test_a_full_disk_is_an_error_and_leaves_whole_lines(tmp_path, monkeypatch):
    class SmallDisk(files.FileIO):
        def write(self, raw):
            return super().write(raw[: max(0, 100 - self.tell())])

    monkeypatch.setattr(files, "FileIO", SmallDisk)
    writer = RecordWriter(tmp_path)
    writer.append({"t": 1, "note": "x" * 60})
    for _ in range(2):
        with pytest.raises(OSError, match="No space left") as caught:
            writer.append({"t": 2, "note": "x" * 60})
        assert caught.value.filename == str(tmp_path / JOURNAL_NAME)
    writer.append({"t": 3})  # a shorter one still fits
    writer.close()
    assert [line["t"] for line in read_journal(tmp_path)] == [1, 3]


def test_a_line_broken_in_the_middle_is_named(tmp_path):
    (tmp_path / JOURNAL_NAME).write_bytes(b'{"t": 1}\nnonsense\n{"t": 3}\n')
    with pytest.raises(RecordError, match="line 2"):
        read_journal(tmp_path)


def test_no_journal_is_said(tmp_path):
    with pytest.raises(RecordError, match=JOURNAL_NAME):
        read_journal(tmp_path)


def test_a_place_that_cannot_be_written_is_the_callers_to_tell(tmp_path):
    (tmp_path / "logs").write_text("a file where the directory should be")
    writer = RecordWriter(tmp_path / "logs")
    with pytest.raises(OSError, match="logs"):
        writer.write(a_record())
    with pytest.raises(OSError, match="logs"):
        writer.append({"t": 1})
