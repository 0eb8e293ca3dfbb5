"""`callback_metrics`, the callbacks that watch them, and the progress bars."""

from __future__ import annotations

import re

import pytest
import torch

from lightning_watt import WattCallback, read_record
from lightning_watt.units import J_PER_KWH
from tests.integration.tiny import QUIET, Steady, loader, module, trainer, watt

pytestmark = [pytest.mark.filterwarnings(entry) for entry in QUIET]
RISING, FALLING = (0.3, 0.5, 0.7), (0.7, 0.5, 0.3)


def steady(**options) -> WattCallback:
    return watt(gpus="auto", sources=[Steady()], **options)


def test_the_tags_are_in_callback_metrics(pl, tmp_path):
    trained = trainer(pl, tmp_path, steady(carbon_intensity=100.0, sam_unit="J"))
    trained.fit(module(pl, step_s=0.05), loader(), loader(3))
    metrics = trained.callback_metrics
    total_j = read_record(tmp_path).energy.total_j
    assert total_j > 50
    for tag in ("watt/energy_kwh", "watt/train/energy_kwh", "watt/validate/energy_kwh", "watt/sanity_check/energy_kwh"):
        assert metrics[tag].dtype == torch.float64
    assert float(metrics["watt/energy_kwh"]) * J_PER_KWH == pytest.approx(total_j, rel=0.1)
    assert float(metrics["watt/power_w"]) == pytest.approx(100, rel=0.05)
    assert float(metrics["watt/accuracy"]) == pytest.approx(0.6)
    assert float(metrics["watt/sam"]) > float(metrics["watt/sam_shifted"]) > 0
    assert float(metrics["watt/co2e_g"]) == pytest.approx(float(metrics["watt/energy_kwh"]) * 100)
    assert set(metrics) >= {"watt/joules_per_batch", "watt/joules_per_sample", "watt/uncertainty_kwh", "watt/forecast_kwh"}


def test_validate_alone_fills_callback_metrics_too(ptl, tmp_path):
    trained = trainer(ptl, tmp_path, steady())
    trained.validate(module(ptl, step_s=0.05), loader(6), verbose=False)
    validate_j = read_record(tmp_path).energy.by_stage["validate"].joules
    assert validate_j > 6 * 0.05 * 100
    assert float(trained.callback_metrics["watt/validate/energy_kwh"]) * J_PER_KWH == pytest.approx(validate_j, rel=0.2)
    assert float(trained.callback_metrics["watt/accuracy"]) == pytest.approx(0.5)


@pytest.mark.parametrize("interval", [0.1, 60.0])
def test_at_the_end_of_a_validation_its_own_energy_is_known(ptl, tmp_path, interval):
    """Also while the last readings are not in: what is not known yet counts at the last known power, in its own stage."""

    class Looking(ptl.Callback):
        def __init__(self):
            self.seen = []

        def on_validation_end(self, trainer, module):
            if not trainer.sanity_checking:
                self.seen.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    looking = Looking()
    trained = trainer(ptl, tmp_path, steady(interval=interval), looking, max_epochs=3)
    trained.fit(module(ptl, step_s=0.05), loader(8), loader(4))
    validate_j = read_record(tmp_path).energy.by_stage["validate"].joules
    assert looking.seen[-1]["watt/validate/energy_kwh"] * J_PER_KWH == pytest.approx(validate_j, rel=0.1)
    for epoch, seen in enumerate(looking.seen, start=1):
        assert seen["watt/validate/energy_kwh"] * J_PER_KWH > epoch * 4 * 0.05 * 100 * 0.9
        stages = [
            value for name, value in seen.items() if name.startswith("watt/") and name.count("/") == 2 and "energy" in name
        ]
        assert sum(stages) == pytest.approx(seen["watt/energy_kwh"], rel=1e-9)


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("at", ["validation_step", "on_validation_epoch_end"])
@pytest.mark.parametrize(("accuracy", "best_epoch"), [(RISING, 2), (FALLING, 0)])
def test_model_checkpoint_keeps_the_best_sam(ptl, tmp_path, place, at, accuracy, best_epoch):
    """At equal energy SAM follows the accuracy of the same epoch, not that of the one before."""
    best = ptl.callbacks.ModelCheckpoint(tmp_path / "best", "{epoch}", monitor="watt/sam_shifted", mode="max")
    callbacks = [best, steady()] if place == "before" else [steady(), best]
    trained = trainer(ptl, tmp_path, *callbacks, max_epochs=3, enable_checkpointing=True)
    trained.fit(module(ptl, accuracy=accuracy, at=at), loader(), loader(3))
    assert f"epoch={best_epoch}" in best.best_model_path
    assert float(best.best_model_score) == pytest.approx(5 * max(accuracy) ** 5, rel=0.01)


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("at", ["validation_step", "on_validation_epoch_end"])
@pytest.mark.parametrize("late", [pytest.param(True, id="at the epoch's end"), pytest.param(False, id="after validation")])
def test_early_stopping_on_sam(pl, tmp_path, place, at, late):
    """After validation, its hook is the same as ours, so that the order of the callbacks counts."""
    stop = pl.callbacks.EarlyStopping("watt/sam_shifted", mode="max", patience=1, strict=True, check_on_train_epoch_end=late)
    callbacks = [stop, steady()] if place == "before" else [steady(), stop]
    trained = trainer(pl, tmp_path, *callbacks, max_epochs=10)
    trained.fit(module(pl, accuracy=(0.5, 0.8, 0.4, 0.3, 0.2), at=at), loader(), loader(3))
    assert stop.stopped_epoch == 2
    assert trained.current_epoch == 3
    assert float(stop.best_score) == pytest.approx(5 * 0.8**5, rel=0.01)


def test_model_checkpoint_on_a_training_accuracy(ptl, tmp_path):
    """Without validation, both the checkpoint and the accuracy come at the end of the training epoch."""
    best = ptl.callbacks.ModelCheckpoint(
        tmp_path / "best", "{epoch}", monitor="watt/sam_shifted", mode="max", save_on_train_epoch_end=True
    )
    trained = trainer(ptl, tmp_path, best, steady(), max_epochs=3, enable_checkpointing=True)
    trained.fit(module(ptl, accuracy=(0.3, 0.7, 0.5), at="training_step", name="train_acc"), loader())
    assert "epoch=1" in best.best_model_path


def test_an_accuracy_logged_at_the_end_of_the_training_epoch_reaches_the_record(ptl, tmp_path):
    """The module's own hook runs after every callback's, so its last value is there only when the training ends."""
    trained = trainer(ptl, tmp_path, steady(), max_epochs=3)
    trained.fit(module(ptl, accuracy=(0.3, 0.7, 0.5), at="on_train_epoch_end", name="train_acc"), loader())
    accuracy = read_record(tmp_path).accuracy
    assert (accuracy.metric, accuracy.last, accuracy.best) == ("train_acc", pytest.approx(0.5), pytest.approx(0.7))


def test_a_step_wise_checkpoint_can_watch_the_energy(ptl, tmp_path):
    """Lowest energy of all: the first one."""
    every = ptl.callbacks.ModelCheckpoint(
        tmp_path / "best", "{step}", monitor="watt/energy_kwh", mode="min", every_n_epochs=1, save_on_train_epoch_end=True
    )
    trained = trainer(ptl, tmp_path, every, steady(), max_epochs=3, enable_checkpointing=True)
    trained.fit(module(ptl), loader(), loader(3))
    assert "step=6" in every.best_model_path


def test_an_accuracy_of_the_users_choice(ptl, tmp_path):
    trained = trainer(ptl, tmp_path, steady(accuracy="zebra"))
    trained.fit(module(ptl, name="zebra"), loader(), loader(3))
    record = read_record(tmp_path)
    assert (record.accuracy.metric, record.accuracy.last) == ("zebra", pytest.approx(0.6))


def test_validation_before_training_when_both_are_logged(ptl, tmp_path):
    class Both(type(module(ptl))):
        def training_step(self, batch, batch_idx):
            self.log("train_acc", 0.99)
            return super().training_step(batch, batch_idx)

    trained = trainer(ptl, tmp_path, steady())
    trained.fit(Both(), loader(), loader(3))
    assert read_record(tmp_path).accuracy.metric == "val_acc"


def test_tqdm_shows_watts_and_joules(pl, tmp_path, capsys):
    bar = pl.callbacks.TQDMProgressBar(refresh_rate=1)
    trained = trainer(pl, tmp_path, bar, steady(), enable_progress_bar=True)
    trained.fit(module(pl, step_s=0.05), loader(8), loader(3))
    shown = capsys.readouterr().out
    found = re.findall(r"\bwatt=([\d.]+) W, ([\d.]+) (m?|k)J\b", shown)
    units = {"m": 1e-3, "": 1.0, "k": 1e3}
    watts, joules = zip(*((float(watts), float(used) * units[unit]) for watts, used, unit in found), strict=True)
    assert watts[-1] == pytest.approx(100, rel=0.05)
    assert list(joules) == sorted(joules)
    # How much came after the last look is the machine's matter; one batch of sleep is the least that was seen.
    assert 0.05 * 100 < joules[-1] <= read_record(tmp_path).energy.total_j * 1.01
    assert "watt=0" not in shown  # what is not known yet is not shown as zero
    assert not [name for name in re.findall(r"([\w/]+)=", shown) if name.startswith("watt/")]  # short: no tags in the bar


def test_rich_shows_watts_and_joules_and_leaves_the_table_whole(ptl, tmp_path, capsys):
    bar = ptl.callbacks.RichProgressBar(refresh_rate=1, console_kwargs={"force_terminal": True, "width": 240})
    trained = trainer(ptl, tmp_path, bar, steady(), enable_progress_bar=True)
    trained.fit(module(ptl, step_s=0.05), loader(8), loader(3))
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", capsys.readouterr().out)
    assert re.search(r"\bwatt: 1?\d\d(\.\d)? W, [\d.]+ [mk]?J\b", shown)
    table = shown[shown.rindex("sanity_check") :]
    assert "Epoch" not in table  # nothing is drawn over it
    assert f"Record: {tmp_path / 'watt.json'}" in table


def test_the_table_is_printed_at_the_end_of_each_run(ptl, tmp_path, capsys):
    trained = trainer(ptl, tmp_path, steady())
    tiny = module(ptl, step_s=0.02)
    for run, stage in [(trained.fit, "train"), (trained.test, "test"), (trained.predict, "predict")]:
        run(tiny, *{"train": [loader(), loader(2)]}.get(stage, [loader()]))
        printed = capsys.readouterr().out
        (row,) = re.findall(rf"^{stage} .*$", printed, re.MULTILINE)
        assert len(row.split()) == 7
        used = read_record(tmp_path).energy.by_stage[stage]
        assert float(row.split()[3]) == pytest.approx(used.joules / used.seconds, rel=0.001)
        assert re.search(r"^gpu0 .* steady +a steady device", printed, re.MULTILINE)
        assert re.search(r"Energy [\d.]+ ± [\d.]+ k?J, measured\.", printed)
