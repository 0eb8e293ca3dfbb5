"""Augmentation of a whole batch of tensors at once, each image with its own draw."""

from dataclasses import dataclass

import torch
from torch.nn import functional as F  # noqa: N812 (the field's name for it)


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


def _around_zero(count: int) -> torch.Tensor:
    """Return `count` uniform draws from [-1, 1)."""
    return 2 * torch.rand(count) - 1
