"""Masked reconstruction: mean squared error on hidden patches, as masked autoencoders minimise it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# Keeps the deviation of a flat patch away from zero; from the authors' implementation of arXiv 2111.06377.
VARIANCE_FLOOR = 1e-6


def normalise_patches(patches: Tensor, *, eps: float = VARIANCE_FLOOR) -> Tensor:
    """Bring each patch to mean 0 and deviation 1 by its own pixels.

    Source: He et al., "Masked Autoencoders Are Scalable Vision Learners", arXiv 2111.06377, section 3,
    "Reconstruction target". The deviation is the sample's (divided by `pixels - 1`), as in the authors' code.

    Args:
        patches: pixel values, (..., pixels).
        eps: added to the variance.

    Returns:
        Tensor of the same shape.

    Raises:
        ValueError: if a patch has fewer than two values, so that it has no deviation.

    Example:
        >>> import torch
        >>> normalise_patches(torch.tensor([[1.0, 3.0]]), eps=0.0)
        tensor([[-0.7071,  0.7071]])
    """
    if patches.shape[-1] < 2:
        raise ValueError(
            f"A patch of {patches.shape[-1]} value(s) has no deviation to be normalised by. "
            "Pass patches of at least two values, or compare raw pixels with normalise=False."
        )
    mean = patches.mean(dim=-1, keepdim=True)
    variance = patches.var(dim=-1, keepdim=True)
    return (patches - mean) / (variance + eps).sqrt()


def masked_reconstruction(
    predicted: Tensor, patches: Tensor, mask: Tensor | None = None, *, normalise: bool = True
) -> Tensor:
    """Mean squared error between predicted and true patches, on the hidden ones only.

    Source: arXiv 2111.06377, section 3, "Reconstruction target": "the mean squared error (MSE) between the
    reconstructed and original images in the pixel space [...] only on masked patches".

    Args:
        predicted: the decoder's patches, (batch, patches, pixels).
        patches: the true patches, (batch, patches, pixels).
        mask: true where a patch was hidden, (batch, patches); None if only hidden patches were passed.
        normalise: compare with patches normalised by their own mean and deviation, the paper's better target.

    Returns:
        The mean over hidden patches and their pixels, a scalar.

    Raises:
        ValueError: if the shapes differ, or if the mask hides nothing.

    Example:
        >>> import torch
        >>> patches = torch.tensor([[[0.0, 2.0], [5.0, 5.0]]])
        >>> masked_reconstruction(
        ...     torch.ones_like(patches), patches, torch.tensor([[True, False]]), normalise=False
        ... )
        tensor(1.)
    """
    if predicted.shape != patches.shape:
        raise ValueError(
            f"Predicted patches have shape {tuple(predicted.shape)} and true ones {tuple(patches.shape)}: "
            "one prediction is needed for each pixel of each patch. Check the decoder's patch size."
        )
    target = normalise_patches(patches) if normalise else patches
    error = (predicted - target).square().mean(dim=-1)
    if mask is None:
        return error.mean()
    if mask.shape != error.shape:
        raise ValueError(
            f"The mask has shape {tuple(mask.shape)}, the patches {tuple(error.shape)}: pass one truth value a patch."
        )
    hidden = mask.sum()
    if hidden == 0:
        raise ValueError("The mask hides no patch, so there is nothing to reconstruct. Raise the mask ratio.")
    return (error * mask).sum() / hidden
