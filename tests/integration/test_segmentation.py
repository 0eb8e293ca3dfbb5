"""Segmentation: real models on real pictures with masks, from an encoder's pretraining to inference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from PIL import Image
from torchmetrics.functional.classification import multiclass_jaccard_index

from experiments.command_line import users_error
from experiments.data.base import DataMissingError
from experiments.data.segment.mask_folder import MaskFolders
from experiments.data.segment.scenes import EDGE, IGNORED, EmojiScenes, pieces
from experiments.job import Job
from experiments.models import build_model
from experiments.phases.build import build, build_from
from experiments.run import run
from experiments.settings import recipe_of
from experiments.tasks.base import TaskError
from experiments.weights import Weights, WeightsError
from experiments.zoo import ZOO
from lightning_watt import energy_of, read_record
from tests.integration.conftest import Words
from tests.integration.study import composed, write_ade20k

pytestmark = pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning")
FEW = (
    "task=segment",
    "device=cpu",
    "recipe.epochs=1",
    "recipe.batch_size=4",
    "eval_batch_size=4",
    "trainer.limit_train_batches=2",
    "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=2",
    "+trainer.enable_progress_bar=false",
)


@pytest.fixture(autouse=True)
def _few_words(words: Words) -> None:
    """What the callback says about a run of a second is its own tests' matter."""
    words.left = list  # type: ignore[method-assign]


def folder(root: Path, **options: object) -> MaskFolders:
    data = MaskFolders(root=root, image_size=32, batch_size=2, **{"num_classes": 2, "val_share": 0.2, **options})
    data.setup()
    return data


def test_a_lifecycle_goes_from_a_classifier_to_a_segmentation(tmp_path: Path) -> None:
    try:
        outcome = run(
            composed(
                *FEW, "model=vit", "phase=lifecycle", "phase.inference.min_seconds=0.1", "phase.inference.max_seconds=1"
            ),
            tmp_path,
        )
    except DataMissingError as error:
        pytest.skip(str(error))
    records = {name: read_record(part.directory) for name, part in outcome.parts.items()}
    told = {name: (record.model["task"], record.model["metric"], record.accuracy.metric) for name, record in records.items()}
    assert told == {
        "pretrain": ("classify", "top-1", "test_acc"),
        "finetune": ("segment", "mean IoU", "test_miou"),
        "inference": ("segment", "mean IoU", "test_miou"),
    }
    own = [record.energy.total_j for record in records.values()]
    assert energy_of(tmp_path / "inference").total_j == pytest.approx(sum(own), rel=1e-6)
    assert records["finetune"].model["decoder"] == "dpt"
    assert outcome.metrics["test_miou"] == pytest.approx(outcome.parts["finetune"].metrics["test_miou"], abs=1e-6)
    # The classifier's run is no segmentation, and is refused in a sentence.
    with pytest.raises(
        WeightsError, match=r"made with task=classify, and this is task=segment\. Finetune it first"
    ) as refused:
        run(composed(*FEW, "model=vit", "phase=inference", f"checkpoint={tmp_path}/pretrain"), tmp_path / "wrong")
    assert users_error(refused.value)


@pytest.mark.filterwarnings("ignore::UserWarning:timm.layers.interpolate")
@pytest.mark.parametrize("name", ZOO)
def test_an_encoder_gets_all_its_weights(name: str, tmp_path: Path) -> None:
    """Also those of another image size, whose positions are resampled; the decoder's stay fresh."""
    write_ade20k(tmp_path)
    cfg = composed("task=segment", f"model={name}", "data=mask_folder", f"data.root={tmp_path}", "model.image_size=64")
    job = Job(cfg, tmp_path)
    data = job.data(recipe_of(cfg, "finetune"), "finetune")
    pretrained = build_model(composed(f"model={name}"), in_chans=3, num_classes=7)
    weights = Weights(pretrained.state_dict(), tmp_path / "a.ckpt", True, {"task": "classify"})
    segmenter = build_from(job, data, None, weights)
    loaded = {name.replace(".", "_"): value for name, value in segmenter.encoder.model.state_dict().items()}
    assert loaded
    for key, value in pretrained.state_dict().items():
        plain = key.replace(".", "_")
        if plain in loaded and value.shape == loaded[plain].shape:
            assert torch.equal(loaded[plain], value), key
    assert segmenter(torch.zeros(2, 3, 64, 64)).shape == (2, 150, 64, 64)


@pytest.mark.parametrize(
    ("name", "scale"),
    [("resnet", "paper"), ("mobilenet", "paper"), ("swin", "paper"), ("beit", "paper"), ("swin", "small"), ("mae", "small")],
)
def test_larger_families_have_a_decoder_too(name: str, scale: str, tmp_path: Path) -> None:
    cfg = composed("task=segment", f"model={name}", f"scale={scale}")
    with torch.device("meta"):
        job = Job(cfg, tmp_path)
        model = build(job, EmojiScenes(image_size=32, batch_size=1), recipe_of(cfg, "finetune")).eval()
        side = cfg.task.image_size[scale]
        assert model(torch.empty(1, 3, side, side)).shape[-2:] == (side, side)


def test_a_decoder_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    job = Job(composed("task=segment", "model=vit", "task.decoder=deeplabv3plus"), tmp_path)
    with pytest.raises(
        TaskError, match=r"task\.decoder=deeplabv3plus cannot be put on test_vit .* vision transformers take dpt"
    ):
        build(job, EmojiScenes(image_size=32, batch_size=1))


def test_scenes_have_the_masks_of_what_they_show() -> None:
    data = EmojiScenes(image_size=32, batch_size=64, skin_tones=False, mean=[0.0] * 3, std=[1.0] * 3)
    try:
        data.setup()
    except DataMissingError as error:
        pytest.skip(str(error))
    scenes = data.test_set.scenes
    index = torch.tensor([5])
    alone = scenes.draw(torch.Generator().manual_seed(0))
    alone[2, 0] = 1.0  # no second thing
    image, mask = scenes.compose(index, alone.unsqueeze(0))
    hidden = scenes.pictures[5].clone()
    scenes.pictures[5] = 0
    background, empty = scenes.compose(index, alone.unsqueeze(0))
    scenes.pictures[5] = hidden
    assert (empty == 0).all()
    assert set(mask.unique().tolist()) <= {0, int(scenes.labels[5]), IGNORED}
    change = (image - background).abs().amax(1)
    assert (change[mask == scenes.labels[5]] > 0).float().mean() > 0.9
    assert change[mask == 0].max() <= EDGE[0]  # no more than the faint part of an edge
    images, masks = next(iter(data.test_dataloader()))
    again = next(iter(data.test_dataloader()))
    assert torch.equal(images, again[0])
    assert torch.equal(masks, again[1])
    first, second = (next(iter(data.train_dataloader()))[0] for _ in range(2))
    assert not torch.equal(first, second)
    assert data.num_classes == len(data.class_names) == 10
    assert ((masks < 10) | (masks == IGNORED)).all()


def test_no_background_of_the_training_is_in_what_is_held_out() -> None:
    parts = pieces()
    assert [len(part) for part in parts] == [32, 8, 8]
    known = [{piece.numpy().tobytes() for piece in part} for part in parts]
    assert len(set.union(*known)) == 48  # no piece is there twice


def test_only_training_scenes_have_other_colours_and_are_mirrored() -> None:
    def black(images: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(images)

    data = EmojiScenes(
        image_size=32, batch_size=64, skin_tones=False, mean=[0.0] * 3, std=[1.0] * 3, augment=black, things=1
    )
    try:
        data.setup()
    except DataMissingError as error:
        pytest.skip(str(error))
    images, masks = data.train_set.__getitems__(list(range(64)))
    assert (images.amax(1)[masks == 0] <= EDGE[0]).all()  # no more than the faint part of an edge
    for part in (data.val_set, data.test_set):
        images, masks = part.__getitems__(list(range(64)))
        assert (images.amax(1)[masks == 0] > EDGE[0]).float().mean() > 0.5
    torch.manual_seed(0)
    scenes = data.train_set.scenes
    scenes.draw = lambda generator=None: torch.full((2, 5), 0.5)  # type: ignore[method-assign]
    plain, _ = scenes.compose(torch.tensor([0]), scenes.draw().unsqueeze(0))
    images, masks = data.train_set.__getitems__([0] * 50)
    turned = (images - plain).abs().amax((1, 2, 3)) > 0
    assert 10 < turned.sum() < 40
    assert torch.equal(masks[turned][0], masks[~turned][0].flip(-1))
    assert torch.equal(images[turned][0], plain[0].flip(-1))


def test_the_loss_at_tiny_is_cross_entropy_and_dice() -> None:
    torch.manual_seed(0)
    logits, masks = torch.randn(4, 3, 5, 5), torch.randint(0, 2, (4, 5, 5))  # there is no pixel of class 2
    masks[0, 0] = IGNORED
    loss = instantiate(composed("task=segment").task.loss, ignore_index=IGNORED)(logits, masks)
    seen = (masks != IGNORED).numpy()
    shares = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True)
    shares = np.moveaxis(shares, 1, -1)[seen]
    true = np.eye(3)[masks.numpy()[seen]]
    dice = 1 - 2 * (shares * true).sum(0) / (shares.sum(0) + true.sum(0))
    entropy = -np.log((shares * true).sum(1)).mean()
    assert loss.item() == pytest.approx(entropy + dice[:2].sum() / 3, abs=1e-5)  # one that is not there adds nothing


def test_mean_iou_counts_no_ignored_pixel() -> None:
    logits = torch.eye(3)[torch.tensor([[0, 1], [2, 2]])].permute(2, 0, 1).unsqueeze(0)
    masks = torch.tensor([[[0, 1], [2, IGNORED]]])
    assert multiclass_jaccard_index(logits, masks, 3, ignore_index=IGNORED) == 1


def test_ade20ks_layout_is_read(tmp_path: Path) -> None:
    write_ade20k(tmp_path)
    data = folder(tmp_path, augment={"scale": [0.5, 2.0], "flip": 0.5})
    assert [len(part) for part in (data.train_set, data.val_set, data.test_set)] == [8, 2, 4]
    images, masks = next(iter(data.test_dataloader()))
    assert images.shape == (2, 3, 32, 32)
    assert set(masks.unique().tolist()) <= {0, 1, IGNORED}
    red = images[:, 0] > images[:, 1] + 1
    assert (red[masks == 1].float().mean() > 0.9) & (red[masks == 0].float().mean() < 0.1)
    small = [data.train_set[index] for index in range(8)]
    assert all(image.shape == (3, 32, 32) and mask.shape == (32, 32) for image, mask in small)


def test_vocs_layout_is_read(tmp_path: Path) -> None:
    write_ade20k(tmp_path / "ade")
    voc = tmp_path / "voc"
    for source, target in (("images", "JPEGImages"), ("annotations", "SegmentationClass")):
        (tmp_path / "ade" / source / "training").rename(_made(voc / target))
    lists = _made(voc / "ImageSets" / "Segmentation" / "train.txt")
    lists.write_text("".join(f"{index:03}\n" for index in range(6)))
    lists.with_name("val.txt").write_text("006\n007\n")
    data = folder(voc, num_classes=None)
    assert (data.num_classes, len(data.train_set), len(data.test_set)) == (21, 5, 2)
    assert set(data.test_set[0][1].unique().tolist()) <= {0, 1, 2}  # 0 is a class here


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_what_cannot_be_used_is_left_out_and_counted(tmp_path: Path) -> None:
    write_ade20k(tmp_path)
    masks = tmp_path / "annotations" / "training"
    Image.new("L", (80, 80), 1).save(masks / "000.png")
    Image.new("RGB", (40, 40)).save(masks / "001.png")
    (masks / "002.png").unlink()
    (masks / "003.png").write_text("no picture")
    with pytest.warns(UserWarning, match="left out"):
        data = folder(tmp_path)
    assert data.left_out == {
        "the mask has another size than its picture": 1,
        "the mask has colours, and needs labels, one number a pixel": 1,
        "a file is not there": 1,
        "a file is no picture": 1,
    }
    assert len(data.train_set) + len(data.val_set) == 6
    for mask in masks.iterdir():
        Image.new("L", (80, 80), 1).save(mask)
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(ValueError, match=r"no picture with a mask can be used.*another size than its picture") as refused,
    ):
        folder(tmp_path)
    assert users_error(refused.value)


def test_labels_beyond_the_classes_are_refused_before_training(tmp_path: Path) -> None:
    write_ade20k(tmp_path)
    Image.new("L", (40, 40), 9).save(tmp_path / "annotations" / "training" / "004.png")
    with pytest.raises(
        ValueError, match=r"004\.png has the labels 9, and there are 2 classes from 1 on, and 255"
    ) as refused:
        folder(tmp_path)
    assert users_error(refused.value)


def test_what_breaks_later_gives_its_place_to_the_next(tmp_path: Path) -> None:
    write_ade20k(tmp_path)
    data = folder(tmp_path)
    file = tmp_path / "images" / "validation" / "001.jpg"
    file.write_bytes(file.read_bytes()[:-200])
    Image.new("L", (40, 40), 9).save(tmp_path / "annotations" / "validation" / "002.png")
    with pytest.warns(UserWarning, match="It is said once") as said:
        found = [data.test_set[index][1] for index in range(4)]
    assert [str(one.message).partition(" ")[0].rpartition("/")[2] for one in said] == ["001.jpg", "002.png"]
    assert (found[1] == IGNORED).all()
    assert torch.equal(found[1], found[2])


def test_no_layout_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataMissingError, match="It needs the layout of PASCAL VOC"):
        folder(tmp_path)
