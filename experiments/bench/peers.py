"""The peers and lightning_watt: what each adds to a batch and to an epoch, its import, its threads, processes and memory.

Every peer comes from its package and runs in a process of its own, inside a real fit of 5 ms steps over the same two boards
of the NVML lab: what it takes there is the CPU time of its calls beyond those of an empty callback in the same fit.
`make bench` prints the table and writes it to `experiments/bench/results/peers.md`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil
import pytorch_lightning as pl
from pytorch_lightning.loggers.logger import DummyLogger
from tabulate import tabulate

from experiments.bench.about import RESULTS, about
from experiments.bench.training import BATCH_HOOKS, HOOKS, Empty, beyond_empty_us, boards, fit, timed
from lightning_watt.testing import Lab

STEP_S = 0.005
EPOCHS = 8
BATCHES = 400
"""In each epoch; the first one is not counted, because the boards are first read in it."""

Calls = tuple[Callable[[int], Any], Callable[[int], Any], Callable[[], Any]]
"""What to call for a batch, for an epoch, and at the end."""


def nothing(i: int) -> None:
    """No callback."""


def raw() -> Calls:
    """A raw read of both counters at both ends of a batch."""
    import pynvml

    pynvml.nvmlInit()
    handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(2)]

    def batch(i: int) -> None:
        for _ in range(2):
            for handle in handles:
                pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)

    return batch, batch, pynvml.nvmlShutdown


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


def ours(**options: Any) -> pl.Callback:
    """WattCallback; its epoch holds a validation's hooks too."""
    from lightning_watt import WattCallback

    return timed(WattCallback)(gpus="all", record=False, log_every_n_steps=10**9, **options)


def device_stats() -> pl.Callback:
    """Lightning's DeviceStatsMonitor, CPU statistics."""
    from pytorch_lightning.callbacks import DeviceStatsMonitor

    return timed(DeviceStatsMonitor)(cpu_stats=True)


class Calling(pl.Callback):
    """A peer that is no callback, called where a user would call it."""

    def __init__(self, batch: Callable[[int], Any], epoch: Callable[[int], Any]) -> None:
        self._batch, self._epoch = batch, epoch

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """A batch."""
        self._batch(batch_idx)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """An epoch."""
        self._epoch(trainer.current_epoch)


PEERS: dict[str, tuple[str, Callable[[], Calls | pl.Callback]]] = {
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
    with Lab(boards(2)).running():
        threads, memory = me.num_threads(), me.memory_info().rss
        start = time.perf_counter()
        if module:
            import_module(module)
        imported_s = time.perf_counter() - start
        made = make()
        peer: Any = made if isinstance(made, pl.Callback) else timed(Calling)(*made[:2])
        before, empty, end = timed(Empty)(1), timed(Empty)(2), _AtEnd(me)
        # A logger that keeps nothing, without which Lightning's own monitor refuses to run.
        logger = DummyLogger() if name == "DeviceStatsMonitor" else False
        fit([before, peer, empty, end], batches=BATCHES, step_s=STEP_S, epochs=EPOCHS, validates=True, logger=logger)
        later = slice(BATCHES, None)
        batch_hooks = [hook for hook in BATCH_HOOKS if peer.spent[hook]]
        epoch_us = 0.0
        for hook in (hook for hook in HOOKS if "epoch" in hook or "validation" in hook):
            each = len(peer.spent[hook]) // EPOCHS
            if each:
                epoch_us += each * beyond_empty_us(peer.spent, empty.spent, [hook], slice(each, None))
        found = {
            "batch_us": beyond_empty_us(peer.spent, empty.spent, batch_hooks, later),
            "epoch_us": epoch_us,
            "import_s": imported_s,
            "threads": end.threads - threads,
            "processes": end.processes,
            "memory_mib": (end.memory - memory) / 2**20,
        }
        if not isinstance(made, pl.Callback):
            made[2]()
    return found


class _AtEnd(pl.Callback):
    """What the process has when the training is about to end."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self.threads = self.processes = self.memory = 0

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Look."""
        self.threads, self.memory = self._process.num_threads(), self._process.memory_info().rss
        self.processes = len(self._process.children(recursive=True))


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
        "CPU time inside a fit of 5 ms steps, beyond an empty callback's in the same fit, without the 0.5 % longest;\n"
        "each peer in a process of its own, over the same two boards of the NVML lab. An epoch has a validation; where a\n"
        "row stands for a callback, its hooks are in it. Import and memory are what comes on top of Lightning; memory\n"
        "holds what the fit itself takes, as the first row shows.\n\n"
        f"{table}\n"
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "peers.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
