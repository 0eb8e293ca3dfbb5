"""Eight motions: emoji or digits that move over a photograph, as real video files, made once."""

import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F  # noqa: N812 (the field's name for it)

from experiments.data.base import stratified_split
from experiments.data.emoji import EmojiData
from experiments.data.segment.scenes import moved, photographs
from experiments.data.video.video_folder import VideoFolders

THINGS = ("emoji", "digits")
VIDEOS = {"train": 40, "val": 10}  # of each motion
FRAMES = 18
RATE = 12  # frames a second
SIDE = 36
TEST_SHARE = 0.2
SEED = 0  # the videos are the same on every machine
VERSION = 1
# What each motion does from the first frame to the last: across and down as shares of the side, the size's factor, turns.
MOTIONS: dict[str, tuple[float, float, float, float]] = {
    "left": (-0.6, 0.0, 1.0, 0.0),
    "right": (0.6, 0.0, 1.0, 0.0),
    "up": (0.0, -0.6, 1.0, 0.0),
    "down": (0.0, 0.6, 1.0, 0.0),
    "grow": (0.0, 0.0, 2.2, 0.0),
    "shrink": (0.0, 0.0, 1 / 2.2, 0.0),
    "clockwise": (0.0, 0.0, 1.0, 0.5),
    "anticlockwise": (0.0, 0.0, 1.0, -0.5),
}


class Motions(VideoFolders):
    """Videos of one emoji or digit each, in one of eight motions; which one is the class.

    The files are real: H.264 in MP4, decoded like any other. What they show is no human action, and one frame tells nothing
    of the class, so a model must see time. The things and the photographs' halves in the test are not those of the training.

    Args:
        things: "emoji" or "digits".
        root: where the videos are made if they are not there yet; None: the user's cache directory.
        **options: as for `VideoFolders`.

    Raises:
        ValueError: if `things` is neither.
        DataMissingError: if emoji are asked for and not on this machine.
    """

    name = "motions"

    def __init__(self, *, things: str = "emoji", root: str | Path | None = None, **options: Any) -> None:
        if things not in THINGS:
            raise ValueError(f"things is {things!r}; {' and '.join(THINGS)} can move")
        folder = Path(root) if root is not None else _cache() / f"motions_of_{things}_{VERSION}"
        if not folder.is_dir():
            make_motions(folder, things)
        super().__init__(root=folder, **options)
        self.name = "motions" if things == "emoji" else f"motions_of_{things}"


def make_motions(folder: Path, things: str, videos: dict[str, int] | None = None) -> None:
    """Make the videos, all or none of them.

    Args:
        folder: what is made; it must not be there.
        things: "emoji" or "digits".
        videos: of each motion, by part; None: 40 to train on and 10 to test on.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".making-"))
    try:
        generator = torch.Generator().manual_seed(SEED)
        pictures = dict(zip(("train", "val"), _pictures(things), strict=True))
        for number, (part, count) in enumerate((videos or VIDEOS).items()):
            photos = photographs().chunk(2, dim=-1)[number]
            for motion in MOTIONS:
                (making / part / motion).mkdir(parents=True)
                for index in range(count):
                    which = int(torch.randint(len(pictures[part]), (), generator=generator))
                    clip = _film(pictures[part][which], photos, motion, torch.rand(8, generator=generator))
                    _write(making / part / motion / f"{index:03}.mp4", clip)
        os.replace(making, folder)
    except OSError:
        if not folder.is_dir():  # another process was first
            raise
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _pictures(things: str) -> Iterator[torch.Tensor]:
    """Red, green, blue and opacity, (count, 4, side, side), to train on and to test on."""
    if things == "emoji":
        emoji = EmojiData(image_size=SIDE, batch_size=1, skin_tones=False)
        emoji.instead = "data=motions_of_digits needs nothing."
        _, pictures, labels = emoji.read(SIDE)
    else:
        bunch = load_digits()
        ink = torch.from_numpy(bunch.images).float().unsqueeze(1) / 16
        ink = F.interpolate(ink, size=(SIDE, SIDE), mode="bicubic", align_corners=False).clamp(0, 1)
        pictures, labels = torch.cat([torch.ones_like(ink).expand(-1, 3, -1, -1), ink], 1), torch.from_numpy(bunch.target)
    for rows in stratified_split(labels, TEST_SHARE, SEED):
        yield pictures[rows]


def _film(picture: torch.Tensor, photos: torch.Tensor, motion: str, draws: torch.Tensor) -> torch.Tensor:
    """A video of one thing, uint8 of (frames, side, side, 3), by eight random numbers in [0, 1)."""
    across, down, factor, turns = MOTIONS[motion]
    part = photos[int(draws[0] * len(photos))].unsqueeze(0)
    sizes = torch.full((1, 2), 0.5)
    background = moved(part, sizes, (2 * draws[1:3].unsqueeze(0) - 1) * (1 - sizes), SIDE)
    time = torch.linspace(-0.5, 0.5, FRAMES)
    size = (0.4 + 0.15 * draws[3]) * factor**time
    centre = torch.stack([2 * across * time, 2 * down * time], 1) + 0.3 * (2 * draws[4:6] - 1)
    angle = 2 * math.pi * (turns * time + draws[6])  # what it is turned by at first tells nothing
    premultiplied = torch.cat([picture[:3] * picture[3:], picture[3:]]).expand(FRAMES, -1, -1, -1)
    layer = moved(premultiplied, 1 / size, -centre / size.unsqueeze(1), SIDE, angle=angle)
    frames = background * (1 - layer[:, 3:]) + layer[:, :3]
    return (255 * frames.clamp(0, 1)).round().to(torch.uint8).permute(0, 2, 3, 1)


def _write(file: Path, frames: torch.Tensor) -> None:
    """Encode a video, uint8 of (frames, height, width, 3)."""
    with av.open(os.fspath(file), "w") as container:
        stream = container.add_stream("libx264" if "libx264" in av.codecs_available else "mpeg4", rate=Fraction(RATE))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1  # starting threads takes longer than so small a video
        stream.options = {"preset": "ultrafast"}
        for frame in frames.contiguous().numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _cache() -> Path:
    """The user's cache directory of this project (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lightning_watt"
