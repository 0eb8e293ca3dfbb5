"""Each example runs as a user would run it, in this process: starting Python with torch takes seconds."""

from __future__ import annotations

import json
import re
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from experiments.run import run as run_study
from lightning_watt import read_record
from tests.integration.study import composed
from tests.integration.tiny import QUIET, ROOT
from tests.unit.experiments.report.made import made, write

EXAMPLES = ROOT / "examples"
JOULES = r"\d[\d.e+-]* J ± \d[\d.e+-]* J"

pytestmark = [
    *(pytest.mark.filterwarnings(entry) for entry in QUIET),
    pytest.mark.filterwarnings("ignore:The `srun` command is available"),
]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run an example with these arguments in a directory of its own; what it printed."""

    def run(name: str, *arguments: str) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_lightning_trainer(run, tmp_path):
    out = run("lightning_trainer.py")
    record = read_record(tmp_path / "lightning_logs" / "version_0")
    assert (record.status, record.accuracy.metric) == ("completed", "val_acc")
    assert record.accuracy.last > 0.9
    assert re.search(rf"^{JOULES}, (measured|estimated|mixed), for accuracy 0\.9", out, re.MULTILINE)
    assert re.search(r"^train +\d", out, re.MULTILINE)


def test_lightning_cli(run, tmp_path):
    """With the arguments that its docstring shows."""
    shown = (EXAMPLES / "lightning_cli.py").read_text().split("python examples/lightning_cli.py ")[1].split("\n\n")[0]
    out = run("lightning_cli.py", *shown.replace("\\\n", " ").split())
    record = read_record(tmp_path / "lightning_logs" / "version_0")
    assert (record.status, record.sam.unit, record.energy.by_stage["train"].batches) == ("completed", "J", 32)
    assert re.search(r"^train +\d", out, re.MULTILINE)


def test_fabric(run):
    out = run("fabric.py")
    assert re.findall(rf"^epoch (\d): {JOULES} in [\d.]+ s$", out, re.MULTILINE) == ["0", "1", "2"]
    assert re.search(r"^by device: \{'\w+': '[\d.e+-]+ J'", out, re.MULTILINE)


def test_plain_loop(run):
    out = run("plain_loop.py")
    joules = {name: float(value) for name, value in re.findall(r"^(\w+): ([\d.e+-]+) J", out, re.MULTILINE)}
    assert set(joules) == {"train", "evaluate", "whole"}
    # three printed digits each; what lies between the parts belongs to the whole alone
    assert 0 < joules["train"] + joules["evaluate"] <= joules["whole"] * 1.02


@pytest.mark.skipif(find_spec("transformers") is None, reason='for this test: pip install "transformers[torch]"')
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_hugging_face(run):
    out = run("hugging_face.py")
    assert re.findall(rf"^epoch (\d): {JOULES} in [\d.]+ s$", out, re.MULTILINE) == ["0", "1", "2"]


def test_the_callback_of_the_hugging_face_example(monkeypatch, capsys):
    """Over a stand-in that calls the hooks as the Trainer of transformers does: positional, then keywords."""
    stand_in = ModuleType("transformers")
    for name in ("Trainer", "TrainerCallback", "TrainingArguments"):
        setattr(stand_in, name, type(name, (), {}))
    monkeypatch.setitem(sys.modules, "transformers", stand_in)
    callback = runpy.run_path(str(EXAMPLES / "hugging_face.py"))["EnergyCallback"]()
    given = (SimpleNamespace(), SimpleNamespace(), SimpleNamespace())
    callback.on_train_begin(*given, model=None)
    for _ in range(2):
        callback.on_epoch_begin(*given, model=None)
        sum(range(200_000))
        callback.on_epoch_end(*given, model=None)
    callback.on_train_end(*given, model=None)
    assert re.findall(rf"^epoch (\d): {JOULES} in [\d.]+ s$", capsys.readouterr().out, re.MULTILINE) == ["0", "1"]


def test_study_module(run, tmp_path, monkeypatch, words):
    """With the arguments that its docstring shows."""
    words.left = list  # what is said about short runs is other tests' matter
    monkeypatch.syspath_prepend(EXAMPLES)
    run("study_module.py")
    shown = (EXAMPLES / "study_module.py").read_text().split("experiments.run ")[2].split('"""')[0]
    arguments = shown.replace("\\\n", " ").split()
    few = ["device=cpu", "recipe.epochs=2", "phase.inference.min_seconds=0.1", "phase.inference.max_seconds=0.2"]
    (tmp_path / "study").mkdir()
    outcome = run_study(composed(*arguments, *few), tmp_path / "study")
    assert outcome.metrics["test_acc"] == outcome.parts["finetune"].metrics["test_acc"] > 0.8
    model = read_record(tmp_path / "study" / "finetune").model
    assert (model["family"], model["data"], model["epochs"], model["start"]) == ("Net", "Rows", 2, "another run")
    assert read_record(tmp_path / "study" / "pretrain").energy.by_stage["train"].samples == 2 * 2048
    optimizer = torch.load(outcome.checkpoint, weights_only=True)["optimizer_states"][0]
    assert optimizer["param_groups"][0]["betas"] == (0.9, 0.999)  # the recipe's AdamW
    with pytest.raises(TypeError, match="Rows has no num_classes and no in_chans"):
        run_study(composed("model=vit", "data=own", "data._target_=study_module.Rows", *few[:2]), tmp_path)


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda file: file.name)
def test_an_example_is_short_and_has_a_test(example):
    assert len(example.read_text().splitlines()) < 60
    assert f'run("{example.name}"' in Path(__file__).read_text()


def test_the_notebook_draws_accuracy_over_energy(monkeypatch, tmp_path):
    """Its cells, one after the other, as a kernel runs them."""
    pytest.importorskip("pandas", reason="needs the extra `experiments`")
    import matplotlib as mpl

    mpl.use("agg")
    write(tmp_path / "runs" / "a", made(100, 0.9))
    write(tmp_path / "runs" / "b", made(200, 0.8, family="swin"))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for cell in json.loads((EXAMPLES / "accuracy_over_energy.ipynb").read_text())["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            exec("".join(cell["source"]), names)
    curves = {line.get_label(): line.get_xydata()[-1].tolist() for line in names["axes"].lines}
    assert curves == {"a": pytest.approx([100, 90]), "b": pytest.approx([200, 80])}
    assert names["repeated"].ngroups == 2
