"""How often the energy counter is updated, and how often the power readings are: watched until they change."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

from experiments.bench.gpu_evidence.bench import Bench
from experiments.bench.gpu_evidence.figures import histogram, number, spread, table
from experiments.bench.gpu_evidence.load import steady
from experiments.bench.gpu_evidence.watching import watch
from lightning_watt.sources.nvidia.looks import Tick

TITLE = "Update period of the counter"
LIMIT_S = 25.0
COUNTER_S, OTHER_S = 5.0, 2.5
PAUSE_S = 0.0003


def run(bench: Bench, found: dict[str, Any]) -> None:
    """Watch the counter idle and busy, then the power readings busy."""
    board = bench.board
    others: dict[str, Callable[[], int]] = {
        "field 83": lambda: board.fields([83])[0].value,
        "field 186 (instant power)": lambda: board.fields([186])[0].value,
        "field 185 (average power)": lambda: board.fields([185])[0].value,
        "nvmlDeviceGetPowerUsage": board.power_mw,
    }
    for state in ("idle", "busy"):
        with steady(bench.load) if state == "busy" else nullcontext():
            found[f"counter, {state}"] = _watched(bench, board.counter_mj, bench.seconds(COUNTER_S, 1.0))
            if state == "busy":
                for name, read in others.items():
                    found[f"{name}, busy"] = _watched(bench, read, bench.seconds(OTHER_S, 0.5))
    ticks = found["counter, busy"].get("period_ms")
    found["tick_ms"] = ticks["median"] if ticks and ticks["n"] else None


def summarise(found: dict[str, Any]) -> list[str]:
    """The period in a sentence, and a table."""
    lines = (
        [f"**The counter ticks every {number(found['tick_ms'])} ms** (median, busy).", ""] if found.get("tick_ms") else []
    )
    rows = []
    for name, one in found.items():
        if not isinstance(one, dict):
            continue
        period = one.get("period_ms", {"n": 0})
        periods = [number(period.get(key)) for key in ("median", "p5", "p95", "max")]
        bins = ", ".join(f"{ms}: {count}" for ms, count in one.get("histogram_ms", {}).items())
        rows.append([name, *periods, number(one.get("look_us")), one.get("error") or _short(bins) or "it did not change"])
    return lines + table(["what", "period, ms: median", "p5", "p95", "max", "a look every, µs", "ms: how often"], rows)


def _watched(bench: Bench, read: Callable[[], int], seconds: float) -> dict[str, Any]:
    try:
        ticks, looks = watch(read, seconds, PAUSE_S)
    except bench.board.nvml.NVMLError as error:
        return {"error": f"not offered: {error}"}
    periods = [(b.middle_ns - a.middle_ns) / 1e6 for a, b in pairwise(ticks)]
    width = 1.0 if not periods or max(periods) > 5 else 0.1
    return {
        "period_ms": spread(periods, 3),
        "histogram_ms": histogram(periods, width) if periods else {},
        "step": spread([b.value - a.value for a, b in pairwise(ticks)], 1),
        "seen_to_ms": spread([(tick.late_ns - tick.early_ns) / 1e6 for tick in ticks], 3),
        "look_us": seconds / looks * 1e6,
        "ticks": _rows(ticks),
    }


def _rows(ticks: list[Tick]) -> list[tuple[int, int, int]]:
    """Microseconds since the first of the last look before and the first look after, and the value."""
    start = ticks[0].early_ns if ticks else 0
    return [((tick.early_ns - start) // 1000, (tick.late_ns - start) // 1000, tick.value) for tick in ticks]


def _short(bins: str) -> str:
    return bins if len(bins) < 160 else bins[:157] + "..."
