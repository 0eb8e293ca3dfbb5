"""Two ranks cannot tell that WattCallback is there either: the same to the bit, and the same collectives in one order."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.differential import ranks
from tests.differential.rank_cases import LOGGING, MISBEHAVING, OTHERS

pytestmark = [pytest.mark.ddp, pytest.mark.slow, pytest.mark.timeout(600)]
ON_NODES = ["Synced", "SyncedLate", "MetricOnBoth", "stopping on validation", "saving on training", "every entry", "resumed"]


def apart(directory: Path, cases: Iterable[str], arms: list[str], **options: Any) -> dict[tuple[Any, ...], list[str]]:
    """What differs, by rank, case and arm."""
    found = ranks.start(directory, list(cases), arms, **options)
    assert [list(by_case) for by_case in found] == [list(cases)] * ranks.RANKS
    told = {(rank, name): by_arm for rank, by_case in enumerate(found) for name, by_arm in by_case.items()}
    return {(*place, arm): sentences for place, by_arm in told.items() for arm, sentences in by_arm.items() if sentences}


@pytest.mark.parametrize("cases", [LOGGING, OTHERS], ids=["logging", "others"])
def test_two_ranks_are_the_same_with_it(tmp_path, cases):
    assert apart(tmp_path, cases, ["empty", "watt"]) == {}


def test_two_ranks_are_the_same_with_a_budget_that_is_not_used_up(tmp_path):
    assert apart(tmp_path, ON_NODES, ["budget"], fresh=True) == {}


def test_two_nodes_are_the_same_with_it(tmp_path):
    assert apart(tmp_path, ON_NODES, ["watt", "budget"], nodes=2) == {}
    assert len(list(tmp_path.rglob("watt.rank1.json"))) >= 2 * len(ON_NODES)  # each of them measured


def test_a_misbehaving_callback_is_caught_on_every_rank(tmp_path):
    found = ranks.start(tmp_path, ["Synced"], [*MISBEHAVING, "ComputesOnRankZero"])
    for by_case in found:
        for arm, word in MISBEHAVING.items():
            told = by_case["Synced"][arm]
            assert any(word in sentence for sentence in told), (arm, told)
    assert found[0]["Synced"]["ComputesOnRankZero"]


def test_a_rank_that_waits_is_told_with_the_stacks_of_both(tmp_path):
    with pytest.raises(ranks.StuckError) as stuck:
        ranks.start(tmp_path, ["Synced"], ["WaitsOnRankZero"], limit_s=20.0)
    told = str(stuck.value)
    assert told.count("most recent call first") >= 2
    assert "in recv" in told
