"""Masked image modelling: cross entropy on the visual tokens of hidden patches, as BEiT minimises it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor


def _hidden(logits: Tensor, tokens: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The logits and tokens at hidden places, (places, codes) and (places,)."""
    if logits.shape[:-1] != tokens.shape:
        raise ValueError(
            f"Logits of shape {tuple(logits.shape)} do not fit tokens of shape {tuple(tokens.shape)}: "
            "pass one row of logits for each token. Check that the tokenizer's grid is the patch grid."
        )
    if mask is None:
        return logits.flatten(end_dim=-2), tokens.flatten()
    if mask.shape != tokens.shape:
        raise ValueError(
            f"The mask has shape {tuple(mask.shape)}, the tokens {tuple(tokens.shape)}: pass one truth value a token."
        )
    if not mask.any():
        raise ValueError("The mask hides no patch, so there is nothing to predict. Raise the mask ratio.")
    return logits[mask], tokens[mask]


def masked_token_cross_entropy(logits: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean negative log-likelihood of the visual tokens at hidden patches.

    Source: Bao et al., "BEiT: BERT Pre-Training of Image Transformers", arXiv 2106.08254, section 2.3:
    maximise the sum over hidden positions i of log p(z_i | corrupted image), p = softmax of a linear layer.
    The mean over positions is returned in place of the sum, so that it does not depend on the mask ratio.

    Args:
        logits: scores for each code of the codebook, (batch, patches, codes).
        tokens: the tokenizer's code at each patch, integers, (batch, patches).
        mask: true where a patch was hidden, (batch, patches); None if only hidden places were passed.

    Returns:
        The mean over hidden patches in nats, a scalar.

    Raises:
        ValueError: if the shapes do not fit, or if the mask hides nothing.

    Example:
        >>> import torch
        >>> logits = torch.zeros(1, 2, 4)  # four equally likely codes cost log 4
        >>> masked_token_cross_entropy(logits, torch.tensor([[0, 3]]), torch.tensor([[True, False]]))
        tensor(1.3863)
    """
    scores, codes = _hidden(logits, tokens, mask)
    return functional.cross_entropy(scores, codes)


def masked_token_accuracy(logits: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
    """Share of hidden patches whose most likely code is the tokenizer's.

    Args:
        logits: scores for each code of the codebook, (batch, patches, codes).
        tokens: the tokenizer's code at each patch, integers, (batch, patches).
        mask: true where a patch was hidden, (batch, patches); None if only hidden places were passed.

    Returns:
        A scalar in [0, 1].

    Raises:
        ValueError: if the shapes do not fit, or if the mask hides nothing.

    Example:
        >>> import torch
        >>> masked_token_accuracy(torch.eye(4)[None], torch.tensor([[0, 1, 2, 0]]))
        tensor(0.7500)
    """
    scores, codes = _hidden(logits, tokens, mask)
    return (scores.argmax(dim=-1) == codes).float().mean()
