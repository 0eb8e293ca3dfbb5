"""Who reads which device, with the ranks' exchange played in one process; the real one is in the integration tests."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lightning_watt import ranks
from lightning_watt.ranks import Share, share_out


def shares(monkeypatch, everyone: list[tuple[str, list[str]]]) -> list[Share]:
    """What each rank is told, for `(host, boards)` of every rank."""

    def as_rank(rank: int) -> Share:
        def gather(into: list, mine: tuple[str, list[str]]) -> None:
            assert mine == everyone[rank]
            into[:] = everyone

        dist = SimpleNamespace(
            is_available=lambda: True,
            is_initialized=lambda: True,
            get_world_size=lambda: len(everyone),
            get_rank=lambda: rank,
            all_gather_object=gather,
        )
        monkeypatch.setattr(ranks, "dist", dist)
        host, boards = everyone[rank]
        return share_out(boards, host)

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
