"""Programs of other people under `LIGHTNING_WATT`: the same results, the right joules, a record each, little output.

`make test-programs` installs their packages and runs this. Each `use_*.py` is a program that knows nothing of us. It runs
twice, once without the variable; both times a stopwatch stands at its Trainers.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from lightning_watt import read_record
from lightning_watt.testing import Board, Lab, constant

pytestmark = [pytest.mark.programs, pytest.mark.timeout(1200)]

HERE = Path(__file__).parent
WATTS = (150.0, 50.0)
OURS = 25
"""The most lines that we may add to what a program prints, however many Trainers it makes: a table, a line or two."""
SLACK = 0.03
"""How far, beside its ±, a total may be from power times time: the board's counter ticks, and a hook takes a moment."""


@dataclass(frozen=True)
class Ran:
    """What a program left."""

    directory: Path
    result: str
    lines: list[str]
    calls: list[dict[str, Any]]

    def records(self) -> list[Any]:
        return [read_record(path) for path in sorted(self.directory.rglob("watt*.json"))]


def run(program: str, package: str, directory: Path, env: dict[str, str]) -> Ran:
    """Run a program in a directory of its own, with a stopwatch at that package's Trainers."""
    directory.mkdir()
    times = directory.with_suffix(".times")
    done = subprocess.run(
        [sys.executable, str(HERE / "stopwatch.py"), str(times), package, str(HERE / f"{program}.py")],
        cwd=directory,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    lines = done.stdout.splitlines()
    (result,) = [line for line in lines if line.startswith("RESULT ")]
    return Ran(directory, result, lines, json.loads(times.read_text()))


def both(program: str, package: str, directory: Path, **more: str) -> tuple[Ran, Ran]:
    """The program without us and with us, over two boards of constant power."""
    env = {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", **more}
    lab = Lab([Board(power=constant(watts), counter_ms=10) for watts in WATTS], age_s=10)
    plain = run(program, package, directory / "plain", {**os.environ, **env, "LIGHTNING_WATT": "0"})
    measured = run(program, package, directory / "measured", {**lab.env(), **env, "LIGHTNING_WATT": "gpus=all"})
    return plain, measured


def added(plain: Ran, measured: Ran) -> list[str]:
    """The lines that are there because of us. A word with a digit in it may be another one in each run."""

    def form(line: str) -> str:
        return re.sub(r"\S*\d\S*", "#", line).strip()

    before = Counter(map(form, plain.lines))
    new = []
    for line in measured.lines:
        if before[form(line)]:
            before[form(line)] -= 1
        elif "Adding 1 callbacks from entry point" not in line:  # Lightning's own
            new.append(line)
    return new


def check(plain: Ran, measured: Ran) -> None:
    """What holds for every program; `-rP` shows what was found."""
    assert measured.result == plain.result
    assert not list(plain.directory.rglob("watt*"))
    new, records = added(plain, measured), measured.records()
    print(f"{len(records)} records; {len(plain.lines)} lines without us, {len(measured.lines)} with us; ours:")
    print(*new, sep="\n")
    for record in records:
        energy = record.energy
        seconds = sum(stage.seconds for stage in energy.by_stage.values())
        truth_j = sum(WATTS) * seconds
        print(f"{energy.total_j:.1f} J ± {energy.uncertainty_j:.1f} J in {seconds:.2f} s, {truth_j:.1f} J are true")
        assert record.status != "failed"
        assert energy.provenance == "measured"
        assert [device.source for device in energy.by_device.values()] == ["nvml-counter"] * 2
        assert energy.total_j == pytest.approx(truth_j, rel=SLACK, abs=energy.uncertainty_j)
    assert 0 < len(new) <= OURS, "\n".join(new)
    assert not [line for line in new if "Traceback" in line or "WattWarning" in line], "\n".join(new)


@pytest.mark.parametrize(
    ("program", "package", "trainers"),
    [
        ("use_darts", "pytorch_lightning", 10),
        ("use_neuralforecast", "pytorch_lightning", 6),
        ("use_chemprop", "lightning.pytorch", 1),
        ("use_anomalib", "lightning.pytorch", 1),
        ("use_optuna", "lightning.pytorch", 5),
    ],
)
def test_a_program_of_somebody_else_is_measured_whole_and_does_what_it_did(tmp_path, program, package, trainers):
    plain, measured = both(program, package, tmp_path)
    check(plain, measured)
    assert [call["call"] for call in measured.calls] == [call["call"] for call in plain.calls] != []
    records = measured.records()
    assert len(records) == trainers
    joules = sum(record.energy.total_j for record in records)
    doubt_j = sum(record.energy.uncertainty_j for record in records)
    least_j, most_j = (sum(WATTS) * sum(call[which] for call in measured.calls) for which in ("loops_s", "whole_s"))
    print(f"All: {joules:.1f} J ± {doubt_j:.1f} J; by the stopwatch {least_j:.1f} to {most_j:.1f} J")
    assert (1 - SLACK) * least_j - doubt_j <= joules <= (1 + SLACK) * most_j + doubt_j


@pytest.fixture
def ray() -> Iterator[dict[str, str]]:
    """The environment of a Ray that only this machine can reach, and that leaves nothing behind."""
    with TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:  # sockets have short names
        yield {
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # its word for: listen on loopback only
            "RAY_AUTH_MODE": "disabled",  # otherwise it leaves a token in the user's home
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": folder,
        }


def test_each_trial_of_ray_tune_has_a_record_in_its_own_directory(tmp_path, ray):
    plain, measured = both("use_ray_tune", "lightning.pytorch", tmp_path, **ray)
    check(plain, measured)
    trials = sorted(path for path in (measured.directory / "trials" / "search").iterdir() if path.is_dir())
    assert len(trials) == 3
    assert [len(list(trial.rglob("watt.json"))) for trial in trials] == [1, 1, 1]
