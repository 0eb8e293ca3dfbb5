"""The fidelity benchmark in small: batches against the lab's truth, the kinds' means, and the picture."""

from __future__ import annotations

import pytest

from experiments.bench.cases import Case, Result
from experiments.bench.fidelity import kinds, measure, table
from experiments.bench.truth_figure import draw

CASES = [Case("levels", 100, True), Case("levels", 100, False), Case("at random", 100, True)]


@pytest.fixture(scope="module")
def results() -> list[Result]:
    return measure(CASES, 0.05, 6.0)


def test_shares_follow_the_samples_and_the_truth_lies_within_what_is_stated(results: list[Result]) -> None:
    levels, straight, _ = results
    assert len(levels.true_j) == 120
    assert levels.error < 0.05 < straight.error
    assert levels.within >= 0.95
    assert levels.epoch_j == pytest.approx(levels.epoch_true_j, rel=0.02)
    assert levels.raw_error > 0.5  # a 100 ms counter read every 50 ms


def test_the_page_and_the_picture_hold_them(results: list[Result]) -> None:
    assert table(results).count("\n") == len(results) + 1
    assert "at random" in kinds(results[2:])
    assert draw(*results[:2]).startswith(b"\x89PNG")
