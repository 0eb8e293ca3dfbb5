"""What belongs to a paper's training beside its rates: augmentation, dropout, the weights' moving average."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from experiments.job import Job
from experiments.models import build_model
from experiments.run import run
from experiments.settings import recipe_of
from experiments.zoo import ZOO
from tests.integration.study import composed, write_images

pytestmark = pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning")


def transforms(model: str, phase: str, folder: Path, *overrides: str) -> dict[str, object]:
    """The steps of a family's augmentation at paper scale, by their names."""
    data = ("data=image_folder", f"data.root={folder}", "+data.val_share=0.34")
    job = Job(composed(f"model={model}", "scale=paper", *data, *overrides), folder)
    steps = job.data(recipe_of(job.cfg, phase), phase).train_set.dataset.transform.transforms
    return {type(step).__name__: step for step in steps}


def test_each_family_has_its_own_augmentation(tmp_path: Path) -> None:
    write_images(tmp_path)
    for model in ZOO:
        erased = "RandomErasing" in transforms(model, "pretrain", tmp_path)
        assert erased == (model == "swin")  # what MAE and BEiT learn is the picture itself
    assert transforms("mae", "pretrain", tmp_path)["RandomResizedCropAndInterpolation"].scale == (0.2, 1)
    assert "ColorJitter" in transforms("beit", "pretrain", tmp_path)
    assert {*transforms("clip", "pretrain", tmp_path)} == {"RandomShortestSize", "RandomCrop", "MaybeToTensor", "Normalize"}
    assert transforms("resnet", "pretrain", tmp_path)["RandomShortestSize"].min_size[::224] == [256, 480]
    changed = transforms("mae", "pretrain", tmp_path, "+data.augment.pretrain.re_prob=0.5")
    assert {"RandomErasing", "RandomResizedCropAndInterpolation"} <= changed.keys()


@pytest.mark.parametrize(("model", "rate"), [("efficientnet", 0.2), ("mobilenet", 0.2), ("vit", 0.1), ("resnet", 0)])
def test_dropout_is_the_papers(model: str, rate: float) -> None:
    cfg = composed(f"model={model}", "scale=paper")
    with torch.device("meta"):
        built = build_model(cfg, in_chans=3, num_classes=10, recipe=recipe_of(cfg, "pretrain"))
    rates = {module.p for module in built.modules() if isinstance(module, nn.Dropout)} | {getattr(built, "drop_rate", 0)}
    assert max(rates) == rate
    norms = {module.momentum for module in built.modules() if isinstance(module, nn.BatchNorm2d)}
    assert norms <= ({0.01} if rate == 0.2 else {0.1})


def test_the_moving_average_is_what_is_kept(tmp_path: Path, words: object) -> None:
    words.left = list
    few = ("device=cpu", "recipe.epochs=1", "trainer.limit_train_batches=3", "trainer.limit_val_batches=1", "watt=none")
    outcome = run(composed("model=efficientnet", "model.recipe.pretrain.tiny.ema=0.9", *few), tmp_path)
    checkpoint = torch.load(outcome.checkpoint, weights_only=True)
    kept, name = checkpoint["zoo"]["state"], "conv_stem.weight"
    assert torch.equal(kept[name], checkpoint["state_dict"][f"model.{name}"])
    assert not torch.equal(kept[name], checkpoint["current_model_state"][f"model.{name}"])
