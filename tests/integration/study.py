"""What the study's tests start from: a composed config, a folder of pictures, and a wait."""

from __future__ import annotations

import gzip
import json
import struct
import tarfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image

from experiments.command_line import CONF

WAIT_S = 240  # on a busy machine


def composed(*overrides: str, hydra: bool = False) -> DictConfig:
    """The config of a command line, with Hydra's own part if asked for; model and phase are filled in if not given."""
    given = {override.split("=")[0] for override in overrides}
    rest = [f"{group}={option}" for group, option in (("model", "resnet"), ("phase", "pretrain")) if group not in given]
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        return compose("run", [*overrides, *rest], return_hydra_config=hydra)


def options(group: str) -> list[str]:
    """Every option of a group, as the files name them."""
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def write_images(root: Path) -> None:
    """Two classes in ImageNet's layout, six pictures each to train on and two to test on."""
    for part, count in (("train", 6), ("val", 2)):
        for label, colour in (("blue", (0, 0, 255)), ("red", (255, 0, 0))):
            folder = root / part / label
            folder.mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (40, 30), colour).save(folder / f"n0_{index}.JPEG")


def wait_for(what: Callable[[], bool]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + WAIT_S
    while not what():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def write_pairs(root: Path) -> None:
    """Coloured pictures with captions, nine to train on and four to test on; what is no pair lies among them."""
    for part, count in (("train", 9), ("val", 4)):
        folder = root / part / "some"
        folder.mkdir(parents=True)
        for index in range(count):
            picture = Image.new("RGB", (40, 30), (index * 20, 0, 0))
            picture.save(folder / f"a.{index}.jpg")
            (folder / f"a.{index}.txt").write_text(f"red,\n {index} of nine\n")
        Image.new("RGB", (4, 4)).save(folder / "without.png")
        (folder / "of-nothing.txt").write_text("a caption")


def write_shards(root: Path) -> None:
    """The same pairs in two shards each, as WebDataset writes them."""
    write_pairs(root / "files")
    for part in ("train", "val"):
        (root / part).mkdir()
        for index, file in enumerate(sorted((root / "files" / part / "some").iterdir())):
            with tarfile.open(root / part / f"{index // 8:05}.tar", "a") as shard:
                name = file.name.replace("a.", "a")  # a name ends at its first dot
                if file.suffix == ".txt" and index % 4 == 1:
                    name, said = name.replace(".txt", ".json"), json.dumps({"caption": file.read_text()}).encode()
                    member = tarfile.TarInfo(name)
                    member.size = len(said)
                    shard.addfile(member, BytesIO(said))
                else:
                    shard.add(file, name)


def write_fashion(root: Path) -> None:
    """idx files, as Debian packs them, of forty training and twenty test pictures."""
    root.mkdir()
    for part, count in (("train", 40), ("t10k", 20)):
        images = struct.pack(">IIII", 0x803, count, 28, 28) + np.random.default_rng(count).bytes(28 * 28 * count)
        labels = struct.pack(">II", 0x801, count) + bytes(index % 10 for index in range(count))
        (root / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (root / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))


def write_ade20k(root: Path, side: int = 40) -> None:
    """Red squares of class 2 on black of class 1, unlabelled along the border, in ADE20K's layout."""
    for part, count in (("training", 10), ("validation", 4)):
        for kind in ("images", "annotations"):
            (root / kind / part).mkdir(parents=True)
        for index in range(count):
            labels = np.ones((side, side), np.uint8)
            labels[index : index + 16, 8:24] = 2
            labels[0] = 0
            image = np.zeros((side, side, 3), np.uint8)
            image[labels == 2, 0] = 255
            Image.fromarray(image).save(root / "images" / part / f"{index:03}.jpg")
            Image.fromarray(labels).save(root / "annotations" / part / f"{index:03}.png")
