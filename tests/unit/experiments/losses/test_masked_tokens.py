"""Masked-token cross entropy against the formula of arXiv 2106.08254, written out in NumPy."""

import math

import numpy as np
import pytest
import torch

from experiments.losses import masked_token_accuracy, masked_token_cross_entropy


def numpy_masked_nll(logits, tokens, mask):
    log_likelihoods = []
    for b, i in zip(*np.nonzero(mask), strict=True):
        probabilities = np.exp(logits[b, i]) / np.exp(logits[b, i]).sum()
        log_likelihoods.append(math.log(probabilities[tokens[b, i]]))
    return -sum(log_likelihoods) / len(log_likelihoods)


def random_case(seed, batch=4, patches=9, codes=6):
    rng = np.random.default_rng(seed)
    mask = rng.random((batch, patches)) < 0.4
    mask[-1, -1] = True
    return rng.normal(size=(batch, patches, codes)), rng.integers(codes, size=(batch, patches)), mask


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_numpy_reference(seed):
    case = random_case(seed)
    got = masked_token_cross_entropy(*map(torch.from_numpy, case))
    assert got.item() == pytest.approx(numpy_masked_nll(*case), rel=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_accuracy_equals_counting(seed):
    logits, tokens, mask = random_case(seed)
    hits = [logits[b, i].argmax() == tokens[b, i] for b, i in zip(*np.nonzero(mask), strict=True)]
    got = masked_token_accuracy(*map(torch.from_numpy, (logits, tokens, mask)))
    assert got.item() == pytest.approx(sum(hits) / len(hits))


def test_an_ignorant_model_pays_the_logarithm_of_the_codebook():
    loss = masked_token_cross_entropy(torch.zeros(2, 3, 512), torch.zeros(2, 3, dtype=torch.long))
    assert loss.item() == pytest.approx(math.log(512))


def test_only_hidden_places_passed_is_the_same_as_a_mask():
    logits, tokens, mask = map(torch.from_numpy, random_case(1))
    for measure in (masked_token_cross_entropy, masked_token_accuracy):
        torch.testing.assert_close(measure(logits, tokens, mask), measure(logits[mask][None], tokens[mask][None]))


def test_what_visible_patches_predict_does_not_matter():
    logits, tokens, mask = map(torch.from_numpy, random_case(2))
    before = masked_token_cross_entropy(logits, tokens, mask)
    logits[~mask] = 1e3
    assert masked_token_cross_entropy(logits, tokens, mask) == before


@pytest.mark.parametrize(
    ("tokens", "mask", "complaint"),
    [
        (torch.zeros(1, 4, dtype=torch.long), torch.ones(1, 4, dtype=torch.bool), "is the patch grid"),
        (torch.zeros(1, 3, dtype=torch.long), torch.ones(1, 4, dtype=torch.bool), "one truth value a token"),
        (torch.zeros(1, 3, dtype=torch.long), torch.zeros(1, 3, dtype=torch.bool), "Raise the mask ratio"),
    ],
)
def test_what_cannot_be_compared_is_refused(tokens, mask, complaint):
    with pytest.raises(ValueError, match=complaint):
        masked_token_cross_entropy(torch.zeros(1, 3, 5), tokens, mask)
