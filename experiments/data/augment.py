"""Augmentation: of a whole batch of tensors at once, each image with its own draw, and of pictures one by one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from timm.data import create_transform
from timm.data.transforms import str_to_pil_interp
from torch.nn import functional as F  # noqa: N812 (the field's name for it)
from torchvision.transforms import Compose, RandomCrop, RandomHorizontalFlip
from torchvision.transforms.v2 import RandomShortestSize

STATED_FOR = 224  # side, in pixels, of the pictures that papers state their sizes for


@dataclass(frozen=True)
class RandomAffine:
    """Shift, turn, scale and mirror each image of a batch by its own random amount, in one resampling.

    Args:
        shift: largest shift, as a share of the image's side, in each direction.
        degrees: largest rotation either way, in degrees.
        scale: largest relative change of size either way.
        flip: whether images are mirrored left to right, half of the time; wrong for digits and letters.

    Example:
        >>> RandomAffine(shift=0.1)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 1, 8, 8])
    """

    shift: float = 0.0
    degrees: float = 0.0
    scale: float = 0.0
    flip: bool = False

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """The changed batch; `images` is float, (batch, channels, height, width)."""
        count = len(images)
        angle = torch.deg2rad(_around_zero(count) * self.degrees)
        size = 1 + _around_zero(count) * self.scale
        mirror = torch.where(torch.rand(count) < 0.5, -1.0, 1.0) if self.flip else torch.ones(count)
        rows = [
            torch.stack([mirror * angle.cos() / size, -angle.sin() / size, 2 * self.shift * _around_zero(count)], 1),
            torch.stack([mirror * angle.sin() / size, angle.cos() / size, 2 * self.shift * _around_zero(count)], 1),
        ]
        grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


@dataclass(frozen=True)
class RandomColours:
    """Give each image of a batch other colours and mirror it, so that a few pictures stand for many.

    The channels are exchanged at random, and each is stretched about its middle and shifted by a random amount of its own.
    The image is mirrored left to right, top to bottom and about its diagonal, each half of the time.

    Args:
        contrast: largest relative change of contrast either way.
        brightness: largest shift either way, for values in [0, 1].

    Example:
        >>> RandomColours(contrast=0.5)(torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2, 3, 8, 8])
    """

    contrast: float = 0.0
    brightness: float = 0.0

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """The changed batch in [0, 1]; `images` is float in [0, 1], (batch, channels, side, side)."""
        count, channels = images.shape[:2]
        order = torch.rand(count, channels).argsort(1)
        images = images[torch.arange(count).unsqueeze(1), order]
        for mirrored in (lambda x: x.flip(-1), lambda x: x.flip(-2), lambda x: x.transpose(-1, -2)):
            images = torch.where(torch.rand(count, 1, 1, 1) < 0.5, mirrored(images), images)
        stretch = 1 + self.contrast * _around_zero(count * channels).view(count, channels, 1, 1)
        shift = self.brightness * _around_zero(count * channels).view(count, channels, 1, 1)
        return (0.5 + (images - 0.5) * stretch + shift).clamp(0, 1)


def augmentation(image_size: int, seen: Mapping[str, Any], options: Mapping[str, Any]) -> Compose:
    """The transform from a PIL picture to an augmented, normalised tensor.

    Args:
        image_size: side of the result, in pixels.
        seen: `mean`, `std` and `interpolation`, if the options do not have their own; `crop_pct` does not matter here.
        options: arguments of `timm.data.create_transform`. With `shorter_side`, two lengths for pictures of 224 px, the
            picture is resized so that its shorter side is a random length from the first to the second, and a square is cut
            out at random, in place of timm's crop of random area and shape.

    Example:
        >>> from PIL import Image
        >>> transform = augmentation(8, {"mean": [0.5] * 3, "std": [0.5] * 3}, {"shorter_side": [256, 480]})
        >>> transform(Image.new("RGB", (40, 30))).shape
        torch.Size([3, 8, 8])
    """
    given = {name: value for name, value in seen.items() if name != "crop_pct"} | dict(options)
    sides = given.pop("shorter_side", None)
    crop, colours, to_tensor = create_transform(image_size, is_training=True, separate=True, **given)
    if sides is not None:
        lengths = sorted({round(side * image_size / STATED_FOR) for side in range(sides[0], sides[1] + 1)})
        resampling = str_to_pil_interp(given.get("interpolation", "bilinear"))
        mirrors = [step for step in crop.transforms if isinstance(step, RandomHorizontalFlip)]
        crop = Compose([RandomShortestSize(lengths, interpolation=resampling), RandomCrop(image_size), *mirrors])
    return Compose([*crop.transforms, *colours.transforms, *to_tensor.transforms])


def _around_zero(count: int) -> torch.Tensor:
    """Return `count` uniform draws from [-1, 1)."""
    return 2 * torch.rand(count) - 1
