"""The ledger: every joule is charged exactly once."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_watt.accounts.ledger import STAGES, WASTED, Account, Ledger, Point, Usage, merged
from lightning_watt.meter.timeline import Timeline
from lightning_watt.sources.base import Device, Reading

S = 1_000_000_000
TRAIN, VALIDATE = Account("train", 0), Account("validate", 0)


def at(t: int, *uj: int, batches: int = 0, samples: int = 0, edge: float = 0.0) -> Point:
    return Point(t, uj, [edge] * len(uj), batches, samples)


def test_an_account_gets_what_was_used_while_it_was_open():
    ledger = Ledger()
    ledger.open(["gpu0", "cpu0"], TRAIN, at(100, 5000, 70))
    ledger.charge(at(110, 5600, 80, batches=3, samples=24))
    ledger.switch(VALIDATE, at(120, 6000, 90, batches=4, samples=30))
    ledger.switch(TRAIN, at(150, 6100, 90, batches=9, samples=70))
    ledger.close(at(160, 6500, 91, batches=10, samples=78))
    assert ledger.by_stage() == {
        "train": Usage({"gpu0": 1400, "cpu0": 21}, ns=30, batches=5, samples=38),
        "validate": Usage({"gpu0": 100, "cpu0": 0}, ns=30, batches=5, samples=40),
    }
    assert ledger.by_device() == {"gpu0": 1500, "cpu0": 21}
    assert ledger.total_uj == 1521
    assert (ledger.account, ledger.at) == (None, None)


def test_stages_are_summed_over_epochs_and_stand_in_lightnings_order():
    ledger = Ledger()
    ledger.open(["gpu0"], Account("other", 0), at(0, 0))
    for i, stage in enumerate(["train", "validate", "sanity_check", "tune", "test", "predict", "train"], start=1):
        ledger.switch(Account(stage, i), at(i, i * 10))
    ledger.close(at(9, 100))
    assert list(ledger.by_stage()) == [stage for stage in STAGES if stage != WASTED]
    assert ledger.by_stage()["train"].total_uj == 10 + 30
    assert ledger.accounts[Account("train", 7)].total_uj == 30


def test_edges_count_for_the_accounts_on_both_sides_and_only_where_the_account_changes():
    ledger = Ledger()
    ledger.open(["gpu0", "gpu1"], TRAIN, at(0, 0, 0, edge=2.0))  # 2 boards: 8 squared microjoules
    ledger.switch(TRAIN, at(1, 5, 5, edge=100.0))
    ledger.charge(at(2, 6, 6, edge=100.0))
    ledger.switch(VALIDATE, at(3, 7, 7, edge=3.0))  # 18
    ledger.close(at(4, 8, 8, edge=1.0))  # 2
    assert {stage: entry.edge_variance for stage, entry in ledger.by_stage().items()} == {"train": 26, "validate": 20}


def test_samples_that_are_not_all_known_are_no_samples():
    """Neither in the account and the stage that they belong to, nor in a sum with an earlier part of the run."""
    ledger = Ledger()
    ledger.open(["gpu0"], TRAIN, at(0, 0))
    ledger.charge(at(1, 10, batches=3, samples=24))  # then a batch that was not counted, and one more
    ledger.charge(at(2, 20, batches=5, samples=24))
    ledger.switch(VALIDATE, at(3, 30, batches=5, samples=24))
    ledger.close(at(4, 40, batches=7, samples=40))
    assert [(used.batches, used.samples) for used in ledger.by_stage().values()] == [(5, 0), (2, 16)]
    later = Ledger()
    later.add(Account("train", 1), Usage(batches=2, samples=16))
    assert later.by_stage()["train"].samples == 16
    later.absorb(ledger.state_dict())
    assert (later.by_stage()["train"].batches, later.by_stage()["train"].samples) == (7, 0)
    assert merged([later, ledger]).by_stage()["validate"].samples == 32


def test_nothing_can_be_charged_to_nobody():
    with pytest.raises(ValueError, match="open\\(\\) first"):
        Ledger().charge(at(1, 1))
    ledger = Ledger()
    ledger.open(["gpu0"], TRAIN, at(0, 0))
    ledger.close(at(1, 1))
    with pytest.raises(ValueError, match="open\\(\\) first"):
        ledger.switch(VALIDATE, at(2, 2))


def test_a_point_of_other_devices_is_refused():
    ledger = Ledger()
    ledger.open(["gpu0"], TRAIN, at(0, 0))
    with pytest.raises(ValueError, match="zip"):
        ledger.charge(at(1, 1, 1))


def test_what_lies_between_close_and_open_is_nobodys():
    ledger = Ledger()
    ledger.open(["gpu0"], TRAIN, at(0, 0))
    ledger.close(at(1, 10))
    ledger.open(["gpu0"], TRAIN, at(5, 500))
    ledger.close(at(6, 507))
    assert ledger.total_uj == 17


# ---- earlier runs ----


def test_the_state_survives_a_checkpoint_and_adds_up():
    first = Ledger()
    first.open(["gpu0"], TRAIN, at(0, 0, edge=1.0))
    first.switch(VALIDATE, at(10, 70, batches=4, samples=64, edge=1.0))
    first.close(at(20, 100, batches=6, samples=96, edge=1.0))
    state = msgspec.json.decode(msgspec.json.encode(first.state_dict()))
    second = Ledger()
    assert second.absorb(state) == 100
    assert second.accounts == first.accounts
    assert second.absorb(state) == 100
    assert second.total_uj == 200
    assert second.by_stage()["train"].batches == 8


def test_the_state_is_a_copy():
    ledger = Ledger()
    ledger.open(["gpu0"], TRAIN, at(0, 0))
    ledger.charge(at(1, 1))
    state = ledger.state_dict()
    ledger.charge(at(2, 2))
    assert state[0][2] == {"gpu0": 1}


def test_joules_add_up_where_two_labels_become_one():
    ledger = Ledger()
    state = [["train", 0, {"gpu0": 5, "gpu0@GPU-1": 7}, 1, 1, 1, 0.0]]
    assert ledger.absorb(state, {"gpu0": "gpu0@GPU-1"}) == 12
    assert ledger.by_device() == {"gpu0@GPU-1": 12}


@pytest.mark.parametrize(
    "broken",
    [
        None,
        5,
        [None],
        [["train", 0, {}]],
        [["dream", 0, {}, 0, 0, 0, 0.0]],
        [["train", 0, 7, 0, 0, 0, 0.0]],
        [["train", "zero", {}, 0, 0, 0, 0.0]],
        [["train", 0, {"gpu0": "much"}, 0, 0, 0, 0.0]],
        [["train", 0, {"gpu0": float("inf")}, 0, 0, 0, 0.0]],
        [["train", 0, {"gpu0": float("nan")}, 0, 0, 0, 0.0]],
        [["train", 0, {"gpu0": 5}, 0, 0, 0, 0.0], ["train", 0, {"gpu0": 5}, None, 0, 0, 0.0]],
    ],
)
def test_a_state_that_is_none_is_refused_whole(broken):
    ledger = Ledger()
    with pytest.raises(ValueError, match="not a ledger's state"):
        ledger.absorb(broken)
    assert ledger.total_uj == 0
    assert ledger.accounts == {}


# ---- for any run ----

accounts = st.builds(Account, st.sampled_from(STAGES), st.integers(0, 3))
moves = st.lists(
    st.tuples(
        st.sampled_from(["charge", "switch", "reopen", "resume"]),
        accounts,
        st.lists(st.integers(0, 10**15), min_size=3, max_size=3),
    ),
    max_size=30,
)


@given(moves)
def test_every_joule_is_charged_once(moves):
    labels = ["gpu0", "gpu1", "cpu0"]
    ledger, curve, t = Ledger(), [0, 0, 0], 0
    charged = [0, 0, 0]
    ledger.open(labels, Account("other", 0), at(0, *curve))
    for move, account, rises in moves:
        t += 1
        curve = [uj + rise for uj, rise in zip(curve, rises, strict=True)]
        point = at(t, *curve, batches=t, samples=2 * t, edge=1.0)
        if move == "reopen":  # what is used between a close and the next open is nobody's
            ledger.close(
                at(t - 1, *(uj - rise for uj, rise in zip(curve, rises, strict=True)), batches=t - 1, samples=2 * t - 2)
            )
            ledger.open(labels, account, point)
            continue
        charged = [total + rise for total, rise in zip(charged, rises, strict=True)]
        if move == "charge":
            ledger.charge(point)
        elif move == "switch":
            ledger.switch(account, point)
        else:  # the process dies here; another goes on from the checkpoint
            ledger.close(point)
            resumed = Ledger()
            assert resumed.absorb(ledger.state_dict()) == sum(charged)
            ledger = resumed
            ledger.open(labels, account, point)
    assert ledger.total_uj == sum(charged)
    assert sum(entry.total_uj for entry in ledger.by_stage().values()) == sum(charged)
    assert ledger.by_device() == dict(zip(labels, charged, strict=True))
    reopened = sum(move == "reopen" for move, _, _ in moves)
    assert sum(entry.batches for entry in ledger.by_stage().values()) == t - reopened
    assert sum(entry.ns for entry in ledger.by_stage().values()) == t - reopened


@st.composite
def runs(draw):
    """Counters with resets, jumps, wraps and standstills, and stages that change whenever they like."""
    readings, t, counter = [], draw(st.integers(0, 10**15)), draw(st.integers(0, 10**12))
    start = t
    for _ in range(draw(st.integers(2, 15))):
        samples = draw(st.lists(st.tuples(st.integers(-S, 0), st.floats(0, 800)), max_size=4))
        readings.append(Reading("gpu0", t, counter, tuple(sorted((t + ago, w) for ago, w in samples))))
        t += draw(st.integers(1, 3 * S))
        rise = draw(
            st.one_of(st.integers(0, 800 * 10**6), st.just(0), st.integers(-(10**12), -1), st.integers(10**12, 10**14))
        )
        counter = max(0, counter + rise)
    edges = draw(st.lists(st.tuples(st.integers(start, t), accounts), max_size=12))
    return readings, sorted(edges), start, t


@given(runs())
def test_the_stages_sum_to_the_curves_own_rise(run):
    """In integers, over curves with resets and all, however they are cut."""
    readings, edges, start, end = run
    line = Timeline(Device("gpu0", "a board", "GPU-0", "test", tick_s=0.1, max_power_w=800))
    charged_uj = sum(step.charge_uj for step in map(line.add, readings) if step is not None)

    def point(t: int) -> Point:
        return Point(t, line.energy_uj_at([t]).tolist(), [line.power_w], 0, 0)

    ledger = Ledger()
    ledger.open(["gpu0"], Account("other", 0), point(start))
    for t, account in edges:
        ledger.switch(account, point(t))
    ledger.close(point(end))
    rise = int(np.diff(line.energy_uj_at([start, end]))[0])
    assert sum(entry.total_uj for entry in ledger.by_stage().values()) == sum(ledger.by_device().values()) == rise
    assert all(uj >= 0 for entry in ledger.accounts.values() for uj in entry.uj.values())
    assert rise == charged_uj  # `test_counter` says what of a counter is charged


def test_the_running_sums_are_the_sums_of_the_accounts():
    ledger = Ledger()
    ledger.open(["gpu0", "gpu1"], Account("sanity_check", 0), Point(0, [0, 0], [3.0, 4.0], 0, 0))
    for n, account in enumerate([Account(stage, epoch) for epoch in range(3) for stage in ("train", "validate")], start=1):
        ledger.switch(account, Point(10 * n, [70 * n, 11 * n], [1.0, 2.0], 4 * n, 64 * n))
    ledger.close(Point(100, [900, 100], [1.0, 1.0], 40, 640))
    ledger.absorb(ledger.state_dict(), {"gpu1": "gpu9"})
    for stage, usage in ledger.by_stage().items():
        assert usage == sum((own for account, own in ledger.accounts.items() if account.stage == stage), Usage())
    assert (ledger.total_uj, ledger.ns) == (2 * 1000, 2 * 100)
    assert ledger.by_device() == {"gpu0": 1800, "gpu1": 100, "gpu9": 100}


def test_a_gap_is_in_the_uncertainty_of_the_stages_in_which_it_lies_as_a_sum():
    """Of 70 µJ that were lost, 40 lie in the training, charged in two parts; what its edges say is beside them, squared."""
    ledger = Ledger()
    ledger.open(["gpu0"], Account("train", 0), Point(0, [0], [3.0], 0, 0))
    ledger.charge(Point(10, [100], [0.0], 0, 0, 10.0))
    ledger.switch(Account("validate", 0), Point(20, [200], [0.0], 0, 0, 40.0))
    ledger.switch(Account("train", 1), Point(30, [300], [0.0], 0, 0, 70.0))
    ledger.close(Point(40, [400], [0.0], 0, 0, 0.0))  # the counter has come back
    stages = ledger.by_stage()
    assert (stages["train"].edge_variance, stages["validate"].edge_variance) == (3.0**2 + 40.0**2, 30.0**2)
