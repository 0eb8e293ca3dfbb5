"""Sweeps as a user starts them, through every launcher: who gets which board, who is charged, and what a failure leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest

from lightning_watt import read_record
from lightning_watt.record import Record
from lightning_watt.testing import Board, Lab, constant
from tests import forked
from tests.integration.one_node_slurm import OneNodeSlurm, missing, one_node_slurm, stop
from tests.integration.study import WAIT_S, wait_for
from tests.integration.tiny import ROOT, ended, free_port, ranks_env

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
WRONG_RATE = "resnet: ValueError: a recipe needs lr above 0"


class Sweep(NamedTuple):
    """How a multirun ended, and what it printed."""

    returncode: int
    said: str


def begin(directory: Path, *overrides: str, env: dict[str, str] | None = None) -> forked.Forked:
    """Start a multirun as a user does, in a process and a directory of its own; its jobs' processes begin afresh."""
    directory.mkdir(exist_ok=True)
    # Its own TMPDIR holds its own claims of boards, which the sweeps of others on this machine know nothing of.
    environment = (env or dict(os.environ)) | {"OMP_NUM_THREADS": "1", "TMPDIR": str(directory)}
    command = ("-m", *FEW, *overrides, f"hydra.sweep.dir={directory}")
    return forked.start("experiments.run", *command, env=environment, cwd=directory.parent, imports="experiments.run")


def sweep(directory: Path, *overrides: str, env: dict[str, str] | None = None) -> Sweep:
    """Run a multirun to its end."""
    process = begin(directory, *overrides, env=env)
    (said,) = ended([process], WAIT_S)
    return Sweep(process.wait(), said)


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


def assert_a_board_each_and_one_failure(done: Sweep, directory: Path, said: str = "") -> None:
    """Of `THREE_JOBS` the first two ran side by side on a board of their own each, and the sweep tells of the third."""
    assert statuses(directory) == ["completed", "completed", "failed"], done.said + said
    assert done.returncode == 1
    assert f"1 of 3 jobs failed:\n{WRONG_RATE}" in done.said
    measured = records(directory)
    assert sorted(board for record in measured for board in record.energy.by_device) == ["gpu0", "gpu1"]
    for record in measured:
        assert_charged(record, *record.energy.by_device)


def test_a_failed_job_does_not_stop_the_sweep(tmp_path: Path) -> None:
    done = sweep(tmp_path / "sweep", "model=resnet", "model.timm_name=no_such_model,null")
    assert statuses(tmp_path / "sweep") == ["failed", "completed"], done.said
    assert done.returncode == 1
    assert "1 of 2 jobs failed" in done.said
    assert "no_such_model" in done.said
    assert "The sweep" in done.said


def test_submitit_launches_the_jobs(tmp_path: Path) -> None:
    done = sweep(tmp_path / "sweep", "model=resnet", "hydra/launcher=submitit_local")
    assert done.returncode == 0, done.said
    assert [record.model["family"] for record in records(tmp_path / "sweep")] == ["resnet"]


def test_joblib_gives_each_job_the_board_it_asks_for_and_a_failed_one_does_not_stop_the_others(
    lab: Lab, tmp_path: Path
) -> None:
    """The first two of its six jobs want the same board, and begin together."""
    done = sweep(
        tmp_path / "sweep", "model=resnet", "device=0,1", "recipe.lr=0.1,0.2,-1", "device.accelerator=cpu",
        "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", env=lab.env(),
    )  # fmt: skip
    assert statuses(tmp_path / "sweep") == ["completed", "completed", "failed"] * 2, done.said
    assert done.returncode == 1
    assert f"2 of 6 jobs failed:\n{WRONG_RATE}" in done.said
    measured = records(tmp_path / "sweep")
    for record, board in zip(measured, ("gpu0", "gpu0", "gpu1", "gpu1"), strict=True):
        assert_charged(record, board)
    assert_no_board_had_two_jobs(measured)


@pytest.mark.ddp
def test_torchrun_trains_one_job_on_two_nodes_and_the_same_command_skips_it(lab: Lab, tmp_path: Path) -> None:
    """Both nodes are this machine, with the same boards, which are counted once."""
    asked = (*FEW, "model=resnet", "trainer.num_nodes=2", HANDED_OUT, "skip_done=true", f"hydra.run.dir={tmp_path / 'job'}")

    def on_two_nodes() -> list[str]:
        ranks = [
            forked.start("experiments.run", *asked, env=lab.env() | own, cwd=tmp_path, imports="experiments.run")
            for own in ranks_env(2, free_port(), nodes=2)
        ]
        said = ended(ranks, WAIT_S)
        assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(said)
        return said

    on_two_nodes()
    record = read_record(tmp_path / "job")
    assert (record.status, record.hardware["world_size"]) == ("completed", 2)
    assert_charged(record, "gpu0", "gpu1")
    assert record.energy.by_stage["train"].samples == 3 * 32
    assert ["it is complete" in out for out in on_two_nodes()] == [True, True]


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
    assert statuses(tmp_path / "sweep") == ["completed"], done.said + slurm.logs()
    [record] = records(tmp_path / "sweep")
    assert record.hardware["world_size"] == 2
    assert_charged(record, "gpu0", "gpu1")


@pytest.mark.slurm
@pytest.mark.timeout(600)
def test_a_job_that_is_cancelled_or_at_its_time_limit_goes_on(slurm: OneNodeSlurm, tmp_path: Path) -> None:
    """After `scancel` the same command goes on. Before a limit Slurm warns the job, and submitit requeues it; Lightning's
    own way of requeuing keeps out of it.
    """
    directory, env = tmp_path / "sweep", slurm.env(os.environ)
    long = ("model=resnet", "recipe.epochs=40", "watt.interval=0.1", "skip_done=true")
    launcher = ("hydra/launcher=submitit_slurm", "hydra.launcher.max_num_timeout=1")

    def trained() -> list[int]:
        """When each checkpoint was saved; there is at most one, the last."""
        return [file.stat().st_mtime_ns for file in directory.glob("*/checkpoints/last.ckpt")]

    def signalled(*how: str) -> forked.Forked:
        """Start the command, and signal its job once it has trained an epoch."""
        process, before = begin(directory, *long, *launcher, env=env), trained()
        wait_for(lambda: trained() > before)
        subprocess.run(["scancel", "--user=root", *how], env=env, check=True)
        return process

    cancelled = signalled()
    wait_for(slurm.is_ready)  # its job has ended
    cancelled.send_signal(signal.SIGINT)  # this Slurm keeps no accounts, from which submitit would know
    cancelled.wait(WAIT_S)
    assert statuses(directory) == ["interrupted"], slurm.logs()

    again = signalled("--signal=USR2")
    wait_for(slurm.start_requeued)
    (said,) = ended([again], WAIT_S)
    assert again.wait() == 0, said + slurm.logs()
    assert statuses(directory) == ["completed"]
    [record] = records(directory)  # of all its three parts
    assert (record.status, record.resumed_j > 0) == ("completed", True)
    assert record.energy.by_stage["train"].batches == 40 * 3
    assert not list(directory.rglob("hpc_ckpt*"))
    assert any("Caught signal SIGUSR2" in log.read_text() for log in directory.glob(".submitit/*/*_log.err"))


@pytest.fixture
def ray(lab: Lab) -> Iterator[dict[str, str]]:
    """A Ray with the lab's boards, that only this machine can reach and that leaves nothing behind; what leads to it."""
    if find_spec("hydra_plugins.hydra_ray_launcher") is None:
        pytest.skip("needs Ray and its launcher: pip install hydra-ray-launcher")
    with TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:  # sockets have short names
        settings = {
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # its word for: listen on loopback only
            "RAY_AUTH_MODE": "disabled",  # otherwise it leaves a token in the user's home
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": folder,
        }
        program = str(Path(sys.executable).with_name("ray"))
        # Two processes for jobs, and no more of Ray's own than it takes.
        options = (
            "--head",
            "--block",
            "--num-cpus=2",
            "--include-dashboard=false",
            "--node-ip-address=127.0.0.1",
            "--port=0",
        )
        head = subprocess.Popen(
            [program, "start", *options],
            env=os.environ | lab.env() | settings | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            wait_for(Path(folder, "ray", "ray_current_cluster").exists)
            yield settings
        finally:
            stop([head])


def test_ray_gives_each_job_a_board_and_a_failed_one_does_not_stop_the_others(ray: dict[str, str], tmp_path: Path) -> None:
    """On a cluster that runs already, as docs/cluster.md says."""
    init = "hydra.launcher.ray.init"
    cluster = (
        f"{init}.address=auto",
        f"+{init}.object_store_memory=null",
        f"+{init}.runtime_env.env_vars.PYTHONPATH={ROOT}",
    )
    launcher = ("hydra/launcher=ray", "+hydra.launcher.ray.remote.num_gpus=1")
    done = sweep(tmp_path / "sweep", *THREE_JOBS, *launcher, *cluster, env=os.environ | ray)
    assert_a_board_each_and_one_failure(done, tmp_path / "sweep")
