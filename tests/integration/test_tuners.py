"""What Lightning's tuners use is a stage of its own, though they take our callback out while they try."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
from torch.utils.data import DataLoader

from lightning_watt import WattCallback, energy_of, read_record
from tests.integration.tiny import QUIET, Steady, columns, loader, module_class, tensors, trainer, watt

pytestmark = [
    *(pytest.mark.filterwarnings(entry) for entry in QUIET),
    pytest.mark.filterwarnings("ignore:.*the batch size finder.*"),
]
STEP_S = 0.02
WATTS = 100.0


def tunable(pl: Any) -> Any:
    """The tiny module, with what a tuner wants to change."""

    class Tunable(module_class(pl)):
        lr, batch_size = 0.01, 4

        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(tensors(8), batch_size=self.batch_size)

        def val_dataloader(self) -> DataLoader[Any]:
            return loader(2)

    return Tunable(step_s=STEP_S)


def steady() -> WattCallback:
    return watt(gpus="auto", sources=[Steady(WATTS)])


def used_w(record: Any) -> dict[str, float]:
    """Seconds by stage, once each stage's joules are found to be those of its time."""
    stages = record.energy.by_stage
    for stage in stages.values():
        assert stage.joules == pytest.approx(WATTS * stage.seconds, rel=0.02, abs=0.2)
    assert sum(stage.joules for stage in stages.values()) == pytest.approx(record.energy.total_j)
    return {name: stage.seconds for name, stage in stages.items()}


@pytest.mark.parametrize("ours_first", [True, False])
def test_finders_among_the_callbacks(pl, tmp_path, ours_first):
    finders = [
        pl.callbacks.LearningRateFinder(num_training_steps=10),
        pl.callbacks.BatchSizeFinder(max_trials=2, steps_per_trial=3),
    ]
    callbacks = [steady(), *finders] if ours_first else [*finders, steady()]
    logger = pl.loggers.CSVLogger(tmp_path)
    trained = trainer(pl, tmp_path, *callbacks, max_epochs=1, num_sanity_val_steps=0, logger=logger)
    trained.fit(tunable(pl))
    record = read_record(logger.log_dir)
    seconds = used_w(record)
    trained_s = STEP_S * record.energy.by_stage["train"].batches
    assert seconds["tune"] >= (10 + 2 * 3) * STEP_S
    assert trained_s <= seconds["train"]
    assert seconds["other"] < seconds["tune"]
    assert record.energy.by_stage["tune"].batches == 0
    assert columns(logger.log_dir)["watt/tune/energy_kwh"]
    assert not [name for finder in finders for name in ("lr_find", "scale_batch_size") if name in vars(finder)]


def test_tuners_before_a_fit(ptl, tmp_path):
    callback = steady()
    trained, model = trainer(ptl, tmp_path, callback, max_epochs=1, num_sanity_val_steps=0), tunable(ptl)
    tuner = import_module(f"{ptl.__name__}.tuner").Tuner(trained)
    tuner.scale_batch_size(model, max_trials=2, steps_per_trial=3)
    tuner.lr_find(model, num_training=10)
    tuned = used_w(read_record(tmp_path))
    assert tuned["tune"] >= (10 + 2 * 3) * STEP_S
    assert "train" not in tuned
    trained.fit(model)
    seconds = used_w(read_record(tmp_path))
    assert seconds["tune"] == tuned["tune"]
    assert seconds["train"] >= STEP_S
    trained.save_checkpoint(tmp_path / "tuned.ckpt")
    assert energy_of(tmp_path / "tuned.ckpt").total_j == pytest.approx(callback.result.energy.total_j)


def test_a_finder_in_a_validation_is_no_validation(ptl, tmp_path):
    class Evaluated(ptl.callbacks.BatchSizeFinder):
        """As Lightning's page shows it."""

    model = tunable(ptl)
    model.val_dataloader = lambda: DataLoader(tensors(8), batch_size=model.batch_size)
    trained = trainer(ptl, tmp_path, steady(), Evaluated(max_trials=2, steps_per_trial=3))
    trained.validate(model, verbose=False)
    seconds = used_w(read_record(tmp_path))
    assert seconds["tune"] >= 2 * 3 * STEP_S
    assert read_record(tmp_path).energy.by_stage["validate"].batches == len(model.val_dataloader())
