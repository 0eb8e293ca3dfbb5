"""How long inference is repeated."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import pytorch_lightning as pl

from experiments.phases.measure import Goal, Repeated, Stopwatch, repeat


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


class Limited:
    """A test that is never longer than two batches, however often the loader comes round."""

    def __init__(self, stopwatch: Any) -> None:
        self.stopwatch, self.tests = stopwatch, 0

    def test(self, module: Any, dataloaders: Repeated, verbose: bool) -> list[dict[str, float]]:
        self.tests += 1
        self.stopwatch.images = min(len(dataloaders), 2)
        return [{"test_acc": 0.5}]


def test_a_limited_test_is_not_repeated_for_ever() -> None:
    stopwatch = SimpleNamespace(images=0, seconds=0.001, joules=1.0, share=0.5)
    trainer = Limited(stopwatch)
    goal = Goal(boundary_share=0.02, min_seconds=5.0, max_seconds=60.0)
    metrics, _, why = repeat(
        cast(pl.Trainer, trainer), cast(pl.LightningModule, None), [1, 2, 3], cast(Stopwatch, stopwatch), goal
    )
    assert metrics == {"test_acc": 0.5}
    assert why.startswith("stopped by trainer.limit_test_batches: the edges weigh 50.0%")
    assert trainer.tests == 2
