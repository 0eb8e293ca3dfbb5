"""Wrong arguments are refused in a sentence that says what to give."""

from __future__ import annotations

import math

import pytest

from lightning_watt.arguments import check_choice, check_count, check_number, check_switch


def check_gpus(value, *, empty: bool = False) -> None:
    check_choice("gpus", value, ("auto", "all"), "indices", lambda entry: isinstance(entry, int), empty=empty)


@pytest.mark.parametrize("value", ["auto", "all", [0, 1], (3,), range(2)])
def test_a_word_or_a_list_that_fits_is_a_choice(value):
    check_gpus(value)


@pytest.mark.parametrize("value", ["al", "", b"auto", 0, None, [], [0, "1"], {0, 1}])
def test_anything_else_is_none(value):
    with pytest.raises(ValueError, match=r"gpus is .*: give 'auto' or 'all', or a list of indices\."):
        check_gpus(value)


def test_nothing_can_be_a_choice_where_it_is_allowed():
    check_gpus([], empty=True)
    with pytest.raises(ValueError, match="gpus"):
        check_gpus("", empty=True)


@pytest.mark.parametrize("value", [1, 0, None, "True"])
def test_a_switch_is_on_or_off(value):
    check_switch("record", True)
    check_switch("record", False)
    with pytest.raises(ValueError, match="give True or False"):
        check_switch("record", value)


@pytest.mark.parametrize(
    ("value", "limits"), [(0.1, {"above": 0}), (1, {"at_least": 1.0}), (None, {"optional": True}), (-5, {})]
)
def test_a_number_within_its_limits(value, limits):
    check_number("x", value, "watts", **limits)


@pytest.mark.parametrize(
    ("value", "limits", "words"),
    [
        (0, {"above": 0}, "give watts, above 0"),
        (0.99, {"at_least": 1.0}, "give watts, 1 or more"),
        (None, {"at_least": 1.0}, "x is None"),
        (True, {"above": 0}, "x is True"),
        ("5", {"above": 0}, "x is '5'"),
        (math.nan, {"above": 0}, "x is nan"),
        (math.inf, {"above": 0, "optional": True}, "x is inf"),
    ],
)
def test_a_number_outside_says_the_limit(value, limits, words):
    with pytest.raises(ValueError, match=words):
        check_number("x", value, "watts", **limits)


@pytest.mark.parametrize("value", [None, 1, 50])
def test_a_count(value):
    check_count("n", value, "steps")


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "1"])
def test_not_a_count(value):
    with pytest.raises(ValueError, match="give steps, a whole number above 0, or None"):
        check_count("n", value, "steps")
