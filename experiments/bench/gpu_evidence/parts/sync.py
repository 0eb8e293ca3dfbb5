"""That the callback adds no synchronise: the CUDA calls in a profile of an epoch's batches, with it and without."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytorch_lightning as pl
from torch.profiler import ProfilerActivity, profile

from experiments.bench.gpu_evidence.bench import Bench
from experiments.bench.gpu_evidence.figures import table
from experiments.bench.gpu_evidence.load import BATCH_S
from experiments.bench.gpu_evidence.training import Ones, Work, loader, quiet, trainer, workplace
from lightning_watt import WattCallback

TITLE = "No synchronise inside an epoch"
LIMIT_S = 70.0
SECONDS = 3.0
WARM_UP = 10
SYNCHRONISES = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
BESIDE = ("cudaEventRecord", "cudaEventQuery", "cudaMemcpyAsync", "cudaLaunchKernel")


def run(bench: Bench, found: dict[str, Any]) -> None:
    """Profile the same batches without the callback, with it, and with its rows of every batch."""
    found["on_gpu"] = bench.load.on_gpu
    with quiet():
        for case, log_accuracy in (("loss logged", False), ("loss and accuracy logged", True)):
            found[case] = {}
            for name, options in (("none", None), ("WattCallback", {}), ("WattCallback(batches=True)", {"batches": True})):
                found[case][name] = _profile(bench, options, log_accuracy=log_accuracy)
            without = found[case]["none"]
            found[case]["added"] = {
                name: added(without, calls) for name, calls in found[case].items() if name not in ("none", "added")
            }


def summarise(found: dict[str, Any]) -> list[str]:
    """The difference, and a table of the calls."""
    lines = []
    cases = {case: runs for case, runs in found.items() if isinstance(runs, dict)}
    sums = [sum(calls.values()) for runs in cases.values() for calls in runs.get("added", {}).values()]
    if not found.get("on_gpu", True):
        lines = ["No CUDA here, so no synchronise could be seen: this proves nothing.", ""]
    elif not all(
        calls.get("cudaLaunchKernel") for runs in cases.values() for name, calls in runs.items() if name != "added"
    ):
        lines = ["The profiles hold no CUDA calls: this proves nothing. Does another profiler hold the GPU?", ""]
    elif sums:
        lines = ["**No synchronise was added.**" if not any(sums) else f"**Synchronises were added: {sums} by run.**", ""]
    if found.get("on_gpu") and not all(
        runs["none"].get("cudaEventSynchronize") for runs in cases.values() if "none" in runs
    ):
        # The load itself waits for an event a batch, which serves as the control.
        lines += ["This profiler does not show `cudaEventSynchronize`, so of those nothing is known.", ""]
    rows = []
    for case, runs in cases.items():
        for name, calls in runs.items():
            if name != "added":
                rows.append([case, name, *(calls.get(call, 0) for call in SYNCHRONISES + BESIDE)])
    return lines + table(["training", "callback", *SYNCHRONISES, *BESIDE], rows)


def added(without: dict[str, int], calls: dict[str, int]) -> dict[str, int]:
    """Synchronises beyond those of the run without the callback, by name."""
    names = [name for name in {*without, *calls} if "Synchronize" in name]
    return {name: calls.get(name, 0) - without.get(name, 0) for name in sorted({*names, *SYNCHRONISES})}


class Window(pl.Callback):
    """Profiles from one batch's start to the end of another, after everybody else's hooks.

    Args:
        activities: what is recorded.
        first: the first batch.
        last: the last one.
    """

    def __init__(self, activities: list[ProfilerActivity], first: int, last: int) -> None:
        self.profile = profile(activities=activities)
        self.first, self.last = first, last

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Begin."""
        if batch_idx == self.first:
            self.profile.start()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """End."""
        if batch_idx == self.last:
            self.profile.stop()


def _profile(bench: Bench, options: dict[str, Any] | None, *, log_accuracy: bool) -> dict[str, int]:
    """How often each CUDA call was made."""
    count = round(bench.seconds(SECONDS, 0.5) / BATCH_S)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if bench.load.on_gpu else [])]
    window = Window(activities, WARM_UP, count - 1)
    callbacks: list[pl.Callback] = [] if options is None else [WattCallback(**options, **bench.watt_options())]
    with workplace() as directory:
        fit = trainer(bench.load, directory, [*callbacks, window], log_every_n_steps=50)
        fit.fit(Work(bench.load, log_accuracy=log_accuracy), loader(Ones(count)))
    # Not `key_averages`, which first makes a tree of all events and takes longer than the training.
    names = Counter(event.name() for event in window.profile.profiler.kineto_results.events())
    return {name: count for name, count in sorted(names.items()) if name.startswith("cu")}
