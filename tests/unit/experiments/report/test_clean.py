"""What comes through the door, and what does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.report.inputs import clean


@given(st.text(), st.integers(1, 50))
def test_text_is_one_printable_line_of_at_most_so_many_characters(value, most):
    found = clean.text(value, most)
    assert len(found) <= most
    assert found.isprintable()


def test_direction_marks_surrogates_control_characters_and_stacked_marks_are_replaced():
    assert clean.text("a\u202eb\x1b[31mc\ud800d\u0301\u0301") == "a�b�[31mc�d��"


@pytest.mark.parametrize("value", [None, True, [], {}, ["a"], b"a"])
def test_what_is_no_text_is_empty(value):
    assert clean.text(value) == ""


@pytest.mark.parametrize("value", [None, True, "1", float("nan"), float("inf"), -float("inf"), 10**400, -1, 1e19])
def test_impossible_numbers_are_none(value):
    assert clean.energy(value) is None


def test_possible_numbers_are_floats():
    assert [clean.energy(value) for value in (0, 1, 1e18)] == [0.0, 1.0, 1e18]


@given(st.text())
def test_a_slug_is_a_safe_part_of_a_file_name(value):
    assert set(clean.slug(value)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert 1 <= len(clean.slug(value)) <= 32
