"""Fashion-MNIST: 70,000 grey pictures of clothes, as Debian's `dataset-fashion-mnist` ships them."""

import gzip
import tempfile
from pathlib import Path
from typing import Any

from torchvision.datasets.mnist import read_image_file, read_label_file

from experiments.data.base import DataMissingError, InMemoryData, RawImages


class FashionMNIST(InMemoryData):
    """Ten classes of clothes, 28x28 (Xiao et al., arXiv 1708.07747).

    Args:
        root: folder of the four idx files, gzipped or not.
        **options: as for `InMemoryData`.
    """

    name = "fashion_mnist"
    num_classes = 10
    stored_chans = 1
    class_names = (
        "t-shirt",
        "pair of trousers",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    )
    # Mean and deviation of the 60,000 training images scaled to [0, 1].
    default_mean = (0.2860,)
    default_std = (0.3530,)

    def __init__(self, *, root: str | Path, **options: Any) -> None:
        super().__init__(**options)
        self.root = Path(root)

    def load(self) -> tuple[RawImages, RawImages]:
        """The 60,000 training and the 10,000 test images."""
        return self._read("train"), self._read("t10k")

    def _read(self, part: str) -> RawImages:
        with tempfile.TemporaryDirectory() as folder:
            images = read_image_file(self._plain(f"{part}-images-idx3-ubyte", folder))
            labels = read_label_file(self._plain(f"{part}-labels-idx1-ubyte", folder))
        return RawImages(images.unsqueeze(1), labels)

    def _plain(self, name: str, folder: str) -> str:
        """The path of a file without its compression; torchvision's reader wants it so."""
        if (self.root / name).is_file():
            return str(self.root / name)
        packed = self.root / f"{name}.gz"
        if not packed.is_file():
            raise DataMissingError(
                self.name,
                str(packed),
                "On Debian or Ubuntu `apt-get install dataset-fashion-mnist` puts it there; elsewhere give the folder of "
                "its four idx files as data.root=FOLDER.",
            )
        plain = Path(folder) / name
        plain.write_bytes(gzip.decompress(packed.read_bytes()))
        return str(plain)
