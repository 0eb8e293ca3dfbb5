"""The instrument that compares the callback with an empty one: what it finds in data whose difference is known."""

from __future__ import annotations

import itertools
import random

import pytest

from experiments.bench import blocks
from experiments.bench.training import BATCH_HOOKS, Empty, beyond_empty_us, boards, fit, timed
from lightning_watt import WattCallback
from lightning_watt.testing import Lab

STEPS = 200


def a_block(kind: str, extra_us: float, noise: random.Random, drift_us: float) -> tuple[str, list[int]]:
    """Steps of 5 ms and a little more, whose machine drifts from block to block."""
    began, t_ns = [], 0.0
    for _ in range(STEPS + 1):
        began.append(int(t_ns))
        t_ns += 1000 * (5000 + drift_us + extra_us + noise.expovariate(1 / 40))
    return kind, began


@pytest.mark.parametrize("extra_us", [0.0, 10.0, 60.0])
def test_ten_microseconds_are_seen_through_a_drift_and_noise(extra_us):
    noise, made = random.Random(3), []
    for triple in range(60):
        drift_us = 200 * noise.random() + triple
        made += [a_block(kind, extra_us if kind == "ours" else 0.0, noise, drift_us) for kind in blocks.KINDS]
    made.append(("ours", [0]))  # cut short by the training's end
    ours, empty = blocks.differences(made)
    assert ours.error_us < 5
    assert ours.mean_us == pytest.approx(extra_us, abs=4 * ours.error_us)
    assert empty.mean_us == pytest.approx(0, abs=4 * empty.error_us)


def test_one_block_in_which_the_machine_did_something_else_does_not_decide():
    noise = random.Random(4)
    made = [a_block(kind, 0.0, noise, 0.0) for _, kind in itertools.product(range(40), blocks.KINDS)]
    made[30] = a_block(made[30][0], 50_000.0, noise, 0.0)
    assert all(abs(found.mean_us) < 10 for found in blocks.differences([*made, ("ours", [0])]))


def test_the_callback_works_in_its_own_blocks_alone():
    with Lab(boards(1)).running():
        callback = blocks.Alternating(0.1, 0.3, seed=0)
        fit([callback], batches=400, step_s=0.002)
    kinds = [kind for kind, _ in callback.blocks]
    assert len(kinds) >= 3
    for triple in zip(*[iter(kinds)] * 3, strict=False):
        assert sorted(triple) == sorted(blocks.KINDS)
    counted = callback._run.session.tally.batches
    idle = sum(len(began) for kind, began in callback.blocks if kind != "ours")
    assert counted == pytest.approx(400 - idle, abs=2 * len(kinds))
    assert counted < 400


def test_what_a_hook_takes_beyond_an_empty_one():
    class Busy(Empty):
        def on_train_batch_end(self, *args: object) -> None:
            sum(range(3000))

    busy, empty = timed(Busy)(1), timed(Empty)(2)
    fit([empty, busy], batches=50)
    whole = beyond_empty_us(busy.spent, empty.spent, BATCH_HOOKS, slice(None))
    assert whole == pytest.approx(beyond_empty_us(busy.spent, empty.spent, ["on_train_batch_end"], slice(None)), rel=0.5)
    assert whole > 5


def test_our_hooks_and_an_empty_one_s_come_in_turn_and_two_empty_ones_are_alike():
    with Lab(boards(1)).running():
        callback = blocks.InTurn(0.2, seed=0, gpus="all", record=False, batches=True)
        fit([callback], batches=600, step_s=0.001)
    counts = {kind: len(hooks["on_train_batch_end"]) for kind, hooks in callback.spent.items()}
    assert max(counts.values()) - min(counts.values()) <= 1
    assert callback._run.session.tally.batches == 600 - counts["empty"] - counts["empty again"]
    ours, again = (
        beyond_empty_us(callback.spent[kind], callback.spent["empty"], BATCH_HOOKS, slice(None))
        for kind in ("ours", "empty again")
    )
    assert ours > 5 * abs(again)


def test_hooks_that_hang_on_a_callback_are_timed_too():
    with Lab(boards(1)).running():
        callback = timed(WattCallback)(gpus="all", record=False, batches=True)
        fit([callback], batches=20)
    assert [len(callback.spent[hook]) for hook in BATCH_HOOKS] == [20] * 4
