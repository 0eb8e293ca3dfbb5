"""Divides a recipe's batch over devices and accumulated steps, so that what is trained does not depend on the machine."""

from dataclasses import dataclass

from experiments.modules.recipe import Recipe


class BatchError(ValueError):
    """A batch that cannot be divided as asked; the message says what can be."""


@dataclass(frozen=True)
class Split:
    """How a recipe's batch is made up.

    Args:
        total: images of one update, over all devices: the recipe's, which is the published one.
        devices: processes that train, over all nodes.
        micro: images that one device takes at a time.
    """

    total: int
    devices: int
    micro: int

    @property
    def accumulate(self) -> int:
        """Steps whose gradients make one update."""
        return self.total // (self.devices * self.micro)

    def updates(self, images: int, epochs: int) -> int:
        """The updates of a training on so many images: whole batches only, as papers count them."""
        return epochs * (images // self.total)

    def steps(self, images: int) -> int:
        """The steps of one epoch on one device, so that the last update of an epoch has a whole batch too.

        Raises:
            BatchError: if there are fewer images than one batch has.
        """
        if images < self.total:
            raise BatchError(
                f"The training set has {images} images, fewer than one batch of {self.total}: nothing would be trained. "
                f"Set recipe.batch_size={images} or less."
            )
        return images // self.total * self.accumulate


def split_batch(recipe: Recipe, devices: int, micro_batch: int | None = None) -> Split:
    """Divide the recipe's batch.

    Args:
        recipe: its `batch_size` is the total.
        devices: processes that train, over all nodes.
        micro_batch: images that one device takes at a time; None: its whole share.

    Raises:
        BatchError: if it does not divide.

    Example:
        >>> split_batch(Recipe(batch_size=4096), devices=8, micro_batch=128).accumulate
        4
    """
    share, left = divmod(recipe.batch_size, devices)
    if left or not share:
        raise BatchError(
            f"A batch of {recipe.batch_size} images does not divide over {devices} devices. Change device.count, or set "
            f"recipe.batch_size, to which the learning rate then follows ({max(1, share) * devices} would do)."
        )
    micro = share if micro_batch is None else micro_batch
    if micro < 1 or share % micro:
        raise BatchError(
            f"micro_batch={micro} does not divide the {share} images that each of {devices} devices has of a batch of "
            f"{recipe.batch_size}. These do: {', '.join(map(str, divisors(share)))}."
        )
    return Split(recipe.batch_size, devices, micro)


def divisors(number: int) -> list[int]:
    """All divisors, the smallest first.

    Example:
        >>> divisors(12)
        [1, 2, 3, 4, 6, 12]
    """
    return [candidate for candidate in range(1, number + 1) if number % candidate == 0]


def largest_fitting(share: int, most: int) -> int:
    """The largest divisor of a device's share that is at most `most`, what its memory holds.

    Example:
        >>> largest_fitting(96, 64)
        48
    """
    return max((candidate for candidate in divisors(share) if candidate <= most), default=1)
