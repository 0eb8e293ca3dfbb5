"""What is compared with what."""

from __future__ import annotations

import pytest

from experiments.report.comparison import compare
from experiments.report.figures.pretraining import pairs
from experiments.report.inputs.lineage import lineages
from experiments.report.inputs.records import load
from experiments.report.inputs.reference import read_reference
from experiments.report.metrics import SamSettings
from lightning_watt.record import Inherited
from tests.unit.experiments.report.made import REFERENCE, lifecycle, made, write


def compared(root, **more):
    return compare(lineages(load(root).runs), **more)


@pytest.fixture
def trainings(tmp_path):
    file = tmp_path / "reference.csv"
    file.write_text(REFERENCE)
    return read_reference(file)[0]


def test_data_sets_and_the_reference_stand_apart(tmp_path, trainings):
    lifecycle(tmp_path / "runs/a")
    lifecycle(tmp_path / "runs/b", family="swin")
    lifecycle(tmp_path / "runs/c", data="emoji")
    found = compared(tmp_path / "runs", trainings=trainings)
    assert [comparison.title for comparison in found] == ["digits", "emoji", "reference (4 trainings, 10 epochs)"]
    assert [len(comparison.results) for comparison in found] == [2, 1, 4]


def test_measured_and_estimated_energies_are_never_ranked_together(tmp_path):
    lifecycle(tmp_path / "a", "vit", accuracy=0.8)
    lifecycle(tmp_path / "b", "swin", scale=0.01, accuracy=0.9, provenance="estimated")
    (comparison,) = compared(tmp_path)
    assert comparison.pareto() == {"vit": 1, "swin": 1}
    assert [result.label for result in comparison.ranked("measured")] == ["vit"]


@pytest.mark.parametrize("status", ["failed", "interrupted", "running"])
def test_what_did_not_complete_is_kept_and_not_ranked(tmp_path, status):
    write(tmp_path / "a", made(status=status))
    write(tmp_path / "b", made())
    (comparison,) = compared(tmp_path)
    assert sorted(result.state for result in comparison.results) == ["completed", status]
    assert len(comparison.ranked("measured")) == 1


def test_what_did_not_learn_is_kept_and_not_ranked(tmp_path, trainings):
    (comparison,) = compare([], trainings)
    (failed,) = [result for result in comparison.results if not result.ranked]
    assert (failed.label, failed.state) == ("VGG16 (PyTorch)", "completed, did not learn")
    write(tmp_path / "a", made(accuracy=0.12, num_classes=10))
    assert compared(tmp_path)[0].results[0].learnt is False


def test_below_one_kwh_there_is_no_sam_but_a_shifted_one(trainings):
    (comparison,) = compare([], trainings)
    quick = next(result for result in comparison.results if result.family == "QuickNet")
    assert comparison.sam(quick) is None
    assert comparison.sam(quick, shifted=True) > 0
    assert comparison.pareto()["QuickNet (TF)"] == 1


def test_repetitions_are_one_entry_with_their_spread(tmp_path):
    for n, scale in enumerate((1.0, 1.1, 1.2)):
        lifecycle(tmp_path / str(n), scale=scale, accuracy=0.9 + n / 100)
    ((result,),) = (comparison.results for comparison in compared(tmp_path))
    assert result.count == 3
    assert (result.train_j, result.spread_j) == (pytest.approx(440), pytest.approx(40))
    assert (result.accuracy, result.accuracy_spread) == (pytest.approx(0.91), pytest.approx(0.01))


def test_runs_of_other_lengths_are_no_repetitions(tmp_path):
    for name, samples in (("a", 100), ("b", 100), ("c", 200)):
        record = made()
        record.energy.by_stage["train"].samples = samples
        write(tmp_path / name, record)
    assert sorted(result.count for result in compared(tmp_path)[0].results) == [1, 2]


def test_only_a_run_that_says_so_is_without_pretraining(tmp_path):
    lifecycle(tmp_path / "a")
    write(tmp_path / "b", made())
    assert pairs(compared(tmp_path)[0].results) == []
    write(tmp_path / "c", made(start="scratch"))
    ((without, pretrained),) = pairs(compared(tmp_path)[0].results)
    assert (without.variant, pretrained.variant) == ("from scratch", "")
    assert "pretrain" in pretrained.label  # the one that was, and not the finetuning alone of b


def test_labels_are_as_short_as_they_can_be_and_tell_entries_apart(tmp_path):
    lifecycle(tmp_path / "a")
    lifecycle(tmp_path / "b", "swin", device="NVIDIA H100")
    lifecycle(tmp_path / "c", "swin", device="NVIDIA A100-SXM4-40GB")
    write(tmp_path / "d", made(family="vit", start="scratch"))
    write(tmp_path / "e", made(family="mae", scale="small"))
    lifecycle(tmp_path / "f", "mae")
    labels = {result.label for result in compared(tmp_path)[0].results}
    assert labels == {"vit", "swin, H100", "swin, A100", "vit, from scratch", "mae, small", "mae, tiny"}


def test_zero_shot_inference_is_told_from_finetuned(tmp_path):
    lifecycle(tmp_path / "a", "clip", pretraining="image and text")
    first = write(tmp_path / "b/pretrain", made(250, 0.6, phase="pretrain", family="clip", pretraining="image and text"))
    carried = [Inherited(path=str(first), total_j=250)]
    write(tmp_path / "b/inference", made(5, 0.6, phase="inference", family="clip", inherited=carried))
    labels = {result.label for result in compared(tmp_path)[0].results}
    assert labels == {"clip, pretrain + finetune + inference", "clip, pretrain + inference"}


def test_sam_is_taken_as_the_records_agree_or_as_asked(tmp_path):
    write(tmp_path / "a", made(unit="J"))
    assert compared(tmp_path)[0].settings.unit == "J"
    write(tmp_path / "b", made(unit="Wh"))
    assert compared(tmp_path)[0].settings == SamSettings()
    asked = SamSettings(2, 1, "Wh")
    assert compared(tmp_path, settings=asked)[0].settings == asked


def test_runs_with_other_settings_are_not_averaged(tmp_path):
    """Two seeds are repetitions; another learning rate is another result, with its recipe in its label."""
    for n, (settings, lr) in enumerate([("aaaa0000", 0.001), ("aaaa0000", 0.001), ("bbbb1111", 0.01)]):
        write(tmp_path / str(n), made(settings=settings, lr=lr, phase="pretrain"))
    (comparison,) = compared(tmp_path)
    assert {result.label: result.count for result in comparison.results} == {"vit, lr 0.001": 2, "vit, lr 0.01": 1}
