"""Pictures with masks in the layouts of PASCAL VOC and ADE20K, read one by one."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch.utils.data import Dataset, Subset
from torchvision import tv_tensors
from torchvision.transforms import v2

from experiments.data.base import DataMissingError, ImageData

LOOKED_INTO = 50  # masks of each part whose labels are read before the training
NAMED = 3  # files that a sentence names
LABELS = ("1", "L", "P", "I", "I;16")  # Pillow's names of pictures with one number a pixel


class Layout(NamedTuple):
    """How a data set lies on the disk.

    Attributes:
        name: as its authors call it.
        num_classes: how many it has.
        zero_is_ignored: whether label 0 is no class, and the classes begin at 1.
        folder: what is there in this layout only.
        parts: its own names of the training part and of the one to test on.
    """

    name: str
    num_classes: int
    zero_is_ignored: bool
    folder: str
    parts: tuple[str, str]


# PASCAL VOC 2012: 20 classes and the background, 255 along the edges (Everingham et al., the development kit).
VOC = Layout("PASCAL VOC", 21, False, "SegmentationClass", ("train", "val"))
# ADE20K's SceneParsing: 150 classes from 1 on, 0 is "other" (Zhou et al., arXiv 1608.05442).
ADE20K = Layout("ADE20K", 150, True, "annotations", ("training", "validation"))


class Pair(NamedTuple):
    """A picture and its mask."""

    image: Path
    mask: Path


class MaskFolders(ImageData):
    """A segmentation data set such as PASCAL VOC or ADE20K.

    Before a training, pairs that cannot be used are left out, counted in `left_out` and named in a warning: a file that is
    not there or no picture, a mask of another size than its picture or with colours. Labels beyond the classes are refused
    if one of the first masks has them. Where they come later they count for nothing, and a picture that breaks off gives its
    place to the next one; either is said once.

    Args:
        root: folder of the data set.
        num_classes: classes of a pixel; None: the layout's own.
        ignore_index: the label of pixels that count for nothing.
        zero_is_ignored: whether label 0 is no class and the classes begin at 1; None: as in the layout.
        val_share: share of the training pictures held out for validation; what the layout calls validation is tested on.
        augment: `scale`, smallest and largest factor of a picture's size, and `flip`, the chance of mirroring; None: none.
        **options: as for `ImageData`.

    Raises:
        DataMissingError: if there is no such layout, or nothing in it.
        ValueError: if no pair can be used, or there are labels beyond the classes.
    """

    name = "mask_folder"
    tasks = frozenset({"segment"})
    in_chans = 3
    # ImageNet's, as timm and torchvision use them.
    default_mean = (0.485, 0.456, 0.406)
    default_std = (0.229, 0.224, 0.225)

    def __init__(
        self,
        *,
        root: str | Path,
        num_classes: int | None = None,
        ignore_index: int = 255,
        zero_is_ignored: bool | None = None,
        val_share: float = 0.02,
        augment: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.root = Path(root)
        self.layout = next((one for one in (VOC, ADE20K) if (self.root / one.folder).is_dir()), None)
        if self.layout is None:
            raise self._missing(self.root)
        self.num_classes = num_classes or self.layout.num_classes
        self.class_names = tuple(f"class {index}" for index in range(self.num_classes))
        self.ignore_index = ignore_index
        self.zero_is_ignored = self.layout.zero_is_ignored if zero_is_ignored is None else zero_is_ignored
        self.val_share = val_share
        self.transform_options = dict(augment) if augment else None
        self.left_out: dict[str, int] = {}

    def setup(self, stage: str | None = None) -> None:
        """List the pairs, look at them and split them; a second call does nothing."""
        if self.train_set is not None:
            return
        train, test = (self._usable(part) for part in self.layout.parts)
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(self.seed)).tolist()
        held_out = max(1, round(self.val_share * len(train)))
        augmented, plain = self._set(train, self._augmented()), self._set(train, self._plain())
        self.train_set = Subset(augmented, sorted(order[held_out:]))
        self.val_set = Subset(plain, sorted(order[:held_out]))
        self.test_set = self._set(test, self._plain())

    def _set(self, pairs: Sequence[Pair], transform: v2.Transform) -> "MaskSet":
        return MaskSet(pairs, transform, self.num_classes, self.ignore_index, zero_is_ignored=self.zero_is_ignored)

    def _usable(self, part: str) -> list[Pair]:
        """The pairs of a part that can be used."""
        wrong: dict[str, list[str]] = {}
        found = []
        for pair in self._pairs(part):
            why = _wrong(pair)
            if why:
                wrong.setdefault(why, []).append(pair.mask.name)
            else:
                found.append(pair)
        for why, names in wrong.items():
            self.left_out[why] = self.left_out.get(why, 0) + len(names)
            warnings.warn(f"{self.name}, {part}: {len(names)} left out: {why} ({_listed(names)}).", stacklevel=2)
        if wrong and not found:
            raise ValueError(
                f"Of {self.root}, {part}, no picture with a mask can be used, for these reasons: {'; '.join(wrong)}. The "
                "warnings above say how many there are of each."
            )
        if not found:
            raise self._missing(self.root / self.layout.folder / part)
        masks = self._set(found, self._plain())
        for index in range(min(LOOKED_INTO, len(found))):
            beyond = masks.beyond(masks.read_mask(found[index]))
            if beyond:
                raise ValueError(
                    f"{found[index].mask} has the labels {_listed(beyond)}, and there are {self.num_classes} classes from "
                    f"{int(self.zero_is_ignored)} on, and {self.ignore_index} for what counts for nothing. Set "
                    "data.num_classes, data.ignore_index or data.zero_is_ignored."
                )
        return found

    def _pairs(self, part: str) -> Iterator[Pair]:
        """The pairs of a part, in the order of their names."""
        if self.layout is VOC:
            listed = self.root / "ImageSets" / "Segmentation" / f"{part}.txt"
            if not listed.is_file():
                raise self._missing(listed)
            for name in listed.read_text().split():
                yield Pair(self.root / "JPEGImages" / f"{name}.jpg", self.root / "SegmentationClass" / f"{name}.png")
        else:
            for image in sorted((self.root / "images" / part).glob("*.jpg")):
                yield Pair(image, self.root / "annotations" / part / f"{image.stem}.png")

    def _plain(self) -> v2.Transform:
        """Resized so that the shorter side fits, the centre cut out."""
        cut = [v2.Resize(self.image_size), v2.CenterCrop(self.image_size)]
        return v2.Compose([*cut, *self._normalised()])

    def _augmented(self) -> v2.Transform:
        """Resized at random, a square of it at random, mirrored at random; what lies outside of the picture is ignored."""
        if self.transform_options is None:
            return self._plain()
        low, high = self.transform_options["scale"]
        lengths = [round(self.image_size * (low + (high - low) * step / 20)) for step in range(21)]
        fill = {tv_tensors.Image: 0, tv_tensors.Mask: self.ignore_index}
        steps = [
            v2.RandomShortestSize(lengths),
            v2.RandomCrop(self.image_size, pad_if_needed=True, fill=fill),
            v2.RandomHorizontalFlip(self.transform_options.get("flip", 0.0)),
        ]
        return v2.Compose([*steps, *self._normalised()])

    def _normalised(self) -> list[v2.Transform]:
        return [v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True), v2.Normalize(self.mean, self.std)]

    def _missing(self, looked: Path) -> DataMissingError:
        return DataMissingError(
            self.name,
            str(looked),
            "It needs the layout of PASCAL VOC (JPEGImages, SegmentationClass, ImageSets/Segmentation/train.txt, val.txt) "
            "or of ADE20K (images and annotations, each with training and validation), with data.root=FOLDER.",
            "data=scenes makes pictures with masks of its own.",
        )


class MaskSet(Dataset):
    """Pictures and masks, read when they are asked for.

    Args:
        pairs: where they are.
        transform: of both together.
        num_classes: classes of a pixel.
        ignore_index: the label of pixels that count for nothing.
        zero_is_ignored: whether label 0 is one of those, and the classes begin at 1.
    """

    def __init__(
        self, pairs: Sequence[Pair], transform: v2.Transform, num_classes: int, ignore_index: int, *, zero_is_ignored: bool
    ) -> None:
        self.pairs = pairs
        self.transform = transform
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.zero_is_ignored = zero_is_ignored
        self._said: set[str] = set()

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        for place in range(index, index + len(self.pairs)):
            pair = self.pairs[place % len(self.pairs)]
            try:
                with Image.open(pair.image) as picture:
                    image = tv_tensors.Image(v2.functional.pil_to_tensor(picture.convert("RGB")))
                labels = self.read_mask(pair)
            except OSError as error:
                self._say("broken", f"{pair.image} or its mask cannot be read ({error}); the next one takes its place")
                continue
            if beyond := self.beyond(labels):
                self._say("beyond", f"{pair.mask} has labels beyond the classes ({_listed(beyond)}); they count for nothing")
                labels[labels >= self.num_classes] = self.ignore_index
            image, labels = self.transform(image, tv_tensors.Mask(labels))
            return torch.as_tensor(image), torch.as_tensor(labels)
        raise ValueError(
            f"None of the {len(self.pairs)} pictures with masks can be read any more, the first {self.pairs[0].image}."
        )

    def _say(self, what: str, sentence: str) -> None:
        """Warn, once of each kind in each process."""
        if what not in self._said:
            self._said.add(what)
            warnings.warn(f"{sentence}. It is said once, of the first.", stacklevel=3)

    def read_mask(self, pair: Pair) -> torch.Tensor:
        """The mask's labels, (height, width), with the classes from 0 on."""
        with Image.open(pair.mask) as mask:
            labels = torch.from_numpy(np.array(mask)).long()  # of a palette, the indices
        if not self.zero_is_ignored:
            return labels
        ignored = (labels == 0) | (labels == self.ignore_index)
        return (labels - 1).masked_fill(ignored, self.ignore_index)

    def beyond(self, labels: torch.Tensor) -> list[int]:
        """The labels that are no class and not ignored either, as the file has them."""
        first = int(self.zero_is_ignored)
        return [at + first for at in labels.unique().tolist() if at >= self.num_classes and at != self.ignore_index]


def _wrong(pair: Pair) -> str:
    """Why a pair cannot be used; empty if it can. Only the files' heads are read."""
    sizes = []
    for file in pair:
        try:
            with Image.open(file) as opened:
                sizes.append(opened.size)
                mode = opened.mode
        except FileNotFoundError:
            return "a file is not there"
        except (OSError, UnidentifiedImageError):
            return "a file is no picture"
    if mode not in LABELS:
        return "the mask has colours, and needs labels, one number a pixel"
    return "" if sizes[0] == sizes[1] else "the mask has another size than its picture"


def _listed(names: Sequence[Any]) -> str:
    """The first of some names."""
    return ", ".join(map(str, islice(names, NAMED))) + (", ..." if len(names) > NAMED else "")
