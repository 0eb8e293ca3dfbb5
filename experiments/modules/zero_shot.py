"""CLIP as a classifier without training: the nearest class name, its text encoded once."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn
from typing_extensions import override

if TYPE_CHECKING:
    from experiments.modules.clip import CLIPPretrain


class ZeroShotClassifier(nn.Module):
    """Scores images against prompts around the classes' names (Radford et al., arXiv 2103.00020, section 3.1).

    The names are encoded when it is made, so that an image costs its own tower and one product only.

    Args:
        clip: the trained towers.
        class_names: one name a class.
    """

    def __init__(self, clip: "CLIPPretrain", class_names: Sequence[str]) -> None:
        super().__init__()
        self.clip = clip.eval()
        with torch.no_grad():
            self.register_buffer("classes", clip.class_embeddings(class_names))

    @override
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.clip.zero_shot(images, self.classes)
