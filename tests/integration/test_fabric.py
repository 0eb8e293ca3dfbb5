"""A `WattCallback`, or the variable, in a program of Fabric: a sentence, whatever the program calls, and no traceback."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import tomllib
import torch

from lightning_watt import WattCallback
from tests.integration.tiny import QUIET, ROOT, loader

pytestmark = [pytest.mark.filterwarnings(entry) for entry in QUIET]

FABRICS = ("lightning_fabric", "lightning.fabric")
SENTENCE = "Fabric has no Trainer, so nothing is measured"


def train(name: str, *callbacks: Any) -> Any:
    """What a program does that says to its callbacks where it is, each time in another way."""
    fabric = import_module(name).Fabric(accelerator="cpu", devices=1, callbacks=list(callbacks))
    model = torch.nn.Linear(8, 2)
    fabric.call("on_fit_start")
    module, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.01))
    fabric.call("on_train_start", fabric, model)
    for number, (pictures, labels) in enumerate(fabric.setup_dataloaders(loader(2))):
        fabric.call("on_train_batch_start", batch_idx=number)
        loss = torch.nn.functional.cross_entropy(module(pictures), labels)
        fabric.call("on_before_backward", loss)
        fabric.backward(loss)
        fabric.call("on_before_optimizer_step", optimizer)
        optimizer.step()
        fabric.call("on_train_batch_end", outputs=loss, batch=pictures, batch_idx=number)
        fabric.call("on_validation_batch_end")
    fabric.call("on_train_epoch_end", model, results={"loss": 0.1})
    fabric.call("on_validation_end", fabric, model)
    fabric.call("on_train_end")
    fabric.call("teardown")
    fabric.call("on_exception", fabric, model, RuntimeError())
    return model


@pytest.mark.parametrize("name", FABRICS)
def test_a_callback_given_to_fabric_says_what_to_do_and_raises_nothing(name, words):
    train(name, WattCallback())
    assert "with EnergyMeter() as meter" in words.take(SENTENCE)


@pytest.mark.parametrize("name", FABRICS)
@pytest.mark.parametrize(
    "hook", ["on_train_epoch_end", "on_train_start", "on_train_batch_end", "on_predict_start", "teardown"]
)
def test_any_hook_that_is_called_first_says_it(name, words, hook):
    fabric = import_module(name).Fabric(accelerator="cpu", devices=1, callbacks=WattCallback())
    fabric.call(hook)
    fabric.call(hook, 1, 2, 3, 4, 5, 6)
    words.take(SENTENCE)


@pytest.mark.parametrize("name", FABRICS)
def test_a_program_that_calls_no_hook_hears_it_too(name, words):
    fabric = import_module(name).Fabric(accelerator="cpu", devices=1, callbacks=[WattCallback()])
    model = torch.nn.Linear(8, 2)
    fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.01))
    words.take(SENTENCE)


# ---- the variable ----

PROGRAM = (
    "from {name} import Fabric; Fabric(accelerator='cpu', devices=1); Fabric(accelerator='cpu', devices=1); print('ran')"
)


def installed(directory: Path) -> Path:
    """What an installation of this tree would leave beside it for Lightning to find."""
    info = directory / "lightning_watt-0.0.0.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: lightning-watt\nVersion: 0.0.0\n")
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    lines = [
        line for group, entries in groups.items() for line in (f"[{group}]", *(f"{k} = {v}" for k, v in entries.items()))
    ]
    info.joinpath("entry_points.txt").write_text("\n".join(lines) + "\n")
    return directory


@pytest.mark.parametrize(("value", "said"), [("1", 1), ("0", 0)])
@pytest.mark.parametrize("name", FABRICS)
def test_the_variable_over_a_program_of_fabric_is_told_once(tmp_path, monkeypatch, name, value, said):
    monkeypatch.setenv("PYTHONPATH", f"{installed(tmp_path)}:{ROOT}")
    monkeypatch.setenv("LIGHTNING_WATT", value)
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(name=name)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "ran"
    assert done.stderr.count("this script uses Fabric, which has no Trainer, so what it runs is not measured") == said
