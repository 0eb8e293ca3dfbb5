"""A sweep that is killed and started again: nothing is run twice, and every joule is in one record."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from experiments.report.inputs.records import load
from experiments.restart.resume import LAST
from experiments.restart.skip_done import hold
from lightning_watt import energy_of, read_record
from lightning_watt.record import read_journal, read_records
from tests import forked
from tests.integration.short_fit import seconds
from tests.integration.study import WAIT_S, wait_for
from tests.integration.tiny import ended, free_port, ranks_env

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SWEEP = (
    "-m", "skip_done=true", "model=resnet", "phase=lifecycle", "seed=0,1", "device=cpu", "recipe.epochs=8",
    "trainer.limit_train_batches=6", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1",
    "phase.inference.min_seconds=0.1", "phase.inference.max_seconds=0.2", "watt.interval=0.05",
    "+trainer.enable_progress_bar=false",
)  # fmt: skip
LATER_S = 0.2


def start(cwd: Path, *overrides: str, **env: str) -> forked.Forked:
    """The study's command, in a process group of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(cwd)} | env
    return forked.start("experiments.run", *overrides, env=environment, cwd=cwd, new_session=True, imports="experiments.run")


def test_a_killed_sweep_goes_on_by_the_same_command(tmp_path: Path) -> None:
    sweeps = tmp_path / "runs" / "sweep"

    process = start(tmp_path, *SWEEP)
    try:
        wait_for(lambda: any(sweeps.glob(f"*/1-*/finetune/{LAST}")))  # some epochs after the beginning
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    [directory] = sweeps.iterdir()
    jobs = sorted(directory.glob("[0-9]-*"))
    assert [json.loads((job / "outcome.json").read_text())["status"] for job in jobs] == ["completed", "running"]
    before = {file: file.read_bytes() for job in (jobs[0], jobs[1] / "pretrain") for file in job.rglob("watt*.json")}
    assert len(before) == 4
    cut_off = read_journal(jobs[1] / "finetune")[-1]["total_j"]

    process = start(tmp_path, *SWEEP)
    said, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0
    assert list(sweeps.iterdir()) == [directory]  # the same command has found it
    jobs = sorted(directory.glob("[0-9]-*"))
    assert [json.loads((job / "outcome.json").read_text())["status"] for job in jobs] == ["completed"] * 2
    assert {file: file.read_bytes() for file in before} == before  # nothing was run twice
    assert f"{jobs[0]}: it is complete" in said
    assert said.count("│ completed") == 6

    [finetune] = read_records(jobs[1] / "finetune")  # one record for both its parts
    assert (finetune.status, finetune.resumed_j > 0) == ("completed", True)
    # To the last line before the kill, or to a checkpoint that was saved after it: some intervals later at most.
    later_j = LATER_S * finetune.energy.total_j / seconds(finetune)
    assert cut_off * 0.999 <= finetune.resumed_j + finetune.wasted_j <= cut_off + later_j
    assert finetune.energy.by_stage["train"].batches == 8 * 6
    pretrain = read_record(jobs[1] / "pretrain").energy.total_j
    assert energy_of(jobs[1] / "finetune").total_j == pytest.approx(pretrain + finetune.energy.total_j, rel=1e-6)
    found = load(directory)
    assert [run.status for run in found.runs] == ["completed"] * 6
    assert found.failed == []


@pytest.mark.ddp
def test_no_rank_waits_for_a_first_one_that_passes_the_job_over(tmp_path: Path) -> None:
    job = tmp_path / "job"
    job.mkdir()
    asked = ("skip_done=true", "device=cpu", "device.count=2", f"hydra.run.dir={job}")
    with hold(job):
        ranks = [start(tmp_path, *asked, **env) for env in ranks_env(2, free_port())]
        said = ended(ranks)
    assert [process.returncode for process in ranks] == [0, 0], "\n".join(said)
    assert [f"skipped      {job}: another process runs this job" in out for out in said] == [True, True]
    assert not (job / "outcome.json").exists()
