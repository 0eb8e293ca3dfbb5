"""The driver's buffer of power samples: how far back it reaches, how dense it is, how old, and how it follows the load."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import numpy as np

from experiments.bench.gpu_evidence.bench import Bench, NotPossibleError
from experiments.bench.gpu_evidence.figures import number, percent, spread, table
from experiments.bench.gpu_evidence.load import HEAVY, LIGHT

TITLE = "Coverage and spacing of the power samples"
LIMIT_S = 30.0
SILENT_S = 4.0
PERIOD_S, PERIODS = 0.75, 12
CLEAR_W = 10.0
UNLIKELY_MW = 10_000_000
INNER = 0.4
"""A sample this share of a step or less from its middle is in between, as four fifths of those across a step are."""


def run(bench: Bench, found: dict[str, Any]) -> None:
    """Read all after a silence; then alternate heavy and light, read what is new, and lay it over the periods' edges."""
    try:
        bench.board.samples()
    except bench.board.nvml.NVMLError as error:
        raise NotPossibleError(f"nvmlDeviceGetSamples is not offered: {error}") from error
    time.sleep(bench.seconds(SILENT_S, 1.0))
    found["after a silence"] = _coverage(bench.board.samples())
    found["clock"] = bench.board.samples_clock
    edges, samples, ages = _alternate(bench)
    found["under load"] = _coverage(samples) | {"age_ms": spread(ages, 2)}
    found["edges_us"] = [(us - edges[0][0], kind) for us, kind in edges]
    found["samples"] = [(us - edges[0][0], mw) for us, mw in samples]
    found["response"] = response(edges, samples)


def summarise(found: dict[str, Any]) -> list[str]:
    """Coverage as a table, the response as a sentence."""
    rows = []
    for state in ("after a silence", "under load"):
        one = found.get(state, {})
        spacing, age = one.get("spacing_ms", {}), one.get("age_ms", {})
        keys = ("median", "p5", "p95", "max")
        cells = [one.get("n"), number(one.get("span_s")), *(number(spacing.get(key)) for key in keys)]
        rows.append([state, *cells, number(age.get("median")), one.get("zero_stamps"), one.get("unlikely")])
    headers = [
        "", "samples", "reach, s", "spacing, ms: median", "p5", "p95", "max", "age of the newest, ms", "stamp 0", "> 10 kW",
    ]  # fmt: skip
    lines = table(headers, rows)
    if "clock" in found:
        lines += ["", f"Their stamps are of the clock: {found['clock'] or 'none that this machine has'}."]
    one = found.get("response", {})
    if "why" in one:
        lines += ["", f"Response to the load: {one['why']}"]
    elif one:
        lines += [
            "",
            f"Response to the load: {number(one['light_w'])} W light, {number(one['heavy_w'])} W heavy; a rise reaches half "
            f"after {number(one['rise_ms'])} ms and a fall after {number(one['fall_ms'])} ms; "
            f"{percent(one['settled_share'])} of the samples lie within a tenth of one of the two. Each is averaged over "
            f"{number(one['window_ms'])} ms at most, the board's own rise and fall included.",
        ]
    return lines


def _alternate(bench: Bench) -> tuple[list[tuple[int, str]], list[tuple[int, int]], list[float]]:
    """Periods of heavy and light load: their edges and samples, µs by the samples' clock, and the newest ones' ages, ms."""
    period_ns = round(bench.seconds(PERIOD_S, 0.2) * 1e9)
    edges: list[tuple[int, str]] = []
    samples: dict[int, int] = {}
    ages: list[float] = []
    last_us = bench.board.now_us()
    for i in range(bench.times(PERIODS, least=4)):
        kind = LIGHT if i % 2 == 0 else HEAVY
        edges.append((bench.board.now_us(), kind))
        until = time.monotonic_ns() + period_ns
        while time.monotonic_ns() < until:
            bench.load.batch(kind)
        bench.load.synchronise()
        samples |= dict(bench.board.samples(last_us))
        if samples:
            last_us = max(samples)
            ages.append((bench.board.now_us() - last_us) / 1000)
    edges.append((bench.board.now_us(), "end"))
    return edges, sorted(samples.items()), ages


def _coverage(samples: list[tuple[int, int]]) -> dict[str, Any]:
    stamped = [us for us, _ in samples if us]
    gaps = [(b - a) / 1000 for a, b in pairwise(stamped)]
    return {
        "n": len(samples),
        "span_s": (stamped[-1] - stamped[0]) / 1e6 if stamped else 0.0,
        "spacing_ms": spread(gaps, 2),
        "zero_stamps": len(samples) - len(stamped),
        "unlikely": sum(mw > UNLIKELY_MW for _, mw in samples),
    }


def response(edges: list[tuple[int, str]], samples: list[tuple[int, int]]) -> dict[str, Any]:
    """How the samples follow periods of load.

    Args:
        edges: when each period began, µs, and its kind; the last is the end.
        samples: µs and milliwatts.

    Returns:
        Each kind's watts (median of the last third of its periods), how many ms after an edge the samples cross the
        middle, and over how many ms each is averaged: a sample shows a step in between as long as its window lies across it,
        so the window is the samples in between an edge has, times their spacing. Or `why` this is not known.
    """
    ends: dict[str, list[float]] = {HEAVY: [], LIGHT: []}
    periods = list(pairwise(edges))[1:]  # the first follows an unknown load
    for (start, kind), (end, _) in periods:
        ends[kind] += [mw / 1000 for us, mw in samples if start + (end - start) * 2 / 3 <= us < end]
    if not (ends[HEAVY] and ends[LIGHT]):
        return {"why": "there were too few samples."}
    heavy, light = float(np.median(ends[HEAVY])), float(np.median(ends[LIGHT]))
    if heavy - light < CLEAR_W:
        return {"why": f"heavy and light periods show {heavy:.4g} W and {light:.4g} W; the power does not follow the load."}
    middle, near = (heavy + light) / 2, (heavy - light) / 10
    delays: dict[str, list[float]] = {HEAVY: [], LIGHT: []}
    for (start, kind), (end, _) in periods:
        crossed = [us for us, mw in samples if start <= us < end and (mw / 1000 > middle) == (kind == HEAVY)]
        if crossed:
            delays[kind].append((crossed[0] - start) / 1000)
    between = sum(abs(mw / 1000 - middle) < INNER * (heavy - light) for us, mw in samples if us >= periods[0][0][0])
    spacing_ms = float(np.median(np.diff([us for us, _ in samples]))) / 1000
    settled = [min(abs(mw / 1000 - heavy), abs(mw / 1000 - light)) < near for _, mw in samples]
    return {
        "heavy_w": heavy,
        "light_w": light,
        "rise_ms": float(np.median(delays[HEAVY])) if delays[HEAVY] else None,
        "fall_ms": float(np.median(delays[LIGHT])) if delays[LIGHT] else None,
        "settled_share": float(np.mean(settled)),
        "window_ms": between / len(periods) * spacing_ms / (2 * INNER),
    }
