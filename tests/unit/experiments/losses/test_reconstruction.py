"""Masked reconstruction against the formula of arXiv 2111.06377, written out in NumPy."""

import numpy as np
import pytest
import torch

from experiments.losses import masked_reconstruction, normalise_patches


def numpy_masked_mse(predicted, patches, mask, *, normalise):
    total, pixels = 0.0, 0
    for b, n in zip(*np.nonzero(mask), strict=True):
        target = patches[b, n]
        if normalise:
            deviations = target - target.sum() / target.size
            target = deviations / np.sqrt((deviations**2).sum() / (target.size - 1) + 1e-6)
        for p, t in zip(predicted[b, n], target, strict=True):
            total += (p - t) ** 2
            pixels += 1
    return total / pixels


def random_case(seed, batch=3, patches=7, pixels=12):
    rng = np.random.default_rng(seed)
    mask = rng.random((batch, patches)) < 0.6
    mask[0, 0] = True
    shape = (batch, patches, pixels)
    return rng.normal(size=shape), rng.normal(2.0, 3.0, size=shape), mask


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_equals_the_numpy_reference(seed, normalise):
    predicted, patches, mask = random_case(seed)
    got = masked_reconstruction(*map(torch.from_numpy, (predicted, patches, mask)), normalise=normalise)
    assert got.item() == pytest.approx(numpy_masked_mse(predicted, patches, mask, normalise=normalise), rel=1e-10)


def test_visible_patches_cost_nothing_and_get_no_gradient():
    predicted, patches, mask = map(torch.from_numpy, random_case(0))
    predicted.requires_grad_()
    masked_reconstruction(predicted, patches, mask).backward()
    assert (predicted.grad[~mask] == 0).all()
    assert (predicted.grad[mask] != 0).all()


def test_only_hidden_patches_passed_is_the_same_as_a_mask():
    predicted, patches, mask = map(torch.from_numpy, random_case(1))
    whole = masked_reconstruction(predicted, patches, mask)
    chosen = masked_reconstruction(predicted[mask][None], patches[mask][None])
    torch.testing.assert_close(whole, chosen)


def test_brightness_and_contrast_of_a_patch_do_not_change_a_normalised_target():
    _, patches, _ = random_case(2)
    plain = normalise_patches(torch.from_numpy(patches), eps=0.0)
    torch.testing.assert_close(plain, normalise_patches(torch.from_numpy(5.0 * patches - 3.0), eps=0.0))


def test_a_flat_patch_is_zero_and_finite():
    assert (normalise_patches(torch.full((1, 1, 9), 0.25)) == 0).all()


@pytest.mark.parametrize(
    ("predicted", "mask", "complaint"),
    [
        (torch.zeros(1, 2, 4), torch.ones(1, 2, dtype=torch.bool), "decoder's patch size"),
        (torch.zeros(1, 2, 3), torch.ones(1, 3, dtype=torch.bool), "one truth value a patch"),
        (torch.zeros(1, 2, 3), torch.zeros(1, 2, dtype=torch.bool), "Raise the mask ratio"),
    ],
)
def test_what_cannot_be_compared_is_refused(predicted, mask, complaint):
    with pytest.raises(ValueError, match=complaint):
        masked_reconstruction(predicted, torch.zeros(1, 2, 3), mask)


def test_a_patch_of_one_value_is_refused():
    with pytest.raises(ValueError, match="no deviation"):
        normalise_patches(torch.zeros(1, 2, 1))
