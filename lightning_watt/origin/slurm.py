"""The job of a Slurm cluster that this process belongs to, and what the cluster itself counted for it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from time import monotonic

LIMIT_S = 3.0
"""How long the cluster's accounting may take to answer."""
_silent: list[object] = []
"""What did not answer in time: a process that makes many Trainers waits for it once."""
UNKNOWN_J = 2**62
"""Slurm shows what it does not know as a number above this."""


def slurm_facts() -> dict[str, str]:
    """`slurm_job_id`: the job's number, in a job of Slurm; else empty."""
    job = os.environ.get("SLURM_JOB_ID", "")
    return {"slurm_job_id": job} if re.fullmatch(r"\d{1,20}", job) else {}


def slurm_joules(job: str, limit_s: float = LIMIT_S) -> float | None:
    """What the cluster has counted for a job by now, joules: ConsumedEnergy of its ended steps, and of those that run.

    It is of whole nodes, whoever else runs on them.

    Args:
        job: its number.
        limit_s: how long to wait for an answer.

    Returns:
        None if there is no `sacct` here, it does not answer, or the cluster does not count energy.
    """
    if not re.fullmatch(r"\d{1,20}", job) or _silent:
        return None
    until_s = monotonic() + limit_s
    asked = [_ask(command, job) for command in (["sacct"], ["sstat", "--allsteps"])]
    known: dict[str, int] = {}
    for program in asked:
        if program is not None:
            known |= _energies(_answer(program, until_s))
    steps = [joules for name, joules in known.items() if "." in name]
    return float(sum(steps or known.values())) or None


def _ask(command: list[str], job: str) -> subprocess.Popen[str] | None:
    program = shutil.which(command[0])
    if program is None:
        return None
    options = ["--jobs", job, "--format", "JobID,ConsumedEnergyRaw", "--noheader", "--parsable2"]
    try:
        return subprocess.Popen(
            [program, *command[1:], *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is not meant for it
            encoding="utf-8",
            errors="replace",
        )
    except OSError:
        return None


def _answer(asked: subprocess.Popen[str], until_s: float) -> str:
    try:
        return asked.communicate(timeout=max(0.2, until_s - monotonic()))[0]
    except subprocess.TimeoutExpired:
        asked.kill()
        _silent.append(asked.args)
        return ""


def _energies(said: str) -> dict[str, int]:
    r"""Joules by step, and of the job as a whole, as far as they are known.

    Example:
        >>> _energies("7|\n7.batch|1000\n7.0|0\n7.1|18446744073709551614\n")
        {'7.batch': 1000}
    """
    rows = [row for line in said.splitlines() if len(row := line.split("|")) == 2 and row[1].isdigit()]
    return {name: int(joules) for name, joules in rows if 0 < int(joules) < UNKNOWN_J}
