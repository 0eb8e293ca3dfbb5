"""`LIGHTNING_WATT=1` under each of Lightning's launchers: no rank waits for another, and each board is counted once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lightning_watt import read_record
from lightning_watt.arguments import VARIABLE
from lightning_watt.testing import Board, Lab, constant
from tests import forked
from tests.integration.tiny import Process, free_port, ranks_env

pytestmark = [pytest.mark.ddp, pytest.mark.slow, pytest.mark.timeout(600)]
ON = "gpus=all,interval=0.1"
LIMIT_S = 200.0
LAB = Lab([Board(power=constant(250), counter_ms=10), Board(power=constant(50), counter_ms=10)])


def begin(directory: Path, variable: str, env: dict[str, str] | None = None, **options: Any) -> Process:
    """Start a training, in a process group of its own, forked from one that has imported Lightning alone."""
    given = json.dumps({"directory": str(directory), "limit_s": LIMIT_S, **options})
    settings = LAB.env() | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", VARIABLE: variable} | (env or {})
    return forked.start("tests.integration.launched", given, env=settings, new_session=True, imports="pytorch_lightning")


def ended(process: Process) -> str:
    """What it printed, once it has ended; whoever still waits is ended, and has said where it stood."""
    try:
        out, _ = process.communicate(timeout=LIMIT_S + 60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, _ = process.communicate()
        pytest.fail(f"It waits for ever:\n{out[-6000:]}")
    return out


def answers(directory: Path, count: int) -> list[dict[str, Any]]:
    return [json.loads((directory / f"rank{rank}.json").read_text()) for rank in range(count)]


@pytest.mark.parametrize(("strategy", "devices"), [("ddp_spawn", 2), ("ddp_fork", 4), ("ddp_notebook", 2)])
def test_no_rank_waits_and_each_board_is_counted_once(tmp_path, strategy, devices):
    process = begin(tmp_path, ON, strategy=strategy, devices=devices)
    out = ended(process)
    assert process.returncode == 0, out[-6000:]
    found = answers(tmp_path, devices)
    assert [answer["callbacks"].count("EnvironmentCallback") for answer in found] == [1] * devices
    mean = sum(range(1, devices + 1)) / devices / 8
    assert [answer["metrics"] for answer in found] == [{"train_acc": mean, "val_acc": mean}] * devices
    assert {answer["step"] for answer in found} == {12}
    assert found[0]["nvml_calls"] > 10
    assert all(answer["nvml_calls"] in (0, None) for answer in found[1:])
    energy = read_record(tmp_path).energy
    seconds = sum(stage.seconds for stage in energy.by_stage.values())
    assert sorted(energy.by_device) == ["gpu0", "gpu1"]
    assert energy.by_device["gpu0"].joules == pytest.approx(250 * seconds, rel=0.05)
    assert energy.by_device["gpu1"].joules == pytest.approx(50 * seconds, rel=0.05)
    assert out.count("Record: ") == 1
    assert len(list(tmp_path.glob("watt*.json"))) == 1


@pytest.mark.parametrize("variable", ["0", ON], ids=["without", "with"])
def test_a_training_whose_first_rank_fails_ends_by_that(tmp_path, variable):
    process = begin(tmp_path, variable, strategy="ddp_fork", devices=2, fails=True)
    out = ended(process)
    assert process.returncode == 1, out[-6000:]
    assert "ValueError: rank 0 has failed" in out
    assert "Timeout" not in out


@pytest.mark.parametrize("variables", [(ON, "0"), ("0", ON)], ids=["first", "second"])
def test_a_variable_that_reaches_one_rank_only_makes_nobody_wait(tmp_path, variables):
    own = ranks_env(2, free_port())
    processes = [
        begin(tmp_path, variable, env, strategy="ddp", devices=2, **({"ranks_limit_s": 0.5} if variable == ON else {}))
        for variable, env in zip(variables, own, strict=True)
    ]
    outs = [ended(process) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(out[-4000:] for out in outs)
    first, second = answers(tmp_path, 2)
    assert first["metrics"] == second["metrics"] == {"train_acc": 1.5 / 8, "val_acc": 1.5 / 8}
    assert first["step"] == second["step"] == 12
