"""What was used from one log row to the next."""

from __future__ import annotations

import pytest

from lightning_watt.accounts.forecast import LogSpan, LogSpans
from lightning_watt.accounts.ledger import Usage


def so_far(joules: int, batches: int) -> Usage:
    return Usage({"gpu0": joules * 1_000_000}, 0, batches, 16 * batches)


def test_a_span_is_what_came_since_the_last_row_of_its_own_stage():
    stretches = LogSpans()
    assert stretches.cut("train", so_far(50, 10)) == LogSpan(50.0, 10, 160)
    assert stretches.cut("validate", so_far(4, 4)) == LogSpan(4.0, 4, 64)
    assert stretches.cut("train", so_far(80, 15)) == LogSpan(30.0, 5, 80)
    assert stretches.rates["train"].mean == pytest.approx(80 / 15)


def test_a_row_without_a_batch_is_no_stretch_and_the_next_one_has_it_all():
    stretches = LogSpans()
    stretches.cut("train", so_far(50, 10))
    assert stretches.cut("train", so_far(53, 10)).batches == 0
    assert stretches.cut("train", so_far(58, 12)) == LogSpan(8.0, 2, 32)


def test_over_several_nodes_a_batch_costs_what_all_of_them_used_and_nothing_is_said_before_that_is_known():
    stretches = LogSpans()
    stretches.expect_others(True)
    assert stretches.cut("train", so_far(50, 10)) == LogSpan(0.0, 0, 0)
    assert "train" not in stretches.rates
    stretches.whole_of_own = {"train": 2.0}
    stretches.expect_others(True)  # the next fit forgets nothing
    assert stretches.cut("train", so_far(60, 15)) == LogSpan(20.0, 5, 80)


def test_the_sanity_check_stands_in_for_a_validation_that_has_not_been():
    stretches = LogSpans()
    by_stage = {"sanity_check": so_far(6, 2)}
    assert stretches.known_rates(by_stage)["validate"].mean == 3.0
    stretches.cut("validate", so_far(20, 4))
    assert stretches.known_rates(by_stage)["validate"].mean == 5.0
