"""Runs that are killed and go on: every joule that the boards used while a process ran is counted, once, and the lost named."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from lightning_watt import WattCallback, energy_of, read_record
from lightning_watt.journal import JOURNAL_NAME, read_traces
from lightning_watt.record import Record, read_journal
from tests.integration.tiny import QUIET, Steady, finished, loader, module, start_child, trainer, watt
from tests.nvml_lab import Board, Lab, constant, square

pytestmark = [pytest.mark.filterwarnings(entry) for entry in QUIET]
WATTS = 100.0
INTERVAL = 0.25


def steady(**options: Any) -> WattCallback:
    return watt(gpus="auto", sources=[Steady(WATTS)], **options)


class BurntToastError(Exception):
    """What a training raises."""


def own_j(record: Record) -> float:
    """What the record's own session used."""
    return record.energy.total_j - record.resumed_j - record.wasted_j


def summed(directory: Path) -> Record:
    """The record, its sums found right and its wasted part where its docstring says."""
    record = read_record(directory)
    energy = record.energy
    assert sum(stage.joules for stage in energy.by_stage.values()) == pytest.approx(energy.total_j, rel=1e-9)
    assert sum(device.joules for device in energy.by_device.values()) == pytest.approx(energy.total_j, rel=1e-9)
    wasted = energy.by_stage["wasted"].joules if "wasted" in energy.by_stage else 0.0
    assert record.wasted_j == pytest.approx(wasted, rel=1e-9)
    assert sum(work.joules for work in record.lost) == pytest.approx(wasted, rel=1e-9)
    assert own_j(record) >= 0
    return record


# ---- killed, with real processes ----


def killed(process: Any) -> None:
    out, _ = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, out[-3000:]


def truly_j(lab: Lab, directories: list[Path], now_ns: int) -> float:
    """What the lab's boards used while each process trained; one that was not killed did until now."""
    spans = [path.read_text().split() for directory in directories for path in directory.glob("span*")]
    return sum(
        lab.true_joules(board, int(span[0]), int(span[1]) if len(span) > 1 else now_ns)
        for span in spans
        for board in range(len(lab.boards))
    )


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize("place", ["one directory", "a new version each time"])
def test_six_epochs_killed_twice(tmp_path, place):
    """Killed in the third epoch, resumed, and killed again: once before the next checkpoint, once after it."""
    lab = Lab([Board(power=square(300, 80, 0.81), counter_ms=10), Board(power=constant(120), counter_ms=10)])
    shared: dict[str, Any] = {
        "env": lab.env(),
        "watt": {"interval": INTERVAL},
        "trainer": {"max_epochs": 6},
        "module": {"step_s": 0.05},
        "batches": [10, 2],
        "keep": str(tmp_path / "kept"),
    }
    one = place == "one directory"
    directories = [tmp_path / "logs" / f"version_{0 if one else number}" for number in range(3)]
    directories[0].parent.mkdir()
    killed(start_child(directories[0], kill=[2, 6, 0], **shared))
    assert read_record(directories[0]).status == "running"  # nobody could say otherwise
    first = str(tmp_path / "kept" / "epoch=1.ckpt")
    again = 4 if one else 2
    killed(start_child(directories[1], kill=[again, 6, 0], ckpt_path=first, **shared))
    second = str(tmp_path / "kept" / f"epoch={again - 1}.ckpt")
    out = finished(start_child(directories[2], ckpt_path=second, **shared))
    ended_ns = time.monotonic_ns()
    record = summed(directories[2])
    lines = read_journal(directories[2])
    # The last process did not train until it had gone: its journal's last line says when it ended, in unix seconds.
    ended_ns -= round((time.time() - lines[-1]["t"]) * 1e9) - (time.monotonic_ns() - ended_ns)
    truth_j = truly_j(lab, list(dict.fromkeys(directories)), ended_ns)
    most_w = 300 + 120
    assert record.energy.total_j == pytest.approx(truth_j, abs=2 * INTERVAL * most_w)
    # The wasted part is named: six batches of 50 ms or more each time, and which sessions.
    assert [work.status for work in record.lost] == ["killed", "killed"]
    for work in record.lost:
        assert work.joules == pytest.approx(work.seconds * 280, rel=0.35)
        assert 0 < work.seconds < 6 * 0.05 + 10 * INTERVAL
    assert {work.directory for work in record.lost} <= {str(directory) for directory in directories}
    assert record.energy.by_stage["train"].batches == 60  # the lost ones were trained again
    assert record.status == "completed"
    assert "killed" in out
    assert energy_of(directories[2]).own_j == record.energy.total_j
