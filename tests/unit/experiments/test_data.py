"""Data: splits that stay the same, augmentation that moves each image by itself, digits as they are."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch

from experiments.data import base
from experiments.data.augment import RandomAffine, RandomColours
from experiments.data.base import stratified_split
from experiments.data.digits import Digits


def test_a_split_is_complete_stratified_and_repeatable() -> None:
    labels = torch.arange(200) % 4
    first, second = stratified_split(labels, 0.25, seed=3)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(200))
    assert torch.equal(labels[second].bincount(), torch.tensor([12, 12, 12, 12]))
    assert torch.equal(stratified_split(labels, 0.25, seed=3)[1], second)
    assert not torch.equal(stratified_split(labels, 0.25, seed=4)[1], second)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_a_split_of_nothing_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        stratified_split(torch.arange(4), share, seed=0)


def test_digits_are_split_normalised_and_resized() -> None:
    data = Digits(image_size=16, batch_size=50, seed=1)
    data.setup()
    again = Digits(image_size=16, batch_size=50, seed=2)
    again.setup()
    sizes = [len(part) for part in (data.train_set, data.val_set, data.test_set)]
    assert sum(sizes) == 1797
    assert torch.equal(data.test_set.images, again.test_set.images)  # whatever the seed
    assert not torch.equal(data.val_set.labels, again.val_set.labels)
    images = data.train_set.images
    assert images.shape[1:] == (1, 16, 16)
    assert images.mean().abs() < 0.05
    assert len(data.class_names) == data.num_classes == 10


def test_a_grey_image_has_three_equal_channels_as_rgb() -> None:
    data = Digits(image_size=8, batch_size=4, rgb=True, mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.2))
    data.setup()
    pixels = data.test_set.images * 0.2 + torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1)
    assert data.in_chans == 3
    torch.testing.assert_close(pixels[:, 0], pixels[:, 2])


def test_images_that_would_fill_the_memory_are_resized_by_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, by_batch = (Digits(batch_size=8, image_size=32) for _ in range(2))
    at_once.setup()
    monkeypatch.setattr(base, "KEPT_BYTES", 2**20)
    by_batch.setup()
    assert by_batch.test_set.images.shape[-1] == 8  # as they are stored
    for whole, parts in zip(at_once.test_dataloader(), by_batch.test_dataloader(), strict=True):
        assert torch.equal(whole[0], parts[0])
        assert torch.equal(whole[1], parts[1])
    assert next(iter(by_batch.train_dataloader()))[0].shape == (8, 1, 32, 32)


def test_a_colour_models_constants_serve_a_grey_image() -> None:
    data = Digits(image_size=8, batch_size=4, mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3))
    assert data.mean == pytest.approx((0.5,))
    assert data.std == pytest.approx((0.2,))


def test_without_moves_nothing_changes() -> None:
    images = torch.rand(3, 2, 9, 9)
    torch.testing.assert_close(RandomAffine()(images), images, atol=1e-5, rtol=1e-5)


def test_mirroring_turns_about_half_of_the_images() -> None:
    torch.manual_seed(0)
    images = torch.rand(200, 1, 6, 6)
    moved = RandomAffine(flip=True)(images)
    mirrored = (moved - images.flip(-1)).abs().amax((1, 2, 3)) < 1e-4
    kept = (moved - images).abs().amax((1, 2, 3)) < 1e-4
    assert bool((mirrored ^ kept).all())
    assert 70 < int(mirrored.sum()) < 130


def test_each_image_moves_by_its_own_amount() -> None:
    torch.manual_seed(0)
    picture = torch.zeros(1, 1, 33, 33)
    picture[..., 14:19, 14:19] = 1
    moved = RandomAffine(shift=0.2)(picture.expand(50, -1, -1, -1))
    columns = (moved.sum((1, 2)) * torch.arange(33)).sum(1) / moved.sum((1, 2, 3))
    assert columns.std() > 1
    assert (columns - 16).abs().max() <= 0.2 * 33 + 0.5


def test_colours_are_exchanged_stretched_and_shifted_within_their_range() -> None:
    torch.manual_seed(0)
    colour = torch.tensor([0.2, 0.5, 0.9])
    pictures = colour.view(1, 3, 1, 1).expand(500, -1, 4, 4)
    exchanged = RandomColours()(pictures)[..., 0, 0]
    found = {tuple(round(value, 4) for value in row) for row in exchanged.tolist()}
    assert found == set(permutations((0.2, 0.5, 0.9)))
    changed = RandomColours(contrast=0.5, brightness=0.2)(pictures)
    assert (changed.amin(), changed.amax()) == (0.0, 1.0)  # cut off where they leave the range
    middle = RandomColours(contrast=0.5, brightness=0.2)(torch.full((500, 1, 2, 2), 0.5))
    assert 0.3 <= middle.amin() < 0.35 < 0.65 < middle.amax() <= 0.7  # the middle is shifted only


def test_a_picture_is_turned_eight_ways() -> None:
    torch.manual_seed(0)
    turned = RandomColours()(torch.arange(4.0).div(4).view(1, 1, 2, 2).expand(200, -1, -1, -1))
    assert len({tuple(row) for row in turned.flatten(1).tolist()}) == 8
