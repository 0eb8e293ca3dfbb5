"""Who reads and counts which device, from what the ranks say of themselves."""

from __future__ import annotations

import pytest
import torch.distributed as dist

from lightning_watt.distributed.ranks import Agreement, Opened, Presence, Share, arrange, count_once, is_alone, uncovered


def present(rank: int, host: str = "a", node: int = 0, boards: tuple[str, ...] = (), **said: object) -> Presence:
    return Presence(rank=rank, host=host, node=node, pid=1000 + rank, boards=list(boards), **said)


def shares(everyone: list[tuple[str, list[str]]]) -> list[Share]:
    """Each rank's share, for `(host, boards)` of every rank."""
    told = [present(rank, host, boards=tuple(boards)) for rank, (host, boards) in enumerate(everyone)]
    _, found = arrange(told, len(told))
    return [found[rank] for rank in range(len(told))]


def test_a_process_without_a_process_group_is_alone():
    assert is_alone(1)
    assert is_alone(8)


def test_a_trainer_of_one_process_is_alone_in_a_process_group_of_others(tmp_path):
    """A Trainer with `devices=1` on each rank of a program of the user's own."""
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        assert is_alone(1)
        assert not is_alone(2)
    finally:
        dist.destroy_process_group()


def test_on_each_host_the_first_rank_reads_every_board_once():
    told = shares([("b", ["GPU-0"]), ("a", ["GPU-0"]), ("b", ["GPU-1"]), ("a", ["GPU-0"]), ("b", []), ("a", ["GPU-2"])])
    assert [share.reads for share in told] == [True, True, False, False, False, False]
    assert [share.boards for share in told] == [["GPU-0", "GPU-1"], ["GPU-0", "GPU-2"]] * 3
    assert [share.reader for share in told] == [0, 1] * 3


@pytest.mark.parametrize("count", [2, 8])
def test_without_boards_one_process_still_reads_the_cpu(count):
    assert [share.reads for share in shares([("node", [])] * count)] == [True] + [False] * (count - 1)


def test_two_nodes_on_one_host_have_a_reader_each():
    _, told = arrange([present(0, node=0), present(1, node=0), present(2, node=1), present(3, node=1)], 4)
    assert [told[rank].reads for rank in range(4)] == [True, False, True, False]
    assert [told[rank].processes for rank in range(4)] == [[1001], [1000], [1003], [1002]]


def test_ranks_that_do_not_measure_leave_the_others_to_themselves():
    arrangement, told = arrange([present(3, boards=("GPU-3",)), present(2, boards=("GPU-2",))], 4)
    assert (arrangement.ranks, arrangement.complete) == ([2, 3], False)
    assert told[2].reads
    assert told[2].boards == ["GPU-2", "GPU-3"]


def test_the_files_go_where_the_lowest_rank_says():
    arrangement, _ = arrange([present(1, directory="elsewhere"), present(0, directory="here")], 2)
    assert (arrangement.directory, arrangement.complete) == ("here", True)


def test_a_budget_is_rank_zeros_and_needs_every_rank():
    mine, none = present(0, budget_kwh=2.0), present(1)
    assert arrange([mine, none], 2)[0].budget_kwh == 2.0
    assert arrange([mine], 2)[0].budget_kwh is None
    assert arrange([present(0), present(1, budget_kwh=2.0)], 2)[0].budget_kwh is None
    assert arrange([present(1, budget_kwh=2.0), present(2)], 3)[0].budget_kwh is None


def test_ranks_with_other_arguments_are_named():
    told = [present(0, arguments="x"), present(1, arguments="y"), present(2, arguments="x"), present(3, arguments="z")]
    assert arrange(told, 4)[0].unlike == [1, 3]


def test_a_board_that_the_reader_does_not_see_is_left_to_its_rank():
    reader = Opened(rank=0, host="a", session="s", devices={"gpu0": "GPU-0", "cpu0": "intel-rapl:0"})
    assert uncovered(["GPU-0", "GPU-1", "2"], reader) == ["GPU-1", "2"]
    assert uncovered(["0"], reader) == []  # as torch says it


# ---- who counts what was opened ----


def opened(rank: int, host: str = "a", estimates: tuple[str, ...] = (), *, asked: bool = False, **devices: str) -> Opened:
    session = f"session {rank}"
    return Opened(rank=rank, host=host, session=session, devices=devices, estimates=list(estimates), asked=asked)


def test_a_board_is_counted_by_the_lowest_rank_of_its_host():
    both = {"gpu0": "GPU-0", "cpu0": "intel-rapl:0"}
    told = count_once(
        [opened(4, **both, gpu1="GPU-1"), opened(3, "b", **both), opened(2, **both), opened(1), opened(0, **both)], 0
    )
    assert told == Agreement(run="session 0", readers=[0, 3, 4], leaves={2: ["gpu0", "cpu0"], 4: ["gpu0", "cpu0"]})


def test_estimates_are_each_process_s_own():
    told = count_once([opened(0, estimates=("cpu0",)), opened(1, estimates=("cpu0",))], 0)
    assert (told.readers, told.leaves, told.unmeasured) == ([0, 1], {}, [])


@pytest.mark.parametrize("measures", [0, 1])
def test_an_estimate_does_not_join_what_others_measure(measures):
    """A node whose boards, or whose packages, nobody may read. Rank zero keeps the record all the same."""
    there = [opened(0, "a", estimates=("cpu0",)), opened(1, "b", estimates=("cpu0",))]
    there[measures] = opened(measures, "ab"[measures], gpu0="GPU-0")
    told = count_once(there, 0)
    assert (told.leaves, told.unmeasured) == ({1 - measures: ["cpu0"]}, [1 - measures])
    assert told.readers == ([0] if measures == 0 else [0, 1])


def test_an_estimate_that_was_asked_for_joins():
    told = count_once([opened(0, gpu0="GPU-0"), opened(1, "b", estimates=("cpu0",), asked=True)], 0)
    assert (told.readers, told.leaves, told.unmeasured) == ([0, 1], {}, [])


def test_an_estimate_beside_a_board_of_the_same_rank_was_asked_for():
    told = count_once([opened(0, gpu0="GPU-0"), opened(1, "b", estimates=("cpu0",), gpu0="GPU-1")], 0)
    assert (told.readers, told.leaves, told.unmeasured) == ([0, 1], {}, [])


def test_rank_zero_keeps_the_record_even_where_it_measures_nothing():
    assert count_once([opened(0), opened(1, "b", gpu0="GPU-0")], 0).readers == [0, 1]


def test_the_first_that_measures_keeps_it_where_rank_zero_does_not():
    told = count_once([opened(2, gpu0="GPU-0"), opened(3, "b", gpu0="GPU-0")], 2)
    assert (told.readers, told.run) == ([2, 3], "session 2")
