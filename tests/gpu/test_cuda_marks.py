"""On a real GPU: events resolve, in order and without a synchronise; the board is the right one; the shares add up."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from experiments.bench.gpu_evidence.bench import Bench
from experiments.bench.gpu_evidence.board import NoBoardError, open_board
from experiments.bench.gpu_evidence.load import BATCH_S, HEAVY, LIGHT, cuda_uuid, open_load
from lightning_watt import EnergyMeter, WattCallback, read_record
from lightning_watt.meter.marks import CudaMarker, marker_for

ROOT = Path(__file__).parents[2]


def why_not() -> str:
    """What is missing here; empty where there is a GPU that CUDA and NVML both see."""
    if not torch.cuda.is_available():
        return "needs an NVIDIA GPU that torch can use (torch.cuda.is_available() is False); run it on a machine with one"
    try:
        with open_board(uuid=cuda_uuid()):
            return ""
    except NoBoardError as error:
        return f"needs NVML beside the GPU: {error}"


MISSING = why_not()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(MISSING), reason=MISSING or "there is a GPU")]


@pytest.fixture(scope="module")
def load():
    return open_load(BATCH_S)


@pytest.fixture
def bench(load, tmp_path):
    with open_board(uuid=cuda_uuid()) as board:
        bench = Bench(board, tmp_path, scale=0.5)
        bench.load = load  # made once: its calibration takes a second
        yield bench


def test_a_mark_is_resolved_without_waiting_and_lies_behind_the_host(load):
    marker = CudaMarker(torch.device("cuda:0"))
    torch.cuda.synchronize()
    before = time.monotonic_ns()
    torch.cuda._sleep(load._cycles * 20)  # 200 ms that the host does not wait for
    mark = marker.mark("end")
    noted = time.monotonic_ns()
    assert noted - before < 100_000_000, "marking waited for the GPU"
    assert not marker.resolve(mark)
    torch.cuda.synchronize()
    over = time.monotonic_ns()
    assert marker.resolve(mark)
    assert mark.event is None
    assert before + 100_000_000 < mark.t_ns <= over + 1_000_000
    assert over - mark.t_ns < 20_000_000


def test_marks_are_in_order_and_as_far_apart_as_their_work(load):
    marker = CudaMarker(torch.device("cuda:0"))
    marks = [marker.mark(0)]
    for i in range(100):
        load.batch(LIGHT)
        marks.append(marker.mark(i + 1))
    torch.cuda.synchronize()
    assert all(marker.resolve(mark) for mark in marks)
    apart = [(b.t_ns - a.t_ns) / 1e9 for a, b in pairwise(marks)]
    assert min(apart) >= 0
    assert sum(apart) == pytest.approx(100 * BATCH_S, rel=0.2)
    assert sorted(apart)[50] == pytest.approx(BATCH_S, rel=0.2)


def test_events_are_used_again(load):
    marker = CudaMarker(torch.device("cuda:0"))
    for _ in range(200):
        mark = marker.mark(None)
        torch.cuda.synchronize()
        assert marker.resolve(mark)
    assert len(marker._pool) == 1


def test_inside_a_capture_the_mark_is_the_hosts():
    marker = CudaMarker(torch.device("cuda:0"))
    ones = torch.ones(8, device="cuda:0")
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        ones.add_(1)
        mark = marker.mark("captured")
    assert mark.event is None
    graph.replay()
    torch.cuda.synchronize()


def test_a_cuda_device_gets_cuda_marks():
    marker, instead = marker_for(torch.device("cuda:0"))
    assert (marker.kind, instead) == ("cuda-events", "")


def test_an_epoch_has_no_synchronise_of_ours(bench):
    from experiments.bench.gpu_evidence.parts import sync

    found = {}
    sync.run(bench, found)
    told = sync.summarise(found)
    assert "**No synchronise was added.**" in told, "\n".join(told)


def test_the_shares_add_up_to_the_counter(bench):
    from experiments.bench.gpu_evidence.parts import sum as shares

    found = {}
    shares.run(bench, found)
    assert found["source"] == "nvml-counter"
    assert found["marks"] == "cuda-events"
    assert found["uuid_is_the_boards"]
    assert found["batches"] == found["batches_expected"]
    assert found["stages_j"] == pytest.approx(found["total_j"], rel=1e-9)
    assert found["devices_j"] == pytest.approx(found["total_j"], rel=1e-9)
    assert found["train_j"] == pytest.approx(found["counter_j"], rel=0.01)


@pytest.mark.parametrize(
    ("package", "mask"),
    [
        ("pytorch_lightning", None),
        ("pytorch_lightning", "index"),
        ("pytorch_lightning", "short uuid"),
        ("lightning.pytorch", "uuid"),
    ],
)
def test_the_board_is_the_right_one_under_every_mask(package, mask, tmp_path):
    uuid = cuda_uuid()
    with open_board(uuid=uuid) as board:
        masks = {"index": str(board.index), "uuid": uuid, "short uuid": uuid[:12]}
    env = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    if mask is not None:
        env["CUDA_VISIBLE_DEVICES"] = masks[mask]
    code = (
        f"import sys, importlib; pl = importlib.import_module({package!r}); import tests.gpu.test_cuda_marks as t; "
        "t.fit_once(pl, sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    devices = [d for d in read_record(tmp_path).energy.by_device.values() if d.source.startswith("nvml")]
    assert [device.uuid for device in devices] == [uuid]


def fit_once(pl, directory: str) -> None:
    """A short training on CUDA's first device, in the process of a test."""
    from torch.utils.data import DataLoader

    class Tiny(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(8, 1)

        def training_step(self, batch, batch_idx):
            return self.layer(batch).sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 1e-6)

    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(
        accelerator="gpu", devices=1, max_epochs=1, default_root_dir=directory, callbacks=[WattCallback()], **options
    )
    trainer.fit(Tiny(), DataLoader(torch.randn(64, 8), batch_size=8))


def test_the_meters_windows_are_the_boards(bench):
    """Two seconds of heavy work use more than two of light, and both what the counter says."""
    used = SimpleNamespace()
    meter = EnergyMeter(sources=bench.sources())
    with meter:
        for kind in (LIGHT, HEAVY):
            bench.load.synchronise()
            before = bench.board.counter_mj()
            with meter.window(kind) as window:
                until = time.monotonic() + 2
                while time.monotonic() < until:
                    bench.load.batch(kind)
                bench.load.synchronise()
            setattr(used, kind, (window.joules, (bench.board.counter_mj() - before) / 1000))
    for kind in (LIGHT, HEAVY):
        ours, counted = getattr(used, kind)
        assert ours == pytest.approx(counted, rel=0.15)  # the raw counter is a tick old at either end
    assert used.heavy[0] > 1.3 * used.light[0]


def test_every_batch_gets_its_row(bench):
    from experiments.bench.gpu_evidence.training import Ones, Work, loader, quiet, trainer

    with quiet():
        fit = trainer(bench.load, bench.directory, [WattCallback(batches=True)])
        fit.fit(Work(bench.load), loader(Ones(150)))
    with (bench.directory / "watt_batches.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["stage"] == "train"]
    assert [int(row["batch"]) for row in rows] == list(range(150))
    assert all(float(row["joules"]) >= 0 and float(row["uncertainty_j"]) > 0 for row in rows)
    assert sum(float(row["seconds"]) for row in rows[20:]) == pytest.approx(130 * BATCH_S, rel=0.3)
