"""The callback travels: it holds no device, file or thread until `setup`, and none after `teardown`."""

from __future__ import annotations

import copy
import json
import multiprocessing
import pickle
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from lightning_watt import WattCallback, read_record
from lightning_watt.sources.replay import ReplaySource
from tests.integration.tiny import PACKAGES, QUIET, Steady, loader, module, package, trainer, watt

pytestmark = [pytest.mark.filterwarnings(entry) for entry in QUIET]
ARGUMENTS: dict[str, Any] = {
    "accuracy": "zebra",
    "gpus": [0, "GPU-1"],
    "sources": "auto",
    "alpha": 2.0,
    "beta": 3.0,
    "sam_unit": "Wh",
    "interval": 0.5,
    "log_every_n_steps": 7,
    "budget_kwh": 1.5,
    "pue": 1.2,
    "carbon_intensity": 30.0,
    "record": False,
    "batches": True,
}
COPIES = [pytest.param(lambda c: pickle.loads(pickle.dumps(c)), id="pickle"), pytest.param(copy.deepcopy, id="deepcopy")]


def state(callback: WattCallback) -> dict[str, Any]:
    return {name: value for name, value in vars(callback).items() if not name.startswith("_")}


@pytest.mark.parametrize("copied", COPIES)
def test_every_argument_survives_a_copy(copied):
    callback = WattCallback(**ARGUMENTS)
    twin = copied(callback)
    assert type(twin) is WattCallback
    assert state(twin) == state(callback)
    assert twin.sam_unit == "Wh"


@pytest.mark.parametrize("copied", COPIES)
def test_a_copy_of_a_used_callback_is_a_new_one(pl, tmp_path, copied):
    callback = watt(gpus="auto", sources=[ReplaySource({"gpu0": [(0.0, 0.0), (60.0, 6000.0)]})])
    trainer(pl, tmp_path / "a", callback, max_epochs=1).fit(module(pl, step_s=0.02), loader(4), loader(2))
    twin = copied(callback)
    trainer(pl, tmp_path / "b", twin, max_epochs=1).fit(module(pl, step_s=0.02), loader(4), loader(2))
    for name in ("a", "b"):
        assert read_record(tmp_path / name).energy.by_stage["train"].batches == 4


@pytest.mark.parametrize("copied", COPIES)
def test_it_can_be_copied_in_the_middle_of_a_run(ptl, tmp_path, copied):
    """As a checkpointing or tuning tool may do."""
    callback = watt(gpus="auto", sources=[ReplaySource({"gpu0": [(0.0, 0.0), (60.0, 6000.0)]})])
    twins: list[WattCallback] = []
    tiny = module(ptl, on_batch=lambda stage, index: twins.append(copied(callback)))
    trainer(ptl, tmp_path, callback, max_epochs=1).fit(tiny, loader(3), loader(1))
    assert len(twins) == 5
    assert all(twin.interval == 0.1 for twin in twins)
    assert read_record(tmp_path).status == "completed"


def test_building_it_opens_nothing(tmp_path, lab):
    threads = threading.active_count()
    lab.forget_calls()
    WattCallback(gpus=[12345])
    assert (lab.calls("nvmlInitWithFlags"), threading.active_count(), list(tmp_path.iterdir())) == (0, threads, [])


def train(callback: WattCallback, name: str, directory: Path) -> None:
    """What a spawned process does with a callback that came through a pipe."""
    pl = package(name)
    trainer(pl, directory, callback, max_epochs=1).fit(module(pl, step_s=0.02), loader(4), loader(2))


@pytest.mark.ddp
@pytest.mark.parametrize("name", PACKAGES)
def test_it_can_be_sent_to_a_spawned_process(tmp_path, name):
    callback = WattCallback(sources=[Steady(200.0)], interval=0.1, sam_unit="J")
    process = multiprocessing.get_context("spawn").Process(target=train, args=(callback, name, tmp_path))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    record = read_record(tmp_path)
    assert (record.energy.by_stage["train"].batches, record.sam.unit) == (4, "J")
    assert name.split(".")[0] in record.software


def test_it_is_built_by_name_and_keywords():
    """As Hydra's `_target_` and LightningCLI's `class_path` do."""
    node = json.loads(json.dumps({"_target_": "lightning_watt.WattCallback", **ARGUMENTS}))
    home, name = node.pop("_target_").rsplit(".", 1)
    callback = getattr(import_module(home), name)(**node)
    assert state(callback) == state(WattCallback(**ARGUMENTS))
