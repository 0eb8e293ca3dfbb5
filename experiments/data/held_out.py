"""On which held-out part a run is tested: the test part, or the validation part while something is still to be chosen."""

import pytorch_lightning as pl
from torch.utils.data import DataLoader

from experiments.data.base import ImageData

TEST = "test"
VALIDATION = "validation"


class HeldOutError(ValueError):
    """A part that cannot be tested on; the message says why."""


def test_on(data: pl.LightningDataModule, part: str) -> None:
    """Let a data module test on one of its held-out parts.

    With "validation" nothing can be read of the test part any more, and the module's name says which part it is. Runs with
    another name are in tables of their own, so that what was chosen on is never taken for a result.

    Args:
        data: what is tested on; its test part is replaced.
        part: "test" or "validation".

    Raises:
        HeldOutError: if it is neither.

    Example:
        >>> from experiments.data.digits import Digits
        >>> data = Digits(image_size=8, batch_size=4)
        >>> data.setup()
        >>> test_on(data, "validation")
        >>> data.name, data.test_set is data.val_set
        ('digits, validation part', True)
    """
    if part not in (TEST, VALIDATION):
        raise HeldOutError(f"test_on={part} is no part: {TEST}, or {VALIDATION} while you choose a recipe.")
    if part == TEST:
        return
    if isinstance(data, ImageData):
        data.test_set = data.val_set
    else:
        data.test_dataloader = data.predict_dataloader = lambda: _validation(data)  # type: ignore[method-assign]
    data.name = f"{data.name}, {VALIDATION} part"


def _validation(data: pl.LightningDataModule) -> DataLoader:
    """The validation batches of a module of the user's own, which may not have been set up for them yet."""
    data.setup("fit")
    return data.val_dataloader()
