"""The differential harness sees whoever changes a training: it cannot pass by looking away."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch

from tests.differential import arms, training
from tests.differential.cases import CASES, RAISING
from tests.differential.compare import differences
from tests.differential.plain import IncomparableError, plain
from tests.differential.rank_cases import MISBEHAVING
from tests.integration.tiny import PACKAGES, package

# What each misbehaving callback does, in which training it is to be caught, and a word of what is told of it.
CAUGHT = {
    "ComputesEarly": ("plain", "to_be_computed"),
    "ComputesForTheBar": ("InTheBar", "to_be_computed"),
    "ReadsEarly": ("plain", "callback_metrics"),
    "Draws": ("plain", "random"),
    "DrawsWhenMade": ("plain", "random"),
    "Stops": ("plain", "progress"),
    "Reorders": ("plain", "callbacks"),
    "Logs": ("plain", "logger.log_metrics ((('mine'"),
    "LogsAMetric": ("plain", "mine"),
    "TouchesAWeight": ("plain", "at the end: state"),
    "TouchesTheOptimizer": ("plain", "at the end: state"),
    "WritesACheckpoint": ("plain", "at the end: files"),
    "TouchesACheckpoint": ("plain", "epoch=1-step=8.ckpt"),
    "RaisesAnother": ("ValueError of the module in on_train_batch_end", "at the end: raised"),
}


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    @cache
    def run(name):
        directory = tmp_path_factory.mktemp("without") / "run"
        return training.run(package(PACKAGES[0]), (CASES | RAISING)[name], arms.none, directory)

    return run


def test_every_misbehaving_callback_is_tried(ptl):
    on_two_ranks = {*MISBEHAVING, "ComputesOnRankZero", "WaitsOnRankZero"}
    assert arms.misbehaving(ptl).keys() == CAUGHT.keys() | on_two_ranks


@pytest.mark.parametrize("arm", CAUGHT)
def test_a_misbehaving_callback_is_caught(without, ptl, tmp_path, arm):
    name, word = CAUGHT[arm]
    having = training.run(ptl, (CASES | RAISING)[name], arms.misbehaving(ptl)[arm], tmp_path / "run")
    told = differences(without(name), having)
    assert any(word in sentence for sentence in told), told


def test_a_metric_that_is_computed_early_is_told_with_both_values(without, ptl, tmp_path):
    early = arms.misbehaving(ptl)["ComputesEarly"]
    told = differences(without("MetricUpdatedLate"), training.run(ptl, CASES["MetricUpdatedLate"], early, tmp_path / "run"))
    [sentence] = [sentence for sentence in told if "at the end: callback_metrics" in sentence]
    assert sentence.count("torch.float32") == 2


def test_a_fault_of_the_harness_is_no_result(ptl, tmp_path):
    """Were it a part of the training, both would fail alike and be called the same."""

    def broken():
        raise ZeroDivisionError("a counter of the test's own")

    with pytest.raises(ZeroDivisionError):
        training.run(ptl, CASES["plain"], arms.none, tmp_path / "run", counters={"broken": broken})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (0.1 + 0.2, 0.3),
        (0.0, -0.0),
        (1, 1.0),
        (1, True),
        (torch.tensor(0.0), torch.tensor(-0.0)),
        (torch.tensor(1.0), torch.tensor(1.0, dtype=torch.float64)),
        (torch.tensor([1.0]), torch.tensor(1.0)),
        (torch.ones(99), torch.cat([torch.ones(98), torch.nextafter(torch.ones(1), torch.tensor(2.0))])),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ([1], [1, None]),
    ],
)
def test_values_that_differ_are_not_the_same(one, other):
    assert repr(plain(one)) != repr(plain(other))


def test_a_nan_is_like_itself():
    assert plain([math.nan, torch.tensor([math.nan, 1.0])]) == plain([math.nan, torch.tensor([math.nan, 1.0])])


def test_a_value_of_an_unknown_kind_is_refused():
    with pytest.raises(IncomparableError):
        plain(object())
