"""`LIGHTNING_WATT=1 python train.py`: the callback that nobody wrote into the script, through Lightning's entry points."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from lightning_watt import WattCallback, energy_of, read_record
from lightning_watt.arguments import VARIABLE
from lightning_watt.entry_point import callbacks
from lightning_watt.settings import READERS
from lightning_watt.testing import Board, Lab, constant
from lightning_watt.zero_code import EnvironmentCallback
from tests.integration.tiny import PACKAGES, QUIET, ROOT, WEIGHTS_ONLY, Steady, loader, module, trainer

pytestmark = [pytest.mark.filterwarnings(entry) for entry in QUIET]
ON = "gpus=all,interval=0.1,sam_unit=J"


@pytest.fixture(autouse=True)
def _variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, ON)


def fit(pl: Any, directory: Path, *callbacks: Any, tiny: Any = None, **options: Any) -> Any:
    trained = trainer(pl, directory, *callbacks, **options)
    trained.fit(tiny or module(pl, step_s=0.01), loader(4), loader(2))
    assert trained.state.finished
    return trained


def ours(trained: Any) -> list[str]:
    return [type(callback).__name__ for callback in trained.callbacks if isinstance(callback, WattCallback)]


def test_both_packages_know_the_factory():
    for package in PACKAGES:
        found = [entry.value for entry in entry_points(group=f"{package}.callbacks_factory")]
        assert "lightning_watt.entry_point:callbacks" in found, "install this tree again: uv pip install --no-deps -e ."


@pytest.mark.parametrize("off", [None, "", "0", "off", "False", " no "])
def test_without_the_variable_nothing_is_added(pl, tmp_path, monkeypatch, off):
    if off is None:
        monkeypatch.delenv(VARIABLE)
    else:
        monkeypatch.setenv(VARIABLE, off)
    assert ours(fit(pl, tmp_path, max_epochs=1)) == []
    assert list(tmp_path.iterdir()) == []


def test_without_the_variable_nothing_is_imported():
    made = "Trainer(accelerator='cpu', logger=False, enable_checkpointing=False)"
    code = (
        f"import sys, lightning.pytorch, pytorch_lightning; lightning.pytorch.{made}; pytorch_lightning.{made}; "
        "print(sorted(name for name in sys.modules if name.startswith('lightning_watt')))"
    )
    env = {name: value for name, value in os.environ.items() if name != VARIABLE}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['lightning_watt', 'lightning_watt.arguments', 'lightning_watt.entry_point']"


def test_a_script_that_knows_nothing_of_it_is_measured(pl, tmp_path, lab):
    trained = fit(pl, tmp_path)
    record = read_record(tmp_path)
    assert (record.status, record.sam.unit, sorted(record.energy.by_device)) == ("completed", "J", ["gpu0", "gpu1"])
    seconds = sum(stage.seconds for stage in record.energy.by_stage.values())
    assert record.energy.by_device["gpu1"].joules == pytest.approx(120 * seconds, rel=0.1)
    assert record.accuracy.metric == "val_acc"
    assert "watt/energy_kwh" in trained.callback_metrics


class Mine(WattCallback):
    """A subclass of somebody's."""


@pytest.mark.parametrize("kind", [WattCallback, Mine])
@pytest.mark.parametrize("place", ["trainer", "module"])
def test_a_script_that_adds_its_own_is_measured_once(pl, tmp_path, kind, place):
    own = kind(sources=[Steady(), Steady(50, "gpu1")])
    tiny = module(pl, step_s=0.01)
    if place == "module":
        tiny.configure_callbacks = lambda: [own]
    trained = fit(pl, tmp_path, *([own] if place == "trainer" else []), tiny=tiny)
    assert ours(trained) == [kind.__name__]
    record = read_record(tmp_path)
    assert record.energy.by_stage["train"].batches == 8
    assert {device.source for device in record.energy.by_device.values()} == {"steady"}
    assert record.sam.unit == "kWh"
    trained.fit(tiny, loader(4), loader(2))  # and again
    assert ours(trained) == [kind.__name__]


def test_a_list_of_callbacks_that_serves_two_trainers(ptl, tmp_path, lab):
    """Lightning appends to the list that it was given, so the second Trainer finds the first one's."""
    shared: list[Any] = []
    for fold in ("1", "2"):
        options = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trained = ptl.Trainer(callbacks=shared, default_root_dir=tmp_path / fold, max_epochs=1, **options)
        trained.fit(module(ptl, step_s=0.02), loader(4), loader(2))
        assert len(ours(trained)) == 1
    first, second = (read_record(tmp_path / fold).energy for fold in ("1", "2"))
    assert (first.by_stage["train"].batches, second.by_stage["train"].batches) == (4, 4)


def test_its_checkpoint_carries_the_energy_and_goes_on_with_or_without_the_variable(ptl, tmp_path, lab, monkeypatch):
    path = tmp_path / "one.ckpt"
    trained = fit(ptl, tmp_path / "1", max_epochs=1)
    trained.save_checkpoint(path)
    before_j = read_record(tmp_path / "1").energy.total_j
    assert energy_of(path).total_j == pytest.approx(before_j, rel=1e-9)
    for place in ("with", "without"):
        again = [] if place == "with" else [WattCallback(gpus="all", interval=0.1)]
        monkeypatch.setenv(VARIABLE, ON if place == "with" else "0")
        trained = trainer(ptl, tmp_path / place, *again, max_epochs=2)
        trained.fit(module(ptl), loader(4), loader(2), ckpt_path=path, **WEIGHTS_ONLY)
        assert read_record(tmp_path / place).resumed_j == pytest.approx(before_j, rel=1e-9)


# ---- what is written in the variable ----


def test_every_option_is_an_argument_and_is_taken(monkeypatch):
    values = {
        "accuracy": ("val_f1", "val_f1"),
        "gpus": ("0+GPU-ab", [0, "GPU-ab"]),
        "sources": ("cpu-share", "cpu-share"),
        "alpha": ("2", 2.0),
        "beta": ("3", 3.0),
        "sam_unit": ("Wh", "Wh"),
        "interval": ("0.5", 0.5),
        "log_every_n_steps": ("7", 7),
        "budget_kwh": ("1.5", 1.5),
        "pue": ("1.2", 1.2),
        "carbon_intensity": ("380", 380.0),
        "electricity_price": ("0.3", 0.3),
        "idle_s": ("2", 2.0),
        "summary": ("line", "line"),
        "record": ("0", False),
        "batches": ("yes", True),
    }
    assert values.keys() == READERS.keys()
    monkeypatch.setenv(VARIABLE, " , ".join(f"{name} = {text}" for name, (text, _) in values.items()))
    [callback] = callbacks()
    assert isinstance(callback, EnvironmentCallback)
    for name, (_, value) in values.items():
        assert getattr(callback, name) == value, name


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("gpu=all", "'gpu=all' is left out.*gpus"),
        ("ture", "'ture' is left out: give 1"),
        ("sam_unit=MWh", "'sam_unit=MWh' is left out.*kWh, Wh, J"),
        ("interval=fast", "'interval=fast' is left out.*'fast'"),
        ("interval=-1", "'interval=-1' is left out.*above 0"),
        ("batches=maybe", "'batches=maybe' is left out.*'maybe'"),
        ("budget_kwh=nan", "'budget_kwh=nan' is left out.*above 0"),
        ("sources=nvml", "'sources=nvml' is left out"),
    ],
)
def test_a_slip_in_the_variable_is_told_and_stops_nothing(ptl, tmp_path, lab, words, monkeypatch, text, sentence):
    monkeypatch.setenv(VARIABLE, f"1,{text},gpus=all")
    fit(ptl, tmp_path, max_epochs=1)
    words.take(sentence)
    assert len(read_record(tmp_path).energy.by_device) == 2  # the rest is taken


def test_a_board_that_is_not_there_is_told_and_those_in_use_are_measured(ptl, tmp_path, words, monkeypatch):
    monkeypatch.setenv(VARIABLE, "gpus=7")
    with Lab([Board(power=constant(100))]).running():
        fit(ptl, tmp_path, max_epochs=1)
    assert "Boards here: 0: GPU-" in words.take("there is no board 7")
    assert read_record(tmp_path).energy.total_j >= 0  # a CPU Trainer uses no board: what is left is the CPU
    assert not [label for label in read_record(tmp_path).energy.by_device if label.startswith("gpu")]


def test_a_fault_of_ours_leaves_the_script_as_it_is(ptl, tmp_path, words, monkeypatch):
    def broken(asked):
        raise RuntimeError("no callback today")

    monkeypatch.setattr("lightning_watt.zero_code.callback_for", broken)
    assert ours(fit(ptl, tmp_path, max_epochs=1)) == []
    words.take("this run is not measured")


# ---- a script of somebody else's ----


@pytest.mark.slow
def test_somebody_elses_training_command_is_measured(tmp_path):
    """`lightly-ssl-train`, as the package lightly installs it: SimCLR on handwritten digits, on a board of the lab."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number, picture in enumerate(load_digits().images[:8]):
        Image.fromarray((picture * 15).astype(np.uint8)).convert("RGB").save(pictures / f"{number}.png")
    command = [Path(sys.executable).with_name("lightly-ssl-train"), f"input_dir={pictures}", "pre_trained=False"]
    command += ["trainer.max_epochs=1", "loader.batch_size=4", "loader.num_workers=0", "collate.input_size=32"]
    command += [f"hydra.run.dir={tmp_path / 'run'}", "+trainer.enable_progress_bar=False"]
    lab = Lab([Board(power=constant(200), counter_ms=10)])
    env = lab.env() | {VARIABLE: "gpus=all,summary=table", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Best model is stored at" in done.stdout
    [path] = tmp_path.rglob("watt.json")
    record = read_record(path)
    seconds = sum(stage.seconds for stage in record.energy.by_stage.values())
    assert (record.status, record.energy.by_stage["train"].batches) == ("completed", 2)
    assert record.energy.by_device["gpu0"].joules == pytest.approx(200 * seconds, rel=0.05)
    assert "stage" in done.stdout
    assert "gpu0" in done.stdout
