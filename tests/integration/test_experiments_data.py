"""Data sets read from files of their real formats, made here where no package has them, and from Debian's packages."""

from __future__ import annotations

import gzip
import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from experiments.data.base import DataMissingError, ImageData
from experiments.job import Job
from experiments.modules.recipe import Recipe
from experiments.run import run
from tests.integration.study import composed, options, write_fashion, write_images, write_pairs, write_shards

CIFAR_FILES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


def write_cifar(root: Path) -> None:
    """The authors' six pickles of twenty pictures each: row number as red, nothing as green, column number as blue."""
    folder = root / CIFAR10.base_folder
    folder.mkdir(parents=True)
    rows, columns = np.mgrid[:32, :32].astype(np.uint8)
    picture = np.stack([rows, np.zeros_like(rows), columns]).reshape(3072)
    batch = {b"data": np.tile(picture, (20, 1)), b"labels": [index % 10 for index in range(20)]}
    for name in CIFAR_FILES:
        (folder / name).write_bytes(pickle.dumps({key.decode(): value for key, value in batch.items()}, protocol=2))
    (folder / CIFAR10.meta["filename"]).write_bytes(pickle.dumps({"label_names": [str(index) for index in range(10)]}))


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files in CIFAR-10's format, whose sums torchvision takes for the published ones."""
    root = tmp_path / "cifar"
    write_cifar(root)

    def listed(name: str) -> list[str]:
        return [name, hashlib.md5((root / CIFAR10.base_folder / name).read_bytes()).hexdigest()]

    monkeypatch.setattr(CIFAR10, "train_list", [listed(name) for name in CIFAR_FILES[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [listed(CIFAR_FILES[5])])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": listed(CIFAR10.meta["filename"])[1]})
    return root


WRITERS: dict[str, Callable[[Path], None]] = {"fashion_mnist": write_fashion, "image_folder": write_images}


PAIRS: dict[str, Callable[[Path], None]] = {"image_text": write_pairs, "webdataset": write_shards}
OF_OTHER_TASKS = ("scenes", "mask_folder", "motions", "motions_of_digits", "video_folder")  # they have tests of their own


def data_of(option: str, directory: Path, *overrides: str, **settings: object) -> ImageData:
    """The data module of a command line, with its training augmentation."""
    job = Job(composed(f"data={option}", *overrides), directory)
    return job.data(Recipe(batch_size=4), "pretrain", **settings)


@pytest.mark.parametrize("option", [option for option in options("data") if option not in ("own", *PAIRS, *OF_OTHER_TASKS)])
def test_data_builds_and_gives_batches(option: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    overrides: list[str] = []
    if option == "cifar10":
        overrides = [f"data.root={request.getfixturevalue('cifar')}"]
    elif option in WRITERS:
        WRITERS[option](tmp_path / option)
        overrides = [f"data.root={tmp_path / option}"]
    try:
        data = data_of(option, tmp_path, *overrides, val_share=0.34)
    except DataMissingError as error:
        if option != "emoji":
            raise
        pytest.skip(str(error))
    assert len(data.class_names) == data.num_classes
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        images, labels = next(iter(loader))
        assert images.shape == (4, data.in_chans, 32, 32)
        assert images.isfinite().all()
        assert 0 <= labels.min() <= labels.max() < data.num_classes


def test_cifars_planes_are_red_green_and_blue(cifar: Path, tmp_path: Path) -> None:
    data = data_of("cifar10", tmp_path, f"data.root={cifar}", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (90, 10, 20)
    red, green, blue = data.test_set.images[0] * 255
    torch.testing.assert_close(red, torch.arange(32.0).view(32, 1).expand(32, 32))
    torch.testing.assert_close(green, torch.zeros(32, 32))
    torch.testing.assert_close(blue, torch.arange(32.0).expand(32, 32))
    assert data.test_set.labels.tolist() == [index % 10 for index in range(20)]


def test_a_broken_cifar_is_not_read(cifar: Path, tmp_path: Path) -> None:
    (cifar / CIFAR10.base_folder / "data_batch_3").write_bytes(b"half of it")
    with pytest.raises(DataMissingError, match=r"data\.download=true"):
        data_of("cifar10", tmp_path, f"data.root={cifar}")


def test_a_download_without_a_network_says_what_else_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")  # where nobody answers
    with pytest.raises(DataMissingError, match=r"unpack the authors' cifar-10-python\.tar\.gz"):
        data_of("cifar10", tmp_path, f"data.root={tmp_path}/nowhere", "+data.download=true")


def test_fashion_mnists_grey_is_repeated_as_rgb(tmp_path: Path) -> None:
    write_fashion(tmp_path / "fashion")
    data = data_of("fashion_mnist", tmp_path, f"data.root={tmp_path}/fashion", "data.rgb=true")
    assert torch.equal(data.test_set.images[:, 0], data.test_set.images[:, 2])
    assert len(data.test_set) == 20


def test_debians_fashion_mnist_is_whole(tmp_path: Path) -> None:
    try:
        data = data_of("fashion_mnist", tmp_path, "model.image_size=8")
    except DataMissingError as error:
        pytest.skip(str(error))
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (54_000, 6_000, 10_000)
    assert data.test_set.labels.bincount().tolist() == [1000] * 10
    assert data.train_set.images.mean().abs() < 0.02  # the mean in the module is that of these pictures


def test_image_folders_classes_are_its_folders(tmp_path: Path) -> None:
    write_images(tmp_path / "pictures")
    data = data_of("image_folder", tmp_path, f"data.root={tmp_path}/pictures", val_share=0.5)
    assert data.class_names == ("blue", "red")
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (6, 6, 4)
    images, labels = next(iter(data.test_dataloader()))
    assert images.mean((2, 3)).argmax(1).tolist() == [2, 2, 0, 0]
    assert labels.tolist() == [0, 0, 1, 1]


def test_folders_of_other_classes_to_test_on_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "pictures")
    (tmp_path / "pictures" / "val" / "red").rename(tmp_path / "pictures" / "val" / "green")
    with pytest.raises(ValueError, match=r"1 only to train on \(red\), 1 only to test on \(green\)"):
        data_of("image_folder", tmp_path, f"data.root={tmp_path}/pictures")


def test_emoji_bring_captions_where_they_are_asked_for(tmp_path: Path) -> None:
    job = Job(composed("data=emoji", "model=clip"), tmp_path)
    try:
        data = job.data(Recipe(batch_size=8), "pretrain", captions=True)
    except DataMissingError as error:
        pytest.skip(str(error))
    images, labels, captions = next(iter(data.train_dataloader()))
    assert images.shape == (8, 3, 32, 32)
    assert len(labels) == len(captions) == 8


@pytest.mark.parametrize("option", PAIRS)
def test_pairs_are_read_from_folders_and_shards(option: str, tmp_path: Path) -> None:
    PAIRS[option](tmp_path / "pairs")
    data = data_of(option, tmp_path, f"data.root={tmp_path}/pairs", "model=clip", "num_workers=1", val_share=0.34)
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (6, 3, 4)
    images, labels, captions = next(iter(data.test_dataloader()))
    assert images.shape == (4, 3, 32, 32)
    assert labels.tolist() == [-1] * 4
    assert list(captions) == [f"red, {index} of nine" for index in range(4)]  # each with its own picture:
    torch.testing.assert_close(images.mean((2, 3))[:, 0].diff(), torch.full((3,), 20 / 255 / 0.229), rtol=0.05, atol=0)
    seen = [
        caption for loader in (data.train_dataloader(), data.val_dataloader()) for *_, said in loader for caption in said
    ]
    assert len(set(seen)) == len(seen) == 7  # the last, smaller batch of the training is dropped


@pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning")
@pytest.mark.parametrize("option", PAIRS)
def test_clip_is_pretrained_on_pairs_and_a_classifier_is_not(option: str, tmp_path: Path) -> None:
    PAIRS[option](tmp_path / "pairs")
    asked = [
        f"data={option}",
        f"data.root={tmp_path}/pairs",
        "+data.val_share=0.34",
        "recipe.batch_size=3",
        "recipe.epochs=1",
    ]
    rest = ["device=cpu", "watt=none", "+trainer.enable_progress_bar=false", "trainer.log_every_n_steps=1"]
    outcome = run(composed("model=clip", *asked, *rest), tmp_path)
    assert set(outcome.metrics) >= {"test_loss", "test_image_to_text_r1"}
    with pytest.raises(ValueError, match=f"data={option} has no classes"):
        run(composed("model=vit", *asked, *rest), tmp_path)


def test_a_compressed_shard_is_refused(tmp_path: Path) -> None:
    write_shards(tmp_path / "pairs")
    shard = tmp_path / "pairs" / "val" / "00000.tar"
    shard.write_bytes(gzip.compress(shard.read_bytes()))
    with pytest.raises(ValueError, match=r"00000\.tar cannot be read.*not compressed"):
        data_of("webdataset", tmp_path, f"data.root={tmp_path}/pairs", "model=clip")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("fashion_mnist", "apt-get install dataset-fashion-mnist"),
        ("cifar10", r"data\.download=true"),
        ("image_folder", "root/train/CLASS/picture"),
        ("image_text", "NAME.txt"),
        ("webdataset", "shards"),
    ],
)
def test_missing_data_says_where_to_get_it(name: str, remedy: str, tmp_path: Path) -> None:
    with pytest.raises(DataMissingError, match=rf"data={name} was not found.*nowhere.*{remedy}.*data=digits needs nothing"):
        data_of(name, tmp_path, f"data.root={tmp_path}/nowhere")
