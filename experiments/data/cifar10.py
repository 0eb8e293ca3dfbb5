"""CIFAR-10: 60,000 colour pictures of ten classes, read from the authors' own files."""

from pathlib import Path
from typing import Any

import torch
from torchvision import datasets

from experiments.data.base import DataMissingError, InMemoryData, RawImages


class CIFAR10(InMemoryData):
    """Ten classes of animals and vehicles, 32x32 (Krizhevsky, 2009).

    Args:
        root: folder that holds `cifar-10-batches-py`.
        download: fetch the files into `root` if they are not there.
        **options: as for `InMemoryData`.
    """

    name = "cifar10"
    num_classes = 10
    stored_chans = 3
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    # Mean and deviation of the 50,000 training images' channels scaled to [0, 1].
    default_mean = (0.4914, 0.4822, 0.4465)
    default_std = (0.2470, 0.2435, 0.2616)

    def __init__(self, *, root: str | Path, download: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.root = Path(root)
        self.download = download

    def load(self) -> tuple[RawImages, RawImages]:
        """The 50,000 training and the 10,000 test images."""
        return self._read(train=True), self._read(train=False)

    def _read(self, *, train: bool) -> RawImages:
        try:
            dataset = datasets.CIFAR10(self.root, train=train, download=self.download)
        except (RuntimeError, OSError) as error:  # torchvision's words for files that are missing or broken, or no network
            raise DataMissingError(
                self.name,
                str(self.root / datasets.CIFAR10.base_folder),
                "With the network at hand, data.download=true fetches it (170 MB) through torchvision; or unpack the "
                "authors' cifar-10-python.tar.gz and give its parent folder as data.root=FOLDER.",
            ) from error
        return RawImages(torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(dataset.targets))
