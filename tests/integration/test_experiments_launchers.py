"""Sweeps as a user starts them, through every launcher: who gets which board, who is charged, and what a failure leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from lightning_watt import read_record
from lightning_watt.record import Record
from lightning_watt.testing import Board, Lab, constant
from tests.integration.one_node_slurm import OneNodeSlurm, missing, one_node_slurm
from tests.integration.study import WAIT_S, wait_for

pytestmark = pytest.mark.slow
FEW = (
    "phase=pretrain",
    "device=cpu",
    "recipe.epochs=1",
    "trainer.limit_train_batches=3",
    "trainer.limit_val_batches=2",
    "trainer.limit_test_batches=2",
    "+trainer.enable_progress_bar=false",
)
WATTS = {"gpu0": 300.0, "gpu1": 120.0}
# A Trainer on the CPU uses no board; this measures those that the job's CUDA_VISIBLE_DEVICES leaves.
HANDED_OUT = "watt.sources=[{_target_:lightning_watt.sources.nvml.NvmlSource,gpus:visible}]"
THREE_JOBS = ("model=resnet", "recipe.lr=0.1,0.2,-1", HANDED_OUT)  # the last one fails


def sweep(directory: Path, *overrides: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a multirun as a user does, in a process and a directory of its own."""
    command = [sys.executable, "-m", "experiments.run", "-m", *FEW, *overrides, f"hydra.sweep.dir={directory}"]
    directory.mkdir()
    # Its own TMPDIR holds its own claims of boards, which the sweeps of others on this machine know nothing of.
    environment = (env or dict(os.environ)) | {"OMP_NUM_THREADS": "1", "TMPDIR": str(directory)}
    return subprocess.run(command, cwd=directory.parent, env=environment, capture_output=True, text=True, check=False)


def statuses(directory: Path) -> list[str]:
    """How the jobs of a sweep ended, in the order of their numbers."""
    return [json.loads(file.read_text())["status"] for file in sorted(directory.glob("*/outcome.json"))]


def records(directory: Path) -> list[Record]:
    """What the jobs of a sweep measured, in the order of their numbers."""
    return [read_record(file) for file in sorted(directory.glob("*/watt.json"))]


@pytest.fixture
def lab() -> Lab:
    """Two boards of constant power, which torch does not take for CUDA devices, whatever the mask."""
    boards = [Board(power=constant(watts), counter_ms=20) for watts in WATTS.values()]
    return Lab(boards, missing=["nvmlInit"])


def assert_charged(record: Record, *boards: str) -> None:
    """Its sums are exact, and its energy is that of its boards over its time."""
    energy = record.energy
    assert list(energy.by_device) == list(boards)
    assert sum(stage.joules for stage in energy.by_stage.values()) == pytest.approx(energy.total_j, rel=1e-9)
    assert sum(device.joules for device in energy.by_device.values()) == pytest.approx(energy.total_j, rel=1e-9)
    seconds = sum(stage.seconds for stage in energy.by_stage.values())
    for board in boards:
        # A counter that ticks every 20 ms leaves up to a tick at each end.
        assert energy.by_device[board].joules == pytest.approx(WATTS[board] * seconds, abs=WATTS[board] * 0.05)


def assert_no_board_had_two_jobs(measured: list[Record]) -> None:
    """The times of any two jobs with one and the same board lie apart."""
    for one, other in combinations(measured, 2):
        apart = one.updated_unix <= other.started_unix or other.updated_unix <= one.started_unix
        assert apart or not one.energy.by_device.keys() & other.energy.by_device.keys()


def assert_a_board_each_and_one_failure(done: subprocess.CompletedProcess[str], directory: Path, said: str = "") -> None:
    """Of `THREE_JOBS` the first two ran side by side on a board of their own each, and the sweep tells of the third."""
    assert statuses(directory) == ["completed", "completed", "failed"], done.stderr + said
    assert done.returncode == 1
    assert "1 of 3 jobs failed:\nresnet: ValueError: a recipe needs lr above 0" in done.stderr
    measured = records(directory)
    assert sorted(board for record in measured for board in record.energy.by_device) == ["gpu0", "gpu1"]
    for record in measured:
        assert_charged(record, *record.energy.by_device)


@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_a_failed_job_does_not_stop_the_sweep(launcher: str, tmp_path: Path) -> None:
    done = sweep(
        tmp_path / "sweep", "model=resnet,vit", "model.timm_name=null,no_such_model",
        f"hydra/launcher={launcher}", *(["hydra.launcher.n_jobs=2"] if launcher == "joblib" else []),
    )  # fmt: skip
    assert statuses(tmp_path / "sweep") == ["completed", "failed", "completed", "failed"]
    assert done.returncode == 1
    assert "2 of 4 jobs failed" in done.stderr
    assert "no_such_model" in done.stderr
    assert "The sweep" in done.stdout


def test_submitit_launches_the_jobs(tmp_path: Path) -> None:
    done = sweep(tmp_path / "sweep", "model=resnet,efficientnet", "hydra/launcher=submitit_local")
    assert done.returncode == 0, done.stderr
    assert [record.model["family"] for record in records(tmp_path / "sweep")] == ["resnet", "efficientnet"]


def test_each_job_of_a_sweep_has_its_own_board(lab: Lab, tmp_path: Path) -> None:
    done = sweep(
        tmp_path / "sweep", "model=resnet,efficientnet", "device=0,1", "device.accelerator=cpu",
        "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", env=lab.env(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    measured = records(tmp_path / "sweep")
    for record, board in zip(measured, ("gpu0", "gpu1", "gpu0", "gpu1"), strict=True):
        assert_charged(record, board)
    assert_no_board_had_two_jobs(measured)


@pytest.fixture(scope="module")
def slurm() -> Iterator[OneNodeSlurm]:
    """A Slurm with two GPUs, for as long as these tests run."""
    if reason := missing():
        pytest.skip(reason)
    with one_node_slurm(len(WATTS)) as slurm:
        yield slurm


@pytest.mark.slurm
def test_slurm_gives_each_job_a_board_and_a_failed_one_does_not_stop_the_others(
    slurm: OneNodeSlurm, lab: Lab, tmp_path: Path
) -> None:
    launcher = ("hydra/launcher=submitit_slurm", "hydra.launcher.gpus_per_node=1")
    done = sweep(tmp_path / "sweep", *THREE_JOBS, *launcher, env=slurm.env(lab.env()))
    assert_a_board_each_and_one_failure(done, tmp_path / "sweep", slurm.logs())


@pytest.mark.slurm
def test_slurms_two_tasks_of_one_job_share_its_boards(slurm: OneNodeSlurm, lab: Lab, tmp_path: Path) -> None:
    done = sweep(
        tmp_path / "sweep", "model=resnet", "device.count=2", "device.boards=[0,1]", "hydra/launcher=submitit_slurm",
        "hydra.launcher.gpus_per_node=2", "hydra.launcher.tasks_per_node=2", env=slurm.env(lab.env()),
    )  # fmt: skip
    assert statuses(tmp_path / "sweep") == ["completed"], done.stderr + slurm.logs()
    [record] = records(tmp_path / "sweep")
    assert record.hardware["world_size"] == 2
    assert_charged(record, "gpu0", "gpu1")


@pytest.mark.slurm
@pytest.mark.timeout(600)
def test_a_job_at_its_time_limit_is_requeued_and_goes_on(slurm: OneNodeSlurm, tmp_path: Path) -> None:
    """Slurm warns the job before its limit, submitit requeues it, and Lightning's own way of requeuing keeps out of it."""
    long = [override for override in FEW if not override.startswith("recipe.epochs")] + ["recipe.epochs=40"]
    directory, env = tmp_path / "sweep", slurm.env(os.environ) | {"OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "experiments.run", "-m", *long, "model=resnet", f"hydra.sweep.dir={directory}"]
    launcher = ["hydra/launcher=submitit_slurm", "hydra.launcher.max_num_timeout=1", "watt.interval=0.1"]
    sweep = subprocess.Popen([*command, *launcher], cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: any(directory.glob("*/checkpoints/last.ckpt")))
        subprocess.run(["scancel", "--user=root", "--signal=USR2"], env=env, check=True)
        wait_for(slurm.start_requeued)
        _, said = sweep.communicate(timeout=WAIT_S)
    finally:
        sweep.kill()
    assert sweep.returncode == 0, said + slurm.logs()
    [record] = records(directory)  # of both its parts
    assert (record.status, record.resumed_j > 0) == ("completed", True)
    assert record.energy.by_stage["train"].batches == 40 * 3
    assert not list(directory.rglob("hpc_ckpt*"))
    [log] = directory.glob(".submitit/*/*_log.err")
    assert "Caught signal SIGUSR2" in log.read_text()


@pytest.fixture
def ray() -> Iterator[dict[str, str]]:
    """The environment of a Ray that only this machine can reach, and that leaves nothing behind."""
    if find_spec("hydra_plugins.hydra_ray_launcher") is None:
        pytest.skip("needs Ray and its launcher: pip install hydra-ray-launcher")
    with TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:  # sockets have short names
        yield {
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # its word for: listen on loopback only
            "RAY_AUTH_MODE": "disabled",  # otherwise it leaves a token in the user's home
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": folder,
        }


def test_ray_gives_each_job_a_board_and_a_failed_one_does_not_stop_the_others(
    ray: dict[str, str], lab: Lab, tmp_path: Path
) -> None:
    launcher = ("hydra/launcher=ray", "+hydra.launcher.ray.remote.num_gpus=1")
    cluster = ("hydra.launcher.ray.init.address=local", "+hydra.launcher.ray.init.num_cpus=3")
    done = sweep(tmp_path / "sweep", *THREE_JOBS, *launcher, *cluster, env=lab.env() | ray)
    assert_a_board_each_and_one_failure(done, tmp_path / "sweep")
