"""What the callback costs: every figure is a ratio, or stands next to its rival, from the same run.

`make bench` prints the table and writes it to `experiments/bench/results/`. Two boards of the NVML lab serve as GPUs, so it
runs anywhere; their driver answers in about a microsecond, so on a real GPU the reader's thread waits longer, the hooks not.
"""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.profilers import SimpleProfiler
from tabulate import tabulate
from torch.utils.data import DataLoader, Dataset

from experiments.bench.about import RESULTS, about
from lightning_watt import WattCallback
from lightning_watt.testing import Board, Lab, square

BOARDS = [Board(power=square(300, 80, 0.81)), Board(power=square(300, 80, 1.3))]


@dataclass
class Row:
    """One figure of the table."""

    what: str
    value: str
    beside: str
    goal: str


class Step(pl.LightningModule):
    """A training step that takes a set time and does nothing."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seconds = seconds

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        """Wait busily, so that the scheduler has no influence."""
        until = time.perf_counter() + self.seconds
        while time.perf_counter() < until:
            pass
        return self.layer(batch).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain SGD."""
        return torch.optim.SGD(self.parameters(), 1e-9)


class Ones(Dataset[torch.Tensor]):
    """Batches of one."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.ones(1)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Turn off Lightning's messages."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def fit(callbacks: list[pl.Callback], batches: int, step_s: float, epochs: int = 1) -> float:
    """Seconds of one fit, by the last epoch."""
    taken: list[float] = []

    class Timing(pl.Callback):
        def on_train_epoch_start(self, *args: Any) -> None:
            taken.append(-time.perf_counter())

        def on_train_epoch_end(self, *args: Any) -> None:
            taken[-1] += time.perf_counter()

    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks, Timing()],
    )
    trainer.fit(Step(step_s), DataLoader(Ones(batches), batch_size=1))
    return taken[-1]


def started(**options: Any) -> tuple[WattCallback, pl.Trainer, Step]:
    """A callback inside a run, its hooks free to be called."""
    callback = WattCallback(gpus="all", record=False, **options)
    module = Step(0.0)
    trainer = pl.Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False, callbacks=[callback])
    trainer.strategy.connect(module)
    callback.setup(trainer, module, "fit")
    callback.on_train_start(trainer, module)
    return callback, trainer, module


def per_call_us(call: Callable[[int], Any], calls: int = 20_000) -> list[float]:
    """Microseconds of each call."""
    taken = []
    for i in range(calls):
        start = time.perf_counter_ns()
        call(i)
        taken.append((time.perf_counter_ns() - start) / 1000)
    return taken


def hook_cost() -> list[Row]:
    """Our hooks of one batch in a tight loop, next to a Zeus window and an empty loop."""
    batch = (torch.ones(16, 3), torch.ones(16))
    rows = []
    empty = statistics.median(per_call_us(lambda i: None))
    for name, options in (("hooks a batch", {}), ("hooks a batch, batches=True", {"batches": True})):
        callback, trainer, module = started(log_every_n_steps=10**9, **options)

        def hooks(i: int, c: WattCallback = callback, t: pl.Trainer = trainer, m: Step = module) -> None:
            c.on_train_batch_start(t, m, batch, i)
            c.on_before_backward(t, m, None)
            c.on_before_optimizer_step(t, m, None)
            c.on_train_batch_end(t, m, None, batch, i)

        taken = per_call_us(hooks)
        callback.teardown(trainer, module, "fit")
        median = statistics.median(taken) - empty
        p99 = statistics.quantiles(taken, n=100)[98] - empty
        rows.append(Row(name, f"{median:.2f} µs median, {p99:.2f} µs p99", f"{zeus_window_us()}", "< 3 µs, < half of Zeus"))
    return rows


def zeus_window_us() -> str:
    """A Zeus window without its synchronise, on the same two boards; median."""
    try:
        from zeus.monitor import ZeusMonitor
    except ImportError:
        return "Zeus is not installed (pip install lightning_watt[zeus])"
    monitor = ZeusMonitor(gpu_indices=[0, 1], cpu_indices=[], approx_instant_energy=False, sync_execution_with="torch")

    def window(i: int) -> None:
        monitor.begin_window("step", sync_execution=False)
        monitor.end_window("step", sync_execution=False)

    return f"Zeus window {statistics.median(per_call_us(window, 5_000)):.2f} µs"


def step_ratio(pairs: int = 7, batches: int = 200, step_s: float = 0.005) -> Row:
    """A 5 ms step with the callback against one with an empty callback, as interleaved pairs."""
    ratios = []
    for i in range(pairs):
        runs = {
            "ours": lambda: fit([WattCallback(gpus="all", record=False)], batches, step_s),
            "empty": lambda: fit([pl.Callback()], batches, step_s),
        }
        order = ["ours", "empty"] if i % 2 else ["empty", "ours"]
        taken = {name: runs[name]() for name in order}
        ratios.append(taken["ours"] / taken["empty"])
    spread = f"{min(ratios):.4f} to {max(ratios):.4f} in {pairs} pairs"
    return Row("5 ms step, ratio to an empty callback", f"{statistics.median(ratios):.4f} median", spread, "< 1.005")


def with_rows(batches: int = 2_000, step_s: float = 0.005, every: int = 50) -> Row:
    """Our hooks' share of an epoch that logs to TensorBoard as often as is Lightning's default, by its own profiler."""
    profiler = SimpleProfiler()
    with tempfile.TemporaryDirectory() as directory:
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=TensorBoardLogger(directory),
            log_every_n_steps=every,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            profiler=profiler,
            callbacks=[WattCallback(gpus="all")],
        )
        trainer.fit(Step(step_s), DataLoader(Ones(batches), batch_size=1))
    taken = profiler.recorded_durations
    ours = sum(sum(times) for name, times in taken.items() if "WattCallback.on_train_batch" in name)
    share = ours / sum(taken["run_training_epoch"])
    what = f"batch hooks with rows to TensorBoard, {1000 * step_s:g} ms steps"
    return Row(
        what, f"{share:.3%} of the epoch", f"{1000 * ours / (batches / every):.2f} ms a row of {every} batches", "< 0.5 %"
    )


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


def memory() -> Row:
    """Resident memory over a million batches."""
    callback, trainer, module = started(log_every_n_steps=10**9)
    batch = torch.ones(4)
    process = psutil.Process()
    sizes = []
    for block in range(11):
        for i in range(100_000):
            callback.on_train_batch_end(trainer, module, None, batch, i)
        gc.collect()
        sizes.append(process.memory_info().rss / 2**20)
        if block == 0:
            sizes.clear()
            sizes.append(process.memory_info().rss / 2**20)
    callback.teardown(trainer, module, "fit")
    return Row("memory over a million batches", f"{sizes[-1] - sizes[0]:+.1f} MiB", f"{sizes[0]:.0f} MiB before", "flat")


def reader_share(seconds: float = 20.0) -> Row:
    """CPU time of the reader's thread as a share of the time that passes, while the training thread sleeps."""
    callback, trainer, module = started()
    time.sleep(2.0)  # the first watching of the counters is over
    reader = next(thread.native_id for thread in threading.enumerate() if thread.name == "lightning_watt reader")

    def used() -> float:
        # Nanoseconds on a CPU; the tick of /proc's stat is 10 ms, too coarse for this.
        return int(Path(f"/proc/self/task/{reader}/schedstat").read_text().split()[0]) / 1e9

    before, start = used(), time.perf_counter()
    time.sleep(seconds)
    share = (used() - before) / (time.perf_counter() - start)
    callback.teardown(trainer, module, "fit")
    return Row("the reader's thread, share of one CPU", f"{share:.3%}", f"two boards, over {seconds:g} s", "< 0.1 %")


def main() -> None:
    """Run everything, print the table and write it."""
    with Lab(BOARDS).running(), quiet():
        rows = [*hook_cost(), step_ratio(), with_rows(), memory(), reader_share()]
    rows.append(import_cost())
    table = tabulate(
        [[row.what, row.value, row.beside, row.goal] for row in rows],
        headers=["what", "value", "beside it", "goal"],
        tablefmt="github",
    )
    text = f"# What the callback costs\n\n`make bench` on {about()}.\n\n{table}\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "overhead.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
