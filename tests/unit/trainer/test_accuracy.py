"""Which of the logged metrics is the accuracy."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_watt.errors import WattError
from lightning_watt.trainer.accuracy import find_accuracy

USUAL = [
    "acc",
    "accuracy",
    "Accuracy",
    "val_acc",
    "val/acc",
    "val/accuracy",
    "val-accuracy",
    "valid_accuracy",
    "validation_accuracy",
    "eval/acc",
    "val_acc_epoch",
    "val_acc/dataloader_idx_0",
    "val_top1",
    "val/top-1",
    "val_top1_acc",
    "val/acc@1",
    "val_acc1",
    "val_acc_top1",
    "val_MulticlassAccuracy",
]
UNUSUAL = [
    "loss",
    "val_loss",
    "val_top5",
    "val/acc@5",
    "val_acc5",
    "val_accumulated",
    "balanced_accuracy_of_something",
    "val_acc/dataloader_idx_1",
    "vacc",
    "watt/accuracy",
    "watt_vs_energy/accuracy",
    "lr",
    "",
]


@pytest.mark.parametrize("name", USUAL)
def test_the_usual_names_are_found(name):
    assert find_accuracy({"lr": 0.1, "val_loss": 0.7, name: torch.tensor(0.5)}) == (name, 0.5)


@pytest.mark.parametrize("name", UNUSUAL)
def test_what_is_no_top_1_accuracy_is_left_alone(name):
    assert find_accuracy({name: 0.5}) is None


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
