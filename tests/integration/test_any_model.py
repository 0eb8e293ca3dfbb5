"""Any model of timm's through inference, in one multirun."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from timm import create_model
from timm.data import resolve_model_data_config

from experiments.job import Job, Outcome
from experiments.models import build_model, size_of
from experiments.modules.classifier import Classifier
from experiments.modules.recipe import Recipe
from experiments.phases.measure import Repeated, Stopwatch
from experiments.phases.measure import test_once as run_test
from experiments.phases.start import seen_by
from experiments.run import run
from experiments.weights import WeightsError, read_weights
from lightning_watt import read_record
from tests.integration.conftest import Words
from tests.integration.study import composed, write_images

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.slow,
]
BRIEF = ("phase.min_seconds=0.1", "phase.max_seconds=0.2", "device=cpu", "+trainer.enable_progress_bar=false")
MODELS = [
    f"test_{name}" for name in ("byobnet", "convnext", "efficientnet", "efficientnet_ln", "mambaout", "nfnet", "resnet")
]
MODELS += ["test_vit2", "test_vit4", "test_vit_relpos"]
"""Timm's own miniatures, most of whose constructors take no image size."""


@pytest.fixture(autouse=True)
def _few_words(words: Words) -> None:
    """What the callback says about short runs is its own tests' matter."""
    words.left = list  # type: ignore[method-assign]


def infer(directory: Path, *overrides: str) -> Outcome:
    """Run inference in a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    return run(composed("model=timm", "phase=inference", *BRIEF, *overrides), directory)


def test_a_multirun_takes_a_list_of_names(tmp_path: Path) -> None:
    names = [*MODELS, "test_resnett"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "experiments.run", "-m", "model=timm", "phase=inference", "checkpoint=scratch", *BRIEF),
            *("model.image_size=64", "eval_batch_size=16", "trainer.limit_test_batches=1"),
            f"model.timm_name={','.join(names)}",
            f"hydra.sweep.dir={tmp_path}",
        ],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert "Did you mean test_resnet" in done.stderr
    outcomes = [json.loads(file.read_text()) for file in tmp_path.glob("*/outcome.json")]
    ran = {outcome["timm_name"]: outcome for outcome in outcomes if outcome["status"] == "completed"}
    assert sorted(ran) == sorted(MODELS), done.stderr
    for name, outcome in ran.items():
        metrics = outcome["metrics"]
        assert outcome["start"] == "scratch"
        assert metrics["wh_per_1000_images"] == pytest.approx(metrics["joules_per_image"] / 3.6)
        assert metrics["images_per_second"] > 0
        record = read_record(outcome["directory"])
        model = record.model
        # What random weights guess is no accuracy of the model.
        assert (record.accuracy.last, model["start"], {"test_acc", "test_top5"} & metrics.keys()) == (None, "scratch", set())
        assert model["timm_name"] == name
        assert model["family"] != "resnet" or name == "test_resnet"
        assert "year" not in model
    table = done.stdout[done.stdout.index("The sweep") :]
    assert all(f" {name} " in table for name in MODELS)
    assert table.count("random") >= len(MODELS)
    assert "Wh/1000" in table


def test_a_file_brings_the_weights_and_timm_their_transform(tmp_path: Path) -> None:
    model = create_model("test_resnet", num_classes=2)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    write_images(tmp_path / "pictures")
    data = ("data=image_folder", f"data.root={tmp_path}/pictures", "+data.val_share=0.34", "eval_batch_size=2")
    given = (f"checkpoint={tmp_path}/weights.pth", "model.timm_name=test_resnet")
    outcome = infer(tmp_path / "run", *data, *given)
    record = read_record(tmp_path / "run").model
    config = resolve_model_data_config(model)
    assert record["input"] == {
        "mean": list(config["mean"]), "std": list(config["std"]),
        "interpolation": config["interpolation"], "crop_pct": config["crop_pct"],
    }  # fmt: skip
    assert (record["image_size"], record["start"]) == (160, "the file weights.pth")
    job = Job(composed("model=timm", "phase=inference", *data, *given), tmp_path)
    pictures = job.data(**seen_by(job, read_weights(tmp_path / "weights.pth"))).test_set
    with torch.no_grad():
        logits = model.eval()(torch.stack([picture for picture, _ in pictures]))
    labels = torch.tensor([label for _, label in pictures])
    assert outcome.metrics["test_acc"] == pytest.approx((logits.argmax(1) == labels).float().mean().item())


def test_weights_for_other_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"tell 1000 classes apart, and data=digits has 10.*checkpoint=scratch"):
        infer(tmp_path, "model.timm_name=test_vit", "pretrained=true")


@pytest.mark.parametrize(
    ("name", "side"), [("test_convnext", 96), ("test_maxvit", 96), ("test_vit3", 96), ("test_nfnet", 160)]
)
def test_a_model_is_built_for_the_image_size_whatever_its_constructor_takes(name: str, side: int) -> None:
    cfg = composed("model=timm", f"model.timm_name={name}", *([f"model.image_size={side}"] if side != 160 else []))
    assert size_of(cfg).image_size == side
    with torch.device("meta"):
        assert build_model(cfg, in_chans=1, num_classes=3).eval()(torch.empty(1, 1, side, side)).shape == (1, 3)


def test_only_the_images_that_ran_are_counted(tmp_path: Path) -> None:
    """With a limit of batches the rest of the test set was counted too, and an image seemed to cost less."""
    few = ("model.image_size=32", "eval_batch_size=16", "trainer.limit_test_batches=2", "watt=none")
    job = Job(composed("model=timm", "phase=inference", "model.timm_name=test_vit", *BRIEF, *few), tmp_path)
    data = job.data()
    stopwatch = Stopwatch()
    module = Classifier(build_model(job.cfg, in_chans=1, num_classes=10), Recipe(), 10)
    run_test(job.trainer(callbacks=[stopwatch]), module, Repeated(data.test_dataloader(), 1))
    assert stopwatch.images == 2 * 16 < len(data.test_set)
