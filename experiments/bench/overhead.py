"""What the callback costs in a training, from inside of a real Trainer; `growth` says what happens as a run grows.

`make bench` prints the table and writes it to `experiments/bench/results/`. Boards of the NVML lab serve as GPUs, so it runs
anywhere; their driver answers in about a microsecond, so on a real GPU the reader's thread waits longer, the hooks not.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger
from tabulate import tabulate

from experiments.bench import blocks
from experiments.bench.about import RESULTS, about
from experiments.bench.training import (
    BATCH_HOOKS,
    HOOKS,
    WARM_UP_S,
    Empty,
    Steps,
    beyond_empty_us,
    boards,
    fit,
    timed,
)
from lightning_watt import WattCallback
from lightning_watt.testing import Lab


@dataclass
class Row:
    """One figure of the table."""

    what: str
    value: str
    beside: str
    goal: str


def batch_cost(seconds: float = 20.0, step_s: float = 0.005) -> list[Row]:
    """CPU time of our hooks of a batch beyond an empty callback's in the same fit."""
    rows = []
    for name, options, goal in (
        ("a batch", {}, "< 3 µs"),
        ("a batch, `batches=True`", {"batches": True}, "< 5 µs"),
        ("a batch, with a row to TensorBoard every 50", {"log_every_n_steps": 50}, ""),
    ):
        log = {"log_every_n_steps": 10**9} | options
        ours = blocks.InTurn(WARM_UP_S, seed=0, gpus="all", record=False, **log)
        fit([ours], batches=int(seconds / step_s), step_s=step_s, logger=TensorBoardLogger if "row" in name else False)
        one = ours.spent["empty"]
        value, control = (
            beyond_empty_us(ours.spent[kind], one, BATCH_HOOKS, slice(None)) for kind in ("ours", "empty again")
        )
        rows.append(Row(name, f"{value:.2f} µs", f"empty callback again: {control:+.2f} µs", goal))
    return rows


def epoch_cost(epochs: int, window: int = 100) -> list[Row]:
    """CPU time of our hooks of an epoch with a validation, at the beginning of a long run and at its end."""
    rows = []
    for name, logger in (("no logger", False), ("TensorBoard, without its own time", TensorBoardLogger)):
        ours, one, other = timed(WattCallback)(gpus="all"), timed(Empty)(1), timed(Empty)(2)
        steps, logged = Steps(), _LoggerTime()
        count = epochs if logger is False else min(epochs, 2000)
        fit([steps, logged, one, ours, other], batches=2, epochs=count, validates=True, logger=logger, log_every_n_steps=50)
        hooks = [hook for hook in HOOKS if ours.spent[hook]]
        for first in (10, count - window):
            parts = {hook: _of_epochs(ours.spent[hook], count, first, window) for hook in hooks}
            us = sum(beyond_empty_us(ours.spent, one.spent, [hook], part) * n for hook, (part, n) in parts.items())
            control = sum(beyond_empty_us(other.spent, one.spent, [hook], part) * n for hook, (part, n) in parts.items())
            took_ms = (steps.epochs[first + window - 1] - steps.epochs[first]) / (window - 1) / 1e6
            what = f"an epoch with a validation, at the {first:,}th; {name}"
            own = logged.us_an_epoch(first, window)
            rows.append(
                Row(
                    what,
                    f"{us - own:.0f} µs",
                    f"empty again: {control:+.0f} µs; the epoch takes {took_ms:.2f} ms",
                    "< 100 µs",
                )
            )
    return rows


class _LoggerTime(pl.Callback):
    """CPU time inside of the logger while one of our hooks called it, by epoch."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Put a clock around what we call of the logger."""
        for logger in trainer.loggers:
            for name in ("log_metrics", "save"):
                setattr(logger, name, self._around(getattr(logger, name)))

    def _around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*args: Any, **kwargs: Any) -> Any:
            start = time.thread_time_ns()
            try:
                return call(*args, **kwargs)
            finally:
                if _called_by_us(sys._getframe(1)):
                    self.epochs[-1] += time.thread_time_ns() - start

        return measured

    def on_train_epoch_start(self, *args: Any) -> None:
        """An epoch."""
        self.epochs.append(0)

    def us_an_epoch(self, first: int, window: int) -> float:
        """Microseconds an epoch, without its longest, as those of the hooks around it."""
        return statistics.fmean(sorted(self.epochs[first : first + window])[:-1]) / 1000


def _called_by_us(frame: Any) -> bool:
    return frame.f_globals.get("__name__", "").startswith("lightning_watt.")


def _of_epochs(calls: list[int], epochs: int, first: int, window: int) -> tuple[slice, float]:
    """A hook's calls in some epochs, and how many an epoch has."""
    each = max(1, round(len(calls) / epochs))
    return slice(first * each, (first + window) * each), each


def step_ratios(seconds: float) -> list[Row]:
    """A 5 ms step with the callback against one without."""
    rows = []
    for name, options in (("steady", {}), ("steady, `batches=True`", {"batches": True})):
        ours, empty = blocks.steady(seconds, 0.005, **options)
        rows.append(_ratio_row(f"a 5 ms step, {name}", ours, empty, "< 1.002"))
    ours, empty = blocks.beginning(max(6, int(seconds / 6)), 0.005)
    rows.append(_ratio_row("a 5 ms step, the first 1.5 s", ours, empty, "< 1.005"))
    return rows


def _ratio_row(name: str, ours: blocks.Difference, empty: blocks.Difference, goal: str) -> Row:
    ratio, error = 1 + ours.mean_us / 5000, 2 * ours.error_us / 5000
    return Row(name, f"{ratio:.4f} ± {error:.4f}", f"{ours}; two empty ones: {empty}", goal)


def short_fits() -> list[Row]:
    """What short fits take with us and without, in turn: a process that makes many Trainers."""
    rows = []
    with Lab(boards(2)).running():
        for name, batches, step_s, fits, goal in (
            ("a fit of 16 ms", 3, 0.005, 15, ""),
            ("a fit of 1 s", 200, 0.005, 5, ""),
            ("23 fits of 16 ms in a row", 3, 0.005, 23, ""),
        ):
            took: dict[str, list[float]] = {"ours": [], "empty": []}
            for _ in range(fits):
                for kind in ("ours", "empty"):
                    callback = WattCallback(gpus="all", record=False) if kind == "ours" else Empty()
                    start = time.perf_counter()
                    fit([callback], batches=batches, step_s=step_s)
                    took[kind].append(time.perf_counter() - start)
            if name.startswith("23"):
                value, beside = sum(took["ours"]), sum(took["empty"])
            else:
                value, beside = statistics.median(took["ours"]), statistics.median(took["empty"])
            rows.append(Row(name, f"{1000 * value:.0f} ms", f"without us {1000 * beside:.0f} ms", goal))
    return rows


def import_cost() -> Row:
    """Seconds that `from lightning_watt import WattCallback` adds to importing torch and Lightning."""
    code = (
        "import time, torch, pytorch_lightning; t = time.perf_counter(); from lightning_watt import WattCallback; "
        "print(time.perf_counter() - t)"
    )
    taken = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(5)
    ]
    return Row("import beyond torch and Lightning", f"{min(taken):.3f} s best of 5", "", "< 0.1 s")


class _Memory(pl.Callback):
    """Resident memory, in MiB, at the end of every so many batches."""

    def __init__(self, every: int) -> None:
        self.every, self.sizes, self._process = every, [], psutil.Process()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Look."""
        if batch_idx % self.every == self.every - 1:
            gc.collect()
            self.sizes.append(self._process.memory_info().rss / 2**20)


def memory(batches: int = 50_000) -> Row:
    """Resident memory over many batches, with us and without."""
    grown = []
    with Lab(boards(2)).running():
        for callback in (WattCallback(gpus="all", record=False, batches=True), Empty()):
            memory = _Memory(batches // 10)
            fit([callback, memory], batches=batches)
            grown.append(memory.sizes[-1] - memory.sizes[0])
    what = f"memory over {batches:,} batches, `batches=True`"
    return Row(what, f"{grown[0]:+.1f} MiB", f"without us {grown[1]:+.1f} MiB", "flat")


def reader_share(seconds: float = 20.0) -> list[Row]:
    """CPU time of the reader's thread as a share of the time that passes in a training."""
    rows = []
    for count, goal in ((2, "< 0.1 %"), (8, "< 0.5 %")):
        with Lab(boards(count)).running():
            share = _Share()
            fit([WattCallback(gpus="all", record=False), share], batches=int((seconds + WARM_UP_S) / 0.005), step_s=0.005)
        rows.append(Row(f"the reader's thread, {count} boards", f"{share.value:.3%} of a CPU", f"over {seconds:g} s", goal))
    return rows


class _Share(pl.Callback):
    """The reader's share of a CPU, from the end of the warm-up to the end of the training."""

    def __init__(self) -> None:
        self.value = 0.0
        self._from: tuple[float, float] | None = None
        self._began_s = 0.0

    def on_train_start(self, *args: Any) -> None:
        """The warm-up begins."""
        self._began_s = time.perf_counter()

    def on_train_batch_start(self, *args: Any) -> None:
        """It may be over."""
        if self._from is None and time.perf_counter() - self._began_s > WARM_UP_S:
            self._from = self._now()

    def on_train_end(self, *args: Any) -> None:
        """The share until now."""
        if self._from is not None:
            used_s, at_s = (now - was for now, was in zip(self._now(), self._from, strict=True))
            self.value = used_s / at_s

    @staticmethod
    def _now() -> tuple[float, float]:
        reader = next(thread.native_id for thread in threading.enumerate() if thread.name == "lightning_watt reader")
        # Nanoseconds on a CPU; the tick of /proc's stat is 10 ms, too coarse for this.
        return int(Path(f"/proc/self/task/{reader}/schedstat").read_text().split()[0]) / 1e9, time.perf_counter()


def _on_boards(measure: Callable[[], list[Row]]) -> list[Row]:
    with Lab(boards(2)).running():
        return measure()


PARTS: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "batch": lambda _: _on_boards(batch_cost),
    "epoch": lambda chosen: _on_boards(lambda: epoch_cost(chosen.epochs)),
    "step": lambda chosen: step_ratios(chosen.seconds),
    "fit": lambda _: short_fits(),
    "reader": lambda _: reader_share(),
    "memory": lambda _: [memory()],
    "import": lambda _: [import_cost()],
}
"""What is measured, in this order."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="of each comparison of steps")
    parser.add_argument("--epochs", type=int, default=20_000, help="of the long run")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="of what to measure")
    chosen = parser.parse_args()
    rows: list[Row] = []
    for part in chosen.only:
        found = PARTS[part](chosen)
        rows += found
        for row in found:  # as soon as it is known: the whole takes many minutes
            print(f"{row.what}: {row.value} ({row.beside})", flush=True)
    table = tabulate(
        [[row.what, row.value, row.beside, row.goal] for row in rows],
        headers=["what", "value", "beside it", "goal"],
        tablefmt="github",
    )
    command = " ".join(["python -m experiments.bench.overhead", *sys.argv[1:]])
    text = f"# What the callback costs in a training\n\n`{command}` on {about()}.\n\n{table}\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "overhead.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
