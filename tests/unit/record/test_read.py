"""A record is read whole or refused by name; and a directory's record is brought up to date from its journals."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lightning_watt import energy_of
from lightning_watt.errors import RecordError
from lightning_watt.record import Accuracy, DeviceEnergy, Energy, NodeEnergy, Record, Sam, Stage
from lightning_watt.record import read as reading
from lightning_watt.record.claim import RunFiles
from lightning_watt.record.files import RECORD_NAME
from lightning_watt.record.lines import JournalLine
from lightning_watt.record.read import read_record, read_records, record_from_json
from lightning_watt.record.writer import RunWriter, to_json
from tests.unit.record.made import NOW, J, a_journal, a_record, a_session, as_json


def write(directory: Path, record: Record, version: int = 0) -> Path:
    RunWriter(RunFiles(directory, at_least=version), pytest.fail).record(record)
    return directory


# ---- a record ----


def test_what_is_written_is_read_back(tmp_path):
    written = a_record()
    directory = write(tmp_path / "logs" / "version_0", written)
    assert read_record(directory) == written
    assert read_record(str(directory / RECORD_NAME)) == written
    assert record_from_json((directory / RECORD_NAME).read_bytes(), "here") == written


def test_a_record_beside_a_directory_that_holds_the_checkpoints_is_found(tmp_path):
    (tmp_path / "run").mkdir()
    written = a_record()
    write(tmp_path / "run.watt", written)
    assert read_record(tmp_path / "run") == written


def test_of_several_runs_in_a_directory_the_newest_is_read_and_all_can_be(tmp_path):
    """The newest is the one that began last, whatever its name: a removed version is given again."""
    for version, started_unix in ((0, 2.0), (1, 9.0), (2, 5.0)):
        write(tmp_path, a_record(session=f"s{version}", started_unix=started_unix), version)
    assert read_record(tmp_path).session == "s1"
    assert [record.session for record in read_records(tmp_path)] == ["s0", "s2", "s1"]
    assert read_record(tmp_path / "watt-v2.json").session == "s2"


def test_a_broken_record_is_not_the_newest_and_is_told_by_whoever_wants_all(tmp_path):
    write(tmp_path, a_record(session="a", started_unix=1.0))
    (tmp_path / "watt-v1.json").write_text("{")
    assert read_record(tmp_path).session == "a"
    with pytest.raises(RecordError, match=r"watt-v1\.json: this is not a run record"):
        read_records(tmp_path)


def test_a_rank_s_own_record_is_no_run_of_its_own(tmp_path):
    write(tmp_path, a_record(session="a", started_unix=1.0))
    (tmp_path / "watt.rank2.json").write_bytes(to_json(a_record(session="b", started_unix=2.0)))
    assert [record.session for record in read_records(tmp_path)] == ["a"]


def test_the_records_of_a_directory_without_any(tmp_path):
    with pytest.raises(RecordError, match=r"watt\.json: there is no such file"):
        read_records(tmp_path)


def test_a_record_that_is_not_there(tmp_path):
    with pytest.raises(
        RecordError, match=r"watt\.json: there is no such file\. Did its run use WattCallback\(record=True\)"
    ):
        read_record(tmp_path)


def test_keys_of_a_newer_minor_version_are_let_through(tmp_path):
    plain = as_json(a_record()) | {"water_l": 3}
    plain["energy"]["by_stage"]["train"]["phase_of_the_moon"] = "full"
    (tmp_path / RECORD_NAME).write_text(json.dumps(plain))
    assert read_record(tmp_path) == a_record()


def _without(key: str) -> dict:
    return {name: value for name, value in as_json(a_record()).items() if name != key}


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


@pytest.mark.parametrize("literal", ["1e999", "-1e999", "NaN", "Infinity", "0x7f", "1" * 5000])
def test_a_number_that_json_does_not_know_or_no_float_holds(tmp_path, literal):
    raw = to_json(a_record()).replace(b'"total_j": 7200000.0', f'"total_j": {literal}'.encode())
    assert literal.encode() in raw
    (tmp_path / RECORD_NAME).write_bytes(raw)
    with pytest.raises(RecordError, match="not a run record"):
        read_record(tmp_path)


@pytest.mark.parametrize("key", ["hardware", "model"])
def test_nesting_without_end_is_refused(tmp_path, key):
    """Also where a record may hold anything."""
    deep = "[" * 100_000 + "]" * 100_000
    raw = to_json(a_record()).replace(f'"{key}": {{}}'.encode(), f'"{key}": {{"a": {deep}}}'.encode())
    assert len(raw) > 200_000
    (tmp_path / RECORD_NAME).write_bytes(raw)
    with pytest.raises(RecordError, match="not a run record"):
        read_record(tmp_path)


def test_a_broken_record_is_no_energy_either(tmp_path):
    (tmp_path / RECORD_NAME).write_bytes(to_json(a_record())[:-40])
    with pytest.raises(RecordError, match="cut off"):
        energy_of(tmp_path)


def test_a_file_that_is_too_large_for_a_record_is_not_loaded(tmp_path, monkeypatch):
    write(tmp_path, a_record())
    monkeypatch.setattr(reading, "MAX_RECORD_BYTES", 100)
    with pytest.raises(RecordError, match="more than 100 bytes"):
        read_record(tmp_path)


def test_a_directory_in_its_place_is_no_record(tmp_path):
    (tmp_path / RECORD_NAME).mkdir()
    with pytest.raises(RecordError, match="cannot be read"):
        read_record(tmp_path)


def test_a_record_behind_a_link_is_read(tmp_path):
    """Links are how people keep runs on another disk."""
    write(tmp_path / "disk", a_record())
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    assert read_record(tmp_path / "run") == a_record()


# ---- a record, brought up to date ----


def a_running_record(directory: Path, status: str = "running") -> Path:
    """Of two nodes, as rank zero wrote it at an epoch's end."""

    def device(label: str, joules: float) -> DeviceEnergy:
        return DeviceEnergy(joules=joules, name="a board", uuid="GPU-0", source="nvml-counter", provenance="measured")

    stages = {"train": Stage(joules=130.0, seconds=1.0)}
    devices = {"gpu0": device("gpu0", 100.0), "node1/gpu0": device("node1/gpu0", 30.0)}
    record = Record(
        schema_version=1,
        status=status,
        energy=Energy(
            total_j=130.0, total_kwh=0.0, uncertainty_j=5.0, provenance="measured", by_stage=stages, by_device=devices
        ),
        accuracy=Accuracy(),
        sam=Sam(alpha=5.0, beta=5.0, unit="kWh"),
        session="a",
        run="a",
        nodes=[
            NodeEnergy(session="a", device_uj={"gpu0": 100 * J}, stage_uj={"train": 100 * J}, ns=10**9),
            NodeEnergy(session="b", rank=2, node=1, device_uj={"gpu0": 30 * J}, stage_uj={"train": 30 * J}, ns=10**9),
        ],
        updated_unix=NOW - 600,
    )
    return write(directory, record)


@pytest.mark.parametrize("status", ["running", "failed"])
def test_a_directory_s_record_knows_what_its_journals_know(tmp_path, status):
    a_running_record(tmp_path, status)
    mine, theirs = a_session("a", 0, 100, 200, run="a"), a_session("b", 0, 30, 60, 90, run="a", rank=2, node=1)
    mine[-1].stage_uj, theirs[-1].stage_uj = {"train": 150 * J, "validate": 50 * J}, {"train": 80 * J, "validate": 10 * J}
    third = a_session("c", 0, 7, run="a", rank=4, node=2)  # killed before it told anything
    third[-1].stage = "train"
    a_journal(tmp_path, mine, a_session("before", 0, 1000, run="before"))
    a_journal(tmp_path, theirs, name="watt.rank2.jsonl")
    a_journal(tmp_path, third, name="watt.rank4.jsonl")
    record = read_record(tmp_path)
    energy = record.energy
    assert energy.total_j == pytest.approx(200 + 90 + 7)
    assert energy.total_kwh == pytest.approx(297 / 3.6e6)
    assert {label: device.joules for label, device in energy.by_device.items()} == pytest.approx(
        {"gpu0": 200, "node1/gpu0": 90, "node2/gpu0": 7}
    )
    assert {stage: entry.joules for stage, entry in energy.by_stage.items()} == pytest.approx(
        {"train": 150 + 80 + 7, "validate": 60}
    )
    assert record.updated_unix == NOW - 497
    assert record.status == status
    assert sorted(node.session for node in record.nodes) == ["a", "b", "c"]
    # The file itself is read as it is.
    assert read_record(tmp_path / RECORD_NAME).energy.total_j == 130


def test_a_record_beside_hostile_journals_is_what_was_written(tmp_path):
    a_running_record(tmp_path)
    a_journal(tmp_path, [JournalLine(t=NOW, session="a", device_uj={"gpu0": 2**61}, ns=10**10)])
    os.mkfifo(tmp_path / "watt.rank2.jsonl")
    assert read_record(tmp_path).energy.total_j == 130


def test_a_run_that_ended_well_is_read_as_it_was_written(tmp_path):
    """One process measured it, and wrote the record last."""
    record = read_record(a_running_record(tmp_path / "first"))
    record.status, record.nodes = "completed", record.nodes[:1]
    write(tmp_path / "run", record)
    a_journal(tmp_path / "run", a_session("a", 0, 100, 200, run="a"))
    assert read_record(tmp_path / "run").energy.total_j == 130


def test_a_run_that_measured_nothing_stays_one(tmp_path):
    record = read_record(a_running_record(tmp_path / "first"))
    record.energy.total_j = None
    write(tmp_path / "run", record)
    a_journal(tmp_path / "run", a_session("a", 0, 100, 200, run="a"))
    assert read_record(tmp_path / "run").energy.total_j is None


def test_a_record_ahead_of_its_journal_is_not_taken_back(tmp_path):
    a_running_record(tmp_path)
    behind = a_session("a", 0, 60, 90, run="a")
    behind[-1].stage_uj = {"train": 90 * J}
    a_journal(tmp_path, behind)
    record = read_record(tmp_path)
    assert record.energy.total_j == 130
    assert record.nodes[0].device_uj == {"gpu0": 100 * J}


def test_stages_that_do_not_agree_with_the_devices_give_the_rest_to_the_lines_stage(tmp_path):
    a_running_record(tmp_path)
    line = a_session("a", 0, 100, 200, run="a")
    line[-1].stage, line[-1].stage_uj = "validate", {"train": 130 * J}
    a_journal(tmp_path, line)
    energy = read_record(tmp_path).energy
    assert {stage: entry.joules for stage, entry in energy.by_stage.items()} == pytest.approx({"train": 160, "validate": 70})
    assert energy.total_j == pytest.approx(230)
    # The second that the journal knows more of is split like its joules.
    assert energy.by_stage["train"].seconds == pytest.approx(1.3)
    assert energy.by_stage["validate"].seconds == pytest.approx(0.7)


def test_a_label_that_no_device_of_the_run_had_is_in_the_total(tmp_path):
    a_running_record(tmp_path)
    line = a_session("a", 0, 100, 100, run="a")
    line[-1].device_uj = {"gpu0": 100 * J, "gpu7": 5 * J}
    a_journal(tmp_path, line)
    energy = read_record(tmp_path).energy
    assert energy.total_j == pytest.approx(135)
    assert "gpu7" not in energy.by_device


def test_what_is_read_twice_is_the_same(tmp_path):
    a_running_record(tmp_path)
    a_journal(tmp_path, a_session("a", 0, 100, 200, run="a"))
    assert read_record(tmp_path) == read_record(tmp_path)


def test_a_file_that_is_no_record_is_answered_with_what_to_give(tmp_path):
    script = tmp_path / "train.py"
    script.write_text("print('hello')")
    with pytest.raises(RecordError, match=r"train\.py: this is a file, and no run record\. Give the run's directory"):
        read_record(script)
    with pytest.raises(RecordError, match=r"train\.py: this is a file\. Give the run's directory"):
        read_records(script)
