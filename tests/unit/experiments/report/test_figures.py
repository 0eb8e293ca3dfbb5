"""What a reader of a figure would stumble over: names across lines."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from experiments.report.figures.style import Spot, name_spots, new_figure, whisker


def boxes(axes):
    """The names' boxes, in pixels."""
    renderer = axes.figure.canvas.get_renderer()
    return {one.get_text(): one.get_window_extent(renderer) for one in axes.texts if isinstance(one, Text)}


def crossed(axes, box: Bbox, x, y) -> bool:
    """Whether a line of some corners runs through a box."""
    corners = axes.transData.transform(np.column_stack([x, y]))
    along = [a + (b - a) * share for a, b in itertools.pairwise(corners) for share in np.linspace(0, 1, 2000)]
    return any(box.contains(*point) for point in along)


@pytest.fixture
def axes():
    figure = new_figure(5, 4)
    axes = figure.subplots()
    axes.set(xlim=(0, 10), ylim=(0, 10))
    return axes


def test_a_name_keeps_clear_of_lines_and_whiskers(axes):
    """Names lay across the Pareto front and across whiskers."""
    axes.plot([5.3, 5.3], [0, 10])  # right of the point, where names are put first
    axes.errorbar(5, 5, xerr=3, fmt="none")
    name_spots(axes, [Spot(5, 5, "a long name")])
    [box] = boxes(axes).values()
    assert not crossed(axes, box, [5.3, 5.3], [0, 10])
    assert not crossed(axes, box, [2, 8], [5, 5])


def test_a_name_that_has_no_room_beside_lines_is_written_all_the_same(axes):
    for y in np.linspace(0, 10, 60):
        axes.plot([0, 10], [y, y])
    name_spots(axes, [Spot(5, 5, "one"), Spot(2, 2, "other")])
    assert set(boxes(axes)) == {"one", "other"}


def test_names_keep_inside_the_frame(axes):
    name_spots(axes, [Spot(0.05, 5, "at the left edge"), Spot(9.95, 5, "at the right edge")])
    frame = axes.get_window_extent()
    for box in boxes(axes).values():
        assert frame.x0 <= box.x0
        assert box.x1 <= frame.x1


def test_a_whisker_ends_where_nothing_can_be():
    """Two seeds of 98 and 99 % have a ± of 6 %, which reached to 105 %."""
    [[down], [up]] = whisker(0.985, 0.06, 1.0)
    assert (down, up) == (0.06, pytest.approx(0.015))
    assert whisker(1.0, 0.06, 1.0)[1, 0] == 0
