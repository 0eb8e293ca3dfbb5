"""What data sets have in common whose pictures are read from disk one by one."""

from collections.abc import Mapping
from typing import Any

from timm.data import create_transform

from experiments.data.augment import augmentation
from experiments.data.base import ImageData


class Pictures(ImageData):
    """Pictures that are read as RGB when a batch needs them.

    Args:
        in_chans: channels.
        augment: arguments of `timm.data.create_transform` for training pictures; None: none.
        **options: as for `ImageData`.
    """

    # ImageNet's mean and deviation, as timm and torchvision use them (timm.data.IMAGENET_DEFAULT_MEAN).
    default_mean = (0.485, 0.456, 0.406)
    default_std = (0.229, 0.224, 0.225)
    default_crop_pct = 0.875  # timm.data.DEFAULT_CROP_PCT: 224 of 256 px

    def __init__(self, *, in_chans: int = 3, augment: Mapping[str, Any] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.in_chans = in_chans
        self.transform_options = dict(augment) if augment else None

    def transform(self, *, training: bool) -> Any:
        """Timm's transform from a PIL picture to a normalised tensor."""
        if training and self.transform_options is not None:
            return augmentation(self.image_size, self.input, self.transform_options)
        return create_transform(self.image_size, **self.input)
