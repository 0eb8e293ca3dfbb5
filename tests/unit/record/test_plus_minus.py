"""Sums of energies: the scales' errors add up, those of the edges in squares, and what is not known stays unknown."""

from __future__ import annotations

import pytest

from lightning_watt.record import Inherited
from lightning_watt.record.plus_minus import PlusMinus, inherited_by, plus_minus, together, with_inherited
from tests.unit.record.made import a_record


def started_from(**known: float) -> Inherited:
    return Inherited(path="p", total_j=3e6, **known)


def test_scales_add_up_and_edges_in_squares():
    record = a_record(inherited=[started_from(uncertainty_j=5e4, boundary_j=3e4, gain_j=4e4)])
    record.energy.boundary_j, record.energy.gain_j = 4e4, 36e4
    assert inherited_by(record) == (3e6, PlusMinus(3e4, 4e4))
    joules, known = with_inherited(record)
    assert (joules, known) == (10.2e6, PlusMinus(5e4, 40e4))
    assert known.total_j == pytest.approx((5e4**2 + 40e4**2) ** 0.5)


def test_what_is_not_known_of_a_part_is_not_known_of_the_sum():
    record = a_record(inherited=[started_from()])  # of a version that did not note it
    assert (inherited_by(record)[1], with_inherited(record)) == (None, (10.2e6, None))
    assert inherited_by(a_record(inherited=[Inherited(path="p", total_j=0.0)])) == (0, PlusMinus())


def test_a_plus_minus_without_its_parts_counts_as_one_of_scale():
    assert plus_minus(started_from(uncertainty_j=7.0)) == PlusMinus(gain_j=7.0)
    assert together([]) == PlusMinus()
