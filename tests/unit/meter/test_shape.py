"""A stretch is laid out by its samples: it ends on the counter, and what they do not explain goes where they change."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_watt.meter.shape import lay_out, spread_j2

T_S = np.linspace(0, 1, 11)
STEP_W = np.where(T_S < 0.45, 200.0, 100.0)


def laid(joules, watts=STEP_W, *, trust=1.0, ratio=1.0, dense_s=0.05):
    return lay_out(T_S, watts, joules, trust=trust, ratio=ratio, dense_s=dense_s, spacing_s=0.1)


@pytest.mark.parametrize("trust", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("joules", [0.0, 3.0, 145.0, 900.0])
def test_it_rises_and_ends_on_the_counter(joules, trust):
    out = laid(joules, trust=trust)
    assert out.joules[-1] == pytest.approx(joules)
    assert (np.diff(out.joules) >= 0).all()
    assert (out.before[0], out.before[-1]) == (0, pytest.approx(1))


def test_what_the_samples_do_not_explain_lies_where_they_change():
    """The load fell at 0.48 s and not, as a line between two samples has it, at 0.45 s."""
    out = laid(200 * 0.48 + 100 * 0.52)
    steady = np.r_[0:4, 5:10]
    assert np.diff(out.joules)[steady] == pytest.approx(STEP_W[steady] * 0.1, rel=0.02)  # all scaled: 2 % off
    assert np.diff(out.before)[4] > 0.8


def test_a_board_whose_sensor_is_off_is_scaled_by_its_own_ratio():
    out = laid(1.25 * (200 * 0.45 + 100 * 0.55), ratio=1.25)
    assert np.diff(out.joules) == pytest.approx(1.25 * np.r_[[20] * 4, 15, [10] * 5], rel=1e-6)


def test_samples_that_are_not_trusted_leave_a_straight_line():
    assert laid(145.0, trust=0.0).joules == pytest.approx(145 * T_S, abs=1e-6)


def test_a_steady_load_is_hardly_uncertain_and_a_change_is():
    steady, step = (float(spread_j2(T_S, watts, 150.0, 0.1).sum()) for watts in (np.full(11, 150.0), STEP_W))
    assert step > 3 * steady > 0
