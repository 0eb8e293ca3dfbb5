"""What every data module of the study has in common: attributes, loaders, splits, in-memory image sets."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch.nn import functional as F  # noqa: N812 (the field's name for it)
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import center_crop

Augment = Callable[[torch.Tensor], torch.Tensor]
DIGITS = "data=digits needs nothing: it ships with scikit-learn."


class DataMissingError(FileNotFoundError):
    """The data is not on this machine; the message says where to get it and what to take instead."""

    def __init__(self, name: str, looked: str, remedy: str, instead: str = DIGITS) -> None:
        super().__init__(f"data={name} was not found: looked in {looked}. {remedy} {instead}")


class ImageData(pl.LightningDataModule):
    """A labelled image set, cut into train, validation and test the same way on every run.

    Args:
        image_size: side of the square images that the loaders give, in pixels.
        batch_size: images per batch.
        augment: applied to training batches only (float, normalised, NCHW); None: no augmentation.
        mean: channel means to subtract, for values in [0, 1]; None: the data set's own.
        std: channel deviations to divide by; None: the data set's own.
        interpolation: how pictures are resized: "bilinear" or "bicubic".
        crop_pct: share of the resized picture's side that the central crop keeps, for validation and test, as weights of
            timm's ask for; 1 keeps all; None: the data set's own. Pictures kept as tensors are cropped so for training too.
        num_workers: processes of each loader; 0 loads in the training process.
        pin_memory: whether batches are put into pinned memory, if there is a GPU to copy them to; None: yes.
        seed: decides the validation split, and nothing else.

    Subclasses set `name`, `tasks` (those that it serves), `num_classes`, `in_chans` and `class_names` (one per class, as a
    prompt can hold them), and fill `train_set`, `val_set` and `test_set` in `setup`.
    """

    name: str
    tasks: frozenset[str] = frozenset({"classify"})
    num_classes: int
    in_chans: int
    class_names: tuple[str, ...]
    default_mean: tuple[float, ...] = (0.5,)
    default_std: tuple[float, ...] = (0.5,)
    default_crop_pct: float = 1.0

    def __init__(
        self,
        *,
        image_size: int,
        batch_size: int,
        augment: Augment | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        interpolation: str = "bilinear",
        crop_pct: float | None = None,
        num_workers: int = 0,
        pin_memory: bool | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.batch_size = batch_size
        self.augment = augment
        self.mean = tuple(mean or self.default_mean)
        self.std = tuple(std or self.default_std)
        self.interpolation = interpolation
        self.crop_pct = crop_pct or self.default_crop_pct
        self.num_workers = num_workers
        self.pin_memory = torch.cuda.is_available() and pin_memory is not False
        self.seed = seed
        self.train_set: Dataset | None = None
        self.val_set: Dataset | None = None
        self.test_set: Dataset | None = None

    @property
    def input(self) -> dict[str, Any]:
        """What a model that was trained on these pictures has to be given again: arguments of the data module."""
        return {
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
            "crop_pct": self.crop_pct,
        }

    @property
    def resized(self) -> int:
        """Side to which a picture is resized before its centre is cut out, in pixels."""
        return round(self.image_size / self.crop_pct)

    def train_dataloader(self) -> DataLoader:
        """Shuffled, augmented batches; the last, smaller batch is dropped."""
        return self._loader(self.train_set, shuffle=True, drop_last=True)

    def val_dataloader(self) -> DataLoader:
        """The validation batches in a fixed order."""
        return self._loader(self.val_set)

    def test_dataloader(self) -> DataLoader:
        """The test batches in a fixed order."""
        return self._loader(self.test_set)

    def predict_dataloader(self) -> DataLoader:
        """The test batches, for inference."""
        return self._loader(self.test_set)

    def _loader(self, dataset: Dataset, **options: Any) -> DataLoader:
        """A loader over `dataset`; sets that batch themselves hand their batch through unchanged."""
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=self.pin_memory,
            collate_fn=_as_it_is if getattr(dataset, "gives_batches", False) else None,
            **options,
        )


@dataclass(frozen=True)
class RawImages:
    """Images as stored: uint8 of (count, channels, height, width), and one integer label each."""

    images: torch.Tensor
    labels: torch.Tensor


KEPT_BYTES = 2**30
"""Images that take more than this when they are resized and normalised are so by batch."""


def need_classes(data: ImageData) -> None:
    """Refuse data that has none, before a classifier is made for it.

    Raises:
        ValueError: it has captions only.
    """
    if not data.num_classes:
        raise ValueError(
            f"data={data.name} has no classes: it is for pretraining without labels (phase=pretrain of clip, mae and beit). "
            "To classify, take data with classes, such as data=image_folder."
        )


class InMemoryData(ImageData):
    """An image set small enough to be kept as tensors, which are resized and normalised once if that takes little memory.

    Args:
        val_share: share of the training images held out for validation.
        rgb: repeat a single grey channel three times, as models made for colour want it.
        **options: as for `ImageData`.

    Subclasses also set `stored_chans`, the channels that `load` gives.
    """

    stored_chans: int

    def __init__(self, *, val_share: float = 0.1, rgb: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.val_share = val_share
        self.in_chans = 3 if rgb else self.stored_chans
        if len(self.mean) == 1:
            self.mean, self.std = self.mean * self.in_chans, self.std * self.in_chans
        elif self.in_chans == 1:  # a colour model's constants, for a grey image
            self.mean, self.std = ((sum(values) / len(values),) for values in (self.mean, self.std))

    @abstractmethod
    def load(self) -> tuple[RawImages, RawImages]:
        """The training images and the test images as they are stored."""

    def setup(self, stage: str | None = None) -> None:
        """Read, split, and resize and normalise; a second call does nothing."""
        if self.train_set is not None:
            return
        train, test = self.load()
        kept, held_out = stratified_split(train.labels, self.val_share, self.seed)
        count = len(train.labels) + len(test.labels)
        by_batch = 4 * count * self.in_chans * self.image_size**2 > KEPT_BYTES
        images, test_images = train.images, test.images
        later = self._prepare if by_batch else None
        if later is None:
            images, test_images = self._prepare(images), self._prepare(test_images)
        self.train_set = BatchedTensors(images[kept], train.labels[kept], self.augment, later)
        self.val_set = BatchedTensors(images[held_out], train.labels[held_out], None, later)
        self.test_set = BatchedTensors(test_images, test.labels, None, later)

    def _prepare(self, images: torch.Tensor) -> torch.Tensor:
        """The images as normalised floats of `image_size`."""
        pixels = images.expand(-1, self.in_chans, -1, -1).float() / 255
        pixels = F.interpolate(
            pixels,
            size=(self.resized, self.resized),
            mode=self.interpolation,
            antialias=True,
            align_corners=False,
        )
        pixels = center_crop(pixels, [self.image_size, self.image_size])
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std


class BatchedTensors(Dataset):
    """Tensors that hand out a whole batch at once, which saves a Python call per image.

    Args:
        images: of shape (count, channels, height, width).
        labels: one a picture.
        augment: what every batch goes through in the end.
        prepare: what makes a model's input of stored images; None if they are.
    """

    gives_batches = True  # so the loader does not collate again

    def __init__(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        augment: Augment | None = None,
        prepare: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        self.images = images
        self.labels = labels
        self.augment = augment
        self.prepare = prepare

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = self.__getitems__([index])
        return images[0], labels[0]

    def __getitems__(self, indices: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """The images and labels at `indices`, augmented together."""
        images = self.images[indices]
        if self.prepare is not None:
            images = self.prepare(images)
        return (self.augment(images) if self.augment else images), self.labels[indices]


def stratified_split(labels: torch.Tensor, share: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut indices in two, so that every class has the same share in the second part.

    Args:
        labels: one class index per image.
        share: share of each class that goes to the second part, in (0, 1).
        seed: the same seed gives the same split.

    Returns:
        The sorted indices of the first and of the second part.

    Raises:
        ValueError: if `share` is not between 0 and 1.

    Example:
        >>> stratified_split(torch.tensor([0, 0, 1, 1]), 0.5, seed=0)[1].shape
        torch.Size([2])
    """
    if not 0 < share < 1:
        raise ValueError(f"the held-out share must lie between 0 and 1, got {share}")
    generator = torch.Generator().manual_seed(seed)
    held_out = []
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        order = members[torch.randperm(len(members), generator=generator)]
        held_out.append(order[: max(1, round(share * len(members)))])
    second = torch.cat(held_out).sort().values
    first = torch.ones(len(labels), dtype=torch.bool)
    first[second] = False
    return first.nonzero().flatten(), second


def _as_it_is(batch: Any) -> Any:
    """A batch that is already collated."""
    return batch
