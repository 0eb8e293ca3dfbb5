"""The record's other keys, and the run's files."""

from __future__ import annotations

import os
import sys
import time

import pytest
import torch

from lightning_watt import WattCallback, energy_of, read_record
from lightning_watt.record import read_journal
from tests.integration.recorded import steady
from tests.integration.tiny import (
    QUIET,
    WEIGHTS_ONLY,
    Steady,
    loader,
    module,
    trainer,
    watt,
)

pytestmark = [pytest.mark.filterwarnings(entry) for entry in QUIET]


def test_best_belongs_to_the_metric_that_is_named(ptl, tmp_path):
    trained = trainer(ptl, tmp_path, steady(), max_epochs=1)
    tiny = module(ptl, accuracy=[0.9])
    trained.fit(tiny, loader(3), loader(1))
    assert read_record(tmp_path).accuracy.best == pytest.approx(0.9)
    trained.test(tiny, loader(2), verbose=False)
    accuracy = read_record(tmp_path).accuracy
    assert (accuracy.metric, accuracy.last, accuracy.best) == ("test_acc", pytest.approx(0.25), pytest.approx(0.25))


def test_what_a_model_says_about_itself_is_in_the_record(ptl, tmp_path):
    tiny = module(ptl)
    tiny.watt_model_info = {"family": "linear", "input": (8,), "dtype": torch.float32}
    trainer(ptl, tmp_path, steady(), max_epochs=1).fit(tiny, loader(3), loader(1))
    model = read_record(tmp_path).model
    assert (model["name"], model["params"], model["family"]) == ("Tiny", 18, "linear")
    assert (model["input"], model["dtype"]) == ([8], "torch.float32")


def test_saved_hyperparameters_are_facts_of_the_run(ptl, tmp_path):
    """The module's and the data's."""

    class Saved(type(module(ptl))):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.save_hyperparameters()

    class Data(ptl.LightningDataModule):
        def __init__(self, fold: int) -> None:
            super().__init__()
            self.save_hyperparameters()

        def train_dataloader(self):
            return loader(3)

    trainer(ptl, tmp_path / "a", steady(), max_epochs=1).fit(Saved(width=3), datamodule=Data(fold=2))
    model = read_record(tmp_path / "a").model
    assert (model["hyperparameters"], model["data_hyperparameters"]) == ({"width": 3}, {"fold": 2})
    trainer(ptl, tmp_path / "b", steady(), max_epochs=1).fit(module(ptl), loader(3))
    assert "hyperparameters" not in read_record(tmp_path / "b").model


def test_without_a_record_no_file_is_written(ptl, tmp_path):
    trained = trainer(ptl, tmp_path, steady(record=False, batches=True), max_epochs=1)
    trained.fit(module(ptl), loader(3), loader(1))
    assert list(tmp_path.iterdir()) == []
    assert "watt/energy_kwh" in trained.callback_metrics


@pytest.mark.parametrize(("interval", "least", "most"), [(0.1, 4, 10_000), (60.0, 0, 1)], ids=["often", "seldom"])
def test_an_interval_of_its_own_reaches_the_journal(ptl, tmp_path, interval, least, most):
    """While one batch lasts, where no stage's edge asks for a line; the first edge's own may still be on its way."""
    grown = []

    def on_batch(stage: str, index: int) -> None:
        if (stage, index) == ("train", 8):
            before, began = len(read_journal(tmp_path)), time.monotonic()
            while (waited_s := time.monotonic() - began) < 2.5 or (
                len(read_journal(tmp_path)) < before + least and waited_s < 60
            ):
                time.sleep(0.1)
            grown.append(len(read_journal(tmp_path)) - before)

    source = Steady()
    source.due_s = 60.0  # otherwise it is read every second, whatever the interval
    callback = watt(gpus="auto", sources=[source], interval=interval)
    trained = trainer(ptl, tmp_path, callback, max_epochs=1, num_sanity_val_steps=0)
    trained.fit(module(ptl, step_s=0.02, on_batch=on_batch), loader(10), loader(1))
    assert least <= grown[0] <= most


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_the_files_are_not_met_by_whoever_loads_every_file_beside_the_checkpoints(tmp_path, ptl):
    """Many a script does `for file in checkpoint_dir.iterdir(): torch.load(file)`."""
    run = tmp_path / "run"
    keeps = ptl.callbacks.ModelCheckpoint(run, save_top_k=-1)
    callback = WattCallback(sources=[Steady()], interval=0.1)
    made = trainer(ptl, run, callback, keeps, enable_checkpointing=True)
    made.fit(module(ptl, step_s=0.05), loader(3), loader(2))
    beside = sorted(run.iterdir())
    assert sorted(file.suffix for file in beside) == [".ckpt", ".ckpt"]
    for file in beside:
        torch.load(file, weights_only=True)
    assert read_record(run).status == "completed"
    assert energy_of(run).total_j == read_record(run).energy.total_j > 0

    keeps = ptl.callbacks.ModelCheckpoint(save_top_k=-1)
    callback = WattCallback(sources=[Steady()])
    again = trainer(ptl, tmp_path / "again", callback, keeps, max_epochs=3, enable_checkpointing=True)
    again.fit(module(ptl), loader(3), loader(2), ckpt_path=str(beside[-1]), **WEIGHTS_ONLY)
    assert read_record(tmp_path / "again").resumed_j > 0
    assert read_record(tmp_path / "again").missing == []  # its journal was found


def test_a_record_says_which_commit_of_the_project_and_which_job_of_the_cluster_it_is_of(ptl, tmp_path, monkeypatch, capsys):
    sacct = tmp_path / "sacct"
    sacct.write_text('#!/bin/sh\necho "7|"\necho "7.0|7200"\n')
    sacct.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    project = tmp_path / "project"
    (project / ".git").mkdir(parents=True)
    (project / ".git" / "HEAD").write_text("a" * 40)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(project / "train.py"), raising=False)
    options = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "devices": 1}
    trainer(ptl, tmp_path / "run", steady(), max_epochs=1, **options).fit(module(ptl), loader())
    record = read_record(tmp_path / "run")
    assert record.software["git_commit"] == "a" * 40
    assert (record.hardware["slurm_job_id"], record.slurm_j) == ("7", 7200.0)
    said = " ".join(capsys.readouterr().out.split())
    assert "Slurm had counted 7200 J for its job 7 by then" in said
