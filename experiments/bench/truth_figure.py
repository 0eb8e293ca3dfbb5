"""Each batch's stated joules against its true ones: with the driver's samples, without, and by a raw counter read."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from experiments.bench.cases import Result
from experiments.report.figures.style import COLOURS, GREY, new_figure, saved, settings

SHOWN_S = 3.0
"""So many seconds of the trace are drawn."""


def draw(with_samples: Result, without: Result) -> bytes:
    """Three columns: ours with power samples, ours by the counter alone, a raw read; a PNG.

    Args:
        with_samples: a board whose driver keeps power samples; its raw reads are the third column.
        without: the same board without them.
    """
    raw = (with_samples.raw_j, np.zeros_like(with_samples.raw_j))
    columns = (
        ("lightning_watt, power samples", with_samples, (with_samples.ours_j, with_samples.stated_j), COLOURS[0]),
        ("lightning_watt, counter alone", without, (without.ours_j, without.stated_j), COLOURS[2]),
        ("counter read at every batch", with_samples, raw, COLOURS[1]),
    )
    with settings():
        figure = new_figure(10.5, 6.0)
        traces, clouds = figure.subplots(2, 3, sharex="row", sharey="row", height_ratios=(2, 3))
        for trace, cloud, (title, result, (stated, plus), colour) in zip(traces, clouds, columns, strict=True):
            _trace(trace, result, stated, plus, colour)
            _cloud(cloud, result, stated, plus, colour)
            error = np.abs(stated - result.true_j).mean() / result.true_j.mean()
            trace.set_title(f"{title}: {error:.0%} off")
        # A raw read of a batch that holds a tick lies far above; the axis follows the truth.
        high = 2.2 * float(max(with_samples.true_j.max(), without.true_j.max()))
        traces[0].set_ylim(0, high)
        clouds[0].set_ylim(0, high)
        above = float((raw[0] > high).mean())
        if above:
            clouds[2].set_title(f"{above:.0%} of the reads lie above this frame", fontsize=8, color=GREY)
        traces[0].legend(loc="upper right", ncols=3)
        traces[0].set_ylabel("energy a batch (J)")
        clouds[0].set_ylabel("stated energy a batch (J)")
        for axes in traces:
            axes.set_xlabel("time (s)")
        for axes in clouds:
            axes.set_xlabel("true energy a batch (J)")
        return saved(figure, "png")


def _trace(axes: Axes, result: Result, stated: NDArray[np.float64], plus: NDArray[np.float64], colour: str) -> None:
    shown = result.begins_s < SHOWN_S
    t = result.begins_s[shown]
    low, high = np.maximum(stated - plus, 0)[shown], (stated + plus)[shown]
    axes.fill_between(t, low, high, step="post", color=colour, alpha=0.2, linewidth=0, label="stated ±")
    axes.step(t, result.true_j[shown], where="post", color=GREY, linewidth=2.2, alpha=0.6, label="truth")
    axes.step(t, stated[shown], where="post", color=colour, linewidth=0.9, label="stated")


def _cloud(axes: Axes, result: Result, stated: NDArray[np.float64], plus: NDArray[np.float64], colour: str) -> None:
    most = float(result.true_j.max()) * 1.05
    axes.plot([0, most], [0, most], color=GREY, linewidth=1, zorder=1)
    some = slice(None, None, 7)  # a bar for every batch would hide the batches
    bars = {"fmt": "none", "ecolor": colour, "alpha": 0.25, "linewidth": 0.8}
    axes.errorbar(result.true_j[some], stated[some], yerr=plus[some], **bars)
    axes.scatter(result.true_j, stated, s=6, color=colour, alpha=0.5, linewidths=0, zorder=3)
