"""In which order the candidates of `study=advice` come."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from experiments.projection.order import counterbalanced


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8])
def test_two_rounds_have_each_as_early_as_late(count: int):
    for first in (0, 2, 4):
        orders = [counterbalanced(count, number) for number in (first, first + 1)]
        assert [sorted(order) for order in orders] == [[*range(count)]] * 2
        assert {sum(order.index(one) for order in orders) for one in range(count)} == {count - 1}


@pytest.mark.parametrize(("count", "rounds", "times"), [(2, 2, 1), (3, 6, 2), (4, 4, 1), (5, 10, 2), (8, 8, 1)])
def test_enough_rounds_have_each_at_every_place_and_after_each_other_as_often(count: int, rounds: int, times: int):
    orders = [counterbalanced(count, number) for number in range(rounds)]
    places = Counter(place for order in orders for place in enumerate(order))
    followers = Counter(pair for order in orders for pair in pairwise(order))
    assert (len(places), set(places.values())) == (count**2, {times})
    assert (len(followers), set(followers.values())) == (count * (count - 1), {times})
