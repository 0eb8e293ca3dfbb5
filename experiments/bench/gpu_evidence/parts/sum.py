"""Whether the shares add up: every batch's joules, the stage and the devices, against the counter itself."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl

from experiments.bench.gpu_evidence.bench import Bench, NotPossibleError
from experiments.bench.gpu_evidence.board import Board
from experiments.bench.gpu_evidence.figures import number, percent, table
from experiments.bench.gpu_evidence.load import BATCH_S
from experiments.bench.gpu_evidence.training import Ones, Work, loader, quiet, read_batches, trainer, workplace
from experiments.bench.gpu_evidence.watching import next_tick
from lightning_watt import WattCallback, read_record

TITLE = "The sum of the shares against the counter"
LIMIT_S = 30.0
SECONDS = 10.0
SETTLE_S = 1.0


def run(bench: Bench, found: dict[str, Any]) -> None:
    """Train with `batches=True`; read the counter at ticks at both ends of the training stage, the device idle."""
    count = round(bench.seconds(SECONDS, 2.0) / BATCH_S)
    edges = Edges(bench, count)
    with workplace() as directory, quiet():
        watt = WattCallback(batches=True, sources=bench.sources(), **bench.watt_options())
        fit = trainer(bench.load, directory, [watt, edges])
        fit.fit(Work(bench.load), loader(Ones(count)))
        record, rows = read_record(directory), read_batches(directory)
    if edges.start_j is None or edges.end_j is None:
        raise NotPossibleError("the counter did not tick, so there is nothing to compare with.")
    energy, train = record.energy, record.energy.by_stage["train"]
    device = next(iter(energy.by_device.values()))
    truth = edges.end_j - edges.start_j
    found |= {
        "counter_j": truth,
        "train_j": train.joules,
        "train_error": train.joules / truth - 1,
        "train_uncertainty_j": train.uncertainty_j,
        "train_s": train.seconds,
        "between_edges_s": (edges.end_ns - edges.start_ns) / 1e9,
        "batches": len(rows),
        "batches_expected": count,
        "batches_j": sum(row["joules"] for row in rows),
        "batches_s": sum(row["seconds"] for row in rows),
        "stages_j": sum(stage.joules for stage in energy.by_stage.values()),
        "devices_j": sum(one.joules for one in energy.by_device.values()),
        "total_j": energy.total_j,
        "source": device.source,
        "uuid_is_the_boards": device.uuid == bench.board.uuid,
        "marks": getattr(record, "marks", None),
        "edge_watts": [edges.start_w, edges.end_w],
        "joules_by_batch": [row["joules"] for row in rows],
    }


def summarise(found: dict[str, Any]) -> list[str]:
    """A table of the sums."""
    if "counter_j" not in found:
        return []
    rest_j, rest_s = found["train_j"] - found["batches_j"], found["train_s"] - found["batches_s"]
    rows = [
        ["the counter, over the training stage", number(found["counter_j"], 7), f"{found['between_edges_s']:.4f}", ""],
        ["the stage", number(found["train_j"], 7), f"{found['train_s']:.4f}", percent(found["train_error"], 3, sign=True)],
        [f"its {found['batches']} batches", number(found["batches_j"], 7), f"{found['batches_s']:.4f}", ""],
        ["the rest of the stage, before and after them", number(rest_j), f"{rest_s:.4f}", ""],
        ["all stages less the total", number(found["stages_j"] - found["total_j"]), "", ""],
        ["all devices less the total", number(found["devices_j"] - found["total_j"]), "", ""],
    ]
    right = "is" if found["uuid_is_the_boards"] else "is NOT"
    return [
        *table(["what", "J", "s", "error"], rows),
        "",
        f"Source {found['source']}; the device in the record {right} this board; stated uncertainty of the stage "
        f"± {number(found['train_uncertainty_j'])} J.",
    ]


class Edges(pl.Callback):
    """The counter at the training stage's edges: read at a tick, and carried back to the edge by the idle board's power.

    Args:
        bench: the board and the load.
        count: the number of batches; after the last the device is waited for, so that the edge finds it idle.
    """

    def __init__(self, bench: Bench, count: int) -> None:
        self.bench, self.count = bench, count
        self.start_j: float | None = None
        self.end_j: float | None = None
        self.start_ns = self.end_ns = 0
        self.start_w = self.end_w = 0.0

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Let the callback's watching of the ticks pass, so that it reads as it does from then on."""
        self.bench.load.synchronise()
        time.sleep(self.bench.seconds(SETTLE_S))

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """The stage begins: the callback's own hook came just before."""
        self.start_ns, self.start_j, self.start_w = counter_at_once(self.bench.board)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Wait for the last batch."""
        if batch_idx == self.count - 1:
            self.bench.load.synchronise()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """The stage is over."""
        self.end_ns, self.end_j, self.end_w = counter_at_once(self.bench.board)


def counter_at_once(board: Board) -> tuple[int, float | None, float]:
    """The counter now: the next two ticks give the power of the idle board, and the first is carried back by it.

    Returns:
        The time (CLOCK_MONOTONIC), joules (None if the counter stands still), and those watts.
    """
    now = time.monotonic_ns()
    first = next_tick(board.counter_mj)
    second = next_tick(board.counter_mj)
    if first is None or second is None:
        return now, None, 0.0
    watts = (second.value - first.value) / 1000 / ((second.middle_ns - first.middle_ns) / 1e9)
    return now, first.value / 1000 - watts * (first.middle_ns - now) / 1e9, watts
