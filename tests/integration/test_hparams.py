"""TensorBoard's own table of hyperparameters, asked as its page asks, over the event files of real trainings."""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_watt import read_record
from lightning_watt.trainer.hparams import flat
from tests.integration.tiny import QUIET, Steady, loader, module_class, trainer, watt
from tests.tab_runs import hparams_table as table

pytestmark = [pytest.mark.filterwarnings(entry) for entry in QUIET]
OURS = ["watt/energy_kwh", "watt/accuracy", "watt/sam_shifted"]


def configured(pl: Any) -> type[Any]:
    """The tiny module, with a hyperparameter of its own."""

    class Configured(module_class(pl)):
        def __init__(self, lr: float = 0.1, head: Any = None, **options: Any) -> None:
            super().__init__(step_s=0.01, **options)
            self.save_hyperparameters("lr", "head")

    return Configured


def fit(pl: Any, logger: Any, module: Any, **options: Any) -> Any:
    trained = trainer(pl, Path(logger.save_dir), watt(gpus="auto", sources=[Steady()]), logger=logger, **options)
    trained.fit(module, loader(4), loader(2))
    return trained


def newest(directory: Path, tag: str) -> float:
    """The newest value of a tag.

    By its time: two files of one second are read in the order of their names, in which a process's tenth file (`.10`) comes
    before its ninth.
    """
    rows = EventAccumulator(str(directory)).Reload().Scalars(tag)
    return float(max(rows, key=lambda row: row.wall_time).value)


def test_what_was_saved_stands_beside_what_it_cost(pl, tmp_path):
    for lr, accuracy in ((0.1, 0.5), (0.2, 0.9)):
        fit(pl, pl.loggers.TensorBoardLogger(tmp_path), configured(pl)(lr=lr, head={"width": 8}, accuracy=(accuracy,)))
    hparams, metrics, rows = table(tmp_path)
    assert sorted(hparams) == ["head/width", "lr"]
    assert sorted(metrics) == sorted(["hp_metric", *OURS])
    assert len(rows) == 2
    for name, row in rows.items():
        for tag in OURS:
            assert row[tag] == pytest.approx(newest(tmp_path / name, tag)), tag
        assert row["watt/energy_kwh"] == pytest.approx(read_record(tmp_path / name).energy.total_kwh, rel=1e-6)
        assert row["hp_metric"] == -1  # Lightning's own, as it is without us
        assert row["head/width"] == 8
    assert {row["lr"]: pytest.approx(row["watt/accuracy"]) for row in rows.values()} == {0.1: 0.5, 0.2: 0.9}


def test_a_users_own_hp_metric_stays(ptl, tmp_path):
    class Own(configured(ptl)):
        def on_train_end(self) -> None:
            self.logger.log_metrics({"hp_metric": 42.0})

    fit(ptl, ptl.loggers.TensorBoardLogger(tmp_path), Own())
    (row,) = table(tmp_path)[2].values()
    assert row["hp_metric"] == 42.0


def test_metrics_that_the_user_declares_are_theirs(ptl, tmp_path):
    """Lightning's recipe for metrics of one's own: no default, and a declaration when the training begins."""

    class Own(configured(ptl)):
        def on_train_start(self) -> None:
            self.logger.log_hyperparams(self.hparams, {"mine": 0.0})

    fit(ptl, ptl.loggers.TensorBoardLogger(tmp_path, default_hp_metric=False), Own())
    assert table(tmp_path)[1] == ["mine"]


def test_without_the_default_ours_come_at_the_end(ptl, tmp_path):
    logger = ptl.loggers.TensorBoardLogger(tmp_path, default_hp_metric=False)
    logger.log_hyperparams({"family": "vit"})
    fit(ptl, logger, configured(ptl)(lr=0.3))
    hparams, metrics, rows = table(tmp_path)
    assert sorted(hparams) == ["family", "lr"]
    assert sorted(metrics) == sorted(OURS)
    (row,) = rows.values()
    assert (row["family"], row["lr"]) == ("vit", 0.3)
    assert row["watt/energy_kwh"] > 0


def test_a_fit_and_its_test_are_one_row(ptl, tmp_path):
    module = configured(ptl)()
    trained = fit(ptl, ptl.loggers.TensorBoardLogger(tmp_path), module)
    trained.test(module, loader(2), verbose=False)
    (name,) = table(tmp_path)[2]
    assert newest(tmp_path / name, "watt/accuracy") == 0.25


@pytest.mark.parametrize("options", [{"enable_autolog_hparams": False}, {"fast_dev_run": True}])
def test_who_wants_no_table_gets_none(ptl, tmp_path, options):
    if not set(options) <= set(inspect.signature(ptl.Trainer).parameters):
        pytest.skip(f"a Trainer of this Lightning does not know {', '.join(options)}: install a newer one")
    fit(ptl, ptl.loggers.TensorBoardLogger(tmp_path), configured(ptl)(), **options)
    assert table(tmp_path) == ([], [], {})


def test_a_module_that_saves_nothing_gets_no_table(ptl, tmp_path):
    fit(ptl, ptl.loggers.TensorBoardLogger(tmp_path), module_class(ptl)(step_s=0.01))
    assert table(tmp_path) == ([], [], {})


def test_names_and_values_are_as_lightning_writes_them(ptl):
    logger = ptl.loggers.TensorBoardLogger
    from lightning_fabric.utilities.logger import _convert_params, _flatten_dict

    params = {
        "a": {"b": [1, 2], "c": torch.tensor(2.0)},
        "space": argparse.Namespace(x=1),
        "flag": True,
        "text": "t",
        "f": 0.5,
    }
    theirs = logger._sanitize_params(_flatten_dict(_convert_params(params)))
    ours = flat(params)
    assert list(ours) == list(theirs)
    assert {name: float(value) if torch.is_tensor(value) else value for name, value in theirs.items()} == ours
