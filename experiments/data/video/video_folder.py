"""Videos in the layout of Kinetics and UCF101: one folder a class, below a folder for training and one for testing."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Subset
from torchvision.datasets.folder import find_classes, make_dataset
from torchvision.transforms import v2

from experiments.data.base import DataMissingError, ImageData, stratified_split
from experiments.data.video.clips import SUFFIXES, Clip, ClipSet, Video, VideoError, count_frames

LOOKED_INTO = 2000  # videos of each part whose heads are read before the training
NAMED = 3  # files that a sentence names


class VideoFolders(ImageData):
    """A data set such as Kinetics or UCF101, decoded clip by clip.

    Before a training the heads of up to 2,000 videos of each part are read: what is empty, broken or has one frame only is
    left out, counted in `left_out` and named in a warning; so are videos shorter than a clip, whose last frame is held.

    Args:
        root: folder that holds the two below.
        frames: of a clip.
        stride: every so-many-th frame is one of the clip's.
        train: subfolder of training videos, one folder a class.
        test: subfolder of test videos.
        val_share: share of the training videos held out for validation.
        test_clips: clips of a video in validation and test, evenly spaced, each counted by itself; a training takes one at a
            random place (temporal jittering, as torchvision's and SlowFast's training have it).
        augment: `flip`, the chance of mirroring, for training clips, which are then cut out at a random place; None: none.
        **options: as for `ImageData`.

    Raises:
        DataMissingError: if a folder is not there, or has no video.
        ValueError: if the two hold different classes, or a class has no video that can be used.
    """

    name = "video_folder"
    tasks = frozenset({"action"})
    in_chans = 3
    # Kinetics-400's, as torchvision's video models have them (torchvision/models/video/README.md); 112 of 128 px.
    default_mean = (0.43216, 0.394666, 0.37645)
    default_std = (0.22803, 0.22145, 0.216989)
    default_crop_pct = 0.875

    def __init__(
        self,
        *,
        root: str | Path,
        frames: int,
        stride: int,
        train: str = "train",
        test: str = "val",
        val_share: float = 0.02,
        test_clips: int = 1,
        augment: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.clip = Clip(frames, stride)
        self.val_share = val_share
        self.test_clips = test_clips
        self.transform_options = dict(augment) if augment is not None else None
        self.folders = {"train": Path(root) / train, "test": Path(root) / test}
        for folder in self.folders.values():
            if not folder.is_dir():
                raise self._missing(folder)
        trained, tested = (find_classes(folder)[0] for folder in self.folders.values())
        if trained != tested:
            differ = ", ".join(sorted({*trained} ^ {*tested})[:NAMED])
            raise ValueError(
                f"{self.folders['train']} and {self.folders['test']} must hold the same classes; not in both: {differ}."
            )
        self.class_names = tuple(tested)
        self.num_classes = len(tested)
        self.left_out: dict[str, int] = {}

    def setup(self, stage: str | None = None) -> None:
        """List the videos, look at them and split them; a second call does nothing."""
        if self.train_set is not None:
            return
        train, test = (self._usable(part) for part in self.folders)
        labels = torch.tensor([video.label for video in train])
        kept, held_out = stratified_split(labels, self.val_share, self.seed)
        plain = self._transform(training=False)
        self.train_set = Subset(ClipSet(train, self.clip, self._transform(training=True)), kept.tolist())
        self.val_set = ClipSet([train[index] for index in held_out.tolist()], self.clip, plain, self.test_clips)
        self.test_set = ClipSet(test, self.clip, plain, self.test_clips)

    def _usable(self, part: str) -> list[Video]:
        """The videos of a part that can be used, as far as their heads tell."""
        folder = self.folders[part]
        files = make_dataset(str(folder), find_classes(folder)[1], SUFFIXES, allow_empty=True)
        if not files:
            raise self._missing(folder)
        listed = [Video(Path(file), label) for file, label in files]
        wrong: dict[str, list[str]] = {}
        short, found = [], []
        every = -(-len(listed) // LOOKED_INTO) or 1
        for number, video in enumerate(listed):
            try:
                if number % every == 0 and count_frames(video.file) < self.clip.span:
                    short.append(video.file.name)
                found.append(video)
            except VideoError as error:
                wrong.setdefault(str(error), []).append(video.file.name)
        for why, names in wrong.items():
            self._count(part, why, names, "left out")
        if short:
            self._count(part, f"shorter than a clip of {self.clip.span} frames", short, "hold their last frame", kept=True)
        self._need_classes(folder, found, list(wrong))
        return found

    def _need_classes(self, folder: Path, found: Sequence[Video], wrong: Sequence[str]) -> None:
        """Refuse a part in which a class has no video that can be used.

        Raises:
            ValueError: if there is such a class.
        """
        there = {video.label for video in found}
        without = [name for label, name in enumerate(self.class_names) if label not in there]
        if without:
            more, why = ", ..." if len(without) > NAMED else "", f" ({'; '.join(wrong)})" if wrong else ""
            raise ValueError(
                f"{folder} has no video that can be used{why} of {len(without)} of the {self.num_classes} classes: "
                f"{', '.join(without[:NAMED])}{more}. Give each at least one, or remove the class from both parts."
            )

    def _count(self, part: str, why: str, names: Sequence[str], what: str, *, kept: bool = False) -> None:
        if not kept:
            self.left_out[why] = self.left_out.get(why, 0) + len(names)
        more = ", ..." if len(names) > NAMED else ""
        warnings.warn(f"{self.name}, {part}: {len(names)} {what}: {why} ({', '.join(names[:NAMED])}{more}).", stacklevel=3)

    def _transform(self, *, training: bool) -> v2.Transform:
        """From uint8 frames to normalised floats of the same place of each."""
        cut: list[v2.Transform] = [v2.CenterCrop(self.image_size)]
        if training and self.transform_options is not None:
            cut = [v2.RandomCrop(self.image_size), v2.RandomHorizontalFlip(self.transform_options.get("flip", 0.0))]
        last = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(self.mean, self.std)]
        return v2.Compose([v2.Resize(self.resized, antialias=True), *cut, *last])

    def _missing(self, folder: Path) -> DataMissingError:
        return DataMissingError(
            self.name,
            str(folder),
            f"It needs root/train/CLASS/VIDEO and root/val/CLASS/VIDEO ({', '.join(SUFFIXES)}), with data.root=FOLDER.",
            "data=motions makes videos of its own.",
        )
