"""Losses of the self-supervised families: pure functions of tensors, each tested against NumPy."""

from experiments.losses.contrastive import retrieval_recall
from experiments.losses.masked_tokens import masked_token_accuracy, masked_token_cross_entropy
from experiments.losses.reconstruction import masked_reconstruction, normalise_patches

__all__ = [
    "masked_reconstruction",
    "masked_token_accuracy",
    "masked_token_cross_entropy",
    "normalise_patches",
    "retrieval_recall",
]
