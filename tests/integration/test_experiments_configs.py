"""Every option of every config group composes and builds."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import torchvision
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig
from PIL import Image

from experiments.build import build_model, count_gflops, model_info, recipe_of, size_of
from experiments.data.base import DataMissingError
from experiments.job import Job
from experiments.modules.recipe import Recipe
from experiments.phases.pretrain import self_supervised
from experiments.run import CONF
from experiments.zoo import SCALES, ZOO
from lightning_watt import WattCallback

pytestmark = pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning")
GROUPS = ("model", "phase", "scale", "data", "device", "watt", "study")


def composed(*overrides: str) -> DictConfig:
    """The config of a command line; a model and a phase are filled in where the test names none."""
    given = {override.split("=")[0] for override in overrides}
    rest = [f"{group}={option}" for group, option in (("model", "resnet"), ("phase", "pretrain")) if group not in given]
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        return compose("run", [*overrides, *rest])


def options(group: str) -> list[str]:
    """Every option of a group, as the files name them."""
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize(("group", "option"), [(group, option) for group in GROUPS for option in options(group)])
def test_option_composes(group: str, option: str) -> None:
    cfg = composed(f"{group}={option}")
    assert cfg.trainer._target_ == "pytorch_lightning.Trainer"
    assert set(cfg.model) >= {"family", "timm_name", "image_size", "options", "recipe"}


def test_groups_hold_the_contract() -> None:
    assert options("model") == sorted(ZOO)
    assert options("scale") == sorted(SCALES)
    assert set(options("phase")) == {"pretrain", "finetune", "inference", "lifecycle"}
    assert set(options("data")) >= {"digits", "fashion_mnist", "cifar10", "emoji", "image_folder"}
    assert set(options("device")) >= {"auto", "cpu", "gpu"}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", sorted(ZOO))
def test_model_builds_at_every_scale(name: str, scale: str) -> None:
    cfg = composed(f"model={name}", f"scale={scale}")
    _, size = size_of(cfg)
    with torch.device("meta"):  # shapes without the time to fill them
        model = build_model(cfg, in_chans=3, num_classes=7).eval()
        assert model(torch.empty(2, 3, size.image_size, size.image_size)).shape == (2, 7)
    assert count_gflops(model, 3, size.image_size) > 0
    for phase in cfg.model.recipe:
        recipe = recipe_of(cfg, phase)
        assert isinstance(recipe, Recipe)
        assert recipe.warmup_epochs < recipe.epochs


# The rate at its peak and at the cosine's end, as papers and authors' code have it for the batch they train with.
PUBLISHED_RATES = {
    ("resnet", "pretrain"): (0.1, None),
    ("efficientnet", "pretrain"): (0.256, None),
    ("mobilenet", "pretrain"): (0.1, None),
    ("vit", "pretrain"): (3e-3, 0),
    ("vit", "finetune"): (0.03, 0),
    ("swin", "pretrain"): (1e-3, 1e-5),
    ("swin", "finetune"): (4e-5, 4e-7),
    ("beit", "tokenizer"): (1e-4, 1.25e-6),
    ("beit", "pretrain"): (1.5e-3, 1e-5),
    ("beit", "finetune"): (4e-3, 1e-6),
    ("mae", "pretrain"): (2.4e-3, 0),
    ("mae", "finetune"): (2e-3, 1e-6),
    ("clip", "pretrain"): (5e-4, 0),
}


@pytest.mark.parametrize(("name", "phase"), PUBLISHED_RATES)
def test_a_papers_rate_is_reached_at_its_batch(name: str, phase: str) -> None:
    peak, end = PUBLISHED_RATES[name, phase]
    recipe = recipe_of(composed(f"model={name}", "scale=paper"), phase)
    assert recipe.peak_lr(recipe.batch_size) == pytest.approx(peak)
    if end is not None:
        assert recipe.schedule == "cosine"
        assert recipe.peak_lr(recipe.batch_size) * recipe.lr_factor(100, 100, 1) == pytest.approx(end)


def test_image_folder_takes_another_augmentation(tmp_path: Path) -> None:
    """The override that conf/data/image_folder.yaml gives for MAE leaves crops and mirroring only."""
    write_images(tmp_path / "pictures")
    override = next(line for line in (CONF / "data" / "image_folder.yaml").read_text().split() if line.startswith("++data"))
    cfg = composed("model=mae", "data=image_folder", f"data.root={tmp_path}/pictures", override)
    data = Job(cfg, tmp_path).data(Recipe(batch_size=4), "pretrain", val_share=0.5)
    steps = [type(step).__name__ for step in data.train_set.dataset.transform.transforms]
    assert steps == ["RandomResizedCropAndInterpolation", "RandomHorizontalFlip", "MaybeToTensor", "Normalize"]


@pytest.mark.parametrize("scale", ["tiny", "small"])
@pytest.mark.parametrize("name", ["mae", "beit", "clip"])
def test_self_supervised_module_builds(name: str, scale: str, tmp_path: Path) -> None:
    cfg = composed(f"model={name}", f"scale={scale}")
    job = Job(cfg, tmp_path)
    data = job.data(recipe_of(cfg, "pretrain"), "pretrain")
    backbone = build_model(cfg, in_chans=data.in_chans, num_classes=0)
    tokenizer = None
    if name == "beit":
        from experiments.build import options_of
        from experiments.modules.visual_tokenizer import VisualTokenizer

        tokenizer = VisualTokenizer.for_backbone(backbone, recipe_of(cfg, "tokenizer"), **options_of(cfg, "tokenizer"))
    module = self_supervised(job, backbone, recipe_of(cfg, "pretrain"), data, tokenizer)
    again = build_model(cfg, in_chans=data.in_chans, num_classes=0)
    again.load_state_dict(module.backbone_state(), strict=True)


@pytest.mark.parametrize("option", options("phase"))
def test_phase_builds(option: str) -> None:
    assert callable(instantiate(composed(f"phase={option}").phase))


@pytest.mark.parametrize("option", options("watt"))
def test_watt_builds(option: str) -> None:
    cfg = composed(f"watt={option}")
    if option == "none":
        assert cfg.watt is None
        return
    callback = instantiate(cfg.watt, _convert_="all")
    assert isinstance(callback, WattCallback)
    assert callback.sam_unit == "J"
    assert callback.batches == (option == "batches")


@pytest.mark.parametrize("option", options("device"))
def test_device_builds(option: str, tmp_path: Path) -> None:
    job = Job(composed(f"device={option}", "watt=none"), tmp_path)
    if option == "gpu" and not torch.cuda.is_available():
        with pytest.raises(pl.utilities.exceptions.MisconfigurationException, match="gpu"):
            job.trainer()
        return
    assert job.trainer().num_devices == 1


def write_images(root: Path) -> None:
    """Two classes in ImageNet's layout, six pictures each to train on and two to test on."""
    for part, count in (("train", 6), ("val", 2)):
        for label, colour in (("blue", (0, 0, 255)), ("red", (255, 0, 0))):
            folder = root / part / label
            folder.mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (40, 30), colour).save(folder / f"{index}.png")


def write_fashion(root: Path) -> None:
    """idx files of forty training and twenty test pictures."""
    root.mkdir()
    for part, count in (("train", 40), ("t10k", 20)):
        pixels = bytes(range(256)) * (28 * 28 * count // 256 + 1)
        header = struct.pack(">IIII", 0x803, count, 28, 28)
        (root / f"{part}-images-idx3-ubyte").write_bytes(header + pixels[: 28 * 28 * count])
        labels = bytes(index % 10 for index in range(count))
        (root / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels)


def test_image_folder_builds(tmp_path: Path) -> None:
    write_images(tmp_path / "pictures")
    data = Job(composed("data=image_folder", f"data.root={tmp_path}/pictures", "data.train=train"), tmp_path).data(
        Recipe(batch_size=4), "pretrain", val_share=0.5
    )
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (4, 3, 32, 32)
    assert data.class_names == ("blue", "red")
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (6, 6, 4)
    assert set(labels.tolist()) <= {0, 1}


def test_fashion_mnist_builds(tmp_path: Path) -> None:
    write_fashion(tmp_path / "fashion")
    job = Job(composed("data=fashion_mnist", f"data.root={tmp_path}/fashion", "data.rgb=true"), tmp_path)
    data = job.data(Recipe(batch_size=10), "finetune")
    images, _ = next(iter(data.train_dataloader()))
    assert images.shape == (10, 3, 32, 32)
    assert torch.equal(data.test_set.images[:, 0], data.test_set.images[:, 2])
    assert len(data.test_set) == 20


def test_cifar10_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    batch = {"data": torch.zeros(20, 3072, dtype=torch.uint8).numpy(), "labels": [index % 10 for index in range(20)]}
    for name in [f"data_batch_{index}" for index in range(1, 6)] + ["test_batch"]:
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["a"] * 10}))
    monkeypatch.setattr(
        torchvision.datasets.CIFAR10, "_check_integrity", lambda self: True
    )  # the sums are of the published files
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5: True)
    data = Job(composed("data=cifar10", f"data.root={tmp_path}"), tmp_path).data()
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (90, 10, 20)
    assert next(iter(data.val_dataloader()))[0].shape == (10, 3, 32, 32)


def test_emoji_builds(tmp_path: Path) -> None:
    job = Job(composed("data=emoji", "model=clip"), tmp_path)
    try:
        data = job.data(Recipe(batch_size=8), "pretrain", captions=True)
    except DataMissingError as error:
        pytest.skip(str(error))
    images, labels, captions = next(iter(data.train_dataloader()))
    assert images.shape == (8, 3, 32, 32)
    assert len(labels) == len(captions) == 8


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10", "image_folder"])
def test_missing_data_says_where_to_get_it(name: str, tmp_path: Path) -> None:
    job = Job(composed(f"data={name}", f"data.root={tmp_path}/nowhere"), tmp_path)
    with pytest.raises(DataMissingError, match=rf"data={name} was not found.*nowhere.*data=digits needs nothing"):
        job.data()


def test_an_unknown_scale_names_the_known_ones() -> None:
    cfg = composed()
    cfg.scale.name = "huge"
    with pytest.raises(ValueError, match="tiny, small, paper"):
        size_of(cfg)


def test_model_info_is_what_the_record_needs(tmp_path: Path) -> None:
    cfg = composed("model=vit")
    data = Job(cfg, tmp_path).data()
    info = model_info(cfg, build_model(cfg, in_chans=1, num_classes=10), data, "pretrain")
    assert info["family"] == "vit"
    assert info["timm_name"] == "test_vit"
    assert info["params"] == 256_458
    # 16 patches and a class token through 6 blocks of width 64: 0.00903 GFLOP of multiply-adds counted as two.
    assert info["gflops_per_sample"] == pytest.approx(0.0090, rel=0.02)


def test_another_timm_model_takes_the_familys_place() -> None:
    cfg = composed("model=vit", "model.timm_name=test_vit2", "model.image_size=64", "+model.options.patch_size=16")
    model = build_model(cfg, in_chans=1, num_classes=3)
    assert model.patch_embed.patch_size == (16, 16)
    assert model(torch.zeros(1, 1, 64, 64)).shape == (1, 3)
