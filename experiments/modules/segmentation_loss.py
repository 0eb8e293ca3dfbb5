"""Cross entropy and Dice loss together, for small segmentations in which some classes are rare."""

import torch
from segmentation_models_pytorch.losses import DiceLoss
from torch import nn
from torch.nn import functional as F  # noqa: N812 (the field's name for it)


class CrossEntropyAndDice(nn.Module):
    """The sum of cross entropy, which looks at pixels, and the Dice loss (arXiv 1606.04797), which looks at classes.

    Args:
        ignore_index: the label of pixels that count for nothing.
    """

    def __init__(self, ignore_index: int) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.dice = DiceLoss("multiclass", ignore_index=ignore_index)

    def forward(self, logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """The loss of logits (batch, classes, height, width) and masks (batch, height, width)."""
        return F.cross_entropy(logits, masks, ignore_index=self.ignore_index) + self.dice(logits, masks)
