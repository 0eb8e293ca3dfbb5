"""SAM against the contract's numbers and an independent formula."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_watt import SustainableAccuracy, sustainable_accuracy
from lightning_watt.sam.score import Scoring
from lightning_watt.units import J_PER_KWH

accuracies = st.floats(0, 1)
energies = st.floats(0, 1e9)


@pytest.mark.parametrize(
    ("accuracy", "energy_kwh", "score"),
    [(0.8, 100, 0.8192), (0.9, 1000, 0.98415), (0.5, 100, 0.078125), (0.7613, 10, 1.278643)],
)
def test_the_contracts_vectors(accuracy, energy_kwh, score):
    assert sustainable_accuracy(accuracy, energy_kwh) == pytest.approx(score, abs=5e-7)


@given(accuracies, st.floats(1.0001, 1e9), st.floats(0.5, 6), st.floats(0.5, 6))
def test_it_is_the_papers_formula(accuracy, energy_kwh, alpha, beta):
    expected = beta * math.pow(accuracy, alpha) / math.log10(energy_kwh)
    assert sustainable_accuracy(accuracy, energy_kwh, alpha=alpha, beta=beta) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("energy_kwh", [0, 0.5, 1.0])
def test_at_and_below_one_unit_it_is_undefined(energy_kwh):
    assert math.isnan(sustainable_accuracy(0.9, energy_kwh))


@pytest.mark.parametrize(("unit", "energy_kwh"), [("kWh", 100.0), ("Wh", 0.1), ("J", 100 / 3.6e6)])
def test_the_unit_is_the_one_that_the_equation_takes(unit, energy_kwh):
    assert sustainable_accuracy(0.8, energy_kwh, unit=unit) == pytest.approx(0.8192)
    assert math.isnan(sustainable_accuracy(0.8, energy_kwh / 101, unit=unit))


@given(accuracies, energies, energies)
def test_the_shifted_form_is_finite_and_falls(accuracy, one, other):
    less, more = sorted([one, other])
    high = sustainable_accuracy(accuracy, less, shifted=True)
    low = sustainable_accuracy(accuracy, more, shifted=True)
    assert math.isfinite(high)
    assert 0 <= low <= high <= 5
    assert high == pytest.approx(5 * accuracy**5 / math.log10(10 + less), rel=1e-12)


def test_the_shifted_form_strictly_falls_and_meets_the_papers_for_large_energies():
    scores = [sustainable_accuracy(0.9, e, shifted=True) for e in (0, 0.1, 1, 10, 1e3)]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 5
    assert sustainable_accuracy(0.9, 1e9, shifted=True) == pytest.approx(sustainable_accuracy(0.9, 1e9), rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"accuracy": 1.0001, "energy_kwh": 2.0}, "percent"),
        ({"accuracy": -0.1, "energy_kwh": 2.0}, r"\[0, 1\]"),
        ({"accuracy": 0.5, "energy_kwh": -1e-9}, "negative"),
        ({"accuracy": torch.tensor([0.5, 93.0]), "energy_kwh": 2.0}, "percent"),
        ({"accuracy": 0.5, "energy_kwh": torch.tensor([1.0, -1.0])}, "negative"),
        ({"accuracy": 0.5, "energy_kwh": 2.0, "alpha": math.nan}, "alpha"),
        ({"accuracy": 0.5, "energy_kwh": 2.0, "beta": math.inf}, "beta"),
        ({"accuracy": 0.5, "energy_kwh": 2.0, "beta": "5"}, "beta"),
        ({"accuracy": 0.5, "energy_kwh": 2.0, "unit": "MJ"}, "kWh, Wh, J"),
    ],
)
def test_what_it_is_not_defined_for_is_refused(arguments, word):
    with pytest.raises(ValueError, match=word):
        sustainable_accuracy(**arguments)


def test_a_missing_accuracy_stays_missing():
    assert math.isnan(sustainable_accuracy(math.nan, 100.0))
    assert math.isnan(sustainable_accuracy(math.nan, 100.0, shifted=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_broadcast_and_come_back_in_float64(dtype):
    accuracy = torch.tensor([[0.5], [1.0]], dtype=dtype)
    energy = torch.tensor([0.5, 100.0, 1000.0], dtype=torch.float32)
    score = sustainable_accuracy(accuracy, energy)
    assert score.dtype == torch.float64
    expected = [[math.nan, 5 * 0.5**5 / 2, 5 * 0.5**5 / 3], [math.nan, 2.5, 5 / 3]]
    np.testing.assert_allclose(score.numpy(), expected, rtol=1e-12)


@given(
    st.floats(0, 1) | st.just(math.nan),
    st.floats(0, allow_infinity=True) | st.just(math.nan),
    st.floats(-500, 500),
    st.floats(-500, 500),
    st.sampled_from(["kWh", "Wh", "J"]),
    st.booleans(),
)
def test_numbers_and_tensors_agree(accuracy, energy_kwh, alpha, beta, unit, shifted):
    arguments = {"alpha": alpha, "beta": beta, "unit": unit, "shifted": shifted}
    of_tensor = sustainable_accuracy(torch.tensor(accuracy, dtype=torch.float64), energy_kwh, **arguments).item()
    of_numbers = sustainable_accuracy(accuracy, energy_kwh, **arguments)
    assert of_numbers == pytest.approx(of_tensor, rel=1e-9, nan_ok=True)


def test_numbers_come_back_as_a_number_and_a_tensor_among_them_as_a_tensor():
    assert type(sustainable_accuracy(1, 100)) is float
    assert type(sustainable_accuracy(np.float64(1), np.float32(100))) is float
    for arguments in ((torch.tensor(1.0), 100), (1, torch.tensor(100))):
        score = sustainable_accuracy(*arguments)
        assert isinstance(score, torch.Tensor)
        assert score.shape == ()


# ---- the torchmetrics class ----

PREDS, TARGET = torch.tensor([1, 0, 2, 2]), torch.tensor([1, 0, 2, 1])


def test_it_accumulates_over_batches():
    metric = SustainableAccuracy()
    metric.update(PREDS, TARGET, energy_kwh=60)
    metric.update(torch.tensor([0]), torch.tensor([0]), energy_kwh=torch.tensor(40.0))
    assert metric.compute().item() == pytest.approx(0.8192)  # 4 of 5, 100 kWh
    assert metric.compute().dtype == torch.float64


def test_scores_are_reduced_to_their_largest():
    by_label, by_score = SustainableAccuracy(shifted=True), SustainableAccuracy(shifted=True)
    by_label.update(PREDS, TARGET, 1.0)
    by_score.update(torch.nn.functional.one_hot(PREDS, 3).float(), TARGET, 1.0)
    assert by_label.compute() == by_score.compute()
    assert by_label.compute().item() == pytest.approx(sustainable_accuracy(0.75, 1.0, shifted=True))


def test_its_arguments_reach_the_equation():
    metric = SustainableAccuracy(alpha=1, beta=2, unit="Wh")
    metric.update(PREDS, TARGET, energy_kwh=0.1)
    assert metric.compute().item() == pytest.approx(2 * 0.75 / 2)


def test_small_energies_are_not_lost_beside_a_large_sum():
    metric = SustainableAccuracy()
    metric.update(PREDS, TARGET, energy_kwh=1e5)
    for _ in range(1000):
        metric.update(PREDS, TARGET, energy_kwh=1e-4)  # a float32 sum would stay at 1e5
    assert metric.energy_kwh.item() == pytest.approx(1e5 + 0.1, abs=1e-6)


def test_reset_forgets():
    metric = SustainableAccuracy()
    metric.update(PREDS, TARGET, energy_kwh=1000)
    metric.reset()
    metric.update(TARGET, TARGET, energy_kwh=100)
    assert metric.compute().item() == pytest.approx(2.5)


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric SustainableAccuracy:UserWarning")
def test_nothing_seen_is_undefined():
    assert SustainableAccuracy(shifted=True).compute().isnan()


def test_two_processes_give_the_sum_of_both():
    """What torchmetrics gathers over ranks, with both ranks in this process."""
    rank1 = SustainableAccuracy()
    rank1.update(torch.tensor([0]), torch.tensor([0]), energy_kwh=40)
    others = iter([rank1.correct, rank1.total, rank1.energy_kwh])
    rank0 = SustainableAccuracy(distributed_available_fn=lambda: True, dist_sync_fn=lambda mine, group: [mine, next(others)])
    rank0.update(PREDS, TARGET, energy_kwh=60)
    assert rank0.compute().item() == pytest.approx(0.8192)
    assert (rank0.total.item(), rank0.energy_kwh.item()) == (4, 60)  # its own again, to go on with


@pytest.mark.skipif(
    not hasattr(SustainableAccuracy, "merge_state"),
    reason="merging states came with torchmetrics 1.6: install that or a newer one",
)
def test_one_metric_can_take_in_another():
    one, other = SustainableAccuracy(), SustainableAccuracy()
    one.update(PREDS, TARGET, energy_kwh=60)
    other.update(torch.tensor([0]), torch.tensor([0]), energy_kwh=40)
    one.merge_state(other)
    assert one.compute().item() == pytest.approx(0.8192)


def test_it_survives_a_checkpoint_and_a_pickle():
    metric = SustainableAccuracy(alpha=2)
    metric.persistent(True)
    metric.update(PREDS, TARGET, energy_kwh=100)
    other = SustainableAccuracy(alpha=2)
    other.load_state_dict(metric.state_dict())
    other._update_count = 1
    copy = pickle.loads(pickle.dumps(metric))
    assert other.compute() == copy.compute() == metric.compute()


@pytest.mark.parametrize(
    ("update", "word"),
    [
        ((PREDS, TARGET[:3], 1.0), "shape"),
        ((torch.zeros(4, 3, 2), TARGET, 1.0), "shape"),
        ((PREDS, TARGET, -1.0), "since the last update"),
        ((PREDS, TARGET, math.nan), "since the last update"),
    ],
)
def test_a_wrong_update_says_why_and_changes_nothing(update, word):
    metric = SustainableAccuracy()
    with pytest.raises(ValueError, match=word):
        metric.update(*update)
    assert (metric.total.item(), metric.energy_kwh.item()) == (0, 0)


@pytest.mark.parametrize("arguments", [{"alpha": math.inf}, {"beta": None}, {"unit": "eV"}])
def test_wrong_arguments_are_refused_at_construction(arguments):
    with pytest.raises(ValueError, match=r"alpha|beta|unit"):
        SustainableAccuracy(**arguments)


@pytest.mark.parametrize(
    ("name", "given"), [("accuracy", ("0.8", 1)), ("energy_kwh", (0.8, "1 kWh")), ("energy_kwh", (0.8, None))]
)
def test_what_is_no_number_is_named(name, given):
    with pytest.raises(TypeError, match=f"^{name} is .*: give a number or a tensor"):
        sustainable_accuracy(*given)


def test_the_plus_or_minus_of_an_energy_is_that_of_sam():
    scoring = Scoring(alpha=5.0, beta=5.0, unit="kWh")
    spread, shifted = scoring.sam_plus_minus(0.8, 100 * J_PER_KWH, 10 * J_PER_KWH)
    assert spread == pytest.approx(sustainable_accuracy(0.8, 90) - 0.8192)
    assert shifted == pytest.approx(
        sustainable_accuracy(0.8, 90, shifted=True) - sustainable_accuracy(0.8, 100, shifted=True)
    )
    spread, shifted = scoring.sam_plus_minus(0.8, 2 * J_PER_KWH, 1.5 * J_PER_KWH)  # it may be half a kWh
    assert spread is None
    assert shifted is not None
    assert scoring.sam_plus_minus(None, J_PER_KWH, 1.0) == (None, None)
