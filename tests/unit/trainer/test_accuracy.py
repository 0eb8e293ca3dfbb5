"""Which of the logged metrics is the accuracy."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from lightning_watt.errors import WattError
from lightning_watt.record import Accuracy
from lightning_watt.run.state import RunState
from lightning_watt.trainer.accuracy import find_accuracy, look_for_accuracy, missing_accuracy, warn_of_missing_accuracy

USUAL = [
    "acc",
    "ACC",
    "accuracy",
    "Accuracy",
    "acc1",
    "top1",
    "val_acc",
    "val/acc",
    "Val/Accuracy",
    "val-accuracy",
    "val.acc",
    "val acc",
    "valAcc",
    "valaccuracy",
    "valid_acc",
    "valid_accuracy",
    "validation_accuracy",
    "validation/Accuracy",
    "eval/acc",
    "evaluation_accuracy",
    "dev_acc",
    "dev/accuracy",
    "acc/val",
    "acc_val",
    "accuracy/valid",
    "accuracy/validation",
    "Accuracy/val_acc",
    "acc/dev",
    "val_acc_epoch",
    "val_epoch_acc",
    "epoch_val_acc",
    "val_acc/dataloader_idx_0",
    "avg_val_acc",
    "avg_val_accuracy",
    "val_avg_acc",
    "val_acc_avg",
    "val_acc_mean",
    "mean_accuracy",
    "average_val_accuracy",
    "val_overall_acc",
    "val_total_acc",
    "balanced_accuracy",
    "val_balanced_accuracy",
    "val_balanced_acc",
    "val/bal_acc",
    "val_acc_balanced",
    "val_accuracy_score",
    "val_micro_acc",
    "val/acc_macro",
    "val_weighted_accuracy",
    "metrics/val_acc",
    "val/metrics/accuracy",
    "ptl/val_accuracy",
    "val_top1",
    "val/top-1",
    "val_top_1",
    "val_top1_acc",
    "val_top1_accuracy",
    "val_acc_top1",
    "val_acc_top_1",
    "val/acc@1",
    "val_accuracy@1",
    "val_acc1",
    "val_acc_at_1",
    "MulticlassAccuracy",
    "val_MulticlassAccuracy",
    "val/MulticlassAccuracy",
    "valMulticlassAccuracy",
    "val_multiclassaccuracy",
    "val_BinaryAccuracy",
    "val_MultilabelAccuracy",
]
UNUSUAL = [
    "loss",
    "lr",
    "",
    "val_loss",
    "val_acc_loss",
    "Accuracy/Loss",
    "accumulate",
    "accumulated_grad_batches",
    "val_accumulated",
    "acceleration",
    "accept_rate",
    "vaccine",
    "vacc",
    "val_jaccard",
    "val_iou",
    "val_miou_loss",
    "val_miou_person",
    "macro_f1",
    "val_mean",
    "train_acc_step",
    "val_acc_step",
    "best_val_acc",
    "val/acc_best",
    "val_top5",
    "val/acc@5",
    "val_acc5",
    "val_acc10",
    "val_top10_acc",
    "val_top_5_acc",
    "val_acc_0",
    "val_acc_1",
    "val_acc_class_1",
    "val_acc_per_class",
    "val_class_acc",
    "val_acc_cat",
    "val/acc_seizure",
    "accuracy/pos",
    "val_pixel_acc",
    "val_pair_acc",
    "val_token_accuracy",
    "train_val_acc",
    "balanced_accuracy_of_something",
    "val_acc/dataloader_idx_1",
    "inaccuracy",
    "watt/accuracy",
    "watt_vs_energy/accuracy",
]


@pytest.mark.parametrize("name", USUAL)
def test_the_usual_names_are_found(name):
    assert find_accuracy({"lr": 0.1, "val_loss": 0.7, name: torch.tensor(0.5)}) == (name, 0.5)


@pytest.mark.parametrize("name", UNUSUAL)
def test_what_is_no_top_1_accuracy_is_left_alone(name):
    assert find_accuracy({name: 0.5}) is None


@pytest.mark.parametrize("name", ["val_miou", "val/mIoU", "val_mean_iou", "valMeanIoU", "mean_IoU/val", "val_mIoU_epoch"])
def test_mean_iou_counts_where_there_is_no_accuracy(name):
    assert find_accuracy({"val_loss": 2.0, name: 0.4, "train_miou": 0.8}) == (name, 0.4)
    assert find_accuracy({name: 0.4, "train_acc": 0.9}) == ("train_acc", 0.9)
    assert find_accuracy({name: 0.4, "test_miou": 0.3}, stage="test") == ("test_miou", 0.3)


@pytest.mark.parametrize(
    ("stage", "order"),
    [
        ("train", ["val_acc", "acc", "train_acc"]),
        ("validate", ["val_acc", "acc", "train_acc"]),
        ("test", ["test_acc", "acc"]),
    ],
)
def test_validation_comes_before_training_and_a_test_keeps_to_its_own(stage, order):
    metrics = {name: i / 10 for i, name in enumerate(["train_acc", "acc", "val_acc", "test_acc"])}
    for name in order:
        found = find_accuracy(metrics, stage=stage)
        assert found is not None
        assert found[0] == name
        del metrics[name]
    assert find_accuracy(metrics, stage=stage) is None


def test_a_stage_of_its_own_kind_falls_back_to_training():
    assert find_accuracy({"train_acc": 0.3}, stage="sanity_check") == ("train_acc", 0.3)


def test_of_several_names_the_plainest_counts():
    """What a balanced accuracy or a mean over the folds is called beside it has more words."""
    metrics = {"val_balanced_acc": 0.1, "val_acc_epoch": 0.2, "val_acc": 0.3, "val/accuracy": 0.4, "mean_val_acc": 0.5}
    assert find_accuracy(metrics) == ("val_acc", 0.3)
    assert find_accuracy({"mean_val_acc": 0.5, "acc": 0.6}) == ("mean_val_acc", 0.5)  # the stage comes first


def test_a_name_that_is_given_is_the_only_one_looked_at():
    metrics = {"val_acc": 0.9, "mIoU": torch.tensor([0.4])}
    assert find_accuracy(metrics, "mIoU") == ("mIoU", pytest.approx(0.4))
    assert find_accuracy(metrics, "dice") is None


@pytest.mark.parametrize("value", [0, 1, 0.0, 1.0, True])
def test_the_ends_of_the_range_are_in_it(value):
    assert find_accuracy({"acc": value}) == ("acc", float(value))


def test_not_a_number_yet_is_nothing_yet():
    assert find_accuracy({"acc": math.nan}) is None


@pytest.mark.parametrize(
    ("value", "word"), [(91.5, "percent"), (1.0001, "percent"), (-0.1, "is it an accuracy"), (math.inf, "is it an accuracy")]
)
def test_what_lies_outside_says_the_likely_cause(value, word):
    with pytest.raises(WattError, match=f"'val_acc'.*{word}"):
        find_accuracy({"val_acc": value})


@pytest.mark.parametrize("value", [torch.tensor([0.5, 0.6]), "good", None, [0.5]])
def test_what_is_not_one_number_is_said(value):
    with pytest.raises(WattError, match="'val_acc' is not one number"):
        find_accuracy({"val_acc": value})


class OnAGpu:
    """A tensor on a GPU: turning it into a number waits for the GPU."""

    device = type("Device", (), {"type": "cuda"})()

    def __init__(self) -> None:
        self.waits = 0

    def __float__(self) -> float:
        self.waits += 1
        return 0.75


def test_inside_an_epoch_nothing_waits_for_the_gpu():
    value = OnAGpu()
    assert find_accuracy({"train_acc": value}, may_wait=False) is None
    assert value.waits == 0
    assert find_accuracy({"train_acc": value}) == ("train_acc", 0.75)


def test_a_validations_accuracy_on_the_gpu_does_not_give_way_to_anothers():
    assert find_accuracy({"val_acc": OnAGpu(), "train_acc": 0.5}, may_wait=False) is None


# ---- what is missing ----


def seen(*names: str) -> RunState:
    run = RunState()
    run.seen_metrics.update(names)
    return run


def warned(run: RunState, wanted: str) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_missing_accuracy(run, wanted)
    return [str(one.message) for one in caught]


def test_if_nobody_asked_for_an_accuracy_nobody_is_warned():
    assert warned(seen("train_loss"), "auto") == []
    note = missing_accuracy(seen("train_loss"), "auto")
    assert note.startswith("No accuracy was logged, so there is no SAM; the energy is measured all the same.")
    assert note.endswith('were logged: train_loss. Name the metric that it is to use: WattCallback(accuracy="...").')
    assert "were logged: none. " in missing_accuracy(RunState(), "auto")


def test_a_wrong_name_is_told_with_the_nearest_one():
    [sentence] = warned(seen("train_loss", "val_acc", "val_f1"), "val_accuracy")
    assert sentence.startswith("No metric of the name 'val_accuracy' was logged, so there is no SAM;")
    assert sentence.endswith("Metrics that were logged: train_loss, val_acc, val_f1. Did you mean 'val_acc'?")
    [sentence] = warned(seen("train_loss"), "mIoU")
    assert sentence.endswith("were logged: train_loss. Name one of them.")


def test_many_metrics_are_not_all_named():
    note = missing_accuracy(seen(*(f"loss_{number:02}" for number in range(30))), "auto")
    assert "loss_11, ..." in note
    assert "loss_12" not in note


@pytest.mark.parametrize("wanted", ["auto", "val_acc"])
def test_an_accuracy_that_never_was_a_number_is_told_as_that(wanted):
    run = seen("train_loss", "val_acc")
    assert warned(run, wanted) == ["The accuracy 'val_acc' was logged and never was a number, so there is no SAM."]
    assert missing_accuracy(run, wanted) == ""  # it was said


def test_where_there_is_one_or_the_reason_was_given_nothing_is_missing():
    run = seen("val_acc")
    run.metric = Accuracy(metric="val_acc", last=0.5, best=0.5)
    assert missing_accuracy(run, "auto") == ""
    run = seen("val_acc")
    with pytest.warns(match="percent"):
        look_for_accuracy(run, {"val_acc": 55.0}, "auto", "validate")
    assert missing_accuracy(run, "auto") == missing_accuracy(run, "val_acc") == ""
