"""How long after a step of the load the energy counter shows it."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

from experiments.bench.gpu_evidence.bench import Bench, NotPossibleError
from experiments.bench.gpu_evidence.figures import number
from experiments.bench.gpu_evidence.load import HEAVY, LIGHT
from experiments.bench.gpu_evidence.watching import watch

TITLE = "Lag of the counter behind the load"
LIMIT_S = 20.0
PERIOD_S, PERIODS = 0.45, 24
PAUSE_S = 0.005
LAGS_MS = np.arange(0.0, 401.0, 1.0)
CLEAR_W = 10.0


def run(bench: Bench, found: dict[str, Any]) -> None:
    """Heavy and light periods in turn, while the counter is watched for its ticks."""
    load = bench.load
    begin_ns = bench.begin_ns or time.monotonic_ns()
    period_ns, periods = round(PERIOD_S * 1e9), bench.times(PERIODS, least=8)
    edges: list[tuple[int, str]] = []

    def work() -> None:
        time.sleep(max(0, begin_ns - time.monotonic_ns()) / 1e9)
        for i in range(periods):
            kind = LIGHT if i % 2 else HEAVY
            until_ns = begin_ns + (i + 1) * period_ns
            edges.append((time.monotonic_ns(), kind))
            while time.monotonic_ns() < until_ns:
                load.batch(kind, min(until_ns, time.monotonic_ns() + round(load.batch_s * 1e9)))
            load.synchronise()
        edges.append((time.monotonic_ns(), "end"))

    worker = threading.Thread(target=work, name="load", daemon=True)
    worker.start()
    ticks, _ = watch(bench.board.counter_mj, (begin_ns - time.monotonic_ns() + periods * period_ns) / 1e9, PAUSE_S)
    worker.join(10)
    start_ns = edges[0][0]
    found["edges_us"] = [((t_ns - start_ns) // 1000, kind) for t_ns, kind in edges]
    found["ticks_us"] = [((tick.middle_ns - start_ns) // 1000, tick.value) for tick in ticks]
    found.update(judge(found["edges_us"], found["ticks_us"]))


def judge(edges_us: list[tuple[int, str]], ticks_us: list[tuple[int, int]]) -> dict[str, Any]:
    """The lag with which two levels of power, in turn, explain the counter best.

    Args:
        edges_us: when each period began, µs, and its kind; the last is the end.
        ticks_us: when the counter moved, µs, and what it showed then, mJ.

    Returns:
        `lag_ms`, which the board's own rise is part of, each kind's watts, and the watts left unexplained; or `why` not.
    """
    if len(ticks_us) < 10:
        raise NotPossibleError(f"the counter moved {len(ticks_us)} times.")
    edges = np.asarray([us for us, _ in edges_us], dtype=float)
    heavy_s = np.concatenate([[0.0], np.cumsum(np.diff(edges) * [kind == HEAVY for _, kind in edges_us[:-1]])]) / 1e6
    at, joules = np.asarray([us for us, _ in ticks_us], dtype=float), np.asarray([mj for _, mj in ticks_us]) / 1000
    joules = joules - joules[0]
    inside = at - LAGS_MS[-1] * 1000 > edges[0]
    best: tuple[float, float, float, float] | None = None
    for lag_ms in LAGS_MS:
        t = at[inside] - lag_ms * 1000
        terms = np.stack([np.interp(t, edges, heavy_s), t / 1e6, np.ones(len(t))], axis=1)
        fitted, *_ = np.linalg.lstsq(terms, joules[inside], rcond=None)
        left_j = float(np.sqrt(np.mean((terms @ fitted - joules[inside]) ** 2)))
        if best is None or left_j < best[0]:
            best = (left_j, float(lag_ms), float(fitted[0]), float(fitted[1]))
    assert best is not None
    left_j, lag_ms, step_w, light_w = best
    levels = {"heavy_w": light_w + step_w, "light_w": light_w, "left_j": left_j}
    if step_w < CLEAR_W:
        why = f"heavy and light periods differ by {step_w:.3g} W in the counter; the power does not follow the load."
        return levels | {"why": why}
    return levels | {"lag_ms": lag_ms}


def summarise(found: dict[str, Any]) -> list[str]:
    """The lag in a sentence."""
    if "lag_ms" not in found:
        return [f"The lag is not known: {found['why']}"]
    return [
        f"**The counter follows the load after {number(found['lag_ms'])} ms**, with the board's own rise: "
        f"{number(found['light_w'])} W light, {number(found['heavy_w'])} W heavy, {number(found['left_j'], 3)} J left over."
    ]
