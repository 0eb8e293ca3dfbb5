"""The forecast and the budget."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_watt.accounts.forecast import Rate, Schedule, batches_that_fit, forecast, within
from lightning_watt.accounts.ledger import Usage

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


def test_without_an_end_there_is_no_forecast():
    assert forecast(200, None, {"train": rate_of((100, 10), (100, 10))}) is None


@given(
    st.floats(1, 1e4), st.floats(0.1, 100), st.floats(0, 1e3), st.integers(1, 50), st.integers(1, 50), st.integers(0, 200)
)
def test_what_fits_is_the_most_that_the_budget_pays(left, batch, validation, per_epoch, every, trained):
    """One validation for each that the schedule has until the stop, and the one that the stop adds."""
    schedule = Schedule(per_epoch, min(every, per_epoch), 1, 1)

    def cost(more: int) -> float:
        ends = [trained + number for number in range(1, more + 1)]
        planned = sum(schedule.validations(end) - schedule.validations(end - 1) for end in ends[:-1])
        return more * batch + (planned + 1) * validation

    def validations(more: int) -> int:
        return schedule.validations(trained + max(0, more - 1)) - schedule.validations(trained) + 1

    fit = batches_that_fit(left, batch, validation, validations)
    assert cost(fit + 1) > left or math.isclose(cost(fit + 1), left)
    assert fit == 0 or cost(fit) <= left or math.isclose(cost(fit), left)


def validated_after(schedule: Schedule, until: int) -> list[int]:
    return [n for n in range(1, until + 1) if schedule.validations(n) > schedule.validations(n - 1)]


@pytest.mark.parametrize(
    ("schedule", "after"),
    [
        (Schedule(10, 10, 1, 3), [10, 20, 30]),
        (Schedule(10, 4, 1, 3), [4, 8, 14, 18, 24, 28]),  # counted anew in each epoch
        (Schedule(10, 7, 0, 3), [7, 14, 21, 28]),  # counted through
        (Schedule(10, 5, 2, 3), [15, 20]),  # one epoch in two
        (Schedule(math.inf, 12, 1, 3), [12, 24]),  # one epoch without an end
        (Schedule(math.inf, math.inf, 1, 3), []),
        (Schedule(10, 10, 1, 0), []),
    ],
    ids=str,
)
def test_when_the_trainer_validates(schedule, after):
    assert validated_after(schedule, 30) == after


def test_whether_a_stop_is_validated_depends_on_its_epoch():
    second = Schedule(10, 10, 2, 3)
    assert [second.validates_at(n) for n in (1, 10, 11, 20, 21)] == [False, False, True, True, False]
    assert Schedule(math.inf, 7, 1, 3).validates_at(5)


@pytest.mark.parametrize(
    ("per_epoch", "accumulate", "trained", "steps", "batches"),
    [
        (20, 1, 0, 12, 12),
        (20, 3, 0, 12, 35),  # seven steps an epoch, the last one over two batches
        (20, 3, 20, 5, 15),
        (20, 3, 4, 6, 16),  # within the first epoch: five of its seven steps, and its end
        (math.inf, 4, 2, 3, 10),
        (20, 1, 7, 0, 0),
    ],
)
def test_batches_until_so_many_optimizer_steps(per_epoch, accumulate, trained, steps, batches):
    assert Schedule(per_epoch, per_epoch, 1, 0).batches_of(steps, trained, accumulate) == batches


def test_what_a_limit_of_time_leaves_is_shared_out_at_the_pace_so_far():
    seen = {"train": Usage(ns=4 * 10**9, batches=20), "validate": Usage(ns=10**9, batches=10)}
    # 20 s of training and 10 s of validation would be needed; a validation that has begun is finished.
    assert within({"train": 100, "validate": 100}, 15.1, seen) == {"train": 50, "validate": 51}
    assert within({"train": 100, "validate": 100}, 30.1, seen) == {"train": 100, "validate": 100}
    assert within({"train": 100}, -1.0, seen) == {"train": 0}
    assert within({"train": 100}, 1.0, {}) == {"train": 100}  # nothing is known yet
    assert within({"train": 100, "validate": 8}, -1.0, {}) == {"train": 0, "validate": 0}  # nor does it matter
