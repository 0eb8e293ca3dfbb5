"""How true each batch's joules are: the meter against the lab's known power curve, for every batch.

Twelve boards are measured at once: power that changes every 0.4 s, every 2 s and with every batch; counters of 20 and
100 ms; with and without the driver's power samples. Batches of 2, 10, 50 and 200 ms, one length after the other. Beside it
stands a raw counter read at both ends of each batch, as a window of other tools does it. Then heavy and light
batches in random order, whose mean powers a regression separates, and a picture of batches against the truth.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import product

import numpy as np
import pynvml
from tabulate import tabulate

from experiments.bench.about import RESULTS, about
from experiments.bench.cases import HIGH_W, LOW_W, MIXED_LENGTH_S, SECONDS, Case, Result
from experiments.bench.kinds import regress
from experiments.bench.truth_figure import draw
from lightning_watt import EnergyMeter
from lightning_watt.testing import Lab

BATCHES_S = (0.002, 0.01, 0.05, 0.2)
MIXED_S = (0.01, 0.05)
WINDOWS_S = (0.2, 0.5, 1.0, 2.0)
GAIN = 0.05

PAGE = """# How true a batch's joules are

`python -m experiments.bench.fidelity` on {about}.

The NVML lab's square wave of 300 and 80 W; 20 ms power samples; reads 1 s apart. `error a batch` is the mean absolute error
over the mean batch. `raw read` is the counter read at both ends of every batch.

{table}

## Each batch against the truth

Batches of 10 ms on a 100 ms counter, power that changes every 0.4 s. Above: joules over time, the truth in grey. Below: what
the meter stated for a batch over what it truly used; on the line both are equal. The stated ± has to hold even if power
alternates between two samples, so it is far wider than the error if it does not.

![Stated over true joules of every batch](fidelity.png)

## The mean of each kind

Heavy (300 W) and light (80 W) batches, in turn or at random, {length_s:g} s of them. Where they come faster than the sensor,
a batch's own joules are its neighbours' mean; the kinds' mean power is then found by least squares over windows of batches,
as far as the windows hold them in different shares. Errors of the heavy / the light kind's mean power.

{kinds}
"""


CASES = [Case(*case) for case in product(("0.4 s", "2 s", "each batch"), (20, 100), (True, False))]
MIXED = [Case(*case) for case in product(("each batch", "at random"), (20, 100), (True, False))]
DRAWN = [Case("levels", 100, True), Case("levels", 100, False)]


def measure(cases: Sequence[Case], batch_s: float, seconds: float = SECONDS) -> list[Result]:
    """Batches of one length on all boards at once."""
    lab = Lab([case.board(batch_s) for case in cases])
    with lab.running():
        meter = EnergyMeter(gpus="all")
        with meter:
            handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(len(cases))]
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
        for i, case in enumerate(cases):
            truth = np.diff(lab.true_energy(i, times))
            whole = lab.true_joules(i, int(times[0]), int(times[-1]))
            when = ((times[:-1] - times[0]) / 1e9, np.diff(times) / 1e9)
            row = (*when, truth, ours[:, i], stated[:, i], read[:, i], float(ours[:, i].sum()), whole)
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


def kinds(results: Sequence[Result]) -> str:
    """How well a regression over windows finds the mean heavy and the mean light batch, as a Markdown table."""
    rows = []
    for r in results:
        heavy = r.true_j / r.seconds > (HIGH_W + LOW_W) / 2
        truth = [float(r.true_j[chosen].sum() / r.seconds[chosen].sum()) for chosen in (heavy, ~heavy)]
        plain = [float(r.ours_j[chosen].sum() / r.seconds[chosen].sum()) for chosen in (heavy, ~heavy)]
        fits = [regress(heavy, r.ours_j, r.seconds, window_s) for window_s in WINDOWS_S]
        found = ["not separated" if fit is None else _errors([fit["heavy_w"], fit["light_w"]], truth) for fit in fits]
        what = [f"{1000 * r.batch_s:g}", r.case.changes, r.case.counter_ms, "yes" if r.case.samples else "no"]
        rows.append([*what, _errors(plain, truth), *found])
    headers = ["batch, ms", "heavy or light", "counter, ms", "samples", "batches' own mean"]
    headers += [f"regression, {window_s:g} s" for window_s in WINDOWS_S]
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)


def _errors(found: Sequence[float], truth: Sequence[float]) -> str:
    return " / ".join(f"{value / true - 1:+.1%}" for value, true in zip(found, truth, strict=True))


def main() -> None:
    """Measure everything, print the tables, and write them with the picture."""
    results = [result for batch_s in BATCHES_S for result in measure(CASES, batch_s)]
    mixed = [result for batch_s in MIXED_S for result in measure(MIXED, batch_s, MIXED_LENGTH_S)]
    with_samples, without = measure(DRAWN, 0.01)
    text = PAGE.format(
        about=about(),
        table=table(results),
        length_s=MIXED_LENGTH_S,
        kinds=kinds(mixed),
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "fidelity.md").write_text(text)
    (RESULTS / "fidelity.png").write_bytes(draw(with_samples, without))
    print(text)


if __name__ == "__main__":
    main()
