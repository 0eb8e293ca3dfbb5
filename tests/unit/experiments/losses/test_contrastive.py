"""CLIP's loss against figure 3 of arXiv 2103.00020, and recall by sorting, both written out in NumPy."""

import math

import numpy as np
import pytest
import torch

from experiments.losses import clip_contrastive, retrieval_recall


def numpy_cosines(images, texts):
    images = images / np.sqrt((images**2).sum(axis=1, keepdims=True))
    texts = texts / np.sqrt((texts**2).sum(axis=1, keepdims=True))
    return np.dot(images, texts.T)


def numpy_clip_loss(images, texts, scale):
    logits = scale * numpy_cosines(images, texts)

    def cross_entropy(rows):
        return -np.mean([math.log(np.exp(row[i]) / np.exp(row).sum()) for i, row in enumerate(rows)])

    return (cross_entropy(logits) + cross_entropy(logits.T)) / 2


def random_pairs(seed, pairs=8, features=5):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(pairs, features))
    return images, images + rng.normal(size=(pairs, features))


@pytest.mark.parametrize("scale", [1.0, 1 / 0.07, 100.0])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_numpy_reference(seed, scale):
    images, texts = random_pairs(seed)
    got = clip_contrastive(torch.from_numpy(images), torch.from_numpy(texts), scale)
    assert got.item() == pytest.approx(numpy_clip_loss(images, texts, scale), rel=1e-9)


def test_images_and_texts_may_change_places():
    images, texts = map(torch.from_numpy, random_pairs(0))
    torch.testing.assert_close(clip_contrastive(images, texts, 10.0), clip_contrastive(texts, images, 10.0))


def test_towers_that_know_nothing_pay_the_logarithm_of_the_batch():
    same = torch.ones(16, 4)
    assert clip_contrastive(same, same, 100.0).item() == pytest.approx(math.log(16))


def test_the_length_of_a_feature_does_not_matter():
    images, texts = map(torch.from_numpy, random_pairs(1))
    torch.testing.assert_close(clip_contrastive(images, texts, 5.0), clip_contrastive(7 * images, 0.1 * texts, 5.0))


@pytest.mark.parametrize("k", [1, 3, 8])
@pytest.mark.parametrize("seed", range(4))
def test_recall_equals_sorting(seed, k):
    images, texts = random_pairs(seed)
    order = np.argsort(-numpy_cosines(images, texts), axis=1)
    expected = np.mean([i in row[:k] for i, row in enumerate(order)])
    assert retrieval_recall(torch.from_numpy(images), torch.from_numpy(texts), k).item() == pytest.approx(expected)


@pytest.mark.parametrize("value", [1.0, float("nan")])
def test_features_without_information_find_nothing(value):
    same = torch.full((20, 4), value)
    assert retrieval_recall(same, same, 10).item() == 0.0


def test_what_are_not_pairs_is_refused():
    with pytest.raises(ValueError, match="row i of both must be a pair"):
        clip_contrastive(torch.zeros(3, 4), torch.zeros(2, 4), 1.0)
    with pytest.raises(ValueError, match="pass more pairs"):
        retrieval_recall(torch.eye(3), torch.eye(3), 10)
