"""Pictures with captions: in folders, or in the tar files of WebDataset."""

import json
import os
import tarfile
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import BytesIO
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch.utils.data import Dataset, Subset

from experiments.data.base import DataMissingError
from experiments.data.pictures import Pictures

PICTURES = (".jpg", ".jpeg", ".png", ".webp")
CAPTIONS = (".txt", ".json")
CAPTION = "caption"  # its key in a .json
NO_CLASS = -1


class Piece(NamedTuple):
    """Where the bytes of one file are: in a file, from `start` on; all of it if there is no `size`."""

    file: str
    start: int = 0
    size: int | None = None

    def read(self) -> bytes:
        """The bytes."""
        with open(self.file, "rb") as file:
            file.seek(self.start)
            return file.read(-1 if self.size is None else self.size)


class Pair(NamedTuple):
    """A picture, and the file that holds its caption, which is a .txt or a .json."""

    picture: Piece
    caption: Piece
    suffix: str

    def read_caption(self) -> str:
        """The caption: of a text all of it, of a JSON object its key `caption`."""
        text = self.caption.read().decode()
        return " ".join(str(json.loads(text)[CAPTION] if self.suffix == ".json" else text).split())


class PairSet(Dataset):
    """Pictures, no class, and their captions.

    Args:
        pairs: where they are.
        transform: makes a tensor of a PIL picture.
    """

    def __init__(self, pairs: Sequence[Pair], transform: Callable[[Image.Image], torch.Tensor]) -> None:
        self.pairs = pairs
        self.transform = transform

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, str]:
        pair = self.pairs[index]
        with Image.open(BytesIO(pair.picture.read())) as picture:
            return self.transform(picture.convert("RGB")), NO_CLASS, pair.read_caption()


class CaptionData(Pictures):
    """Image-text pairs, for CLIP's pretraining; they have no classes.

    Args:
        root: folder that holds the two below.
        train: subfolder to train on.
        test: subfolder to test on.
        val_share: share of the training pairs held out for validation.
        **options: as for `Pictures`.

    Raises:
        DataMissingError: if a folder is not there, or holds no pair.
    """

    num_classes = 0
    class_names = None
    layout: str

    def __init__(
        self, *, root: str | Path, train: str = "train", test: str = "val", val_share: float = 0.02, **options: Any
    ) -> None:
        super().__init__(**options)
        self.val_share = val_share
        self.folders = {"train": Path(root) / train, "test": Path(root) / test}
        for folder in self.folders.values():
            if not folder.is_dir():
                raise self._missing(folder)

    @abstractmethod
    def pairs(self, folder: Path) -> Iterator[Pair]:
        """The pairs of a folder, in an order that is always the same."""

    def setup(self, stage: str | None = None) -> None:
        """Find the pairs and split them; a second call does nothing."""
        if self.train_set is not None:
            return
        found = {part: list(self.pairs(folder)) for part, folder in self.folders.items()}
        for part, pairs in found.items():
            if not pairs:
                raise self._missing(self.folders[part])
        plain, train = self.transform(training=False), found["train"]
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(self.seed)).tolist()
        held_out = max(1, round(self.val_share * len(train)))
        self.train_set = Subset(PairSet(train, self.transform(training=True)), sorted(order[held_out:]))
        self.val_set = Subset(PairSet(train, plain), sorted(order[:held_out]))
        self.test_set = PairSet(found["test"], plain)

    def _missing(self, folder: Path) -> DataMissingError:
        return DataMissingError(self.name, str(folder), f"It needs {self.layout}, with data.root=FOLDER.")


class ImageTextFolders(CaptionData):
    """Pictures, each with a file of the same name that holds its caption: `a.jpg` and `a.txt`, or `a.json`."""

    name = "image_text"
    layout = (
        "root/train/**/NAME.jpg with NAME.txt (or NAME.json with a key 'caption') beside it, and the same below root/val"
    )

    def pairs(self, folder: Path) -> Iterator[Pair]:
        """The pairs below a folder; pictures without a caption are passed over."""
        for directory, folders, files in os.walk(folder):
            folders.sort()
            named = sorted((*os.path.splitext(name), Piece(os.path.join(directory, name))) for name in files)
            yield from _paired(named)


class WebDataset(CaptionData):
    """Shards of WebDataset (github.com/webdataset/webdataset): tar files in which the files of a sample follow each other.

    The shards are read once to note where each file lies, and then picture by picture in any order, so that shuffling,
    several processes, and going on with a training are those of any other data set.
    """

    name = "webdataset"
    layout = "shards root/train/*.tar and root/val/*.tar, not compressed, of NAME.jpg and NAME.txt (or .json, key 'caption')"

    def pairs(self, folder: Path) -> Iterator[Pair]:
        """The pairs in a folder's shards; samples without a picture or a caption are passed over."""
        for shard in sorted(folder.glob("*.tar")):
            try:
                with tarfile.open(shard, "r:") as opened:
                    yield from _paired(
                        (*_split(member.name), Piece(str(shard), member.offset_data, member.size))
                        for member in opened
                        if member.isfile()
                    )
            except tarfile.ReadError as error:
                raise ValueError(
                    f"{shard} cannot be read ({error}). It must be a tar file that is not compressed."
                ) from error


def _split(name: str) -> tuple[str, str]:
    """A name in a shard as what is before and after its first dot, folders aside."""
    folder, slash, base = name.rpartition("/")
    stem, dot, rest = base.partition(".")
    return f"{folder}{slash}{stem}", f"{dot}{rest}"


def _paired(files: Iterable[tuple[str, str, Piece]]) -> Iterator[Pair]:
    """Put files of one stem together that follow each other: a picture and a caption, a .txt before a .json."""
    for _, sample in groupby(files, key=itemgetter(0)):
        by_suffix = {suffix.lower(): piece for _, suffix, piece in sample}
        picture = next((by_suffix[suffix] for suffix in PICTURES if suffix in by_suffix), None)
        caption = next((suffix for suffix in CAPTIONS if suffix in by_suffix), None)
        if picture and caption:
            yield Pair(picture, by_suffix[caption], caption)
