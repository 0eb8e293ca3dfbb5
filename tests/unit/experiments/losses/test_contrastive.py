"""CLIP's loss against figure 3 of arXiv 2103.00020, and recall by sorting, both written out in NumPy."""

from __future__ import annotations

import math
import multiprocessing

import numpy as np
import pytest
import torch

from experiments.losses import retrieval_recall
from experiments.modules.clip import pair_loss


def numpy_cosines(images, texts):
    images = images / np.sqrt((images**2).sum(axis=1, keepdims=True))
    texts = texts / np.sqrt((texts**2).sum(axis=1, keepdims=True))
    return np.dot(images, texts.T)


def numpy_clip_loss(images, texts, scale):
    logits = scale * numpy_cosines(images, texts)

    def cross_entropy(rows):
        return -np.mean([math.log(np.exp(row[i]) / np.exp(row).sum()) for i, row in enumerate(rows)])

    return (cross_entropy(logits) + cross_entropy(logits.T)) / 2


def unit(vectors):
    return torch.nn.functional.normalize(torch.from_numpy(vectors), dim=-1)


def random_pairs(seed, pairs=8, features=5):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(pairs, features))
    return images, images + rng.normal(size=(pairs, features))


@pytest.mark.parametrize("scale", [1.0, 1 / 0.07, 100.0])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_numpy_reference(seed, scale):
    images, texts = random_pairs(seed)
    got = pair_loss(unit(images), unit(texts), scale)
    assert got.item() == pytest.approx(numpy_clip_loss(images, texts, scale), rel=1e-9)


def test_towers_that_know_nothing_pay_the_logarithm_of_the_batch():
    same = torch.ones(16, 4)
    assert pair_loss(same / 2, same / 2, 100.0).item() == pytest.approx(math.log(16))


def on_two_devices(rank: int, store: str, results: multiprocessing.Queue) -> None:
    """A process's share of a batch of eight pairs: its loss and the gradients of its features and of the scale."""
    torch.set_num_threads(1)  # a forked process has none of its parent's threads
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    images, texts, scale = leaves()
    own = slice(4 * rank, 4 * rank + 4)
    loss = pair_loss(images[own], texts[own], scale, rank, 2)
    loss.backward()
    results.put((loss.item(), *(leaf.grad.tolist() for leaf in (images, texts, scale))))
    torch.distributed.destroy_process_group()


def leaves() -> list[torch.Tensor]:
    images, texts = random_pairs(3)
    return [unit(images).requires_grad_(), unit(texts).requires_grad_(), torch.tensor(5.0).double().requires_grad_()]


def test_the_mean_over_devices_is_the_loss_of_the_whole_batch(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=on_two_devices, args=(rank, tmp_path / "store", results)) for rank in range(2)]
    for process in processes:
        process.start()
    losses, *shares = zip(*(results.get(timeout=60) for _ in processes), strict=True)
    for process in processes:
        process.join()
    images, texts, scale = leaves()
    whole = pair_loss(images, texts, scale)
    whole.backward()
    assert np.mean(losses) == pytest.approx(whole.item())
    for leaf, share in zip((images, texts, scale), shares, strict=True):  # data-parallel training takes the mean
        np.testing.assert_allclose(np.mean(share, axis=0), leaf.grad, atol=1e-12)


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
        retrieval_recall(torch.zeros(3, 4), torch.zeros(2, 4), 1)
    with pytest.raises(ValueError, match="pass more pairs"):
        retrieval_recall(torch.eye(3), torch.eye(3), 10)
