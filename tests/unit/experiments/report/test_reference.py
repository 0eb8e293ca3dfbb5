"""Trainings that others measured, read from a CSV that the user brings."""

from __future__ import annotations

import pytest

from experiments.report.inputs.reference import read_reference
from tests.unit.experiments.report.made import REFERENCE


def read(tmp_path, content):
    file = tmp_path / "reference.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_reference(file)


def test_trainings_arrive_with_family_year_and_device(tmp_path):
    trainings, broken = read(tmp_path, REFERENCE)
    assert not broken
    first = trainings[0]
    assert (first.name, first.family, first.year) == ("ResNet50 (PyTorch)", "ResNet", 2015)
    assert (first.device, first.joules, first.accuracy, first.epochs) == ("8 x NVIDIA A100-SXM4-40GB", 18e6, 0.51, 10)


@pytest.mark.parametrize("energy", ["", "nan", "inf", "-1", "0", "1e400", "<script>", "1" * 400])
def test_a_row_without_a_possible_energy_is_listed(tmp_path, energy):
    trainings, broken = read(tmp_path, f"model,kwh,val_acc\na,{energy},0.5\nb,1,0.5\n")
    assert [training.name for training in trainings] == ["b"]
    assert broken[0].path == "reference.csv, line 2"


@pytest.mark.parametrize("accuracy", ["", "nan", "-0.1", "51", "="])
def test_a_row_without_a_possible_accuracy_is_listed(tmp_path, accuracy):
    trainings, broken = read(tmp_path, f"model,kwh,val_acc\na,1,{accuracy}\n")
    assert (len(trainings), len(broken)) == (0, 1)


def test_short_rows_binary_rubbish_and_long_fields_do_no_harm(tmp_path):
    trainings, broken = read(tmp_path, b"model,kwh,val_acc\na\n\xff\xfe\x00,1,0.5\n" + b"x" * 200_000 + b",1,0.5\n")
    assert len(broken) >= 1
    assert all(training.name.isprintable() for training in trainings)


@pytest.mark.parametrize(("content", "missing"), [("", "model"), ("model,kwh\n", "val_acc"), ("model,val_acc\n", "kwh")])
def test_another_file_is_refused_with_what_it_lacks(tmp_path, content, missing):
    with pytest.raises(ValueError, match=missing):
        read(tmp_path, content)


def test_no_file_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_reference(tmp_path / "nowhere.csv")
