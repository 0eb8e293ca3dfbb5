"""Energy and time units."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_watt import units


def test_a_kilowatt_hour_is_a_kilowatt_for_an_hour():
    assert units.kwh(1000.0 * 3600) == 1.0
    assert units.wh(1.0 * 3600) == 1.0
    assert units.joules(2_500_000) == 2.5
    assert units.seconds(1_500_000_000) == 1.5
    assert (units.J_PER["kWh"], units.J_PER["Wh"], units.J_PER["J"]) == (3.6e6, 3600.0, 1.0)


@pytest.mark.parametrize(
    ("joules", "text"),
    [
        (0.0, "0 J"),
        (12.5, "12.5 J"),
        (-12.5, "-12.5 J"),
        (3599.6, "3600 J"),
        (3600.0, "1 Wh"),
        (12_500.0, "3.472 Wh"),
        (-12_500.0, "-3.472 Wh"),
        (4_320_000.0, "1.2 kWh"),
        (3.6e12, "1000000 kWh"),
    ],
)
def test_human_energy_picks_the_unit_a_person_would(joules, text):
    assert units.human_energy(joules) == text


@given(st.integers(0, 10**15))
def test_nanoseconds_undo_seconds(ns):
    assert units.nanoseconds(units.seconds(ns)) == pytest.approx(ns, abs=1)


@given(st.integers(-(10**15), 10**15))
def test_microjoules_survive_the_way_through_joules(uj):
    assert round(units.joules(uj) * units.UJ_PER_J) == uj


@pytest.mark.parametrize(
    ("value", "significant", "text"),
    [
        (0.0, 4, "0"),
        (129_600.0, 4, "129600"),
        (396.0, 2, "400"),
        (-0.00012345, 2, "-0.00012"),
        (1.2e-9, 4, "1.2e-09"),
        (1.5e12, 4, "1.5e+12"),
        (math.nan, 4, "nan"),
        (math.inf, 4, "inf"),
    ],
)
def test_digits_are_plain_unless_the_number_is_tiny_or_huge(value, significant, text):
    assert units.digits(value, significant) == text
