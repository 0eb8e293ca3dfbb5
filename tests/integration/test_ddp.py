"""Two ranks on one node, gloo: each board once, one writer, and every rank takes the same decisions."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_watt import energy_of, read_record
from lightning_watt.record import read_journal
from lightning_watt.record.journal import read_traces
from lightning_watt.testing import Board, Lab, constant
from tests.integration.tiny import ended, finished, free_port, ranks_env, start_child

pytestmark = [pytest.mark.ddp, pytest.mark.slow]
DDP = {"strategy": "ddp", "devices": 2}


def run(directory: Path, trainer: dict[str, Any], *, launched: bool = False, **options: Any) -> SimpleNamespace:
    """A training on two ranks in the lab; what it printed and what each rank left.

    Args:
        directory: where it writes.
        trainer: the Trainer's arguments.
        launched: Lightning starts the second rank, in a program that was started anew; otherwise as torchrun would.
        **options: child.py's.
    """
    lab = Lab([Board(power=constant(250), counter_ms=10), Board(power=constant(50), counter_ms=10)])
    options["trainer"] = {**DDP, **trainer}
    if launched:
        out = finished(start_child(directory, lab.env(), fresh=True, **options))
    else:
        processes = [start_child(directory, lab.env() | place, **options) for place in ranks_env(2, free_port())]
        out = "\n".join(ended(processes))
        assert [process.returncode for process in processes] == [0, 0], out[-5000:]
    ranks = [json.loads((directory / f"rank{rank}.json").read_text()) for rank in range(2)]
    return SimpleNamespace(out=out, ranks=ranks, lab=lab, directory=directory)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A fit and a test on two ranks, with a checkpoint on the shifted SAM."""
    return run(
        tmp_path_factory.mktemp("ddp"),
        launched=True,
        runs=["fit", "test"],
        monitor="watt/sam_shifted",
        module={"step_s": 0.05, "accuracy": [0.3, 0.8, 0.5]},
        trainer={"max_epochs": 3},
        batches=[12, 16],
    )


def test_each_board_is_counted_once(two):
    energy = read_record(two.directory).energy
    seconds = sum(stage.seconds for stage in energy.by_stage.values())
    assert energy.by_device["gpu0"].joules == pytest.approx(250 * seconds, rel=0.05)
    assert energy.by_device["gpu1"].joules == pytest.approx(50 * seconds, rel=0.05)
    assert sum(stage.joules for stage in energy.by_stage.values()) == pytest.approx(energy.total_j, rel=1e-9)
    # 3 epochs of 12 batches, split between two ranks, at 50 ms each: what was measured spans the training.
    assert energy.by_stage["train"].seconds > 3 * 6 * 0.05


def test_one_rank_reads_and_the_other_never_asks_the_driver(two):
    assert two.ranks[0]["nvml_calls"] > 10
    assert two.ranks[1]["nvml_calls"] in (0, None)


def test_only_rank_zero_writes_and_prints(two):
    totals = [line["total_j"] for line in read_journal(two.directory)]
    assert totals == sorted(totals)
    assert len(read_traces([two.directory]).by_session) == 1
    assert read_record(two.directory).status == "completed"
    assert two.out.count("Record: ") == 2  # one for the fit, one for the test
    assert all(rank["said"] == [] for rank in two.ranks)


def test_every_rank_has_the_same_values(two):
    mine, theirs = ({k: v for k, v in rank["metrics"].items() if k.startswith("watt")} for rank in two.ranks)
    assert theirs["watt/test/energy_kwh"] > 0
    # Rank zero may know the last moment better by the time that it writes its answer.
    assert set(theirs) <= set(mine)
    for tag in ("watt/energy_kwh", "watt/train/energy_kwh", "watt/sam_shifted", "watt/accuracy"):
        assert theirs[tag] == pytest.approx(mine[tag], rel=0.1)


def test_the_checkpoint_on_sam_is_the_same_on_both_ranks(two):
    assert two.ranks[0]["best"] == two.ranks[1]["best"]
    assert "epoch=1" in two.ranks[0]["best"]
    assert two.ranks[0]["score"] == two.ranks[1]["score"] == pytest.approx(5 * 0.8**5, rel=0.01)
    assert 0 < energy_of(two.ranks[0]["best"]).total_j < read_record(two.directory).energy.total_j


def test_a_budget_stops_both_ranks(tmp_path):
    """60 J at 300 W are up within the first second; a rank that went on alone would wait for the other for ever."""
    made = run(
        tmp_path,
        watt={"budget_kwh": 60 / 3.6e6},
        module={"step_s": 0.05},
        trainer={"max_epochs": 200},
        batches=[8, 2],
    )
    assert made.ranks[0]["epoch"] == made.ranks[1]["epoch"] < 20
    assert len(made.ranks[0]["said"]) == 1
    assert "budget" in made.ranks[0]["said"][0]


def test_a_budget_stops_both_ranks_after_the_same_batch_within_an_epoch(tmp_path):
    """The first epoch alone would take 3,600 J or more. A plan is taken after 1, 2, 4, ... batches, and when it is due."""
    made = run(
        tmp_path,
        watt={"budget_kwh": 1000 / 3.6e6},
        module={"step_s": 0.02},
        trainer={"max_epochs": 200},
        batches=[1200, 2],
    )
    first, second = made.ranks
    assert (first["epoch"], first["step"]) == (second["epoch"], second["step"])
    assert 0 < first["step"] < 600
    record = read_record(tmp_path)
    # At 300 W; without the end, in which the ranks wait for each other.
    used_j = record.energy.total_j - record.energy.by_stage["other"].joules
    assert 1000 * 0.7 < used_j < 1000 * 1.25


def test_a_resume_on_two_ranks_adds_the_energy_once(two, tmp_path):
    path = two.ranks[0]["best"]  # after two of three epochs
    made = run(tmp_path, ckpt_path=path, trainer={"max_epochs": 3}, module={"step_s": 0.05}, batches=[12, 16])
    record, carried = read_record(tmp_path), energy_of(path)
    assert record.resumed_j == pytest.approx(carried.total_j, rel=0.1)  # the journal knows its last moment better
    assert made.ranks[1]["metrics"]["watt/energy_kwh"] * 3.6e6 > carried.total_j
    seconds = sum(stage.seconds for stage in record.energy.by_stage.values())
    assert record.energy.total_j == pytest.approx(300 * seconds, rel=0.1)
