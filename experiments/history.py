"""Image classifiers from 2014 to today: what is published of them, for `study=years` and for the records of timm's models.

`history.csv` has a row a model. Top-1, image size and parameters are those of timm's `results/results-imagenet.csv`. Year
and arXiv number are those of the first version of the paper on the architecture. timm has nothing older than VGG.

`epochs` are those for which the architecture's authors trained it on ImageNet-1k alone, where they are certain. Those of a
repository were read there; where a script is named, they are its default, which the commands that were read leave as it is.
timm's page on Res2Net quotes its paper. ResNet's and ViT's were checked against the papers' texts, VGG's against quotations.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from omegaconf import OmegaConf


class Published(NamedTuple):
    """One model with one set of weights.

    Attributes:
        timm_name: with the tag of the weights.
        year: of the architecture's paper; not of the weights, which may be younger and better.
        arxiv: its number.
        trained_on: the data sets, in order.
        image_size: side of the square input, in pixels.
        top1: on ImageNet's validation set, in [0, 1].
        params: how many.
        epochs: for how many its authors trained the architecture on ImageNet-1k; None if that is not known for sure.
        epochs_from: where that is said.
    """

    timm_name: str
    year: int
    arxiv: str
    trained_on: str
    image_size: int
    top1: float
    params: float
    epochs: int | None = None
    epochs_from: str = ""


@cache
def history() -> Mapping[str, Published]:
    """All of them by `timm_name`, oldest first."""
    with Path(__file__).with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        rows = [
            Published(
                row["timm_name"],
                int(row["year"]),
                row["arxiv"],
                row["trained_on"],
                int(row["image_size"]),
                round(float(row["top1_percent"]) / 100, 6),
                float(row["params_millions"]) * 1e6,
                int(row["epochs"]) if row["epochs"] else None,
                row["epochs_from"],
            )
            for row in csv.DictReader(file)
        ]
    return {row.timm_name: row for row in rows}


def published_facts(timm_name: str) -> dict[str, object]:
    """`year` and `arxiv` of a model's architecture, and `published_top1` if the name says which weights; often nothing.

    Example:
        >>> published_facts("resnet50.tv_in1k")
        {'year': 2015, 'arxiv': '1512.03385', 'published_top1': 0.76156}
        >>> published_facts("resnet50.a1_in1k"), published_facts("resnet34")
        ({'year': 2015, 'arxiv': '1512.03385'}, {})
    """
    known = history().get(timm_name)
    if known is not None:
        return {"year": known.year, "arxiv": known.arxiv, "published_top1": known.top1}
    architecture = timm_name.partition(".")[0]
    for row in history().values():
        if row.timm_name.partition(".")[0] == architecture:
            return {"year": row.year, "arxiv": row.arxiv}
    return {}


def published_epochs(timm_name: str | None) -> int | None:
    """For how many epochs a model was trained on ImageNet-1k by its authors; None for no model.

    Raises:
        ValueError: if that is not known.

    Example:
        >>> published_epochs("vgg16.tv_in1k")
        74
    """
    if timm_name is None:
        return None
    known = history().get(timm_name)
    if known is None or known.epochs is None:
        raise ValueError(
            f"No published schedule of {timm_name} is known: give recipe.epochs=N, or one of {published_trainings()}."
        )
    return known.epochs


def published_trainings() -> str:
    """The models whose published schedule is known, as a sweep over them."""
    return ",".join(row.timm_name for row in history().values() if row.epochs is not None)


OmegaConf.register_new_resolver("published_epochs", published_epochs, replace=True)
OmegaConf.register_new_resolver("published_trainings", published_trainings, replace=True)
