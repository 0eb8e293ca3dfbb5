"""Each window's stated joules against its true ones: on two boards, and by raw counter reads."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from experiments.bench.replay import Replayed
from experiments.report.figures.style import COLOURS, GREY, new_figure, saved, settings

SHOWN_S = 3.0
"""So many seconds of the trace are drawn."""


def draw(v100: Replayed, a100: Replayed) -> bytes:
    """Three columns: ours on a V100, ours on an A100, the A100's counter read at both edges; a PNG.

    Args:
        v100: a board whose sensor looks every 20 ms.
        a100: one whose sensor looks 25 of every 100 ms; its counter reads are the third column.
    """
    raw = (a100.counter_j, np.zeros_like(a100.counter_j))
    columns = (
        ("lightning_watt, V100", v100, (v100.ours_j, v100.stated_j), COLOURS[0]),
        ("lightning_watt, A100", a100, (a100.ours_j, a100.stated_j), COLOURS[2]),
        ("A100, counter read at both edges", a100, raw, COLOURS[1]),
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
        high = 2.2 * float(max(v100.true_j.max(), a100.true_j.max()))
        traces[0].set_ylim(0, high)
        clouds[0].set_ylim(0, high)
        above = float((raw[0] > high).mean())
        if above:
            clouds[2].set_title(f"{above:.0%} of the reads lie above this frame", fontsize=8, color=GREY)
        traces[0].legend(loc="upper right", ncols=3)
        traces[0].set_ylabel("energy a window (J)")
        clouds[0].set_ylabel("stated energy a window (J)")
        for axes in traces:
            axes.set_xlabel("time (s)")
        for axes in clouds:
            axes.set_xlabel("true energy a window (J)")
        return saved(figure, "png")


def _trace(axes: Axes, result: Replayed, stated: NDArray[np.float64], plus: NDArray[np.float64], colour: str) -> None:
    shown = result.begins_s < SHOWN_S
    t = result.begins_s[shown]
    low, high = np.maximum(stated - plus, 0)[shown], (stated + plus)[shown]
    axes.fill_between(t, low, high, step="post", color=colour, alpha=0.2, linewidth=0, label="stated ±")
    axes.step(t, result.true_j[shown], where="post", color=GREY, linewidth=2.2, alpha=0.6, label="truth")
    axes.step(t, stated[shown], where="post", color=colour, linewidth=0.9, label="stated")


def _cloud(axes: Axes, result: Replayed, stated: NDArray[np.float64], plus: NDArray[np.float64], colour: str) -> None:
    most = float(result.true_j.max()) * 1.05
    axes.plot([0, most], [0, most], color=GREY, linewidth=1, zorder=1)
    some = slice(None, None, 7)  # a bar for every batch would hide the batches
    bars = {"fmt": "none", "ecolor": colour, "alpha": 0.25, "linewidth": 0.8}
    axes.errorbar(result.true_j[some], stated[some], yerr=plus[some], **bars)
    axes.scatter(result.true_j, stated, s=6, color=colour, alpha=0.5, linewidths=0, zorder=3)
