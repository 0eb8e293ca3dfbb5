"""The forecast and the budget."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_watt.run.forecast import Rate, batches_that_fit, forecast

stretches = st.lists(st.tuples(st.floats(0, 1e6), st.integers(1, 1000)), min_size=1, max_size=20)


def rate_of(*stretches: tuple[float, int]) -> Rate:
    rate = Rate()
    for joules, batches in stretches:
        rate.add(joules, batches)
    return rate


@given(stretches)
def test_the_mean_is_all_joules_over_all_batches(stretches):
    rate = rate_of(*stretches)
    joules, batches = (sum(column) for column in zip(*stretches, strict=True))
    assert rate.batches == batches
    assert rate.mean == pytest.approx(joules / batches, rel=1e-9, abs=1e-9)


@given(stretches.filter(lambda s: len(s) > 1))
def test_the_variance_is_the_weighted_spread_of_the_stretches(stretches):
    joules, batches = (np.asarray(column, dtype=float) for column in zip(*stretches, strict=True))
    rates = joules / batches
    expected = np.sum(batches * (rates - joules.sum() / batches.sum()) ** 2) / (len(stretches) - 1)
    assert rate_of(*stretches).variance == pytest.approx(expected, rel=1e-6, abs=1e-3)


def test_a_span_without_batches_says_nothing():
    rate = rate_of((30, 10), (99, 0), (50, 10))
    assert (rate.mean, rate.batches, rate.spans) == (4.0, 20, 2)


def test_it_adds_what_each_stage_has_ahead():
    rates = {"train": rate_of((100, 10), (100, 10)), "validate": rate_of((5, 5), (5, 5))}
    assert forecast(200, {"train": 30, "validate": 8}, rates) == (200 + 300 + 8, 0.0)
    assert forecast(200, {}, rates) == (200, 0.0)


def test_a_stage_that_has_not_been_seen_cannot_be_foretold():
    assert forecast(10, {"train": 5, "validate": 1}, {"train": rate_of((10, 5), (10, 5))}) is None
    assert forecast(10, {"train": 5}, {"train": Rate()}) is None
    assert forecast(10, {"validate": 0}, {}) == (10, 0.0)  # nothing of it is to come


def test_one_stretch_gives_no_interval():
    ahead = forecast(10, {"train": 5}, {"train": rate_of((10, 5))})
    assert ahead is not None
    assert ahead.joules == 20
    assert math.isinf(ahead.plus_minus_j)


def test_the_interval_narrows_as_more_is_seen():
    few = forecast(0, {"train": 100}, {"train": rate_of(*[(9, 1), (11, 1)] * 3)})
    many = forecast(0, {"train": 100}, {"train": rate_of(*[(9, 1), (11, 1)] * 100)})
    assert few is not None
    assert many is not None
    assert many.plus_minus_j < 0.5 * few.plus_minus_j


def test_the_interval_holds_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(400):
        batches = rng.normal(10, 2, size=600)
        rate = rate_of(*((float(part.sum()), 20) for part in np.split(batches[:400], 20)))
        told = forecast(float(batches[:400].sum()), {"train": 200}, {"train": rate})
        assert told is not None
        inside += abs(told.joules - batches.sum()) <= told.plus_minus_j
    assert 0.91 < inside / 400 < 0.98  # 20 stretches: Student's interval would be a little wider


@pytest.mark.parametrize(
    ("left", "batch", "fit"),
    [(10, 10, 1), (10, 10.1, 0), (0, 5, 0), (-0.1, 0, 0), (-0.1, -50, 0), (100, 101, 0), (50, 0, None), (90, 4, 22)],
)
def test_as_many_batches_as_fit_into_the_budget(left, batch, fit):
    assert batches_that_fit(left, batch) == fit


def test_a_stage_that_was_seen_once_scatters_as_the_others_do():
    seen_once, seen_often = rate_of((10.0, 10)), rate_of(*[(30.0, 10), (50.0, 10)] * 10)
    told = forecast(0.0, {"train": 0, "validate": 100}, {"train": seen_often, "validate": seen_once})
    relative = math.sqrt(seen_often.variance) / seen_often.mean
    assert told.plus_minus_j == pytest.approx(1.96 * relative * 1.0 * math.sqrt(100**2 / 10 + 100))
