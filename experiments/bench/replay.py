"""One replay: a meter on a lab's board, on a clock of its own, and what simpler ways make of the same board.

The meter is the product, from `NvmlSource` to `Window`, over the lab's C library; nothing of it is written anew. An hour
takes seconds, and comes out the same in every run.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lightning_watt import EnergyMeter
from lightning_watt.sources import NvmlSource
from lightning_watt.testing import Board, Lab, ReplayClock
from lightning_watt.units import NS_PER_S

Joules = NDArray[np.float64]

WINDOWS_S = (0.008, 0.04, 0.15, 0.4, 3.0, 60.0)
SHORTEST_S = 0.008
SPREAD = 0.3
"""The shortest windows differ in length by this much, so that they do not keep step with a sensor."""
MOST_WINDOWS = 400
"""Of each length; there are thousands of the short ones, and these are spread evenly over the run."""
AGE_S = 20.0
BEFORE_S = 2.0
LINE_S = 1.0
SMI_S = 0.1


@dataclass
class Replayed:
    """What came out of one length of window.

    Attributes:
        window_s: the length.
        begins_s: when each window begins, after the first.
        true_j: what each window truly used.
        ours_j: what the meter says.
        stated_j: its plus or minus, without the part of the board's gain, because here the counter's scale is exact.
        line_j: by a straight line between counter reads a second apart, as CodeCarbon's way is.
        counter_j: by the counter, read at both edges, as Zeus's way is.
        smi_j: by the power that `nvidia-smi` shows, every 100 ms.
    """

    window_s: float
    begins_s: NDArray[np.float64]
    true_j: Joules
    ours_j: Joules
    stated_j: Joules
    line_j: Joules
    counter_j: Joules
    smi_j: Joules

    def error(self, of_j: Joules, percentile: float = 50.0) -> float:
        """That percentile of the absolute error, relative to the mean window."""
        return float(np.percentile(np.abs(of_j - self.true_j), percentile) / self.true_j.mean())

    @property
    def best_simple(self) -> float:
        """The median error of the best of the simple ways that the board has."""
        return float(np.nanmin([self.error(way) for way in (self.line_j, self.counter_j, self.smi_j)]))

    @cached_property
    def stated(self) -> float:
        """The median plus or minus, relative to the mean window."""
        return float(np.median(self.stated_j) / self.true_j.mean())

    @cached_property
    def coverage(self) -> float:
        """The share of windows whose truth lies within it."""
        return float((np.abs(self.ours_j - self.true_j) <= self.stated_j + 1e-9).mean())


@dataclass
class Run:
    """One replay.

    Attributes:
        replayed: by the windows' lengths in seconds.
        calls_a_second: of the energy counter, after the first two seconds, in which its ticks are found.
        complaints: what the meter said.
    """

    replayed: dict[float, Replayed]
    calls_a_second: float
    complaints: list[str]


def replay(board: Board, seconds: float = 75.0, windows_s: tuple[float, ...] = WINDOWS_S, seed: int = 0) -> Run:
    """Measure windows of each length on one board.

    Args:
        board: the board, with its power.
        seconds: how long to measure.
        windows_s: the windows' lengths; each is made of whole shortest ones.
        seed: of the windows' spread and of the clock's delays.
    """
    chance = random.Random(seed)
    clock = ReplayClock(seed=seed)
    lab = Lab([board], clock=clock, t0_ns=clock.now_ns() - round(AGE_S * NS_PER_S))
    begin_ns = clock.now_ns() + round(BEFORE_S * NS_PER_S)
    edges = [begin_ns]
    while edges[-1] < begin_ns + seconds * NS_PER_S:
        edges.append(edges[-1] + round(SHORTEST_S * max(0.5, chance.gauss(1, SPREAD)) * NS_PER_S))
    spans = {window_s: _spans(len(edges), round(window_s / SHORTEST_S)) for window_s in windows_s}
    meter = EnergyMeter(sources=[NvmlSource()], clock=clock)
    windows = {pair: meter.window(str(pair)) for pairs in spans.values() for pair in pairs}
    for (first, last), window in windows.items():
        clock.at(edges[first], window.begin)
        clock.at(edges[last], window.end)
    with lab.running(children=False):
        with meter:
            clock.run_for(BEFORE_S)
            calls = -lab.calls("nvmlDeviceGetTotalEnergyConsumption")
            lasts_s = seconds + 3.0
            clock.run_for(lasts_s)
            calls += lab.calls("nvmlDeviceGetTotalEnergyConsumption")
        replayed = {}
        ways = _simple_ways(lab, np.asarray(edges, dtype=np.int64))
        for window_s, pairs in spans.items():
            first, last = np.asarray(pairs).T
            kept = [windows[pair] for pair in pairs]
            ours, stated = np.asarray([w.joules for w in kept]), np.asarray([w.boundary_j for w in kept])
            true, *others = (way[last] - way[first] for way in ways)
            begins_s = (np.asarray(edges)[first] - edges[first[0]]) / NS_PER_S
            replayed[window_s] = Replayed(window_s, begins_s, true, ours, stated, *others)
    return Run(replayed, calls / lasts_s, list(meter.complaints))


def _spans(edges: int, length: int) -> list[tuple[int, int]]:
    """Windows of `length` shortest ones, side by side; where only few fit in, they overlap."""
    stride = length if length * 20 < edges else max(1, (edges - 1 - length) // 20)
    starts = list(range(0, edges - length, stride))
    kept = starts[:: max(1, -(-len(starts) // MOST_WINDOWS))]
    return [(start, start + length) for start in kept]


def _simple_ways(lab: Lab, t_ns: NDArray[np.int64]) -> tuple[Joules, Joules, Joules, Joules]:
    """Joules by each edge: in truth, by a straight line between reads, by the counter, and by `nvidia-smi`."""
    board = lab.boards[0]
    true = lab.true_energy(0, t_ns)
    smi_ns = np.arange(t_ns[0] - 2 * SMI_S * NS_PER_S, t_ns[-1] + 2 * SMI_S * NS_PER_S, SMI_S * NS_PER_S).astype(np.int64)
    watts = np.asarray([board.power_usage_w(int(t) - lab.t0_ns) for t in smi_ns])
    smi = np.interp(t_ns, smi_ns, np.concatenate([[0.0], np.cumsum((watts[1:] + watts[:-1]) / 2 * SMI_S)]))
    if board.counter_ms is None:
        nothing = np.full(len(t_ns), np.nan)
        return true, nothing, nothing, smi
    line_ns = np.arange(t_ns[0] - 1.37 * NS_PER_S, t_ns[-1] + 2 * LINE_S * NS_PER_S, LINE_S * NS_PER_S).astype(np.int64)
    line = np.interp(t_ns, line_ns, [lab.counter_mj(0, int(t)) / 1000 for t in line_ns])
    return true, line, np.asarray([lab.counter_mj(0, int(t)) / 1000 for t in t_ns]), smi
