"""Two simulated nodes of two ranks, gloo: each board once over all of them, and what a rank that died leaves behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lightning_watt import energy_of, read_record
from lightning_watt.record import Record
from lightning_watt.record.journal import read_traces
from lightning_watt.testing import Board, Lab, constant
from tests.integration.tiny import ROOT, Process, ended, finished, free_port, ranks_env, start_child

pytestmark = [pytest.mark.ddp, pytest.mark.slow]
INTERVAL = 0.25
WATTS = {"a": (250.0, 50.0), "b": (120.0, 30.0)}
MODULE = {"step_s": 0.05}


def lab(name: str) -> Lab:
    """Two boards whose UUIDs no other lab has; to be held on to while a process uses them."""
    return Lab([Board(power=constant(w), counter_ms=10, uuid=f"GPU-{name}{i}") for i, w in enumerate(WATTS[name])])


def settings(**options: Any) -> dict[str, Any]:
    """A training on two nodes of two ranks."""
    made: dict[str, Any] = {"watt": {"interval": INTERVAL}, "module": MODULE, "batches": [24, 16]} | options
    made["trainer"] = {"strategy": "ddp", "devices": 2, "num_nodes": 2, "max_epochs": 2}
    return made


def start_nodes(directory: Path, labs: Sequence[Lab], *, fresh: bool = False, **options: Any) -> list[Process]:
    """One process a node, each of which starts its second rank."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    envs = [lab.env() | place | {"NODE_RANK": str(node)} for node, lab in enumerate(labs)]
    return [start_child(directory, env, fresh=fresh, **settings(**options)) for env in envs]


def start_ranks(directory: Path, labs: Sequence[Lab], **options: Any) -> list[Process]:
    """One process a rank, as torchrun starts them."""
    places = ranks_env(4, free_port(), nodes=2)
    envs = [labs[rank // 2].env() | place for rank, place in enumerate(places)]
    return [start_child(directory, env, **settings(**options)) for env in envs]


def whole(directory: Path, watts: Sequence[float]) -> Record:
    """The record, whose energy is what its nodes' boards drew while each reader measured."""
    record = read_record(directory)
    energy = record.energy
    assert sum(stage.joules for stage in energy.by_stage.values()) == pytest.approx(energy.total_j, rel=1e-9)
    assert sum(device.joules for device in energy.by_device.values()) == pytest.approx(energy.total_j, rel=1e-9)
    assert sum(sum(node.device_uj.values()) for node in record.nodes) / 1e6 == pytest.approx(energy.total_j, rel=1e-9)
    truth_j = sum(w * node.ns / 1e9 for node, w in zip(record.nodes, watts, strict=True))
    assert energy.total_j == pytest.approx(truth_j, rel=0.03)
    return record


def test_two_nodes_with_boards_of_their_own(tmp_path):
    """Validation has another number of batches on each rank; the second node's end reaches the record."""
    labs = [lab("a"), lab("b")]
    out = ended(start_nodes(tmp_path, labs, fresh=True, uneven=[3, 1, 5, 2], keep=str(tmp_path / "kept")))
    assert (tmp_path / "rank3.json").exists(), "\n".join(out)[-6000:]
    record = whole(tmp_path, [300, 150])
    assert record.status == "completed"
    assert list(record.energy.by_device) == ["gpu0", "gpu1", "node1/gpu0", "node1/gpu1"]
    assert [device.uuid for device in record.energy.by_device.values()] == ["GPU-a0", "GPU-a1", "GPU-b0", "GPU-b1"]
    for label, watts in zip(record.energy.by_device, (250, 50, 120, 30), strict=True):
        ns = record.nodes[label.startswith("node1")].ns
        assert record.energy.by_device[label].joules == pytest.approx(watts * ns / 1e9, rel=0.03)
    assert [(node.rank, node.node) for node in record.nodes] == [(0, 0), (2, 1)]
    # Nothing is missing but what no machine here has.
    assert not [sentence for sentence in record.missing if "rapl" not in sentence]
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(4)]
    assert all(rank["said"] == [] for rank in ranks)
    assert [bool(rank["nvml_calls"]) for rank in ranks] == [True, False, True, False]
    # One step is one batch, whatever the ranks; a sample is one on whichever rank.
    train = record.energy.by_stage["train"]
    assert (train.batches, train.samples) == (2 * 6, 2 * 24 * 4)
    assert train.joules > 450 * 2 * 6 * 0.05
    # The other node's own record, and the sum in a checkpoint.
    own = read_record(tmp_path / "watt.rank2.json")
    assert (own.status, own.run) == ("completed", record.session)
    assert own.energy.total_j == pytest.approx(sum(record.nodes[1].device_uj.values()) / 1e6, rel=1e-9)
    carried = energy_of(tmp_path / "kept" / "epoch=1.ckpt")
    assert 0.8 * record.energy.total_j < carried.own_j < 1.02 * record.energy.total_j
    metrics = [rank["metrics"]["watt/energy_kwh"] * 3.6e6 for rank in ranks]
    assert metrics == pytest.approx([record.energy.total_j] * 4, rel=0.3)


def test_two_nodes_that_see_the_same_boards_count_them_once(tmp_path):
    shared = lab("a")
    out = ended(start_ranks(tmp_path, [shared, shared]))
    assert (tmp_path / "rank3.json").exists(), "\n".join(out)[-6000:]
    record = whole(tmp_path, [300])
    assert list(record.energy.by_device) == ["gpu0", "gpu1"]
    assert not (tmp_path / "watt.rank2.json").exists()


@pytest.mark.parametrize("bare", [0, 1])
def test_a_node_without_boards_leaves_what_is_measured_alone(tmp_path, bare):
    """Its estimate is not in the total, and the record says so; also where it is rank zero's, which keeps the record."""
    labs = [Lab([]), lab("a")] if bare == 0 else [lab("a"), Lab([])]
    envs = [boards.env() | place for boards, place in zip(labs, ranks_env(2, free_port(), nodes=2), strict=True)]
    options = settings(batches=[12, 8])
    options["trainer"] |= {"devices": 1}
    out = ended([start_child(tmp_path, env, **options) for env in envs])
    assert (tmp_path / "rank1.json").exists(), "\n".join(out)[-6000:]
    record = whole(tmp_path, [0, 300] if bare == 0 else [300])
    assert (record.status, record.energy.provenance) == ("completed", "measured")
    labels = ["node1/gpu0", "node1/gpu1"] if bare == 0 else ["gpu0", "gpu1"]
    assert list(record.energy.by_device) == labels
    assert any(f"The energy of rank {bare} is not in the total" in sentence for sentence in record.missing)
    assert record.energy.by_stage["train"].batches == 2 * 6
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    for rank in ranks:
        assert rank["metrics"]["watt/energy_kwh"] * 3.6e6 == pytest.approx(record.energy.total_j, rel=0.4)
        assert not [sentence for sentence in rank["said"] if "Please report" in sentence]


@pytest.mark.parametrize("rank", [0, 2])
def test_a_rank_that_is_killed_leaves_the_others_numbers_right(tmp_path, rank):
    """The reader of one of the nodes dies in the second epoch; what both had used by then is in the directory's record."""
    labs = [lab("a"), lab("b")]
    begin = start_nodes if rank == 0 else start_ranks
    processes = begin(tmp_path, labs, kill=[1, 3, rank], keep=str(tmp_path / "kept"))
    out = ended(processes)
    assert processes[rank].returncode == -signal.SIGKILL, "\n".join(out)[-6000:]
    (span,) = tmp_path.glob(f"span{rank}.*")
    killed_ns = int(span.read_text().split()[1])
    killed_unix = time.time() - (time.monotonic_ns() - killed_ns) / 1e9
    record = whole(tmp_path, [300, 150])
    # The dead one's journal ends at most two intervals before it did.
    trace = next(trace for trace in read_traces([tmp_path]).by_session.values() if trace.rank == rank)
    assert -0.1 < killed_unix - trace.last.t < 2 * INTERVAL
    written = read_record(tmp_path / "watt.json")
    if rank == 0:
        assert written.status == record.status == "running"
        assert record.energy.total_j > written.energy.total_j
    else:
        assert record.status == "failed"
        assert any("did not report its end" in sentence for sentence in record.missing)
        # Rank zero had the other's journal before it; on machines without a common file system it would not.
        assert written.energy.total_j == pytest.approx(record.energy.total_j, rel=0.02)
        goes_on_alone(tmp_path, labs[0], record)


def goes_on_alone(directory: Path, boards: Lab, before: Record) -> None:
    """The same run on one node and one process: what both nodes used is in it, and what was lost of it apart."""
    path = str(directory / "kept" / "epoch=0.ckpt")
    options = {"watt": {"interval": INTERVAL}, "module": MODULE, "batches": [6, 4], "trainer": {"max_epochs": 2}}
    finished(start_child(directory / "alone", boards.env(), ckpt_path=path, **options))
    record = read_record(directory / "alone")
    assert record.resumed_j + record.wasted_j == pytest.approx(before.energy.total_j, rel=0.01)
    assert record.wasted_j > 450 * 3 * 0.05
    assert {work.session for work in record.lost} == {node.session for node in before.nodes}
    assert {"gpu0", "gpu1", "node1/gpu0", "node1/gpu1"} == set(record.energy.by_device)
    assert sum(device.joules for device in record.energy.by_device.values()) == pytest.approx(
        record.energy.total_j, rel=1e-9
    )


def test_torchrun(tmp_path):
    """Ranks that torchrun started; rank 1 dies, and rank zero's record is whole."""
    boards = lab("a")
    options = {
        "directory": str(tmp_path),
        "trainer": {"strategy": "ddp", "devices": 2, "max_epochs": 2},
        "module": MODULE,
        "batches": [12, 8],
        "watt": {"interval": INTERVAL},
    }
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port", str(free_port())]
    command += ["-m", "tests.integration.child", json.dumps(options)]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=boards.env() | {"OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    (out,) = ended([process])
    assert process.returncode == 0, out[-5000:]
    record = whole(tmp_path, [300])
    assert record.status == "completed"
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert [bool(rank["nvml_calls"]) for rank in ranks] == [True, False]
