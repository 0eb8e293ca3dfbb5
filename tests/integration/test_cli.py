"""`python -m lightning_watt`: what this machine can measure, in words and in the exit status."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_watt.sources.rapl import RaplSource
from lightning_watt.testing import Board, Fault, Lab, constant

ROOT = Path(__file__).parents[2]


def ask(env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "lightning_watt"]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)


def has_rapl() -> bool:
    from lightning_watt.errors import SourceUnavailable
    from lightning_watt.sources.base import HOST_CLOCK

    try:
        RaplSource().open(HOST_CLOCK)
    except SourceUnavailable:
        return False
    return True


@pytest.mark.skipif(has_rapl(), reason="this machine measures its CPU; take away read permission to have this test")
def test_a_machine_with_nothing_says_so_and_what_to_do():
    lab = Lab([], init_error=9)
    answer = ask(lab.env())
    assert answer.returncode == 1
    assert answer.stderr == ""
    assert re.search(r"^cpu0 +estimate +estimated +[5-9][0-9]%", answer.stdout, re.MULTILINE)
    for source in ("nvml", "rapl"):
        assert re.search(rf"^  {source}: .+\n    Remedy: .+", answer.stdout, re.MULTILINE)
    assert "Nothing is measured here. Energy is estimated: 3.76 W" in answer.stdout


@pytest.mark.skipif(has_rapl(), reason="this machine measures its CPU")
def test_the_lab_is_not_needed_for_that():
    """No driver library at all, as on this machine without a GPU."""
    answer = ask({name: value for name, value in os.environ.items() if name not in ("LD_LIBRARY_PATH", "NVML_LAB_SCENARIO")})
    if "gpu0" in answer.stdout:
        pytest.skip("this machine has an NVIDIA GPU")
    assert (answer.returncode, answer.stderr) == (1, "")
    assert "nvml: NVML does not start" in answer.stdout


def test_two_boards_are_listed_with_their_source():
    lab = Lab([Board(power=constant(100), name="NVIDIA H100"), Board(power=constant(50), counter_ms=None, name="NVIDIA T4")])
    answer = ask(lab.env())
    assert (answer.returncode, answer.stderr) == (0, "")
    assert re.search(rf"^gpu0 +nvml-counter +measured +5% +NVIDIA H100 +{lab.uuid(0)}$", answer.stdout, re.MULTILINE)
    assert re.search(rf"^gpu1 +nvml-power +measured +\d+% +NVIDIA T4 +{lab.uuid(1)}$", answer.stdout, re.MULTILINE)
    assert "Energy is measured here." in answer.stdout


def test_boards_behind_a_mask_are_listed_too():
    lab = Lab([Board(), Board()])
    answer = ask(lab.env() | {"CUDA_VISIBLE_DEVICES": ""})
    assert answer.returncode == 0
    assert all(lab.uuid(index) in answer.stdout for index in range(2))


def test_a_shared_board_and_a_mig_board_say_so():
    lab = Lab([Board(pids=[4242]), Board(mig=2)])
    answer = ask(lab.env())
    assert "gpu0: Shared when it was opened: processes 4242" in answer.stdout
    assert "gpu1: MIG is on" in answer.stdout


def test_a_lost_board_does_not_hide_the_other():
    lab = Lab([Board(faults=[Fault("lost")]), Board()])
    answer = ask(lab.env())
    assert (answer.returncode, answer.stderr) == (0, "")
    assert lab.uuid(1) in answer.stdout
