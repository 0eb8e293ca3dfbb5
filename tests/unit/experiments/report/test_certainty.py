"""Whether a difference is larger than its plus or minus, against independent arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from experiments.report.certainty import Estimate, on_the_front, places, plus_minus_of_difference, ratio

BOARD = frozenset({"GPU-1"})


def test_the_spread_over_seeds_is_welchs_interval():
    first, second = (1.0, 1.2, 1.1, 0.9), (2.0, 2.4, 2.3)
    estimates = [Estimate(float(np.mean(values)), repeats=values) for values in (first, second)]
    interval = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert plus_minus_of_difference(*estimates) == pytest.approx((interval.high - interval.low) / 2)


def test_one_run_spreads_as_the_runs_beside_it():
    """The interval that a further run of the same kind would fall into (a prediction interval)."""
    values = (1.0, 1.2, 1.1, 0.9)
    expected = stats.t.ppf(0.975, 3) * np.std(values, ddof=1) * math.sqrt(1 + 1 / 4)
    assert plus_minus_of_difference(Estimate(1.05, repeats=values), Estimate(1.3, repeats=(1.3,))) == pytest.approx(expected)


def test_the_gain_counts_between_boards_only():
    here, there = Estimate(10, 0.3, 5.0, boards=BOARD), Estimate(10, 0.4, 5.0, boards=BOARD)
    assert plus_minus_of_difference(here, there) == pytest.approx(0.5)
    elsewhere = Estimate(10, 0.4, 5.0, boards=frozenset({"GPU-2"}))
    assert plus_minus_of_difference(here, elsewhere) == pytest.approx(math.hypot(5, 5))


def test_a_ratio_has_both_errors():
    assert ratio(Estimate(3.0, whole=0.3), Estimate(10.0, whole=0.5)) == (0.3, pytest.approx(0.3 * math.hypot(0.1, 0.05)))
    assert ratio(Estimate(3.0), Estimate(0.0)) is None


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 3)), max_size=8))
def test_a_place_holds_every_order_that_the_errors_allow(values):
    found = places([Estimate(value, off, off) for value, off in values])
    for order in (sorted, lambda values, key: sorted(values, key=key, reverse=True)):
        # Any place that a result has if each is moved within half of its error towards one side.
        moved = [value + (off / 2 if order is sorted else -off / 2) for value, off in values]
        for n, (best, worst) in enumerate(found):
            above = sum(other > moved[n] for other in moved)
            assert best <= above + 1 <= worst
            assert 1 <= best <= worst <= len(values)


def test_without_errors_the_front_is_that_of_the_values():
    accuracies, energies = ([Estimate(value) for value in values] for values in ((0.9, 0.8, 0.7, 0.9), (10, 5, 7, 10)))
    assert on_the_front(accuracies, energies) == ["yes", "yes", "no", "yes"]


def test_a_point_within_its_error_of_the_front_is_perhaps_on_it():
    accuracies = [Estimate(value) for value in (0.9, 0.9, 0.8)]
    energies = [Estimate(value, 1.0, 1.0) for value in (10.0, 10.5, 20.0)]
    assert on_the_front(accuracies, energies) == ["perhaps", "perhaps", "no"]
