"""The nodes' reports: whatever comes late, twice or not at all, rank zero's sums are the nodes' own, epoch by epoch."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence

import msgspec
import pytest

from lightning_watt.accounts.ledger import Account, Ledger, Point, Usage, merged
from lightning_watt.run.node_reports import NodeReport, OtherNodes, Part, Reporter, Share, merged_gaps
from lightning_watt.run.session import Session
from lightning_watt.run.totals import Place, checkpoint_state, node_report, record_epochs
from lightning_watt.sources.base import Device, Gap

J = 1_000_000
S = 1_000_000_000
BOARDS = [f"gpu{i}" for i in range(8)]


class Node:
    """A node's session, and its part of a training: two stages an epoch, each with its own joules."""

    def __init__(self, number: int) -> None:
        self.session = Session(id=f"session {number}", place=Place("run", 8 * number, number))
        for label in BOARDS:
            board = Device(
                label, "NVIDIA H100 80GB HBM3", f"GPU-{number:08x}-0000-0000-0000-00000000{label}", "nvml-counter"
            )
            self.session.devices[label] = msgspec.structs.replace(board, host=f"a-host-with-a-name-{number}")
        self.chance = random.Random(number)
        self.point = Point(0, [0] * len(BOARDS), [3000.0] * len(BOARDS), 0, 0)
        self.session.ledger.open(BOARDS, Account("train", 0), self.point)

    def goes_on_to(self, stage: str, epoch: int) -> None:
        rise = [self.chance.randrange(100 * J) for _ in BOARDS]
        at = self.point
        energy = [uj + more for uj, more in zip(at.energy_uj, rise, strict=True)]
        self.point = Point(at.t_ns + S, energy, at.edge_uj, at.batches + 1, at.samples + 8)
        self.session.ledger.switch(Account(stage, epoch), self.point)

    def epoch(self, number: int) -> bytes:
        """Train and validate; the report as it is sent."""
        self.goes_on_to("validate", number)
        self.goes_on_to("train", number + 1)
        return self.report()

    def report(self, *, final: bool = False) -> bytes:
        totals = self.session.totals(with_since=True)
        report = node_report(totals, ["rapl: it cannot be read here."])
        report.final = final
        return msgspec.msgpack.encode(self.session.reporter.report(report, totals.since, totals.ahead))


def taken(nodes: OtherNodes, raws: Sequence[bytes]) -> OtherNodes:
    return nodes.with_reports([msgspec.msgpack.decode(raw, type=NodeReport) for raw in raws])


def used(ledger: Ledger) -> dict[Account, int]:
    return {account: usage.total_uj for account, usage in ledger.accounts.items() if usage.total_uj}


def the_same(heard: OtherNodes, nodes: Sequence[Node]) -> None:
    """By stage, by device, by session, and in what may be off."""
    whole = merged([node.session.ledger for node in nodes])
    assert {stage: usage.total_uj for stage, usage in heard.ledger.by_stage().items()} == {
        stage: usage.total_uj for stage, usage in whole.by_stage().items()
    }
    for stage, usage in whole.by_stage().items():
        assert heard.ledger.by_stage()[stage].edge_variance == pytest.approx(usage.edge_variance)
    assert heard.ledger.by_device() == {
        f"node{node.session.place.node}/{label}": uj
        for node in nodes
        for label, uj in node.session.ledger.by_device().items()
    }
    energies = {energy.session: energy for energy in heard.energies()}
    for node in nodes:
        told = energies[node.session.id]
        assert told.device_uj == node.session.ledger.by_device()
        assert told.ns == node.session.ledger.ns


def test_reports_in_their_turn_are_the_nodes_accounts_to_the_microjoule():
    nodes, heard = [Node(n) for n in (1, 2, 3)], OtherNodes()
    for epoch in range(5):
        heard = taken(heard, [node.epoch(epoch) for node in nodes])
        the_same(heard, nodes)
    assert used(heard.ledger) == used(merged([node.session.ledger for node in nodes]))
    assert list(heard.devices) == [f"node{n}/{label}" for n in (1, 2, 3) for label in BOARDS]
    assert heard.missing == [f"node{n}: rapl: it cannot be read here." for n in (1, 2, 3)]


def test_a_report_that_comes_twice_or_after_a_later_one_adds_nothing():
    node = Node(1)
    first, second = node.epoch(0), node.epoch(1)
    for order in ([first, first, second], [first, second, second], [first, second, first]):
        heard = taken(OtherNodes(), order)
        the_same(heard, [node])
        assert used(heard.ledger) == used(node.session.ledger)
        for raw in order:
            heard = taken(heard, [raw])
        the_same(heard, [node])


def test_what_a_lost_report_told_comes_with_the_next_in_the_same_stage_and_device():
    node = Node(1)
    first, _, third = node.epoch(0), node.epoch(1), node.epoch(2)
    heard = taken(taken(OtherNodes(), [first]), [third])
    the_same(heard, [node])
    assert heard.ledger.accounts[Account("train", 0)].total_uj == node.session.ledger.accounts[Account("train", 0)].total_uj


def test_the_last_report_tells_everything_also_who_hears_nothing_else():
    node = Node(1)
    node.epoch(0)
    node.epoch(1)
    heard = taken(OtherNodes(), [node.report(final=True)])
    the_same(heard, [node])
    assert list(heard.devices) == [f"node1/{label}" for label in BOARDS]
    assert heard.missing == ["node1: rapl: it cannot be read here."]


def test_two_late_reports_of_one_node_may_come_with_one_of_another():
    one, other = Node(1), Node(2)
    late = [one.epoch(0), one.epoch(1)]
    other.epoch(0)
    heard = taken(OtherNodes(), [other.epoch(1), *late])
    the_same(heard, [one, other])


def test_what_was_guessed_is_put_right_in_the_epoch_that_it_was_guessed_for():
    ledger, reporter, heard = Ledger(), Reporter(), OtherNodes()

    def sent(ahead: Sequence[tuple[Account, Usage]]) -> NodeReport:
        now = ledger.copy()
        for account, usage in ahead:
            now.add(account, usage)
        stages = {stage: Part([usage.total_uj]) for stage, usage in now.by_stage().items()}
        report = NodeReport(session="s", rank=1, node=1, host="h", labels=["gpu0"], stages=stages, ns=now.ns)
        return reporter.report(report, ledger.take_since(), ahead)

    first, then = Account("train", 0), Account("train", 1)
    ledger.add(first, Usage({"gpu0": 50}))
    heard = heard.with_reports([sent([(first, Usage({"gpu0": 40})), (then, Usage({"gpu0": 5}))])])
    assert used(heard.ledger) == {first: 90, then: 5}
    ledger.add(first, Usage({"gpu0": 30}))  # ten less than was thought
    ledger.add(then, Usage({"gpu0": 100}))
    heard = heard.with_reports([sent([])])
    assert used(heard.ledger) == {first: 80, then: 100}


def test_a_device_that_is_new_changes_the_order_and_no_sum():
    one = NodeReport(
        session="s",
        rank=1,
        node=1,
        host="h",
        number=1,
        labels=["gpu0"],
        stages={"train": Part([7])},
        since=[Share("train", 0)],
    )
    two = NodeReport(
        session="s",
        rank=1,
        node=1,
        host="h",
        number=2,
        labels=["cpu0", "gpu0"],
        stages={"train": Part([3, 9]), "no stage of ours": Part([1, 0])},
        since=[Share("train", 1)],
    )
    heard = OtherNodes().with_reports([one]).with_reports([two])
    assert heard.ledger.by_device() == {"node1/gpu0": 9, "node1/cpu0": 4}
    assert used(heard.ledger) == {Account("train", 0): 7, Account("train", 1): 5, Account("other", 1): 1}


def test_a_payload_is_small_and_does_not_grow_with_the_history():
    """Eight boards: the first tells what they are, and none is as large as four kilobytes."""
    node = Node(1023)
    node.session.gaps += [Gap(device=label, seconds=1.0, joules=1.0, why="the counter went backwards") for label in BOARDS]
    sizes = [len(node.epoch(number)) for number in range(200)]
    assert max(sizes) == sizes[0] < 4096
    assert max(sizes[100:]) <= max(sizes[1:100]) + 8 < 1024


def test_gaps_of_one_kind_are_one():
    gaps = [Gap(device="gpu0", seconds=1.0, joules=2.0, why=why) for why in ("back", "fast", "back")]
    assert [(gap.seconds, gap.joules, gap.why) for gap in merged_gaps(gaps)] == [(2.0, 4.0, "back"), (1.0, 2.0, "fast")]


def test_the_cost_of_a_join_goes_with_the_number_of_nodes_and_not_with_its_square():
    """By the lines that are run, which no busy machine changes."""

    def lines(world: int) -> int:
        heard = taken(OtherNodes(), [Node(n).epoch(0) for n in range(1, world)])
        raws = [Node(n).epoch(0) for n in range(1, world)]
        count = 0

        def trace(*_: object) -> object:
            nonlocal count
            count += 1
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            taken(heard, raws)
        finally:
            sys.settrace(before)
        return count

    assert lines(65) < 2.2 * lines(33)


def test_rank_zero_has_the_nodes_in_its_epochs_and_in_its_checkpoint():
    mine, other = Node(0), Node(1)
    for epoch in range(3):
        mine.epoch(epoch)
        for stage in ("train", "validate"):
            mine.session.epochs.accuracies[Account(stage, epoch)] = 0.5
        mine.session.take_reports([msgspec.msgpack.decode(other.epoch(epoch), type=NodeReport)])
    totals = mine.session.totals()
    whole = merged([mine.session.ledger, other.session.ledger])
    assert {Account(row.stage, row.epoch): row.joules for row in record_epochs(totals)} == {
        account: pytest.approx(usage.total_uj / J) for account, usage in whole.accounts.items() if account.epoch < 3
    }
    later = Session()
    assert later.resume(checkpoint_state(totals))
    assert later.totals().total_uj == whole.total_uj
    assert later.others.counted["session 1"].uj == other.session.ledger.by_device()
