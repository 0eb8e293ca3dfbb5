"""Emoji: 3,655 pictures with their names, from Debian's colour font and the Unicode character database."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, features
from torch.utils.data import Dataset
from torchvision.transforms.functional import center_crop

from experiments.data.base import DIGITS, Augment, DataMissingError, ImageData, stratified_split

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")  # Debian's fonts-noto-color-emoji
NAMES = Path("/usr/share/unicode/emoji/emoji-test.txt")  # Debian's unicode-data
REMEDY = "Install it with `apt-get install fonts-noto-color-emoji unicode-data libfribidi0`."
BITMAP_SIZE = 109  # the one size, in pixels an em, of the font's bitmaps (its CBLC table)
SPLIT_SEED = 0  # the test pictures do not depend on the run's seed
TEST_SHARE = 0.1
_LINE = re.compile(r"(?P<points>[0-9A-F ]+?)\s*; fully-qualified\s*# \S+ E\S+ (?P<name>.+)")


@dataclass(frozen=True)
class Emoji:
    """One emoji: its characters, its name, and the Unicode group and subgroup it belongs to."""

    text: str
    name: str
    group: str
    subgroup: str


def read_emoji(path: Path = NAMES) -> list[Emoji]:
    """Read Unicode's list of emoji (UTS #51, emoji-test.txt), keeping the fully qualified ones.

    Args:
        path: the list, as Debian's `unicode-data` installs it.

    Returns:
        The emoji in the order of the list.
    """
    found: list[Emoji] = []
    group = subgroup = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# group: "):
            group = line.removeprefix("# group: ")
        elif line.startswith("# subgroup: "):
            subgroup = line.removeprefix("# subgroup: ")
        elif match := _LINE.match(line):
            text = "".join(chr(int(point, 16)) for point in match["points"].split())
            found.append(Emoji(text, match["name"], group, subgroup))
    return found


def draw_emoji(texts: Sequence[str], font_path: Path, size: int) -> torch.Tensor:
    """Take pictures out of a colour font and scale them.

    Args:
        texts: the characters of each emoji; several that join to one picture are shaped by Raqm.
        font_path: a font with colour bitmaps of 109 px, such as Noto Color Emoji.
        size: side of the square pictures in pixels.

    Returns:
        Red, green, blue and alpha, not multiplied by alpha, uint8 of (emoji, 4, size, size).

    Raises:
        ValueError: if the font has no single picture for one of them.
    """
    font = ImageFont.truetype(str(font_path), BITMAP_SIZE, layout_engine=ImageFont.Layout.RAQM)
    pictures = np.empty((len(texts), size, size, 4), dtype=np.uint8)
    for row, text in enumerate(texts):
        left, top, right, bottom = (int(edge) for edge in font.getbbox(text))
        if right - left > 2 * BITMAP_SIZE or right <= left or bottom <= top:
            raise ValueError(
                f"{font_path.name} draws {text!r} as {right - left} x {bottom - top} px and not as one picture: the "
                f"font is older than the list of names, or Raqm cannot shape it. {REMEDY}"
            )
        side = max(right - left, bottom - top)
        canvas = Image.new("RGBA", (side, side))
        corner = ((side - right - left) // 2, (side - bottom - top) // 2)
        ImageDraw.Draw(canvas).text(corner, text, font=font, embedded_color=True)
        pictures[row] = np.asarray(canvas.resize((size, size), Image.Resampling.LANCZOS))
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()


def keep_twins_together(
    pictures: torch.Tensor, first: torch.Tensor, second: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Move indices from the second part to the first if the first has the same picture.

    Twenty-two emoji share eight pictures under several names: Norway's flag is also Bouvet Island's.

    Args:
        pictures: of all.
        first: indices of the pictures to train on.
        second: indices of those held out.

    Returns:
        Both, sorted.

    Example:
        >>> keep_twins_together(torch.tensor([[1], [2], [1]]), torch.tensor([0]), torch.tensor([1, 2]))
        (tensor([0, 2]), tensor([1]))
    """
    known = {pictures[row].numpy().tobytes() for row in first}
    twins = torch.tensor([pictures[row].numpy().tobytes() in known for row in second], dtype=torch.bool)
    return torch.cat([first, second[twins]]).sort().values, second[~twins]


class EmojiSet(Dataset):
    """Labelled pictures that hand out a whole batch at once, with captions next to the labels if there are any."""

    gives_batches = True  # so the loader does not collate again

    def __init__(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        extra: Sequence[str] | None = None,
        augment: Augment | None = None,
    ) -> None:
        self.images = images
        self.labels = labels
        self.extra = extra
        self.augment = augment

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return tuple(part[0] for part in self.__getitems__([index]))

    def __getitems__(self, indices: list[int]) -> tuple[Any, ...]:
        """Images, labels and what belongs to them at `indices`; the images are augmented together."""
        images = self.images[indices]
        batch = (self.augment(images) if self.augment else images), self.labels[indices]
        if self.extra is None:
            return batch
        return *batch, [self.extra[index] for index in indices]


class EmojiData(ImageData):
    """Noto's emoji with their Unicode names: image-caption pairs and classes.

    A tenth of each class is for testing, the same on every run. The split is by picture: one that has two names is on one
    side, and the same gesture in another skin tone may be on the other, so that held-out captions are new combinations of
    known words more often than new words.

    Args:
        classes: "group" (9 classes) or "subgroup" (99).
        extra: what a batch holds after images and labels: "captions" (names, a list of strings) or "none".
        skin_tones: keep the variants in five skin tones, about half of the pictures.
        val_share: share of the training pictures held out for validation.
        background: brightness that transparent pixels get, in [0, 1].
        font_path: the colour font.
        names_path: Unicode's emoji-test.txt.
        **options: as for `ImageData`.

    Raises:
        ValueError: if `classes` or `extra` is none of the above.
    """

    name = "emoji"
    instead = DIGITS  # what to take where there are no emoji
    in_chans = 3
    # Mean and deviation a channel of the 3,290 pictures that are not for testing, by group, of Noto Color Emoji 2.042,
    # scaled to [0, 1], 32 px on white.
    default_mean = (0.8209, 0.7771, 0.7411)
    default_std = (0.2756, 0.2844, 0.3274)

    def __init__(
        self,
        *,
        classes: str = "group",
        extra: str = "none",
        skin_tones: bool = True,
        val_share: float = 0.1,
        background: float = 1.0,
        font_path: str | Path = FONT,
        names_path: str | Path = NAMES,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if classes not in ("group", "subgroup"):
            raise ValueError(f"classes is {classes!r}; emoji are classed by group or subgroup")
        if extra not in ("none", "captions"):
            raise ValueError(f"extra is {extra!r}; a batch can hold captions or none beside its labels")
        self.classes = classes
        self.extra = extra
        self.skin_tones = skin_tones
        self.val_share = val_share
        self.background = background
        self.font_path = Path(font_path)
        self.names_path = Path(names_path)
        if self.names_path.is_file():  # the names of the classes are known before the pictures are drawn
            self._emoji()

    def setup(self, stage: str | None = None) -> None:
        """Draw the pictures, put them on the background, normalise and split; a second call does nothing."""
        if self.train_set is not None:
            return
        emoji, pictures, labels = self.read(self.resized)
        pictures = center_crop(pictures, [self.image_size, self.image_size])
        alpha = pictures[:, 3:]
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (self.mean, self.std))
        images = (pictures[:, :3] * alpha + self.background * (1 - alpha) - mean) / std
        kept, held_out, test = self.split(pictures, labels)

        def part(rows: torch.Tensor, augment: Augment | None = None) -> EmojiSet:
            beside = [emoji[row].name for row in rows] if self.extra == "captions" else None
            return EmojiSet(images[rows], labels[rows], beside, augment)

        self.train_set, self.val_set, self.test_set = part(kept, self.augment), part(held_out), part(test)

    def split(self, pictures: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The indices to train on, to validate on, and to test on; no picture is in two of them."""
        known, test = keep_twins_together(pictures, *stratified_split(labels, TEST_SHARE, SPLIT_SEED))
        parts = (known[part] for part in stratified_split(labels[known], self.val_share, self.seed))
        return *keep_twins_together(pictures, *parts), test

    def read(self, side: int) -> tuple[list[Emoji], torch.Tensor, torch.Tensor]:
        """The chosen emoji, their pictures and their groups.

        Args:
            side: of the pictures, in pixels.

        Returns:
            The emoji; red, green, blue and alpha in [0, 1], (emoji, 4, side, side); the indices of their classes, (emoji,).

        Raises:
            DataMissingError: if the font, the names or the text layout is not on this machine.
        """
        for path in (self.names_path, self.font_path):
            if not path.is_file():
                raise DataMissingError(self.name, str(path), REMEDY, self.instead)
        if not (features.check("raqm") and features.check("fribidi")):
            raise DataMissingError(self.name, "Pillow, for the text layout Raqm with FriBiDi", REMEDY, self.instead)
        emoji = self._emoji()
        index = {name: label for label, name in enumerate(dict.fromkeys(map(self._class_of, emoji)))}
        pictures = draw_emoji([item.text for item in emoji], self.font_path, side).float() / 255
        return emoji, pictures, torch.tensor([index[self._class_of(item)] for item in emoji])

    def _emoji(self) -> list[Emoji]:
        """The chosen emoji, and note the names of their classes."""
        emoji = read_emoji(self.names_path)
        if not self.skin_tones:
            emoji = [item for item in emoji if "skin tone" not in item.name]
        self._name_classes(tuple(dict.fromkeys(map(self._class_of, emoji))))
        return emoji

    def _name_classes(self, names: tuple[str, ...]) -> None:
        self.class_names = names
        self.num_classes = len(names)

    def _class_of(self, item: Emoji) -> str:
        """The class as words for a prompt: "face smiling", "animals & nature"."""
        name = item.group if self.classes == "group" else item.subgroup
        return name.lower().replace("-", " ")
