"""A training cannot tell that WattCallback is there: the same seeded training without and with it is the same to the bit.

`tests/differential` is the harness; `test_differential_harness.py` shows that it sees whoever misbehaves.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.differential import arms, training
from tests.differential.cases import CASES, RAISING
from tests.differential.compare import differences
from tests.differential.trace import Trace
from tests.integration.tiny import PACKAGES, package

# Where others read metrics as they usually do, which computes, the readings are compared too.
READING = [
    "plain",
    "OnStepToo",
    "InTheBar",
    "LogsLate",
    "LogsEverywhere",
    "Reduced",
    "MetricOnEpoch",
    "MetricOnBoth",
    "MetricUpdatedLate",
    "MetricCollected",
]
TWINS = ("plain", "MetricUpdatedLate", "LogsEverywhere", "saving on validation", "resumed", "every entry")
ARMS = [arms.empty, arms.watt]
ALL = CASES | RAISING


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Trace]:
    """The training that nobody disturbs, run once for all that are compared with it."""

    @cache
    def run(name: str, package_name: str, *, reads: bool) -> Trace:
        directory = tmp_path_factory.mktemp("without") / "run"
        return training.run(package(package_name), ALL[name], arms.none, directory, reads=reads)

    return run


def apart(without: Any, directory: Path, name: str, arm: arms.Arm, package_name: str, *, reads: bool = False) -> list[str]:
    having = training.run(package(package_name), ALL[name], arm, directory / "run", reads=reads)
    return differences(without(name, package_name, reads=reads), having)


@pytest.mark.parametrize("name", ALL)
def test_a_training_does_what_it_is_for(without, name):
    trace, ends = without(name, PACKAGES[0], reads=False), ALL[name].ends
    assert trace.end["raised"] == ends or (ends and trace.end["raised"].startswith(ends))
    assert len(trace.events) >= 5
    assert len(trace.end["state"]) > 5 or ends


# An empty callback differs nowhere either; a few are enough to see that the comparison does not see things.
@pytest.mark.parametrize(("name", "arm"), [*((name, arms.watt) for name in ALL), *((name, arms.empty) for name in READING)])
def test_a_training_is_the_same_with_it(without, tmp_path, words, name, arm):
    assert apart(without, tmp_path, name, arm, PACKAGES[0]) == []
    if arm is arms.watt and ALL[name].said:
        words.take(ALL[name].said)


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("name", READING)
def test_what_others_read_is_the_same_with_it(without, tmp_path, name, arm):
    assert apart(without, tmp_path, name, arm, PACKAGES[0], reads=True) == []


@pytest.mark.parametrize("name", [*TWINS, "max_steps", "accumulate_grad_batches", "fit twice", "stops"])
def test_a_budget_that_is_not_used_up_changes_nothing(without, tmp_path, name):
    assert apart(without, tmp_path, name, arms.budget, PACKAGES[0]) == []


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("name", TWINS)
def test_the_twin_package_is_no_different(without, tmp_path, name, arm):
    assert apart(without, tmp_path, name, arm, PACKAGES[1]) == []
