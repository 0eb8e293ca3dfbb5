"""Contrastive image-text pretraining: the recall of its retrieval. The loss is open_clip's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor


def _pairs(images: Tensor, texts: Tensor) -> None:
    if images.ndim != 2 or images.shape != texts.shape:
        raise ValueError(
            f"Image features have shape {tuple(images.shape)} and text features {tuple(texts.shape)}: row i "
            "of both must be a pair, (pairs, features). Check that both towers project to the same width."
        )


def retrieval_recall(queries: Tensor, gallery: Tensor, k: int) -> Tensor:
    """Recall at k: how often the true partner is among the k most similar of the gallery.

    A partner that ties with others counts after them, so that constant features score 0 and not 1. A blind
    guess scores k / pairs.

    Args:
        queries: features, (pairs, features), of any length.
        gallery: features, (pairs, features); row i is the true partner of query i.
        k: how many candidates may be named.

    Returns:
        A scalar in [0, 1].

    Raises:
        ValueError: if the shapes differ or k is not between 1 and the number of pairs.

    Example:
        >>> import torch
        >>> retrieval_recall(torch.eye(3), torch.eye(3)[[0, 2, 1]], k=1)
        tensor(0.3333)
    """
    _pairs(queries, gallery)
    if not 1 <= k <= len(queries):
        raise ValueError(
            f"Recall at {k} among {len(queries)} pairs is not defined. Choose 1 <= k <= pairs, or pass more pairs."
        )
    similarity = functional.normalize(queries, dim=-1) @ functional.normalize(gallery, dim=-1).T
    partner = similarity.diagonal().unsqueeze(1)
    ahead = (~(similarity < partner)).sum(dim=1) - 1  # not `>=`: a NaN is a miss as well
    return (ahead < k).float().mean()
