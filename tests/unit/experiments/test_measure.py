"""How long inference is repeated."""

from __future__ import annotations

import pytest

from experiments.phases.measure import Goal, Repeated


def test_repeated_goes_through_the_loader_again() -> None:
    loader = Repeated([1, 2, 3], 2)
    assert list(loader) == [1, 2, 3, 1, 2, 3]
    assert len(loader) == 6


@pytest.mark.parametrize(
    ("passes", "share", "seconds", "wanted"),
    [
        (4, 0.01, 6.0, 4),  # precise and long enough
        (1, 0.20, 6.0, 11),  # ten times too coarse, and a tenth to spare
        (1, 0.00, 0.5, 11),  # precise, but ten times too short
        (2, 0.04, 1.0, 11),  # too short weighs more than too coarse: 2 x 5 x 1.1
    ],
)
def test_more_passes_in_proportion_to_what_is_lacking(passes: int, share: float, seconds: float, wanted: int) -> None:
    assert Goal(boundary_share=0.02, min_seconds=5.0, max_seconds=60.0).passes(passes, share, seconds) == wanted
