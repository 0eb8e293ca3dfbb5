"""The peers and lightning_watt: what each adds to a batch and to an epoch, its import, its threads, processes and memory.

Every peer comes from its package and runs in a process of its own, over the same two boards of the NVML lab. `make bench`
prints the table and writes it to `experiments/bench/results/peers.md`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil
from tabulate import tabulate

from experiments.bench.about import RESULTS, about
from lightning_watt.testing import Board, Lab, square

BOARDS = [Board(power=square(300, 80, 0.81)), Board(power=square(300, 80, 1.3))]
BATCHES = 2000
EPOCHS = 20

Calls = tuple[Callable[[int], Any], Callable[[int], Any], Callable[[], Any]]
"""What to call for a batch, for an epoch, and at the end."""


def nothing(i: int) -> None:
    """No callback."""


def raw() -> Calls:
    """A raw read of both counters at both ends of a batch."""
    import pynvml

    pynvml.nvmlInit()
    handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(len(BOARDS))]

    def batch(i: int) -> None:
        for _ in range(2):
            for handle in handles:
                pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)

    return batch, batch, pynvml.nvmlShutdown


def ours(**options: Any) -> Calls:
    """WattCallback's hooks."""
    import torch

    from experiments.bench.overhead import started

    callback, trainer, module = started(**{"log_every_n_steps": 10**9, **options})
    data = (torch.ones(16, 3), torch.ones(16))

    def batch(i: int) -> None:
        callback.on_train_batch_start(trainer, module, data, i)
        callback.on_before_backward(trainer, module, None)
        callback.on_before_optimizer_step(trainer, module, None)
        callback.on_train_batch_end(trainer, module, None, data, i)

    def epoch(i: int) -> None:
        callback.on_train_epoch_start(trainer, module)
        callback.on_validation_start(trainer, module)
        callback.on_validation_end(trainer, module)
        callback.on_train_epoch_end(trainer, module)

    return batch, epoch, lambda: callback.teardown(trainer, module, "fit")


def zeus(approximate: bool = False) -> Calls:
    """Zeus's windows, without the synchronise: there is no GPU here that it could wait for."""
    from zeus.monitor import ZeusMonitor

    monitor = ZeusMonitor(gpu_indices=[0, 1], cpu_indices=[], approx_instant_energy=approximate)

    def window(i: int) -> None:
        monitor.begin_window("window", sync_execution=False)
        monitor.end_window("window", sync_execution=False)

    return window, window, lambda: None


def codecarbon() -> Calls:
    """CodeCarbon's tasks."""
    from codecarbon import OfflineEmissionsTracker

    tracker = OfflineEmissionsTracker(
        country_iso_code="SWE", save_to_file=False, log_level="critical", allow_multiple_runs=True
    )

    def task(i: int) -> None:
        tracker.start_task(str(i))
        tracker.stop_task(str(i))

    return task, task, tracker.stop


def carbontracker() -> Calls:
    """Carbontracker's epochs; it knows no batches."""
    from carbontracker.tracker import CarbonTracker

    tracker = CarbonTracker(epochs=EPOCHS + 1, monitor_epochs=-1, components="gpu", verbose=0)

    def epoch(i: int) -> None:
        tracker.epoch_start()
        tracker.epoch_end()

    return nothing, epoch, tracker.stop


def device_stats() -> Calls:
    """Lightning's DeviceStatsMonitor, CPU statistics, at every batch as its default logs them at every log step."""
    import pytorch_lightning as pl
    from pytorch_lightning.callbacks import DeviceStatsMonitor
    from pytorch_lightning.loggers import CSVLogger

    from experiments.bench.overhead import Step

    monitor = DeviceStatsMonitor(cpu_stats=True)
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=CSVLogger(tempfile.mkdtemp()),
        log_every_n_steps=1,
        enable_progress_bar=False,
        callbacks=[monitor],
    )
    module = Step(0.0)
    trainer.strategy.connect(module)
    monitor.setup(trainer, module, "fit")

    def batch(i: int) -> None:
        monitor.on_train_batch_start(trainer, module, None, i)
        monitor.on_train_batch_end(trainer, module, None, None, i)

    return batch, nothing, lambda: None


PEERS: dict[str, tuple[str, Callable[[], Calls]]] = {
    "no callback": ("", lambda: (nothing, nothing, lambda: None)),
    "lightning_watt": ("lightning_watt.callback", ours),
    "lightning_watt, batches=True": ("lightning_watt.callback", lambda: ours(batches=True)),
    "raw counter reads": ("pynvml", raw),
    "Zeus windows, no synchronise": ("zeus.monitor", zeus),
    "CodeCarbon tasks": ("codecarbon", codecarbon),
    "carbontracker epochs": ("carbontracker.tracker", carbontracker),
    "DeviceStatsMonitor": ("pytorch_lightning.callbacks", device_stats),
}


def one(name: str) -> dict[str, float]:
    """Measure one peer, in this process."""
    module, make = PEERS[name]
    me = psutil.Process()
    with Lab(BOARDS).running():
        import pytorch_lightning  # noqa: F401 - a training has it loaded already

        threads, memory = me.num_threads(), me.memory_info().rss
        start = time.perf_counter()
        if module:
            import_module(module)
        imported_s = time.perf_counter() - start
        batch, epoch, stop = make()
        first_s = time.perf_counter()
        batch(0)
        calls = BATCHES if time.perf_counter() - first_s < 2e-3 else 100
        batch_us = statistics.median(_times(batch, calls))
        epoch_us = statistics.median(_times(epoch, EPOCHS))
        found = {
            "batch_us": batch_us,
            "epoch_us": epoch_us,
            "import_s": imported_s,
            "threads": me.num_threads() - threads,
            "processes": len(me.children(recursive=True)),
            "memory_mib": (me.memory_info().rss - memory) / 2**20,
        }
        stop()
    return found


def _times(call: Callable[[int], Any], calls: int) -> list[float]:
    taken = []
    for i in range(1, calls + 1):
        start = time.perf_counter_ns()
        call(i)
        taken.append((time.perf_counter_ns() - start) / 1000)
    return taken


def row(name: str) -> list[str]:
    """One peer's line, measured in a process of its own."""
    command = [sys.executable, "-m", "experiments.bench.peers", "--only", name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=Path(__file__).parents[2])
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit status {done.returncode}"
        return [name, f"could not run: {why[:100]}", *[""] * 5]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return [
        name,
        f"{found['batch_us']:.2f}",
        f"{found['epoch_us']:.1f}",
        f"{found['import_s']:.2f}",
        f"{found['threads']:+d}",
        f"{found['processes']:+d}",
        f"{found['memory_mib']:+.0f}",
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PEERS, help="measure one peer in this process and print its JSON")
    only = parser.parse_args().only
    if only:
        logging.disable(logging.WARNING)
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = one(only)
        print(json.dumps(found), flush=True)
        os._exit(0)  # some peers leave threads that would keep the process
    headers = ["", "a batch, µs", "an epoch, µs", "import, s", "threads", "processes", "memory, MiB"]
    table = tabulate([row(name) for name in PEERS], headers=headers, tablefmt="github", disable_numparse=True)
    text = (
        f"# Beside the peers\n\n`python -m experiments.bench.peers` on {about('codecarbon', 'carbontracker')}.\n\n"
        "Medians; each in a process of its own over the same two boards of the NVML lab. Import and memory are what comes\n"
        "on top of Lightning; our epoch holds the hooks of a validation too.\n\n"
        f"{table}\n"
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "peers.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
