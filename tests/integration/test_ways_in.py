"""The other ways to measure a training: the command line of Lightning, Fabric, a loop of one's own, and a notebook."""

from __future__ import annotations

import time
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell

from lightning_watt import EnergyMeter, WattCallback, read_record
from lightning_watt.record import Record
from lightning_watt.testing import Board, Lab, constant
from tests.integration.tiny import QUIET, Steady, loader, module, module_class, trainer, watt

pytestmark = [pytest.mark.filterwarnings(entry) for entry in QUIET]


@pytest.fixture
def board():
    """One board of 200 W, ten seconds old."""
    with Lab([Board(power=constant(200), counter_ms=10)], age_s=10).running() as lab:
        yield lab


# ---- LightningCLI ----

YAML = """
trainer:
  accelerator: cpu
  max_epochs: 1
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  enable_model_summary: false
  default_root_dir: {directory}
  callbacks:
    - class_path: lightning_watt.WattCallback
      init_args: {{sam_unit: J, interval: 0.1, gpus: [0], budget_kwh: 1.0, batches: true}}
"""
PLAIN = ["accelerator=cpu", "max_epochs=1", "logger=false", "enable_checkpointing=false"]
PLAIN += ["enable_progress_bar=false", "enable_model_summary=false"]


def command_line(pl: Any, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    """What a `train.py` with a LightningCLI does with these arguments."""
    monkeypatch.setattr("sys.argv", ["train.py", *arguments])

    class Model(module_class(pl)):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(step_s=0.02)

        def train_dataloader(self) -> Any:
            return loader(4)

        def val_dataloader(self) -> Any:
            return loader(2)

    cli = import_module(f"{pl.__name__}.cli").LightningCLI
    return cli(Model, save_config_callback=None, seed_everything_default=False)


@pytest.mark.parametrize("way", ["yaml", "option"])
def test_the_lightning_cli(pl, tmp_path, board, monkeypatch, way):
    if way == "yaml":
        (tmp_path / "config.yaml").write_text(YAML.format(directory=tmp_path))
        arguments = ["--config", str(tmp_path / "config.yaml")]
    else:
        arguments = [f"--trainer.{option}" for option in [*PLAIN, f"default_root_dir={tmp_path}"]]
        arguments += ["--trainer.callbacks+=lightning_watt.WattCallback", "--trainer.callbacks.gpus=all"]
        arguments += ["--trainer.callbacks.sam_unit=J", "--trainer.callbacks.interval=0.1"]
    command_line(pl, monkeypatch, "fit", *arguments)
    record = read_record(tmp_path)
    seconds = sum(stage.seconds for stage in record.energy.by_stage.values())
    assert (record.status, record.sam.unit, record.energy.by_stage["train"].batches) == ("completed", "J", 4)
    assert record.energy.by_device["gpu0"].joules == pytest.approx(200 * seconds, rel=0.05)
    assert (tmp_path / "watt_batches.csv").exists() == (way == "yaml")


def test_a_wrong_argument_on_the_command_line_is_refused_with_its_name(ptl, monkeypatch, capsys):
    wrong = ["--trainer.callbacks+=lightning_watt.WattCallback", "--trainer.callbacks.interval=-1"]
    with pytest.raises((SystemExit, ValueError)) as caught:
        command_line(ptl, monkeypatch, "fit", *[f"--trainer.{option}" for option in PLAIN], *wrong)
    assert "interval" in capsys.readouterr().err + str(caught.value)


# ---- Fabric, and a loop of one's own ----


def test_a_fabric_loop(pl, board):
    """Each epoch is a window; the stages are whatever the loop calls them."""
    fabric_package = import_module("lightning_fabric" if pl.__name__ == "pytorch_lightning" else "lightning.fabric")
    fabric = fabric_package.Fabric(accelerator="cpu", devices=1)
    model = torch.nn.Linear(8, 2)
    model, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.01))
    batches = fabric.setup_dataloaders(loader(8))
    epochs = []
    with EnergyMeter(gpus="all", interval=0.1) as meter:
        for epoch in range(2):
            with meter.window(f"epoch {epoch}") as window:
                for pictures, labels in batches:
                    optimizer.zero_grad()
                    fabric.backward(torch.nn.functional.cross_entropy(model(pictures), labels))
                    optimizer.step()
                    time.sleep(0.02)
            epochs.append(window)
    assert [w.joules for w in epochs] == pytest.approx([200 * w.seconds for w in epochs], rel=0.1)
    assert sum(w.joules for w in epochs) <= meter.joules


def test_a_loop_of_plain_pytorch_with_windows_in_windows(board):
    model = torch.nn.Linear(8, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    training, steps = 0.0, []
    with EnergyMeter(gpus=[0], interval=0.1) as meter, meter.window("training") as whole:
        for pictures, labels in loader(6):
            with meter.window("step") as step:
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(pictures), labels).backward()
                optimizer.step()
                time.sleep(0.05)
            steps.append(step)
    training = sum(step.joules for step in steps)
    assert training == pytest.approx(200 * sum(step.seconds for step in steps), rel=0.1)
    assert 0 < training <= whole.joules <= meter.joules
    assert whole.kwh == pytest.approx(whole.joules / 3.6e6)
    assert list(whole.by_device) == ["gpu0"]


# ---- notebooks ----

HOSTILE = '<script>alert("gpu")</script><img src=x onerror=alert(1)>'


def shown(value: Any) -> str:
    """What a notebook's cell shows of a value, through IPython's own display."""
    formats, _ = InteractiveShell.instance().display_formatter.format(value)
    return str(formats["text/html"])


def test_a_notebook_shows_the_callback_and_the_record(ptl, tmp_path):
    callback = watt(gpus="auto", sources=[Steady()])
    assert "nothing has been measured yet" in shown(callback)
    trainer(ptl, tmp_path, callback).fit(module(ptl, step_s=0.01), loader(4), loader(2))
    record = read_record(tmp_path)
    for value in (callback, record):
        html = shown(value)
        for text in ("<table>", "train", "gpu0", "steady", "Accuracy 0.6000 (val_acc)", "measured."):
            assert text in html
    assert shown(callback) == shown(record)


def test_a_notebook_shows_a_meter_before_while_and_after():
    meter = EnergyMeter(sources=[Steady(100.0)], interval=0.1)
    assert "nothing has been measured yet" in shown(meter)
    with meter:
        with meter.window("a while") as window:
            time.sleep(0.2)
        assert window.joules > 0  # so that the meter has read
        html = shown(meter)
        assert "so far" in html
        assert "gpu0" in html
    html = shown(meter)
    assert f"{meter.joules:.4g} J in {meter.total.seconds:.4g} s in all." in html
    assert "steady device" in html


def test_a_notebook_shows_a_run_that_measured_nothing(tmp_path):
    record = hostile(tmp_path, total_j=None, total_kwh=None, uncertainty_j=None, provenance=None)
    assert shown(record) == "<p>No energy was measured. " + shown_text(HOSTILE) + "</p>"


def test_what_a_notebook_shows_of_a_hostile_record_is_text(tmp_path):
    html = shown(hostile(tmp_path))
    assert html.count(shown_text(HOSTILE)) >= 5
    assert "<script" not in html
    assert "<img" not in html


def shown_text(text: str) -> str:
    """A string as HTML text."""
    from html import escape

    return escape(text)


def hostile(directory: Path, **energy: Any) -> Record:
    """A record whose every string is a trap, read from its file as a notebook would."""
    device = {"joules": 1, "name": HOSTILE, "uuid": HOSTILE, "source": HOSTILE, "provenance": "measured", "note": HOSTILE}
    values: dict[str, Any] = {
        "schema_version": 1,
        "status": "completed",
        "energy": {
            "total_j": 1.0,
            "total_kwh": 1.0,
            "uncertainty_j": 1.0,
            "provenance": "measured",
            "by_stage": {HOSTILE: {"joules": 1.0, "seconds": 1.0}},
            "by_device": {HOSTILE: device},
        }
        | energy,
        "accuracy": {"metric": HOSTILE, "last": 0.5, "best": 0.5},
        "sam": {"alpha": 5, "beta": 5, "unit": "J", "shifted": 0.5},
        "missing": [HOSTILE],
        "co2e_g": 1.0,
    }
    (directory / "watt.json").write_bytes(msgspec.json.encode(values))
    return read_record(directory)


def test_a_callback_given_singly(pl, tmp_path):
    settings = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    callback = WattCallback(sources=[Steady()])
    trained = pl.Trainer(callbacks=callback, max_epochs=1, default_root_dir=tmp_path, **settings)
    trained.fit(module(pl), loader(2), loader(1))
    assert read_record(tmp_path).energy.by_stage["train"].batches == 2
