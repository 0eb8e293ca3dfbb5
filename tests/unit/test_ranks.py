"""Who reads which device, with the ranks' exchange played in one process; the real one is in the integration tests."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from lightning_watt import ranks
from lightning_watt.ranks import Agreement, Share, agree, share_out
from lightning_watt.sources.base import Device


def play(world: int, rank: int, gather) -> SimpleNamespace:
    return SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: True,
        get_world_size=lambda: world,
        get_rank=lambda: rank,
        all_gather_object=gather,
    )


def shares(monkeypatch, everyone: list) -> list[Share]:
    """What each rank is told, for `(host, boards)` or `((host, node), boards)` of every rank."""

    def as_rank(rank: int) -> Share:
        def gather(into: list, mine: tuple[tuple[str, int], list[str], int]) -> None:
            assert mine == (*told[rank], os.getpid())
            into[:] = [(*one, os.getpid() if other == rank else 1000 + other) for other, one in enumerate(told)]

        monkeypatch.setattr(ranks, "dist", play(len(told), rank, gather))
        (host, node), boards = told[rank]
        return share_out(boards, host, node)

    told = [(host if isinstance(host, tuple) else (host, 0), boards) for host, boards in everyone]

    return [as_rank(rank) for rank in range(len(everyone))]


def test_a_process_alone_reads_what_it_uses():
    assert share_out(["GPU-a", "GPU-b"]) == Share(True, ["GPU-a", "GPU-b"], 1)


def test_a_world_of_one_is_alone(monkeypatch):
    assert shares(monkeypatch, [("node", ["GPU-a"])]) == [Share(True, ["GPU-a"], 1)]


def test_on_each_host_the_first_rank_reads_every_board_once(monkeypatch):
    told = shares(
        monkeypatch, [("b", ["GPU-0"]), ("a", ["GPU-0"]), ("b", ["GPU-1"]), ("a", ["GPU-0"]), ("b", []), ("a", ["GPU-2"])]
    )
    assert [share.reads for share in told] == [True, True, False, False, False, False]
    assert [share.boards for share in told] == [["GPU-0", "GPU-1"], ["GPU-0", "GPU-2"]] * 3
    assert {share.hosts for share in told} == {2}


@pytest.mark.parametrize("count", [2, 8])
def test_without_boards_one_process_still_reads_the_cpu(monkeypatch, count):
    told = shares(monkeypatch, [("node", [])] * count)
    assert [share.reads for share in told] == [True] + [False] * (count - 1)
    assert {share.hosts for share in told} == {1}


def test_two_nodes_on_one_host_have_a_reader_each(monkeypatch):
    told = shares(monkeypatch, [(("host", 0), ["GPU-0"]), (("host", 0), []), (("host", 1), ["GPU-1"]), (("host", 1), [])])
    assert [share.reads for share in told] == [True, False, True, False]
    assert [share.boards for share in told] == [["GPU-0"], ["GPU-0"], ["GPU-1"], ["GPU-1"]]
    assert {share.hosts for share in told} == {1}
    assert [share.processes for share in told] == [(1001,), (1000,), (1003,), (1002,)]


# ---- who counts what was opened ----


def device(label: str, uuid: str, provenance="measured") -> Device:
    return Device(label, label, uuid, "a source", provenance=provenance)


def agreements(monkeypatch, everyone: list[tuple[str, list[Device]]]) -> list[Agreement]:
    """What each rank is told, for `(host, opened devices)` of every rank."""
    sent: dict[int, object] = {}

    def as_rank(rank: int, answers: list | None) -> Agreement | None:
        def gather(into: list, mine: object) -> None:
            sent[rank] = mine
            into[:] = answers or [("", [], 0)] * len(everyone)

        monkeypatch.setattr(ranks, "dist", play(len(everyone), rank, gather))
        host, devices = everyone[rank]
        return agree(f"session {rank}", devices, host)

    for rank in range(len(everyone)):
        as_rank(rank, None)
    return [as_rank(rank, [sent[other] for other in range(len(everyone))]) for rank in range(len(everyone))]


def test_a_process_alone_counts_what_it_opened():
    assert agree("me", [device("gpu0", "GPU-0")]) == Agreement("me", [0], set())


def test_a_board_is_counted_by_the_lowest_rank_of_its_host(monkeypatch):
    both = [device("gpu0", "GPU-0"), device("cpu0", "intel-rapl:0")]
    told = agreements(
        monkeypatch, [("a", both), ("a", []), ("a", both), ("b", both), ("a", [*both, device("gpu1", "GPU-1")])]
    )
    assert [agreement.leaves for agreement in told] == [set(), set(), {"gpu0", "cpu0"}, set(), {"gpu0", "cpu0"}]
    assert {tuple(agreement.readers) for agreement in told} == {(0, 3, 4)}
    assert {agreement.run for agreement in told} == {"session 0"}


def test_estimates_are_each_process_s_own(monkeypatch):
    told = agreements(monkeypatch, [("a", [device("cpu0", "estimate", "estimated")])] * 2)
    assert [agreement.leaves for agreement in told] == [set(), set()]
    assert told[0].readers == [0, 1]


def test_rank_zero_writes_the_record_even_where_it_measures_nothing(monkeypatch):
    told = agreements(monkeypatch, [("a", []), ("b", [device("gpu0", "GPU-0")])])
    assert told[0].readers == [0, 1]
