"""Trainings one after another under random faults: `python -m tests.soak --minutes 10 --seed 1`.

Each has boards of the lab with faults of every kind, disks and loggers that misbehave, other options. After each: nothing
but the training's own exceptions came out, the sums in the record are whole, and the joules are no more than the boards can
draw. At the end: memory has not grown since the warm-up, and no thread, process or open file is left. Prints what it did.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import math
import os
import random
import re
import shutil
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # so that the lab's boards are not taken for CUDA devices

import psutil
import pytorch_lightning as pl

from lightning_watt import WattCallback, read_record
from lightning_watt.errors import RecordError, WattWarning
from lightning_watt.testing import Board, Fault, Lab, constant, square
from tests.integration.tiny import loader, module, trainer

MAX_GROWTH_MIB = 30.0
"""Python's and torch's own pools settle within this after some trainings; a leak would pass it in minutes."""
WARM_UP = 8
MOST_W = 400.0
CODES = (2, 3, 4, 6, 10, 13, 15, 16, 18, 999)
FUNCTIONS = ("*", "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetSamples", "nvmlDeviceGetPowerUsage")


class TrainingError(Exception):
    """What some of the trainings raise; it must come out as it is."""


class AngryLogger(pl.loggers.CSVLogger):
    """Refuses what is ours."""

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        if any(name.startswith("watt") for name in metrics):
            raise OSError("a logger's bad day")
        super().log_metrics(metrics, step)


def some_fault(rng: random.Random) -> Fault:
    at_s = 10 + rng.uniform(0, 1.2)
    until_s = at_s + rng.uniform(0.05, 1.0) if rng.random() < 0.7 else None
    made: list[Callable[[], Fault]] = [
        lambda: Fault("lost", at_s, until_s),
        lambda: Fault("error", at_s, until_s, rng.choice(FUNCTIONS), rng.choice(CODES)),
        lambda: Fault("hang", at_s, at_s + 0.5, rng.choice(FUNCTIONS), delay_ms=rng.choice((20, 300, 1500))),
        lambda: Fault("reset", at_s),
        lambda: Fault("jump", at_s, millijoules=rng.choice((-(10**7), -100, 10**5, 10**9, 10**15))),
        lambda: Fault("stuck", at_s, until_s),
        lambda: Fault("raw", at_s, at_s + 0.3, value=rng.choice((0, 1, 2**32, 2**63, 2**64 - 1))),
        lambda: Fault("clock_step", at_s, seconds=rng.choice((-3600.0, -0.4, 0.4, 3600.0))),
        lambda: Fault("sample_time", at_s, until_s),
        lambda: Fault("sample_raw", at_s, until_s, value=rng.choice((0, 4_000_000_000))),
    ]
    return rng.choice(made)()


def some_lab(rng: random.Random) -> Lab:
    boards = [
        Board(
            power=rng.choice((constant(rng.uniform(20, 300)), square(300, 80, rng.uniform(0.05, 0.8)))),
            counter_ms=rng.choice((10, 100, None)),
            samples_ms=rng.choice((20, 20, None)),
            faults=[some_fault(rng) for _ in range(rng.choice((0, 1, 1, 2)))],
        )
        for _ in range(rng.choice((1, 2, 4)))
    ]
    missing = [rng.choice(("nvmlDeviceGetSamples", "nvmlDeviceGetPowerUsage"))] if rng.random() < 0.1 else []
    init_error = rng.choice((9, 12, 18, 999)) if rng.random() < 0.07 else 0
    return Lab(boards, missing=missing, init_error=init_error, age_s=10)


def trouble(rng: random.Random, directory: Path) -> str:
    """Something wrong with the log directory, or nothing."""
    kind = rng.choice(("", "", "full", "pipe", "file in the way", "directory in the way"))
    directory.mkdir()
    if kind == "full":
        (directory / "watt.jsonl").symlink_to("/dev/full")
        (directory / "watt_batches.csv").symlink_to("/dev/full")
    elif kind == "pipe":
        os.mkfifo(directory / "watt.jsonl")
        os.mkfifo(directory / "watt_batches.csv")
    elif kind == "file in the way":
        directory.rmdir()
        directory.write_text("in the way")
    elif kind == "directory in the way":
        (directory / "watt.json").mkdir()
    return kind


def one_training(rng: random.Random, root: Path, seen: Counter[str]) -> None:
    directory = root / "run"
    kind = trouble(rng, directory)
    callback = WattCallback(
        gpus="all",
        interval=rng.choice((0.1, 0.3, 1.0)),
        batches=rng.random() < 0.5,
        budget_kwh=rng.choice((None, None, 1e-5)),
        carbon_intensity=380.0,
        record=rng.random() < 0.9,
    )
    end = rng.choice(("", "", "", "raise", "interrupt"))
    at = rng.randrange(30)
    count = iter(range(10**6))

    def on_batch(stage: str, index: int) -> None:
        if end and next(count) == at:
            raise TrainingError if end == "raise" else KeyboardInterrupt

    logger: Any = False
    if rng.random() < 0.5:
        logger = rng.choice((AngryLogger, pl.loggers.CSVLogger))(root, name="csv")
    settings = {"logger": logger, "default_root_dir": directory, "max_epochs": rng.choice((1, 2))}
    trained = trainer(pl, directory, callback, **settings)
    lab = some_lab(rng)
    began = time.monotonic()
    with lab.running(children=False):
        try:
            trained.fit(module(pl, step_s=0.03, on_batch=on_batch), loader(rng.choice((6, 14))), loader(3))
        except TrainingError:
            assert end == "raise"
        except SystemExit:
            assert end == "interrupt"
        # A call that hung goes on after the run has ended; the lab may go only when it has returned.
        wait_for(lambda: not readers(), 10.0, "a reader that was left")
    passed_s = time.monotonic() - began
    seen[f"disk: {kind or 'well'}"] += 1
    seen[f"end: {end or 'well'}"] += 1
    for board in lab.boards:
        seen.update(fault.kind for fault in board.faults)
    seen["sentences"] += len(callback._run.state.warn_once.said)
    for sentence in callback._run.state.warn_once.said.values():
        assert "Please report it" not in sentence, sentence
    where = Path(logger.log_dir) if logger else directory
    try:
        record = read_record(where)
    except RecordError:
        assert kind in ("file in the way", "directory in the way") or not callback.record, (kind, str(where))
        return
    seen[f"status: {record.status}"] += 1
    energy = record.energy
    if energy.total_j is None:
        return
    for parts in (energy.by_stage.values(), energy.by_device.values()):
        assert math.isclose(sum(part.joules for part in parts), energy.total_j, rel_tol=1e-9, abs_tol=1e-6)
    # A bridge of a lost stretch may be off by what it says, and never by more.
    assert energy.total_j <= MOST_W * len(lab.boards) * (passed_s + 1) + (energy.uncertainty_j or 0.0)


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("lightning_watt")]


def open_files() -> Counter[str]:
    """What this process has open, by name."""
    names: Counter[str] = Counter()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own is gone already
            names[re.sub(r"\d+", "N", os.readlink(f"/proc/self/fd/{number}"))] += 1
    return names


def wait_for(what: Callable[[], bool], limit_s: float, name: str) -> None:
    deadline = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < deadline, name
        time.sleep(0.01)


def soak(minutes: float, seed: int) -> dict[str, Any]:
    """Run for that long; returns what was seen. Raises AssertionError where something was not as it should be."""
    rng = random.Random(seed)
    me = psutil.Process()
    seen: Counter[str] = Counter()
    deadline = time.monotonic() + 60 * minutes
    trainings, before, growth = 0, None, 0.0
    while time.monotonic() < deadline or trainings <= WARM_UP:
        root = Path(tempfile.mkdtemp(prefix="soak_"))
        try:
            one_training(rng, root, seen)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, training {trainings}: {error}") from error
        finally:
            shutil.rmtree(root, ignore_errors=True)
        trainings += 1
        gc.collect()
        memory = me.memory_info().rss / 2**20
        if trainings == WARM_UP:
            before = (memory, open_files(), threading.active_count())
        elif before is not None:
            growth = memory - before[0]
            assert growth < MAX_GROWTH_MIB, f"memory has grown by {growth:.1f} MiB after {trainings} trainings"
    assert before is not None
    left = open_files() - before[1]
    assert not left, f"files that were opened after the warm-up and are still open: {left}"
    assert threading.active_count() <= before[2], [thread.name for thread in threading.enumerate()]
    assert me.children(recursive=True) == [], me.children(recursive=True)
    return {"trainings": trainings, "memory_growth_mib": round(growth, 1), **dict(sorted(seen.items()))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", WattWarning)
    for package in ("lightning_fabric", "pytorch_lightning", "torch", "lightning_utilities"):
        warnings.filterwarnings("ignore", module=package)
    for name in ("lightning.pytorch", "pytorch_lightning", "lightning_watt"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):  # the tables at the ends
        found = soak(arguments.minutes, arguments.seed)
    sys.stdout.writelines(f"{name:24} {value}\n" for name, value in found.items())


if __name__ == "__main__":
    main()
