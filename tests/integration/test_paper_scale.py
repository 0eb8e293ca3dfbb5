"""scale=paper trains what the papers trained, however many devices there are."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from experiments.job import Job
from experiments.modules.batches import BatchError, Split, largest_fitting, split_batch
from experiments.modules.recipe import Recipe
from experiments.run import CONF, run
from experiments.settings import recipe_of
from experiments.zoo import ZOO
from lightning_watt import read_record
from tests.integration.study import composed

PUBLISHED = OmegaConf.to_container(OmegaConf.load(CONF / "published.yaml"))
PHASES = [(name, phase) for name in ZOO for phase in PUBLISHED[name]]
UNPUBLISHED = {("clip", "finetune")}
"""This project's own."""


def test_every_phase_that_was_published_is_held() -> None:
    recipes = {(name, phase) for name in ZOO for phase in composed(f"model={name}").model.recipe}
    assert recipes == {*PHASES} | UNPUBLISHED


@pytest.mark.parametrize("devices", [1, 4, 8])
@pytest.mark.parametrize(("name", "phase"), PHASES)
def test_the_totals_are_the_published(name: str, phase: str, devices: int, tmp_path: Path) -> None:
    published = PUBLISHED[name][phase]
    images = PUBLISHED["images"]["clip" if name == "clip" else "imagenet"]
    job = Job(composed(f"model={name}", "scale=paper", "device=gpu", f"device.count={devices}", "micro_batch=32"), tmp_path)
    recipe = recipe_of(job.cfg, phase)
    split = job.split(recipe)
    assert split.micro * split.devices * split.accumulate == split.total == published["batch_size"]
    updates = published.get("updates") or published["epochs"] * images / published["batch_size"]
    assert split.updates(images, recipe.epochs) == pytest.approx(updates, rel=0.01)
    assert split.steps(images) * recipe.epochs == split.updates(images, recipe.epochs) * split.accumulate
    told = SimpleNamespace(
        estimated_stepping_batches=100, max_epochs=10, accumulate_grad_batches=split.accumulate, world_size=devices
    )
    made = recipe.configure([torch.nn.Parameter(torch.zeros(2))], told)
    assert made["optimizer"].param_groups[0]["initial_lr"] == pytest.approx(published["lr"])


@pytest.mark.parametrize(
    ("devices", "micro", "said"),
    [(3, None, "4096 images does not divide over 3"), (8, 100, "does not divide the 512"), (8, 0, "micro_batch=0")],
)
def test_what_does_not_divide_is_refused(devices: int, micro: int | None, said: str) -> None:
    with pytest.raises(BatchError, match=said):
        split_batch(Recipe(batch_size=4096), devices, micro)


def test_what_memory_holds_is_rounded_down_to_a_divisor() -> None:
    assert [largest_fitting(96, most) for most in (200, 64, 5, 1)] == [96, 48, 4, 1]


def test_a_training_set_smaller_than_a_batch_is_refused() -> None:
    with pytest.raises(BatchError, match="31 images, fewer than one batch of 32"):
        Split(total=32, devices=1, micro=8).steps(31)


@pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning")
def test_papers_are_computed_as_gpus_do_best(tmp_path: Path) -> None:
    cfg = composed("scale=paper", "device=cpu", "watt=none")
    known = (cfg.trainer.precision, cfg.matmul_precision, cfg.channels_last, cfg.num_workers, cfg.pin_memory)
    assert known == ("bf16-mixed", "high", True, 8, True)
    assert Job(cfg, tmp_path).trainer().precision == "bf16-mixed"


FEW = (
    "device=cpu",
    "recipe.epochs=1",
    "recipe.batch_size=320",
    "trainer.limit_val_batches=1",
    "+trainer.enable_progress_bar=false",
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning")
@pytest.mark.parametrize(("micro", "found"), [("80", 80), ("find", 320)])
def test_a_fit_makes_whole_batches_of_the_total(micro: str, found: int, tmp_path: Path, words: object) -> None:
    words.left = list
    outcome = run(composed("model=vit", *FEW, f"micro_batch={micro}", "trainer.limit_test_batches=1"), tmp_path)
    checkpoint = torch.load(outcome.checkpoint, weights_only=True)
    assert checkpoint["global_step"] == 1293 // 320
    record = read_record(tmp_path)
    assert record.model["micro_batch"] == found
    assert record.model["accumulate"] == 320 // found
    assert record.energy.by_stage["train"].samples == 1293 // 320 * 320
    assert ("tune" in record.energy.by_stage) == (micro == "find")


@pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning")
def test_clips_batch_is_not_taken_in_steps(tmp_path: Path) -> None:
    with pytest.raises(BatchError, match="compares all pairs of a batch of 320"):
        run(composed("model=clip", *FEW, "micro_batch=80", "watt=none"), tmp_path)
