"""Two ranks cannot tell that WattCallback is there either: the same to the bit, and the same collectives in one order."""

from __future__ import annotations

import pytest

from tests.differential import ranks
from tests.differential.rank_cases import LOGGING, OTHERS

pytestmark = [pytest.mark.ddp, pytest.mark.slow, pytest.mark.timeout(600)]
MISBEHAVING = {
    "Reduces": "all_reduce(torch.float32 (1,))",  # of no other tensor here
    "ReducesBelow": "collectives of the group",
    "Broadcasts": "all collectives",
    "ComputesEarly": "to_be_computed",
    "Draws": "random",
}


@pytest.mark.parametrize("cases", [LOGGING, OTHERS], ids=["logging", "others"])
def test_two_ranks_are_the_same_with_it(tmp_path, cases):
    found = ranks.start(tmp_path, list(cases), ["empty", "watt"])
    apart = {
        (rank, name, arm): told
        for rank, by_case in enumerate(found)
        for name, by_arm in by_case.items()
        for arm, told in by_arm.items()
        if told
    }
    assert apart == {}
    assert all(by_case.keys() == cases.keys() for by_case in found)


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
