"""Projections: from rounds to a whole training, and whether their interval holds what comes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from experiments.projection.conditions import Conditions, said_of
from experiments.projection.excerpt import Excerpt, Sampling
from experiments.projection.interval import Plan, Round, Use, block_ends, merged, project_rounds

PLAN = Plan(epochs=100, train_batches=40, validations=50, val_batches=8)


def a_round(batch_j: float = 2.0, val_j: float = 1.0, between_j: float = 5.0, seconds: float = 1.0, **more: float) -> Round:
    """Ten training batches, of which the first two are not counted, and four of validation."""
    whole = Use(10 * batch_j + 4 * val_j + between_j, seconds, more.get("boundary_j", 0.0))
    return Round(whole, Use(8 * batch_j, 0.6 * seconds), Use(4 * val_j, 0.2 * seconds), 10, 8, 4)


def test_the_whole_is_its_parts_by_how_often_they_come():
    start = Use(300.0 + 2 * a_round().whole.joules, 7.0)
    found = project_rounds([a_round()] * 5, start, warm_ups=2, plan=PLAN, gain=0.1)
    assert found.energy.value == pytest.approx(300 + 100 * (40 * 2 + 5) + 50 * 8 * 1)
    assert found.energy.plus_minus == pytest.approx(0, abs=1e-6)
    assert found.gain_j == found.plus_minus_j == pytest.approx(0.1 * found.energy.value)
    assert found.once_j == pytest.approx(300)
    assert found.duration.value == pytest.approx(7 - 2 + 100 * (40 * 0.075 + 1 - 0.75 - 0.2) + 50 * 8 * 0.05)


def test_a_training_without_validation_has_none():
    bare = replace(a_round(val_j=0.0), val_batches=0)
    found = project_rounds([bare] * 3, Use(0.0, 0.0), 0, Plan(10, 40, 0, 0))
    assert found.energy.value == pytest.approx(10 * (40 * 2 + 5))


def test_rounds_are_joined_until_they_are_long_enough_and_none_is_lost():
    assert block_ends([1, 1, 1, 3, 1], 2) == [2, 4]
    assert block_ends([1, 1], 5) == []
    rounds = [a_round(seconds=seconds, boundary_j=3.0) for seconds in (1, 1, 1, 3, 1)]
    first, last = merged(rounds, 2)
    assert (first.rounds, last.rounds, first.batches, last.counted, last.whole.seconds) == (2, 3, 20, 24, 5)
    assert first.whole.joules == 2 * a_round().whole.joules
    assert last.whole.boundary_j == pytest.approx(3 * math.sqrt(3))
    with pytest.raises(ValueError, match="make 2 blocks of 2 s; an interval needs 3"):
        project_rounds(rounds, Use(0, 0), 0, PLAN, block_s=2)


def series(alike: float, count: int, random: np.random.Generator) -> np.ndarray:
    """Joules of batches around 100, each with this correlation to the one before."""
    steps = random.normal(size=count + 200)
    for n in range(1, len(steps)):
        steps[n] += alike * steps[n - 1]
    return 100 + steps[200:]


@pytest.mark.parametrize(("alike", "least"), [(0.0, 0.92), (0.5, 0.92), (0.9, 0.88)])
def test_the_interval_holds_what_comes(alike: float, least: float):
    """Batches that are alike, over ten blocks of 25, and the thousand after them."""
    random, inside = np.random.default_rng(1), 0
    for _ in range(150):
        batches = series(alike, 1250, random)
        rounds = [Round(Use(part.sum(), 1.0), Use(part.sum(), 1.0), Use(0, 0), 25, 25, 0) for part in np.split(batches, 50)]
        found = project_rounds(rounds[:10], Use(0, 0), 0, Plan(1, 1000, 0, 0)).energy
        inside += abs(found.value - batches[250:].sum()) <= found.plus_minus
    assert least <= inside / 150 < 1


def test_blocks_that_are_alike_count_less():
    up_and_down = [a_round(batch_j=2 + 0.1 * (n % 2)) for n in range(10)]
    in_runs = sorted(up_and_down, key=lambda one: one.whole.joules)
    apart, alike = (project_rounds(rounds, Use(0, 0), 0, PLAN).energy for rounds in (up_and_down, in_runs))
    assert apart.value == pytest.approx(alike.value)
    assert (apart.autocorrelation, apart.drift) == (0, 0)
    assert alike.autocorrelation > 0.5
    assert alike.plus_minus > 3 * apart.plus_minus
    assert alike.drift == pytest.approx(0.1 / 2.05, rel=0.5)


def test_edges_are_part_of_the_interval():
    sure, unsure = (
        project_rounds([a_round(boundary_j=joules)] * 4, Use(0, 0), 0, PLAN).energy.plus_minus for joules in (0.0, 1.0)
    )
    assert unsure - sure == pytest.approx(100 / math.sqrt(4))  # each round's whole is a hundredth of the epochs


def test_enough_is_the_blocks_asked_for_or_the_time():
    sampling = Sampling(blocks=5, max_seconds=8.0)
    assert not sampling.is_enough([1.0] * 4, 1.0)
    assert sampling.is_enough([1.0] * 5, 1.0)
    assert not sampling.is_enough([1.0] * 7, 3.0)
    assert sampling.is_enough([1.0] * 9, 3.0)
    with pytest.raises(ValueError, match=r"phase\.blocks of at least 3"):
        Sampling(blocks=2)


@pytest.mark.parametrize(
    ("workers", "most", "batches", "skip"), [(0, 40, 12, 0), (8, 400, 32, 16), (8, 12, 12, 6), (0, 1.0, 12, 0)]
)
def test_a_round_has_whole_updates_and_more_than_the_queues_hold(workers: int, most: float, batches: int, skip: int):
    excerpt = Excerpt(Sampling(round_batches=10), skip=2 * workers)
    assert (excerpt.batches(most, accumulate=4), excerpt.skip) == (batches, skip)


def test_others_at_work_are_said():
    quiet = Conditions({"gpu0": 40.0, "gpu1": 45.0}, (), 0.0, 100.0, 10.0)
    alone = said_of(quiet, replace(quiet, temperature_c={"gpu0": 60.0}, t_s=10.0, busy_s=110.0, own_s=20.0))
    assert alone == {"start_temperature_c": 45, "end_temperature_c": 60, "others_cpus": 0, "others": ""}
    shared = said_of(quiet, Conditions({}, ("Shared with 7.",), 10.0, 1000.0, 10.0))
    assert shared["end_temperature_c"] is None
    assert shared["others_cpus"] == 90
    assert shared["others"].startswith("Shared with 7. Other programs kept 90.0 of ")
