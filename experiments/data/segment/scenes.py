"""Scenes: emoji put on photographs, and for each pixel the group of the emoji that it shows."""

from typing import Any

import torch
from sklearn.datasets import load_sample_images
from torch.nn import functional as F  # noqa: N812 (the field's name for it)
from torch.utils.data import Dataset

from experiments.data.base import Augment
from experiments.data.emoji import BITMAP_SIZE, EmojiData

IGNORED = 255  # the label of pixels that count for nothing, as PASCAL VOC marks the edges of things
EDGE = (0.25, 0.75)  # opacities between which a pixel is an edge
SIZES = (0.5, 1.0)  # sides of the emoji, as shares of the picture's
SHOWN = 0.6  # chance of each emoji after the first
PHOTO_HEIGHT = 128  # of the photographs as `photographs` gives them, in pixels
PIECE = 64  # side of the pieces that backgrounds are parts of, in pixels
PIECES = (4, 6)  # rows and columns of pieces, of each photograph
HELD_OUT = (0, 3)  # row + column, modulo 6, of the pieces for validation and of those for the test


class EmojiScenes(EmojiData):
    """Emoji at random places and in random sizes on photographs, with masks.

    What is to be found is real: Noto's pictures, whose opacity is the mask, and the groups that Unicode puts them into. How
    they lie on the picture is not: nothing stands on anything or is lit by it, so the numbers compare models and tell little
    of streets. The backgrounds are pieces of scikit-learn's two sample photographs: 16 of each for training, 4 for
    validation, 4 for the test. Training, validation and test share no emoji and no piece, so that a recipe can be chosen by
    the validation; but a piece of the test is like those beside it, which other photographs would not be.

    Args:
        things: emoji in a picture, at most; one at least.
        **options: as for `EmojiData`; `augment` changes the backgrounds of the training, and is given values in [0, 1].
            Training's scenes are also mirrored left to right, half of the time: an emoji's group does not change by it.
    """

    name = "scenes"
    tasks = frozenset({"segment"})
    instead = "data=mask_folder reads pictures with masks of your own."
    ignore_index = IGNORED

    def __init__(self, *, things: int = 2, **options: Any) -> None:
        super().__init__(**options)
        self.things = things

    def setup(self, stage: str | None = None) -> None:
        """Draw the emoji and read the photographs; a second call does nothing."""
        if self.train_set is not None:
            return
        _, pictures, labels = self.read(min(self.resized, BITMAP_SIZE))
        kept, held_out, test = self.split(pictures, labels)

        def part(rows: torch.Tensor, backgrounds: torch.Tensor, *, fixed: bool) -> SceneSet:
            vary = None if fixed else self.augment
            normalise = (self.mean, self.std)
            scenes = Scenes(pictures[rows], labels[rows] + 1, backgrounds, self.image_size, self.things, normalise, vary)
            return SceneSet(scenes, fixed=fixed)

        backgrounds = pieces()
        self.train_set = part(kept, backgrounds[0], fixed=False)
        self.val_set = part(held_out, backgrounds[1], fixed=True)
        self.test_set = part(test, backgrounds[2], fixed=True)

    def _name_classes(self, names: tuple[str, ...]) -> None:
        super()._name_classes(("background", *names))


class Scenes:
    """Puts pictures with masks together.

    Args:
        pictures: red, green, blue and opacity in [0, 1], (count, 4, side, side).
        labels: one a picture; 0 is the background.
        photos: what backgrounds are parts of, in [0, 1], (count, 3, height, width).
        side: of the results, in pixels.
        things: pictures on one background, at most.
        normalise: channel means and deviations of the results.
        vary: changes the backgrounds, (batch, 3, side, side) in [0, 1]; None: they are as the photographs are.
    """

    def __init__(
        self,
        pictures: torch.Tensor,
        labels: torch.Tensor,
        photos: torch.Tensor,
        side: int,
        things: int,
        normalise: tuple[tuple[float, ...], tuple[float, ...]],
        vary: Augment | None = None,
    ) -> None:
        # Multiplied by the opacity, so that no colour of what is transparent bleeds in.
        self.pictures = torch.cat([pictures[:, :3] * pictures[:, 3:], pictures[:, 3:]], dim=1)
        self.labels = labels
        self.photos = photos
        self.side = side
        self.things = things
        self.vary = vary
        self.mean, self.std = (torch.tensor(values).view(1, -1, 1, 1) for values in normalise)

    def draw(self, generator: torch.Generator | None = None) -> torch.Tensor:
        """Random numbers in [0, 1) that one scene is made by: five for the background, and five for each thing."""
        return torch.rand(1 + self.things, 5, generator=generator)

    def compose(self, first: torch.Tensor, draws: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Make a scene of each picture.

        Args:
            first: indices of the pictures that are surely in the scenes, (batch,).
            draws: what `draw` gave, stacked to (batch, 1 + things, 5).

        Returns:
            Normalised images (batch, 3, side, side), and masks (batch, side, side) with `IGNORED` along the edges.
        """
        images = self._backgrounds(draws[:, 0])
        masks = torch.zeros(len(first), self.side, self.side, dtype=torch.long)
        for slot in range(self.things):
            chance, place = draws[:, 1 + slot, 0], draws[:, 1 + slot, 1:]
            index = first if slot == 0 else (place[:, 3] * len(self.labels)).long()
            size = SIZES[0] + (SIZES[1] - SIZES[0]) * place[:, 0]
            centre = (2 * place[:, 1:3] - 1) * (1 - size / 2).unsqueeze(1)  # of what is drawn, half at least is inside
            layer = moved(self.pictures[index], 1 / size, -centre / size.unsqueeze(1), self.side)
            if slot:
                layer = layer * (chance < SHOWN).view(-1, 1, 1, 1)
            opacity = layer[:, 3:]
            images = images * (1 - opacity) + layer[:, :3]
            seen = opacity[:, 0]
            masks = torch.where(seen >= EDGE[1], self.labels[index].view(-1, 1, 1), masks)
            masks = masks.masked_fill((seen > EDGE[0]) & (seen < EDGE[1]), IGNORED)
        return (images - self.mean) / self.std, masks

    def _backgrounds(self, draws: torch.Tensor) -> torch.Tensor:
        """Square parts of the photographs, (batch, 3, side, side)."""
        photos = self.photos[(draws[:, 0] * len(self.photos)).long()]
        aspect = photos.shape[-2] / photos.shape[-1]
        size = 0.4 + 0.6 * draws[:, 1]  # of the part, as a share of the photograph's height, or of its width if that is less
        sizes = torch.stack([size * min(aspect, 1), size * min(1 / aspect, 1)], 1)
        parts = moved(photos, sizes, (2 * draws[:, 2:4] - 1) * (1 - sizes), self.side)
        return self.vary(parts) if self.vary else parts


class SceneSet(Dataset):
    """Scenes that come a whole batch at once, one for each picture.

    Args:
        scenes: makes them.
        fixed: whether a picture's scene is always the same; else it is another one each time, mirrored half of the time.
    """

    gives_batches = True  # so the loader does not collate again

    def __init__(self, scenes: Scenes, *, fixed: bool) -> None:
        self.scenes = scenes
        self.fixed = fixed

    def __len__(self) -> int:
        return len(self.scenes.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        images, masks = self.__getitems__([index])
        return images[0], masks[0]

    def __getitems__(self, indices: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """The scenes of the pictures at `indices`."""
        draws = [self.scenes.draw(torch.Generator().manual_seed(index) if self.fixed else None) for index in indices]
        images, masks = self.scenes.compose(torch.tensor(indices), torch.stack(draws))
        if self.fixed:
            return images, masks
        mirrored = torch.rand(len(indices), 1, 1) < 0.5
        return torch.where(mirrored.unsqueeze(1), images.flip(-1), images), torch.where(mirrored, masks.flip(-1), masks)


def moved(
    images: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, side: int, *, angle: torch.Tensor | None = None
) -> torch.Tensor:
    """Each image at another scale and place, and turned; what lies outside of it is zero.

    Args:
        images: (batch, channels, height, width).
        scale: from the result's coordinates in [-1, 1] to the image's, (batch,) or (batch, 2) for x and y.
        shift: what is added to them, (batch, 2).
        side: of the result, in pixels.
        angle: by which it is turned clockwise, in radians, (batch,); None: not at all.
    """
    scale = scale if scale.dim() == 2 else scale.unsqueeze(1).expand(-1, 2)
    theta = torch.cat([torch.diag_embed(scale), shift.unsqueeze(2)], dim=2)
    if angle is not None:
        rows = [torch.stack([angle.cos(), angle.sin()], 1), torch.stack([-angle.sin(), angle.cos()], 1)]
        theta = torch.stack(rows, 1) @ theta
    grid = F.affine_grid(theta, [len(images), images.shape[1], side, side], align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def photographs(size: tuple[int, int] | None = None) -> torch.Tensor:
    """scikit-learn's sample photographs in [0, 1], made smaller: (2, 3, height, width).

    Args:
        size: height and width, in pixels; None: 128 and what it makes of the width, 191.
    """
    images = torch.stack([torch.tensor(image).permute(2, 0, 1).float() / 255 for image in load_sample_images().images])
    scale = None if size else PHOTO_HEIGHT / images.shape[-2]
    return F.interpolate(images, size=size, scale_factor=scale, mode="area")


def pieces() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The photographs cut up, for training, validation and test: (32, 3, 64, 64) and twice (8, 3, 64, 64)."""
    rows, columns = PIECES
    photos = photographs((rows * PIECE, columns * PIECE))
    cut = photos.unfold(2, PIECE, PIECE).unfold(3, PIECE, PIECE).permute(2, 3, 0, 1, 4, 5)  # row, column, photograph, ...
    place = (torch.arange(rows).unsqueeze(1) + torch.arange(columns)) % columns
    validation, test = (place == which for which in HELD_OUT)
    return tuple(cut[part].flatten(0, 1) for part in (~(validation | test), validation, test))
