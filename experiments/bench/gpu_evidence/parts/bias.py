"""Whether polling the counter fast makes it read wrong: under one steady load, at four rates in turn."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

import numpy as np

from experiments.bench.gpu_evidence.bench import Bench, NotPossibleError
from experiments.bench.gpu_evidence.board import Board
from experiments.bench.gpu_evidence.figures import number, percent, table
from experiments.bench.gpu_evidence.load import steady
from experiments.bench.gpu_evidence.watching import next_tick

TITLE = "Does fast polling bias the counter?"
LIMIT_S = 80.0
PAUSES_S = (0.0005, 0.01, 0.1, 1.0)
SEGMENT_S = 4.0
ROUNDS = 3
WARM_UP_S = 3.0
SAMPLES_EVERY_S = 0.9
CLEAR = 0.02


def run(bench: Bench, found: dict[str, Any]) -> None:
    """Segments at each rate, interleaved, busy and then idle; their edges at ticks, so that they are sharp."""
    segments: list[dict[str, Any]] = []
    found["segments"] = segments
    for state, rounds in (("busy", bench.times(ROUNDS)), ("idle", 1)):
        with steady(bench.load) if state == "busy" else nullcontext():
            time.sleep(bench.seconds(WARM_UP_S))
            for turn in range(rounds):
                pauses = PAUSES_S if turn % 2 == 0 else tuple(reversed(PAUSES_S))
                for pause_s in pauses if state == "busy" else PAUSES_S[1::2]:
                    if bench.left_s < SEGMENT_S + 2:
                        return
                    segments.append({"state": state, "pause_s": pause_s} | _segment(bench, pause_s))
                    found["rates"] = rates(segments)


def summarise(found: dict[str, Any]) -> list[str]:
    """The verdict, and a table."""
    rows = found.get("rates", [])
    busy = [row for row in rows if row["state"] == "busy" and row["against_slowest"] is not None]
    lines = []
    if len(busy) > 1:
        off = [row for row in busy if abs(row["against_slowest"] - 1) > CLEAR]
        biased = ", ".join(f"{1000 * row['pause_s']:g} ms ({percent(row['against_slowest'] - 1, sign=True)})" for row in off)
        lines = [f"**Polling biases the counter at {biased}.**" if off else "**No bias beyond 2 % at any rate.**", ""]
    cells = [
        [
            row["state"],
            f"{1000 * row['pause_s']:g}",
            row["n"],
            number(row["counter_w"]),
            percent(row["spread"], 2),
            number(row["samples_w"]),
            percent(row["against_samples"] - 1 if row["against_samples"] else None, 2, sign=True),
            percent(row["against_slowest"] - 1 if row["against_slowest"] else None, 2, sign=True),
        ]
        for row in rows
    ]
    headers = [
        "board", "polled every, ms", "segments", "counter, W", "between segments", "samples, W", "counter against samples",
        "the same, against the slowest",
    ]  # fmt: skip
    return lines + table(headers, cells)


def rates(segments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each state and rate.

    Args:
        segments: with `state`, `pause_s`, `counter_w` and `samples_w` (None without samples).

    Returns:
        Mean watts by the counter and by the samples, their ratio, and that ratio over the slowest rate's (without samples,
        the counter's watts over the slowest rate's).
    """
    rows = []
    for state, pause_s in dict.fromkeys((s["state"], s["pause_s"]) for s in segments):
        mine = [s for s in segments if (s["state"], s["pause_s"]) == (state, pause_s)]
        counter = [s["counter_w"] for s in mine]
        samples = [s["samples_w"] for s in mine if s["samples_w"] is not None]
        ratios = [s["counter_w"] / s["samples_w"] for s in mine if s["samples_w"]]
        row = {"state": state, "pause_s": pause_s, "n": len(mine), "counter_w": float(np.mean(counter))}
        row["spread"] = (max(counter) - min(counter)) / row["counter_w"] if len(mine) > 1 else None
        row["samples_w"] = float(np.mean(samples)) if samples else None
        row["against_samples"] = float(np.mean(ratios)) if ratios else None
        rows.append(row)
    for row in rows:
        slowest = max((r for r in rows if r["state"] == row["state"]), key=lambda r: r["pause_s"])
        key = "against_samples" if row["against_samples"] and slowest["against_samples"] else "counter_w"
        row["against_slowest"] = row[key] / slowest[key] if slowest is not row or len(rows) == 1 else 1.0
    return sorted(rows, key=lambda row: (row["state"], row["pause_s"]))


def _segment(bench: Bench, pause_s: float) -> dict[str, Any]:
    """Poll for a while; watts by the counter from its first to its last tick, and by the samples in between."""
    board = bench.board
    offset_ns = board.now_us() * 1000 - time.monotonic_ns()
    first = next_tick(board.counter_mj)
    if first is None:
        raise NotPossibleError("the counter did not move for half a second, so there are no sharp edges.")
    until = first.middle_ns + round(bench.seconds(SEGMENT_S, 1.2) * 1e9)
    samples: dict[int, int] = {}
    polls, fetch_at = 0, 0.0
    while time.monotonic_ns() < until:
        time.sleep(min(pause_s, max(0.0, (until - time.monotonic_ns()) / 1e9)))
        board.counter_mj()
        polls += 1
        if time.monotonic() >= fetch_at:
            samples |= _samples(board, (first.middle_ns + offset_ns) // 1000 - 500_000)
            fetch_at = time.monotonic() + SAMPLES_EVERY_S
    last = next_tick(board.counter_mj)
    if last is None:
        raise NotPossibleError("the counter stopped moving under polling.")
    time.sleep(0.05)
    samples |= _samples(board, (first.middle_ns + offset_ns) // 1000 - 500_000)
    seconds = (last.middle_ns - first.middle_ns) / 1e9
    edges_us = [(tick.middle_ns + offset_ns) / 1000 for tick in (first, last)]
    return {
        "polls": polls,
        "seconds": seconds,
        "counter_w": (last.value - first.value) / 1000 / seconds,
        "samples_w": mean_watts(sorted(samples.items()), *edges_us),
        "samples": len(samples),
    }


def mean_watts(samples: list[tuple[int, int]], start_us: float, end_us: float) -> float | None:
    """Mean watts between two times, by straight lines between samples (µs, mW); None if they do not reach."""
    if len(samples) < 3 or samples[0][0] > start_us + 200_000 or samples[-1][0] < end_us - 200_000:
        return None
    at, watts = np.asarray([us for us, _ in samples], dtype=float), np.asarray([mw / 1000 for _, mw in samples])
    inner = at[(at > start_us) & (at < end_us)]
    times = np.concatenate([[start_us], inner, [end_us]])
    level = np.interp(times, at, watts)
    return float(np.sum(np.diff(times) * (level[1:] + level[:-1]) / 2) / (end_us - start_us))


def _samples(board: Board, after_us: int) -> dict[int, int]:
    try:
        return {us: mw for us, mw in board.samples(after_us) if us and mw < 10_000_000}
    except board.nvml.NVMLError:
        return {}
