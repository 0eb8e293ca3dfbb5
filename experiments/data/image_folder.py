"""Image folders in ImageNet's layout: one folder a class, below a folder for training and one for testing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Subset
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import find_classes

from experiments.data.base import DataMissingError, stratified_split
from experiments.data.pictures import Pictures

LISTED = 4  # classes that an error spells out


class ImageFolders(Pictures):
    """A data set such as ImageNet, read from disk picture by picture.

    Args:
        root: folder that holds the two below.
        train: subfolder of training pictures, one folder a class.
        test: subfolder of test pictures (ImageNet calls its own "val").
        val_share: share of the training pictures held out for validation.
        **options: as for `Pictures`.

    Raises:
        DataMissingError: if a folder is not there.
        ValueError: if the two hold different classes.
    """

    name = "image_folder"

    def __init__(
        self,
        *,
        root: str | Path,
        train: str = "train",
        test: str = "val",
        val_share: float = 0.02,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.val_share = val_share
        self.train_folder = Path(root) / train
        self.test_folder = Path(root) / test
        for folder in (self.train_folder, self.test_folder):
            if not folder.is_dir():
                raise DataMissingError(
                    self.name,
                    str(folder),
                    "It needs ImageNet's layout, root/train/CLASS/picture and root/val/CLASS/picture, with "
                    "data.root=FOLDER (ImageNet itself comes from image-net.org, after registering).",
                )
        self.class_names = tuple(ImageFolder(self.test_folder).classes)
        self._check_classes(find_classes(self.train_folder)[0])
        self.num_classes = len(self.class_names)

    def setup(self, stage: str | None = None) -> None:
        """List the pictures and split them; a second call does nothing."""
        if self.train_set is not None:
            return
        plain = self.transform(training=False)
        listed = ImageFolder(self.train_folder, plain)
        kept, held_out = stratified_split(torch.tensor(listed.targets), self.val_share, self.seed)
        augmented = ImageFolder(self.train_folder, self.transform(training=self.transform_options is not None))
        self.train_set = Subset(augmented, kept.tolist())
        self.val_set = Subset(listed, held_out.tolist())
        self.test_set = ImageFolder(self.test_folder, plain)

    def _check_classes(self, trained: Sequence[str]) -> None:
        """Refuse folders whose classes differ, since a label is a folder's place among its neighbours."""
        to_train, to_test = set(trained), set(self.class_names)
        if to_train != to_test:
            only = [
                f"{len(names)} only to {what} on ({', '.join(sorted(names)[:LISTED])})"
                for what, names in (("train", to_train - to_test), ("test", to_test - to_train))
                if names
            ]
            raise ValueError(
                f"{self.train_folder} and {self.test_folder} must hold the same classes, one folder each: {', '.join(only)}."
            )
