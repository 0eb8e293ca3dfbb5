"""What the study's tests start from: a composed config, a folder of pictures, and a wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

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
