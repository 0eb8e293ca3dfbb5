"""How true each batch's joules are: the meter against the lab's known power curve, for every batch.

Twelve boards are measured at once: power that changes every 0.4 s, every 2 s and with every batch; counters of 20 and
100 ms; with and without the driver's power samples. Batches of 2, 10, 50 and 200 ms, one length after the other. Beside it
stands a raw counter read at both ends of each batch, which is what a window of other tools does.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import product

import numpy as np
import pynvml
from numpy.typing import NDArray
from tabulate import tabulate

from experiments.bench.about import RESULTS, about
from lightning_watt import EnergyMeter
from tests.nvml_lab import Board, Lab, square

HIGH_W, LOW_W = 300.0, 80.0
BATCHES_S = (0.002, 0.01, 0.05, 0.2)
SECONDS = 12.0
GAIN = 0.05


@dataclass
class Case:
    """One board: how its power changes, how its counter ticks, and whether its driver keeps samples."""

    changes: str
    counter_ms: int
    samples: bool

    def board(self, batch_s: float) -> Board:
        """The board; each half period of its square wave is one stretch of heavy or of light work."""
        half_s = {"0.4 s": 0.405, "2 s": 2.0, "each batch": batch_s}[self.changes]
        return Board(
            power=square(HIGH_W, LOW_W, 2 * half_s),
            counter_ms=self.counter_ms,
            counter_phase_ms=self.counter_ms // 3,
            samples_ms=20 if self.samples else None,
            samples_phase_ms=7,
        )


CASES = [Case(*case) for case in product(("0.4 s", "2 s", "each batch"), (20, 100), (True, False))]


@dataclass
class Result:
    """What came out for one board and batch length; joules, one value a batch, but for the last two."""

    case: Case
    batch_s: float
    true_j: NDArray[np.float64]
    ours_j: NDArray[np.float64]
    stated_j: NDArray[np.float64]
    raw_j: NDArray[np.float64]
    epoch_j: float
    epoch_true_j: float

    @property
    def error(self) -> float:
        """Mean absolute error of a batch, relative to the mean batch."""
        return float(np.abs(self.ours_j - self.true_j).mean() / self.true_j.mean())

    @property
    def raw_error(self) -> float:
        """The same of the raw counter reads."""
        return float(np.abs(self.raw_j - self.true_j).mean() / self.true_j.mean())

    @property
    def raw_zeros(self) -> float:
        """Share of batches in which the raw counter reads 0 J."""
        return float((self.raw_j == 0).mean())

    @property
    def within(self) -> float:
        """Share of batches whose truth lies within the stated uncertainty."""
        return float((np.abs(self.ours_j - self.true_j) <= self.stated_j).mean())

    @property
    def epoch_error(self) -> float:
        """Error of the epoch's total."""
        return self.epoch_j / self.epoch_true_j - 1


def measure(batch_s: float, seconds: float = SECONDS) -> list[Result]:
    """Batches of one length on all boards at once."""
    lab = Lab([case.board(batch_s) for case in CASES])
    with lab.running():
        meter = EnergyMeter(gpus="all")
        with meter:
            handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(len(CASES))]
            time.sleep(1.5)
            # Batches begin with the lab's own periods, so that "each batch" is heavy and light in turn.
            period_ns = round(2 * batch_s * 1e9)
            start = lab.t0_ns + ((time.monotonic_ns() - lab.t0_ns) // period_ns + 2) * period_ns
            marks, raw = [], []
            for k in range(round(seconds / batch_s) + 1):
                due = start + round(k * batch_s * 1e9)
                time.sleep(max(0, due - time.monotonic_ns()) / 1e9)
                marks.append(meter.mark())
                raw.append([pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000 for handle in handles])
        energy = np.stack([mark.energy_uj for mark in marks if mark.energy_uj is not None]) / 1e6
        edges = np.stack([mark.edge_uj for mark in marks if mark.edge_uj is not None]) / 1e6
        times = np.asarray([mark.t_ns for mark in marks], dtype=np.int64)
        ours, read = np.diff(energy, axis=0), np.diff(np.asarray(raw), axis=0)
        boundary = np.minimum(np.hypot(edges[1:], edges[:-1]), ours)
        stated = np.hypot(boundary, GAIN * ours)
        results = []
        for i, case in enumerate(CASES):
            truth = np.diff(lab.true_energy(i, times))
            whole = lab.true_joules(i, int(times[0]), int(times[-1]))
            row = (truth, ours[:, i], stated[:, i], read[:, i], float(ours[:, i].sum()), whole)
            results.append(Result(case, batch_s, *row))
        return results


def table(results: list[Result]) -> str:
    """The results as a Markdown table."""
    rows = [
        [
            f"{1000 * r.batch_s:g}",
            r.case.changes,
            r.case.counter_ms,
            "yes" if r.case.samples else "no",
            f"{r.error:.1%}",
            f"{r.within:.0%}",
            f"{r.epoch_error:+.2%}",
            f"{r.raw_error:.0%}",
            f"{r.raw_zeros:.0%}",
        ]
        for r in results
    ]
    headers = [
        "batch, ms", "power changes", "counter, ms", "samples", "error a batch", "truth within ±", "epoch total",
        "raw read: error", "raw read: 0 J",
    ]  # fmt: skip
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)


def main() -> None:
    """Measure everything, print the table and write it."""
    results = [result for batch_s in BATCHES_S for result in measure(batch_s)]
    text = (
        f"# How true a batch's joules are\n\n`python -m experiments.bench.fidelity` on {about()}.\n\n"
        "The NVML lab's square wave of 300 and 80 W; 20 ms power samples; reads 1 s apart. `error a batch` is the mean\n"
        "absolute error over the mean batch. `raw read` is the counter read at both ends of every batch.\n\n"
        f"{table(results)}\n"
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "fidelity.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
