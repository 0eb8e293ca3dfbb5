"""Ranks that do not all measure, or do not see the same boards: nobody waits for ever, and each board is counted once.

Each rank is a process of its own here, started as torchrun, srun or mpirun would.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_watt import read_record
from lightning_watt.testing import Board, Lab, constant
from tests.integration.tiny import ended, free_port, ranks_env, start_child

pytestmark = [pytest.mark.ddp, pytest.mark.slow]
WATTS = (250.0, 120.0)
LIMIT_S = 3.0
"""How long a rank that is not there is waited for; enough for two processes that start together on a busy machine."""


def labs(count: int = 2) -> list[Lab]:
    """A board a rank, each in a lab of its own."""
    return [Lab([Board(power=constant(w), counter_ms=10, uuid=f"GPU-own{w:g}")]) for w in WATTS[:count]]


def by_hand(directory: Path, seen: Sequence[Lab], **options: Any) -> SimpleNamespace:
    """Run two ranks that see these labs; what each left, and printed."""
    settings = {"module": {"step_s": 0.05}, "batches": [16, 8]} | options
    settings["trainer"] = {"strategy": "ddp", "devices": 2, "max_epochs": 2} | options.get("trainer", {})
    places = ranks_env(2, free_port())
    processes = [start_child(directory, lab.env() | place, **settings) for lab, place in zip(seen, places, strict=True)]
    out = ended(processes)
    files = [directory / f"rank{rank}.json" for rank in range(2)]
    ranks = [json.loads(file.read_text()) if file.exists() else None for file in files]
    codes = [process.returncode for process in processes]
    return SimpleNamespace(out=out, ranks=ranks, codes=codes)


def test_ranks_that_each_see_their_own_board_only(tmp_path):
    """Slurm's --gpus-per-task, or a container a GPU."""
    made = by_hand(tmp_path, labs())
    assert made.codes == [0, 0], made.out
    assert [rank["said"] for rank in made.ranks] == [[], []]
    assert all(rank["nvml_calls"] for rank in made.ranks)
    record = read_record(tmp_path)
    assert {d.uuid: label for label, d in record.energy.by_device.items()} == {
        "GPU-own250": "gpu0",
        "GPU-own120": "node1/gpu0",
    }
    assert [(node.rank, node.node) for node in record.nodes] == [(0, 0), (1, 1)]
    for node, watts in zip(record.nodes, WATTS, strict=True):
        assert sum(node.device_uj.values()) / 1e6 == pytest.approx(watts * node.ns / 1e9, rel=0.03)
    assert record.energy.total_j == pytest.approx(sum(sum(node.device_uj.values()) for node in record.nodes) / 1e6)
    assert not [sentence for sentence in record.missing if "rapl" not in sentence]


def test_ranks_that_see_the_same_board_count_it_once(tmp_path):
    shared = labs(1) * 2
    made = by_hand(tmp_path, shared)
    assert made.codes == [0, 0], made.out
    assert list(read_record(tmp_path).energy.by_device) == ["gpu0"]
    assert made.ranks[1]["nvml_calls"] in (0, None)


@pytest.mark.parametrize("there", [0, 1])
def test_the_callback_on_one_rank_only(tmp_path, there):
    """`LIGHTNING_WATT=1` that ssh, mpirun or `srun --export` brings to one of the ranks; a node without the package."""
    each: list[dict[str, Any] | None] = [None, None]
    each[there] = {}
    made = by_hand(tmp_path, labs(), each=each, ranks_limit_s=LIMIT_S, runs=["fit", "test"])
    assert made.codes == [0, 0], made.out
    (sentence,) = made.ranks[there]["said"]
    assert f"Only rank {there} of 2 ranks measure: on rank {1 - there} there is no WattCallback" in sentence
    record = read_record(tmp_path)
    assert record.status == "completed"
    (device,) = record.energy.by_device.values()
    assert device.uuid == f"GPU-own{WATTS[there]:g}"
    assert record.energy.total_j == pytest.approx(WATTS[there] * record.nodes[0].ns / 1e9, rel=0.03)
    assert sentence in " ".join(record.missing)
    assert "Only rank" not in made.out[1 - there]


def test_a_budget_of_rank_zero_alone_stops_both(tmp_path):
    made = by_hand(tmp_path, labs(), each=[{"budget_kwh": 60 / 3.6e6}, {}], trainer={"max_epochs": 200}, batches=[8, 2])
    assert made.codes == [0, 0], made.out
    first, second = made.ranks
    assert (first["epoch"], first["step"]) == (second["epoch"], second["step"])
    assert first["epoch"] < 100
    assert any("is used up" in sentence for sentence in first["said"])
    assert any("Rank 1 got other arguments" in sentence for sentence in first["said"])


def test_a_budget_of_another_rank_alone_is_none_and_rank_zero_says_so(tmp_path):
    made = by_hand(tmp_path, labs(), each=[{}, {"budget_kwh": 1e-9}], trainer={"max_epochs": 3}, batches=[8, 2])
    assert made.codes == [0, 0], made.out
    assert [rank["epoch"] for rank in made.ranks] == [3, 3]
    (sentence,) = made.ranks[0]["said"]
    assert "Rank 1 got other arguments" in sentence


def test_a_budget_where_a_rank_does_not_measure_is_not_kept_and_says_so(tmp_path):
    made = by_hand(tmp_path, labs(), each=[{"budget_kwh": 1e-9}, None], ranks_limit_s=LIMIT_S, batches=[8, 2])
    assert made.codes == [0, 0], made.out
    assert [rank["epoch"] for rank in made.ranks] == [2, 2]
    assert "the budget is not kept" in " ".join(made.ranks[0]["said"])
