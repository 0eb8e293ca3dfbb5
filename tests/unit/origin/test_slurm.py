"""A job of Slurm: its number, and what the cluster counted, from programs that answer, refuse, or never come back."""

from __future__ import annotations

from pathlib import Path
from time import monotonic

import pytest

from lightning_watt.origin.slurm import slurm_facts, slurm_joules


def cluster(directory: Path, monkeypatch, **says: str) -> None:
    """A machine whose path has these programs and nothing else."""
    for name, script in says.items():
        file = directory / name
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}")


@pytest.fixture(autouse=True)
def _asked_nobody(monkeypatch):
    monkeypatch.setattr("lightning_watt.origin.slurm._silent", [])


@pytest.mark.parametrize(("job", "facts"), [("123", {"slurm_job_id": "123"}), ("", {}), ("12; rm", {})])
def test_the_jobs_number(monkeypatch, job, facts):
    monkeypatch.setenv("SLURM_JOB_ID", job)
    assert slurm_facts() == facts


def test_ended_steps_and_those_that_run_are_summed(tmp_path, monkeypatch):
    sacct = """echo "$@" > "$(/usr/bin/dirname "$0")/asked"; echo "7|"; echo "7.batch|"; echo "7.0|1000" """
    cluster(tmp_path, monkeypatch, sacct=sacct, sstat='echo "7.batch|234"')
    assert slurm_joules("7") == 1234.0
    assert "--jobs 7 --format JobID,ConsumedEnergyRaw" in (tmp_path / "asked").read_text()


@pytest.mark.parametrize(
    "says",
    [
        {},
        {"sacct": 'echo "7|0"; echo "7.batch|0"'},  # the cluster does not count
        {"sacct": 'echo "7.batch|18446744073709551614"'},  # not known
        {"sacct": 'echo "Slurm accounting storage is disabled" >&2; exit 1'},
        {"sacct": "printf '\\377|x|\\n'"},
    ],
)
def test_a_cluster_that_does_not_know_says_nothing(tmp_path, monkeypatch, says):
    cluster(tmp_path, monkeypatch, **says)
    assert slurm_joules("7") is None


def test_a_program_that_never_answers_is_not_waited_for(tmp_path, monkeypatch):
    cluster(tmp_path, monkeypatch, sacct="exec /bin/sleep 60", sstat='echo "7.0|5"')
    began_s = monotonic()
    assert slurm_joules("7", limit_s=0.5) == 5.0
    assert monotonic() - began_s < 30
    assert slurm_joules("7", limit_s=30) is None  # once in a process
