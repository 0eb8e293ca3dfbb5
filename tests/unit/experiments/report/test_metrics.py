"""The report's scores against independent arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.report.metrics import (
    Amount,
    SamSettings,
    break_even,
    fit,
    kendall_tau,
    net_score,
    pareto_ranks,
    ranks,
    sam,
    sam_amount,
    sam_equation,
)

KWH = 3.6e6
points = st.lists(st.tuples(st.sampled_from([0.1, 0.5, 0.7, 0.9]), st.sampled_from([1.0, 2.0, 3.0, 5.0])), max_size=12)


@pytest.mark.parametrize(("accuracy", "kwh", "score"), [(0.8, 100, 0.8192), (0.9, 1000, 0.98415), (0.5, 100, 0.078125)])
def test_sam_has_the_contracts_values(accuracy, kwh, score):
    assert sam(accuracy, kwh * KWH, SamSettings()) == pytest.approx(score, abs=1e-9)


def test_sam_is_none_at_the_pole_below_it_and_where_something_is_missing():
    assert [sam(0.9, joules, SamSettings()) for joules in (KWH, 0.946 * KWH, 0.0, None)] == [None] * 4
    assert sam(None, KWH, SamSettings()) is None
    assert sam(0.9, 0.946 * KWH, SamSettings(), shifted=True) > 0


def test_published_neighbours_show_the_pole():
    """Two trainings of nearly equal accuracy (Fischer et al., ECML 2022), and one below 1 kWh."""
    assert sam(0.5086, 5.555 * KWH, SamSettings()) == pytest.approx(0.229, abs=1e-3)
    assert sam(0.5309, 1.429 * KWH, SamSettings()) == pytest.approx(1.360, abs=1e-3)
    assert sam(0.468, 0.946 * KWH, SamSettings()) is None


def test_sams_plus_or_minus_is_half_its_range_and_missing_at_the_pole():
    found = sam_amount(0.9, 100 * KWH, 10 * KWH, SamSettings())
    assert found.plus_minus == pytest.approx(5 * 0.9**5 * (1 / math.log10(90) - 1 / math.log10(110)) / 2)
    assert sam_amount(0.9, 1.5 * KWH, KWH, SamSettings()).plus_minus is None
    assert sam_amount(0.9, 1.5 * KWH, None, SamSettings()) == Amount(sam(0.9, 1.5 * KWH, SamSettings()))
    assert sam_amount(0.9, 0.5 * KWH, KWH, SamSettings()) is None


def test_the_bare_equation_is_negative_below_one_unit():
    assert (sam_equation(0.9, np.array([0.1, 0.9]), 5, 5) < 0).all()
    assert (sam_equation(0.9, np.array([1.1, 10.0]), 5, 5) > 0).all()


def test_net_score():
    expected = 20 * math.log10(70.0**2 / math.sqrt(4.2 * 0.575))
    assert net_score(0.7, 4.2e6, 1.15) == pytest.approx(expected)
    assert net_score(0.0, 4.2e6, 1.15) is net_score(0.7, None, 1.15) is net_score(0.7, 4.2e6, 0.0) is None


@given(points)
def test_pareto_ranks_are_those_of_peeling_front_after_front(spots):
    def dominates(a, b):
        return a[0] >= b[0] and a[1] <= b[1] and a != b

    expected: dict[int, int] = {}
    left = list(range(len(spots)))
    front = 1
    while left:
        best = [i for i in left if not any(dominates(spots[j], spots[i]) for j in left)]
        expected |= dict.fromkeys(best, front)
        left = [i for i in left if i not in best]
        front += 1
    found = pareto_ranks([accuracy for accuracy, _ in spots], [energy for _, energy in spots])
    assert found == [expected[i] for i in range(len(spots))]


def test_ranks_share_places_and_leave_out_what_is_missing():
    assert ranks([1.0, None, 3.0, 3.0]) == [3, None, 1, 1]
    assert ranks([1.0, 2.0], high_is_good=False) == [1, 2]


def test_kendalls_tau():
    assert kendall_tau([1, 2, 3, 4], [4, 3, 2, 1]) == -1
    assert kendall_tau([1.0], [2.0]) is None


def test_fits_find_the_line_and_the_exponential_they_were_made_of():
    years = [2015, 2017, 2019, 2021]
    line = fit(years, [0.1 * year for year in years])
    assert (line.slope, line.r2) == (pytest.approx(0.1), pytest.approx(1.0))
    growth = fit(years, [2.0 ** (year - 2015) for year in years], exponential=True)
    assert (growth.doubling, growth.r2) == (pytest.approx(1.0), pytest.approx(1.0))
    assert growth.at(np.array([2018.0])) == pytest.approx([8.0])
    assert fit(years, [8.0, 4.0, 2.0, 1.0], exponential=True).doubling is None


def test_r2_is_that_of_the_correlation():
    x, y = [1, 2, 3, 4, 5], [2.0, 1.0, 4.0, 3.0, 7.0]
    assert fit(x, y).r2 == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2)


def test_a_slope_that_may_be_chance_is_not_sure():
    years = [2014.0, 2015, 2016, 2018, 2019, 2020]
    assert fit(years, [0.30, 0.33, 0.36, 0.42, 0.46, 0.48]).is_sure
    assert not fit(years, [0.30, 0.48, 0.33, 0.36, 0.46, 0.35]).is_sure


def test_too_little_for_a_fit():
    assert fit([2020, 2021], [1.0, 2.0]) is None
    assert fit([2020, 2020, 2020], [1.0, 2.0, 3.0]) is None
    assert fit([1, 2, 3], [5.0, 5.0, 5.0]) is None
    assert fit([1, 2, 3], [0.0, 1.0, 2.0], exponential=True) is None


def test_break_even():
    assert break_even((100.0, 40.0), (0.25, 0.5)) == 240.0
    assert break_even((40.0, 100.0), (0.25, 0.5)) == 0.0
    assert break_even((100.0, 40.0), (0.5, 0.5)) is None
