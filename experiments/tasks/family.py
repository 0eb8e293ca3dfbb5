"""A family of models, and what stands for it at each scale."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Size:
    """One family at one scale.

    Args:
        timm_name: what `timm.create_model` is asked for; of action recognition, torchvision's name.
        image_size: side of the square input, in pixels.
        options: further arguments of `timm.create_model`, or of `build_video`.
    """

    timm_name: str
    image_size: int
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Family:
    """One of the study's families.

    Args:
        name: the name that `model=` takes.
        paper: title of the paper that introduced it.
        year: year of that paper's first version.
        arxiv: its arXiv identifier.
        licence: licence of the weights for the `paper` scale, as timm or torchvision states it (an SPDX name).
        pretraining: "supervised", "masked pixels", "masked tokens" or "image and text".
        sizes: what stands for the family at each scale.
        tasks: the tasks that it serves.
    """

    name: str
    paper: str
    year: int
    arxiv: str
    licence: str
    pretraining: str
    sizes: Mapping[str, Size]
    tasks: frozenset[str] = frozenset({"classify", "segment"})

    def size(self, scale: str) -> Size:
        """What stands for the family at `scale`.

        Raises:
            ValueError: if there is no such scale.
        """
        if scale not in self.sizes:
            raise ValueError(f"scale={scale} is not known for {self.name}; known: {', '.join(self.sizes)}")
        return self.sizes[scale]
