"""`python -m lightning_watt`: what this machine can measure, in words and in the exit status; and `run` over any program."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lightning_watt import read_record
from lightning_watt.commands.main import main
from lightning_watt.sources.rapl import RaplSource
from lightning_watt.testing import Board, Fault, Lab, constant

ROOT = Path(__file__).parents[2]


def ask(env: dict[str, str] | None = None, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "lightning_watt", *words]
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
    assert re.search(rf"^gpu0 +nvml-counter +measured +10% +NVIDIA H100 +{lab.uuid(0)}$", answer.stdout, re.MULTILINE)
    assert re.search(rf"^gpu1 +nvml-power +measured +\d+% +NVIDIA T4 +{lab.uuid(1)}$", answer.stdout, re.MULTILINE)
    assert "Energy is measured here." in answer.stdout


def test_boards_behind_a_mask_are_listed_too(monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    lab = Lab([Board(), Board()])
    with lab.running():
        assert main([]) == 0
    said = capsys.readouterr().out
    assert all(lab.uuid(index) in said for index in range(2))


def test_a_shared_board_and_a_mig_board_say_so(capsys):
    with Lab([Board(pids=[4242]), Board(mig=2)]).running():
        main([])
    said = capsys.readouterr().out
    assert "gpu0: Shared when it was opened: processes 4242" in said
    assert "gpu1: MIG is on" in said


def test_a_lost_board_does_not_hide_the_other(capsys):
    lab = Lab([Board(faults=[Fault("lost")]), Board()])
    with lab.running():
        assert main([]) == 0
    said = capsys.readouterr()
    assert (lab.uuid(1) in said.out, said.err) == (True, "")


def test_an_estimate_that_a_run_would_not_take_is_not_listed(capsys):
    with Lab([Board()]).running():
        main(["doctor"])
        assert "cpu0" not in capsys.readouterr().out
        main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (found["measured"], found["devices"][0]["source"]) == (True, "nvml-counter")


def test_any_program_is_measured_within_its_uncertainty(tmp_path):
    """Its output and its exit status are its own; the table goes to the other stream."""
    lab = Lab([Board(power=constant(100)), Board(power=constant(50))])
    script = "import sys, time; time.sleep(1); print('its own words'); sys.exit(7)"
    answer = ask(lab.env(), "run", "--dir", str(tmp_path), "--keep-arguments", "--", sys.executable, "-c", script)
    assert (answer.returncode, answer.stdout) == (7, "its own words\n")
    assert re.search(r"^gpu1 .* nvml-counter", answer.stderr, re.MULTILINE)
    record = read_record(tmp_path)
    assert (record.status, record.energy.provenance) == ("failed", "measured")
    truth_j = 150.0 * record.energy.by_stage["other"].seconds
    assert record.energy.by_stage["other"].seconds >= 1.0
    assert record.energy.total_j == pytest.approx(truth_j, abs=record.energy.uncertainty_j)
    assert record.model["command"][-1] == script


def test_a_signal_reaches_the_program_and_the_record_says_interrupted(tmp_path):
    script = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('stopped', flush=True), sys.exit(143)))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)"
    )
    words = ["run", "--dir", str(tmp_path), "--", sys.executable, "-c", script]
    command = [sys.executable, "-m", "lightning_watt", *words]
    lab = Lab([Board()])
    env = lab.env() | {"PYTHONIOENCODING": "ascii"}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as ours:
        assert ours.stdout is not None
        assert ours.stdout.readline() == "ready\n"
        while not (tmp_path / "watt.json").exists():  # as soon as something was read
            time.sleep(0.05)
        assert read_record(tmp_path).status == "running"
        ours.terminate()
        said, errors = ours.communicate(timeout=60)
    assert (ours.returncode, said) == (143, "stopped\n")
    assert "+-" in errors  # a terminal that has no more than ASCII
    assert read_record(tmp_path).status == "interrupted"
