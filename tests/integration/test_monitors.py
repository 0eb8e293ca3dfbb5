"""Callbacks that monitor a tag of ours: they find this epoch's value, and a tag without one ends no training."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from lightning_watt import WattCallback, read_record
from lightning_watt.errors import SourceUnavailable
from tests.integration.tiny import PACKAGES, QUIET, Steady, loader, module, package, trainer

pytestmark = [pytest.mark.filterwarnings(entry) for entry in QUIET]
pl: Any = package(PACKAGES[0])


class Absent(Steady):
    """A source that this machine does not have."""

    def open(self, clock: Any) -> Any:
        raise SourceUnavailable(self.name, "It is gone.", "Bring it back.")


def watt(source: Any = None, **options: Any) -> WattCallback:
    return WattCallback(**{"sources": [source or Steady()], "interval": 0.1} | options)


def said(callback: WattCallback) -> list[str]:
    return [sentence for sentence in callback._run.state.warn_once.said.values() if "monitors" in sentence]


def checkpoint(directory: Any, monitor: str, **options: Any) -> Any:
    return pl.callbacks.ModelCheckpoint(directory / "best", "{epoch}", monitor=monitor, mode="max", **options)


def fit(directory: Any, model: Any, *callbacks: Any, **options: Any) -> Any:
    made = trainer(pl, directory, *callbacks, enable_checkpointing=True, **options)
    with pytest.warns(UserWarning):  # noqa: PT030 - what is said is asserted by each test
        made.fit(model, loader(4), loader(2))
    return made


WHY = {
    "a source that is gone": ({"source": Absent()}, {}, "nothing can be measured here"),
    "no accuracy": ({}, {"accuracy": ()}, "was an accuracy logged?"),
    "an accuracy in percent": ({"accuracy": "val_acc"}, {"accuracy": (50.0,)}, "was an accuracy logged?"),
}


@pytest.mark.parametrize("why", WHY)
def test_a_tag_without_a_value_ends_no_training(tmp_path, why):
    options, logged, sentence = WHY[why]
    callback = watt(**options)
    early = pl.callbacks.EarlyStopping("watt/sam_shifted", mode="max", patience=1)
    best = checkpoint(tmp_path, "watt/sam_shifted", save_top_k=2)
    made = fit(tmp_path, module(pl, **logged), early, callback, best, max_epochs=4)
    assert made.current_epoch == 4
    assert early.stopped_epoch == 0
    assert len(list((tmp_path / "best").iterdir())) == 2
    assert [sentence in told for told in said(callback)] == [True, True]
    assert (early.wait_count, early.check_finite) == (0, True)  # as its user gave it


def test_sam_below_one_unit_is_told_before_the_first_batch(tmp_path):
    callback = watt()
    seen: list[list[str]] = []

    class Before(pl.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            seen.append(said(callback))

    made = fit(tmp_path, module(pl), callback, Before(), checkpoint(tmp_path, "watt/sam"))
    (first,) = seen[0]
    assert "SAM is undefined until the run has used more than 1 kWh" in first
    assert "'watt/sam_shifted'" in first
    assert math.isnan(made.callback_metrics["watt/sam"])
    assert said(callback) == [first]


def test_a_tag_that_is_none_of_ours_gets_its_nearest_name(tmp_path):
    callback = watt()
    made = fit(tmp_path, module(pl), callback, checkpoint(tmp_path, "watt/sam_shiftd"))
    assert made.current_epoch == 2
    assert "Did you mean 'watt/sam_shifted'?" in said(callback)[0]


class Late(torch.nn.Module):
    """An accuracy that is NaN in the first validation and falls from then on."""

    def __new__(cls) -> Any:
        return module(pl, accuracy=(math.nan, 0.9, 0.5, 0.4, 0.3, 0.2))


def test_early_stopping_counts_from_the_first_value_on(tmp_path):
    callback = watt()
    early = pl.callbacks.EarlyStopping("watt/sam_shifted", mode="max", patience=2, check_on_train_epoch_end=False)
    best = checkpoint(tmp_path, "watt/sam_shifted")
    made = fit(tmp_path, Late(), callback, early, best, max_epochs=6)
    # NaN, the best, worse, worse: without the first it would have stopped as early.
    assert (made.current_epoch, early.stopped_epoch, early.wait_count) == (4, 3, 2)
    assert best.best_model_path.endswith("epoch=1.ckpt")
    assert early.check_finite


def test_a_plateau_scheduler_on_a_tag_of_ours_goes_on(tmp_path):
    model = module(pl)

    def configure_optimizers() -> Any:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "watt/sam"}}

    model.configure_optimizers = configure_optimizers
    callback = watt()
    assert fit(tmp_path, model, callback).current_epoch == 2
    assert "finds NaN" in said(callback)[0]


@pytest.mark.parametrize("before", [True, False])
def test_early_stopping_finds_this_validations_value_wherever_it_stands(tmp_path, before):
    callback = watt()
    early = pl.callbacks.EarlyStopping("watt/accuracy", mode="max", patience=1, check_on_train_epoch_end=False)
    made = trainer(pl, tmp_path, *((early, callback) if before else (callback, early)), max_epochs=4)
    made.fit(module(pl, accuracy=(0.5, 0.6, 0.4, 0.3)), loader(4), loader(2))
    assert (early.stopped_epoch, float(early.best_score)) == (2, pytest.approx(0.6))
    assert read_record(tmp_path).accuracy.best == pytest.approx(0.6)


def test_our_place_among_the_callbacks_is_our_users(tmp_path):
    """It is moved only before a callback that monitors a tag of ours, and never before the tuners' own."""
    finder = pl.callbacks.LearningRateFinder(num_training_steps=2)
    timer, early = pl.callbacks.Timer(), pl.callbacks.EarlyStopping("val_acc", mode="max")
    callback = watt()
    made = trainer(pl, tmp_path, timer, early, callback, max_epochs=1)
    before = list(made.callbacks)
    made.fit(module(pl), loader(2), loader(2))
    assert made.callbacks == before

    watched = pl.callbacks.EarlyStopping("watt/energy_kwh", mode="max")
    callback = watt()
    made = trainer(pl, tmp_path / "watched", timer, watched, early, callback, finder, max_epochs=1)
    assert made.callbacks == [finder, timer, watched, early, callback]
    model = module(pl)
    model.lr = 0.1
    made.fit(model, loader(4), loader(2))
    assert made.callbacks == [finder, timer, callback, watched, early]
