"""The sums of a log row are those of the totals, and what is ahead is laid out by time, to the last microjoule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_watt.accounts.ahead import stages_ahead, usage_ahead
from lightning_watt.accounts.events import Switch
from lightning_watt.accounts.ledger import Account, Ledger, Point
from lightning_watt.run.sums import Sums, sums_ahead, sums_of
from lightning_watt.sources.base import Device, Gap

BOARDS = {
    label: Device(label, "a board", f"GPU-{label}", "nvml-counter", gain=gain)
    for label, gain in (("gpu0", 0.05), ("gpu1", 0.1))
}


def a_ledger() -> Ledger:
    """10 and 20 J of a training, then 1 and 2 J of a validation, which goes on."""
    ledger = Ledger()
    ledger.open(list(BOARDS), Account("train", 0), Point(0, [0, 0], [0.0, 0.0], 0, 0))
    ledger.switch(Account("validate", 0), Point(10, [10, 20], [0.0, 0.0], 4, 64))
    ledger.charge(Point(20, [11, 22], [0.0, 0.0], 6, 96))
    return ledger


def test_the_sums_are_those_of_all_accounts_and_the_scales_add_up():
    gap = Gap(device="gpu0", seconds=1.0, joules=0.5, why="a reset")
    one = sums_of([a_ledger(), a_ledger()], BOARDS, 9e12, [gap])
    assert (one.stage_uj, one.total_uj) == ({"train": 60, "validate": 6}, 66)
    assert one.gain_uj == pytest.approx(2 * (11 * 0.05 + 22 * 0.1))
    assert one.uncertainty.boundary_j == pytest.approx(3.5)
    both = one.and_more(Sums({"validate": 4, "test": 1}, 16e12, 1.0, 2.0))
    assert (both.stage_uj, both.edges, both.gaps_j) == ({"train": 60, "validate": 10, "test": 1}, 25e12, 1.5)
    assert both.gain_uj == one.gain_uj + 2.0
    assert one.stage_uj == {"train": 60, "validate": 6}
    assert one.and_more(Sums({})) is one


def test_nothing_is_ahead_of_accounts_that_are_closed():
    ledger = a_ledger()
    assert sums_ahead(ledger, BOARDS, [31, 42], [], 40) == Sums({"validate": 40}, gain_uj=pytest.approx(3.0))
    assert sums_ahead(ledger, BOARDS, [5, 5], [], 40).total_uj == 0  # a power that was known better since
    ledger.close(Point(30, [11, 22], [0.0, 0.0], 6, 96))
    assert sums_ahead(ledger, BOARDS, [31, 42], [], 40) == Sums({})


@given(
    st.lists(st.tuples(st.integers(0, 1000), st.sampled_from(["train", "validate", "test"])), max_size=20),
    st.integers(0, 10**9),
)
def test_stages_get_what_their_accounts_get_and_nothing_is_lost(entered, ahead_uj):
    times = sorted(t for t, _ in entered)
    switches = [(100 + t, Switch(Account(stage, 0), 0, 0)) for t, (_, stage) in zip(times, entered, strict=True)]
    found = stages_ahead(ahead_uj, 100, "other", switches, 1200)
    assert sum(found.values()) == ahead_uj
    at = Point(100, [0], [0.0], 0, 0)
    edges = [(100, Switch(Account("other", 0), 0, 0)), *switches, (1200, Switch(Account("other", 0), 0, 0))]
    assert found == {account.stage: usage.total_uj for account, usage in usage_ahead(at, ["gpu0"], [ahead_uj], edges)}
