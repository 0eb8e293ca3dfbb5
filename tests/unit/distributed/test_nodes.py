"""What the ranks tell each other during a run and at its end: each rank is a thread here, over a real store of torch's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch.distributed as dist

from lightning_watt.distributed import nodes
from lightning_watt.distributed.nodes import KEPT, Nodes, Values
from lightning_watt.distributed.ranks import Agreement, Arrangement
from lightning_watt.distributed.store import SharedStore
from lightning_watt.run.node_reports import NodeReport, Part


def part(rank: int, uj: int = 1, **said: Any) -> NodeReport:
    stages = {"train": Part([uj])}
    return NodeReport(session=f"s{rank}", rank=rank, node=rank, host="h", labels=["gpu0"], stages=stages, **said)


def of_ranks(world: int, readers: Sequence[int] = (0,), ranks: Sequence[int] | None = None) -> list[Nodes]:
    arrangement = Arrangement(ranks=list(range(world) if ranks is None else ranks), world=world)
    store = SharedStore(dist.HashStore(), "run")
    agreement = Agreement(run="run", readers=list(readers))
    return [Nodes(store, rank, arrangement, agreement) for rank in range(world)]


def at_once(work: Sequence[Callable[[], Any]]) -> list[Any]:
    with ThreadPoolExecutor(len(work)) as pool:
        return [future.result() for future in [pool.submit(one) for one in work]]


def test_every_rank_takes_rank_zeros_values():
    ranks = of_ranks(4)
    for n in range(3):
        mine = [Values({"watt/energy_kwh": n + rank / 10}, n) for rank in range(4)]
        taken = at_once([lambda one=one, said=said: one.share_values(said) for one, said in zip(ranks, mine, strict=True)])
        assert taken == [mine[0]] * 4


def test_the_store_does_not_grow_with_the_run():
    ranks = of_ranks(2, readers=[0, 1])
    store: Any = ranks[0]._store
    counts = []
    for _ in range(3 * KEPT):
        at_once([lambda: ranks[0].gather(None), lambda: ranks[1].gather(part(1))])
        at_once([lambda one=one: one.share_values(Values()) for one in ranks])
        counts.append(store._store.num_keys())
    assert max(counts) == counts[-1] <= 2 * KEPT + 1


@pytest.mark.parametrize("late", [0, 1])
def test_one_that_waits_too_long_ends_it_for_all(monkeypatch, late):
    """What stands in the store is the same for all, whoever of them came too late."""
    monkeypatch.setattr(nodes, "VALUES_LIMIT_S", 0.1)
    ranks = of_ranks(2)
    first, then = (ranks[1], ranks[0]) if late == 0 else (ranks[0], ranks[1])
    one = first.share_values(Values({"a": 1.0}, 1))
    other = then.share_values(Values({"a": 1.0}, 1))
    if late == 0:
        assert (one, other) == (None, None)
        assert not ranks[0].shares_values
        assert not ranks[1].shares_values
    else:
        assert one == other == Values({"a": 1.0}, 1)  # rank zero waits for nobody


def test_rank_zero_that_fails_lets_the_others_go_on():
    ranks = of_ranks(3)
    waiting = [lambda r=rank: ranks[r].share_values(Values()) for rank in (1, 2)]
    assert at_once([*waiting, ranks[0].abort]) == [None, None, None]
    assert ranks[1].share_values(Values()) is None


def test_without_rank_zero_nobody_waits_for_its_values():
    ranks = of_ranks(3, readers=[1, 2], ranks=[1, 2])
    assert ranks[1].share_values(Values({"a": 1.0})) is None
    assert (ranks[1].leads, ranks[2].leads) == (True, False)
    assert [told.rank for told in at_once([lambda: ranks[1].gather(None), lambda: ranks[2].gather(part(2))])[0]] == [2]


def test_the_readers_parts_reach_the_one_that_leads():
    ranks = of_ranks(4, readers=[0, 2])
    for uj in (5, 9):
        heard, nothing = at_once([lambda: ranks[0].gather(None), lambda uj=uj: ranks[2].gather(part(2, uj))])
        assert ([told.counted.uj for told in heard], nothing) == ([{"gpu0": uj}], [])


def test_a_reader_without_a_part_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(nodes, "REPORT_LIMIT_S", 60.0)
    ranks = of_ranks(2, readers=[0, 1])
    assert at_once([lambda: ranks[0].gather(None), lambda: ranks[1].gather(None)]) == [[], []]


def test_a_reader_that_is_gone_is_waited_for_once(monkeypatch):
    monkeypatch.setattr(nodes, "REPORT_LIMIT_S", 0.1)
    ranks = of_ranks(2, readers=[0, 1])
    assert ranks[0].gather(None) == []
    monkeypatch.setattr(nodes, "REPORT_LIMIT_S", 60.0)
    assert ranks[0].gather(None) == []


def test_what_a_late_reader_leaves_is_heard_later_in_order_and_once(monkeypatch):
    monkeypatch.setattr(nodes, "REPORT_LIMIT_S", 0.1)
    ranks = of_ranks(3, readers=[0, 1, 2])
    heard = []
    for uj in (1, 2, 3):
        ranks[2].gather(part(2, uj))
        heard.append(ranks[0].gather(None))
        if uj == 2:
            for late_uj in (10, 20):  # both of its reports so far, after the second epoch's end
                ranks[1].gather(part(1, late_uj))
    ranks[1].gather(part(1, 30))
    ranks[1].send_end(part(1, 40, final=True))
    heard.append(ranks[0].receive_ends(0.1))
    told = [[(one.rank, one.counted.uj["gpu0"]) for one in reports] for reports in heard]
    assert told == [[(2, 1)], [(2, 2)], [(2, 3), (1, 10), (1, 20)], [(1, 30), (1, 40)]]


def test_the_last_parts_are_heard_within_a_limit():
    ranks = of_ranks(3, readers=[0, 1, 2])
    ranks[2].send_end(part(2, 7, final=True))
    heard = ranks[0].receive_ends(0.1)
    assert [(told.rank, told.counted.uj) for told in heard] == [(2, {"gpu0": 7})]
    assert ranks[0].not_ended(heard) == [1]


class GoneStore:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("Connection reset by peer")


def test_a_store_that_is_gone_holds_nobody_up():
    arrangement = Arrangement(ranks=[0, 1], world=2)
    for rank in range(2):
        one = Nodes(SharedStore(GoneStore(), "run"), rank, arrangement, Agreement(run="run", readers=[0, 1]))
        assert one.gather(part(rank)) == []
        assert one.share_values(Values()) is None
        one.abort()
        one.send_end(part(rank))
        assert one.receive_ends(60.0) == []
