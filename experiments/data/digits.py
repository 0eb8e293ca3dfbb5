"""scikit-learn's handwritten digits: 1,797 images of 8x8, shipped inside the package."""

import torch
from sklearn.datasets import load_digits

from experiments.data.base import InMemoryData, RawImages, stratified_split

TEST_SHARE = 0.2
TEST_SEED = 0  # the test images do not depend on the run's seed


class Digits(InMemoryData):
    """Ten classes of handwritten digits (UCI ML hand-written digits, the copy in scikit-learn)."""

    name = "digits"
    num_classes = 10
    stored_chans = 1
    class_names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    # Mean and deviation of the 1,438 images of `load`'s first part, scaled to [0, 1].
    default_mean = (0.3060,)
    default_std = (0.3763,)

    def load(self) -> tuple[RawImages, RawImages]:
        """Four fifths of the images to train on and one fifth to test on."""
        bunch = load_digits()
        images = torch.from_numpy(bunch.images / 16 * 255).round().to(torch.uint8).unsqueeze(1)
        labels = torch.from_numpy(bunch.target).long()
        train, test = stratified_split(labels, TEST_SHARE, TEST_SEED)
        return RawImages(images[train], labels[train]), RawImages(images[test], labels[test])
