"""How ranks find each other when a run is set up: each rank is a thread here, over a real store of torch's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch.distributed as dist

from lightning_watt.distributed import rendezvous
from lightning_watt.distributed.ranks import Opened, Presence
from lightning_watt.distributed.rendezvous import Rendezvous
from lightning_watt.distributed.store import SharedStore

LONG_S, SHORT_S = 60.0, 0.3


@pytest.fixture(autouse=True)
def nobody_is_absent(monkeypatch):
    monkeypatch.setattr(rendezvous, "_absent", set())
    monkeypatch.setattr(rendezvous, "GRACE_S", 0.3)


def present(rank: int, *boards: str, host: str = "a", **said: Any) -> Presence:
    return Presence(rank=rank, host=host, node=0, pid=rank, boards=list(boards), directory=f"of rank {rank}", **said)


def at_once(ranks: Sequence[int], work: Callable[[int], Any]) -> list[Any]:
    with ThreadPoolExecutor(len(ranks)) as pool:
        return list(pool.map(work, ranks))


def ranks_of(store: SharedStore, world: int, limit_s: float, open_limit_s: float = LONG_S) -> list[Rendezvous]:
    return [Rendezvous(store, rank, world, limit_s, open_limit_s) for rank in range(world)]


@pytest.fixture
def store() -> SharedStore:
    return SharedStore(dist.HashStore(), "run")


@pytest.mark.parametrize("world", [2, 8])
def test_ranks_that_all_measure_have_one_reader_and_one_directory(store, world):
    ranks = ranks_of(store, world, LONG_S)
    shares = at_once(range(world), lambda rank: ranks[rank].arrange(present(rank, f"GPU-{rank}")))
    assert [share.reads for share in shares] == [True] + [False] * (world - 1)
    assert {tuple(share.boards) for share in shares} == {tuple(f"GPU-{rank}" for rank in range(world))}
    assert all(one.arrangement.complete and one.arrangement.directory == "of rank 0" for one in ranks)
    assert [one.problems for one in ranks] == [[]] * world


@pytest.mark.parametrize("there", [[0], [1], [0, 2], [1, 2]])
def test_a_rank_that_never_comes_is_done_without_and_named(store, there):
    ranks = ranks_of(store, 3, SHORT_S)
    shares = at_once(there, lambda rank: ranks[rank].arrange(present(rank)))
    assert [share.reads for share in shares] == [True] + [False] * (len(there) - 1)
    for rank in there:
        assert (ranks[rank].arrangement.ranks, ranks[rank].arrangement.complete) == (there, False)
    (sentence,) = ranks[there[0]].problems
    assert "of 3 ranks measure" in sentence
    assert not any(ranks[rank].problems for rank in there[1:])


def test_it_is_waited_for_once_in_a_process():
    for turn in range(2):
        store = SharedStore(dist.HashStore(), str(turn))
        one = Rendezvous(store, 0, 2, SHORT_S if turn == 0 else LONG_S)
        assert one.arrange(present(0)).reads
        assert not one.arrangement.complete


def test_one_that_comes_too_late_reads_nothing_and_says_so(store):
    first, late = Rendezvous(store, 0, 2, SHORT_S), Rendezvous(store, 1, 2, SHORT_S)
    assert first.arrange(present(0, "GPU-0")).reads
    assert not late.arrange(present(1, "GPU-1")).reads
    assert late.arrangement == first.arrangement
    assert "after the others had waited" in late.problems[0]
    assert late.agree(Opened(rank=1, host="a", session=""), reads=False) == []


def test_other_arguments_are_told_by_the_first(store):
    ranks = ranks_of(store, 3, LONG_S)
    said = {0: {"budget_kwh": 1.0, "arguments": "a"}, 1: {"arguments": "b"}, 2: {"arguments": "b"}}
    at_once(range(3), lambda rank: ranks[rank].arrange(present(rank, **said[rank])))
    assert [one.arrangement.budget_kwh for one in ranks] == [1.0] * 3
    assert "Ranks 1-2 got other arguments" in ranks[0].problems[0]
    assert ranks[1].problems == []


def test_without_a_store_the_first_of_each_node_measures_and_says_so():
    shares = [Rendezvous(None, rank, 4).arrange(present(rank, "GPU-a"), local_rank=rank % 2) for rank in range(4)]
    assert [share.reads for share in shares] == [True, False, True, False]
    alone = Rendezvous(None, 2, 4)
    alone.arrange(present(2))
    assert alone.agree(Opened(rank=2, host="a", session="mine"), reads=True) == []
    assert (alone.agreement.run, alone.agreement.readers) == ("mine", [2])
    assert "no key-value store" in alone.problems[0]


class GoneStore:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("Connection reset by peer")


def test_a_store_that_is_gone_leaves_a_rank_to_itself():
    one = Rendezvous(SharedStore(GoneStore(), "run"), 1, 2, LONG_S)
    assert one.arrange(present(1), local_rank=0).reads
    assert one.agree(Opened(rank=1, host="a", session="mine"), reads=True) == []
    assert "does not answer" in one.problems[0]


# ---- once the sources are open ----


def opened(rank: int, host: str = "a", **devices: str) -> Opened:
    return Opened(rank=rank, host=host, session=f"session {rank}", devices=devices)


def test_each_rank_that_sees_only_its_own_board_reads_it(store):
    """Slurm's --gpus-per-task, or a container a GPU: the reader is told to read all boards and sees one."""
    ranks = ranks_of(store, 3, LONG_S)

    def set_up(rank: int) -> Any:
        share = ranks[rank].arrange(present(rank, f"GPU-{rank}"))
        own = ranks[rank].boards_unseen([f"GPU-{rank}"], share)
        reads = share.reads or bool(own)
        devices = {"gpu0": f"GPU-{rank}"} if reads else {}
        if reads and not own:
            devices["cpu0"] = "intel-rapl:0"
        return own, ranks[rank].agree(opened(rank, **devices), reads)

    assert at_once(range(3), set_up) == [([], []), (["GPU-1"], []), (["GPU-2"], [])]
    assert {tuple(one.agreement.readers) for one in ranks} == {(0, 1, 2)}
    assert {one.agreement.run for one in ranks} == {"session 0"}


def test_a_board_that_two_readers_opened_is_left_by_the_second(store):
    ranks = ranks_of(store, 2, LONG_S)

    def set_up(rank: int) -> Any:
        ranks[rank].arrange(present(rank, host=f"h{rank}"))
        return ranks[rank].agree(opened(rank, "one host", gpu0="GPU-0", cpu0="rapl"), reads=True)

    assert at_once(range(2), set_up) == [[], ["gpu0", "cpu0"]]


def test_a_reader_that_hangs_is_not_waited_for_without_a_limit(store):
    ranks = ranks_of(store, 3, LONG_S, SHORT_S)
    at_once(range(3), lambda rank: ranks[rank].arrange(present(rank, host=f"h{rank}")))
    known = at_once([0, 1], lambda rank: ranks[rank].agree(opened(rank, f"h{rank}", gpu0="GPU-0"), reads=True))
    assert known == [[], []]
    assert ranks[1].agreement.readers == [0, 1]
    assert ranks[2].agree(opened(2, "h2", gpu0="GPU-0"), reads=True) is None
    assert "opened its sources after" in ranks[2].problems[0]


def test_a_first_rank_that_hangs_is_not_waited_for_either(store):
    ranks = ranks_of(store, 3, LONG_S, SHORT_S)
    at_once(range(3), lambda rank: ranks[rank].arrange(present(rank, host=f"h{rank}")))
    known = at_once([1, 2], lambda rank: ranks[rank].agree(opened(rank, f"h{rank}", gpu0="GPU-0"), reads=True))
    assert known == [[], []]
    assert ranks[1].agreement == ranks[2].agreement
    assert ranks[0].agree(opened(0, "h0", gpu0="GPU-0"), reads=True) is None
