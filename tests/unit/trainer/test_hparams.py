"""TensorBoard's table of hyperparameters: what is declared, when, and by whom; read back from the event file."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard import SummaryWriter

from lightning_watt.trainer.hparams import DEFAULT, METRICS, HParamsTable, flat
from lightning_watt.warn_once import WarnOnce


class TensorBoardLogger:
    """Named as TensorBoard's logger is, with its real writer."""

    def __init__(self, directory: Path, *, default: bool = True, hparams: Any = None) -> None:
        self.directory = directory
        self.experiment = SummaryWriter(str(directory))
        self.hparams = hparams
        self._default_hp_metric = default

    def declared(self) -> list[tuple[set[str], dict[str, Any]]]:
        """The metrics of each declaration in the event file, and the values of its hyperparameters."""
        self.experiment.close()
        metrics: list[set[str]] = []
        values: list[dict[str, Any]] = []
        for file in self.directory.iterdir():
            for event in EventFileLoader(str(file)).Load():
                for value in event.summary.value:
                    if value.metadata.plugin_data.plugin_name != "hparams":
                        continue
                    data = HParamsPluginData.FromString(value.metadata.plugin_data.content)
                    if data.HasField("experiment"):
                        metrics.append({info.name.tag for info in data.experiment.metric_infos})
                    elif data.HasField("session_start_info"):
                        hparams = data.session_start_info.hparams
                        values.append({name: getattr(v, v.WhichOneof("kind")) for name, v in hparams.items()})
        return list(zip(metrics, values, strict=True))


def owner(wanted: bool = True, **params: Any) -> Any:
    return SimpleNamespace(_log_hyperparams=wanted, hparams_initial=params)


def a_trainer(*loggers: Any, datamodule: Any = None, **more: Any) -> Any:
    return SimpleNamespace(loggers=list(loggers), datamodule=datamodule, **more)


def test_a_run_declares_its_row_once_at_the_beginning(tmp_path):
    logger, table = TensorBoardLogger(tmp_path), HParamsTable()
    trainer = a_trainer(logger, datamodule=owner(batch_size=8))
    for _ in range(2):
        table.begin(trainer, owner(lr=0.5, _class_path="a.Model"), WarnOnce())
    table.end(trainer, WarnOnce())
    assert logger.declared() == [({DEFAULT, *METRICS}, {"lr": 0.5, "batch_size": 8.0})]


@pytest.mark.parametrize(
    ("module", "more"),
    [
        (owner(), {}),
        (owner(wanted=False, lr=0.5), {}),
        (SimpleNamespace(), {}),
        (owner(lr=0.5), {"enable_autolog_hparams": False}),
    ],
)
def test_what_was_not_saved_for_the_loggers_is_not_declared(tmp_path, module, more):
    logger = TensorBoardLogger(tmp_path)
    HParamsTable().begin(a_trainer(logger, **more), module, WarnOnce())
    assert logger.declared() == []


def test_a_logger_that_declares_nothing_itself_gets_its_row_at_the_end(tmp_path):
    logger, table = TensorBoardLogger(tmp_path, default=False, hparams={"lr": 0.5}), HParamsTable()
    trainer, warn_once = a_trainer(logger), WarnOnce()
    table.begin(trainer, owner(lr=0.1), warn_once)
    for _ in range(2):
        table.end(trainer, warn_once)
    assert logger.declared() == [(set(METRICS), {"lr": 0.5})]


@pytest.mark.parametrize(("default", "hparams"), [(True, {"lr": 0.5}), (False, {}), (False, None)])
def test_the_end_leaves_the_other_loggers_alone(tmp_path, default, hparams):
    logger = TensorBoardLogger(tmp_path, default=default, hparams=hparams)
    HParamsTable().end(a_trainer(logger), WarnOnce())
    assert logger.declared() == []


@dataclass
class Options:
    """Hyperparameters in a dataclass."""

    depth: int
    inner: dict[str, Any]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (Options(2, {"p": 0.5}), {"depth": 2, "inner/p": 0.5}),
        (argparse.Namespace(lr=0.1, on=True), {"lr": 0.1, "on": True}),
        ({"a": {"b": {"c": "d"}}, 3: 4}, {"a/b/c": "d", "3": 4}),
        ({"t": torch.tensor(2), "n": np.float64(0.5), "many": torch.tensor([1])}, {"t": 2, "n": 0.5, "many": "tensor([1])"}),
        ({"none": None, "kind": Options, "list": [1, 2]}, {"kind": str(Options), "list": "[1, 2]"}),
        (None, {}),
        ("text alone", {}),
    ],
)
def test_nested_values_are_flat_and_plain(params, expected):
    found = flat(params)
    assert found == expected
    assert {name: type(value) for name, value in found.items()} == {name: type(value) for name, value in expected.items()}
