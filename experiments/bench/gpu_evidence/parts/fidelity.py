"""How true a batch's joules are on a real board: periods of heavy and light batches, against their steady power.

There is no true curve here. What a kind of batch draws in the long run is known well, though: seconds of nothing else, read
off the counter. A batch in a short period should be given what its kind draws times its own length. What differs is the
measuring's error together with what the board really does while it changes over; the settled middle of long periods shows
the first alone.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.bench.gpu_evidence.bench import Bench, NotPossibleError
from experiments.bench.gpu_evidence.figures import number, percent, table
from experiments.bench.gpu_evidence.load import BATCH_S, HEAVY, LIGHT
from experiments.bench.kinds import regress

TITLE = "Fidelity of a batch's joules"
LIMIT_S = 95.0
STEADY_S, SETTLING_S = 6.0, 2.0
PERIODS = ((0.5, 8), (2.0, 3), (10.0, 1))
"""Seconds of a period, and how many pairs of heavy and light."""
ALTERNATING_S, MIXED_S, MIX_S = 6.0, 16.0, 2.0
INNER_S = 0.25
"""A batch that is farther from its period's edges than this is an inner one."""
WINDOWS_S = (0.2, 0.5, 1.0, 2.0)
SEED = 0


@dataclass(frozen=True)
class Piece:
    """A part of the plan.

    Attributes:
        group: what it belongs to: `steady`, `0.5 s`, `batch by batch`, ...
        kinds: the kinds of its batches in turn, over and over.
        seconds: how long it takes.
    """

    group: str
    kinds: tuple[str, ...]
    seconds: float


def plan(bench: Bench) -> list[Piece]:
    """The pieces, one after another: both kinds for long, periods, batch by batch, and a mix whose share changes.

    In the mix the share of heavy batches changes every two seconds, in random order, so a regression can separate the kinds.
    """
    pieces = [Piece("steady", (kind,), bench.seconds(STEADY_S, 1.5)) for kind in (LIGHT, HEAVY)]
    for seconds, pairs in PERIODS:
        length = seconds if seconds <= 1 else bench.seconds(seconds, 0.5)
        for _ in range(bench.times(pairs, least=1 if seconds > 1 else 2)):
            pieces += [Piece(f"{seconds:g} s", (kind,), length) for kind in (LIGHT, HEAVY)]
    pieces.append(Piece("batch by batch", (HEAVY, LIGHT), bench.seconds(ALTERNATING_S, 1.0)))
    chance = random.Random(SEED)
    for i in range(bench.times(round(MIXED_S / MIX_S), least=4)):
        share = (0.1, 0.9, 0.3, 0.7)[i % 4]
        kinds = tuple(HEAVY if chance.random() < share else LIGHT for _ in range(round(MIX_S / BATCH_S)))
        pieces.append(Piece("mixed", kinds, MIX_S))
    return pieces


def run(bench: Bench, found: dict[str, Any]) -> None:
    """Train by the plan with `batches=True`, and compare the rows with the steady power."""
    pieces = plan(bench)
    found["plan"] = [(piece.group, piece.kinds[0] if len(piece.kinds) == 1 else "both", piece.seconds) for piece in pieces]
    found["load"] = bench.load.what
    done, rows = _train(bench, pieces)
    if len(rows) < len(done) - 1:
        raise NotPossibleError(f"{len(done)} batches were made and {len(rows)} rows came: the callback did not measure.")
    count = min(len(done), len(rows))
    joules, seconds, stated = (
        np.asarray([row[key] for row in rows[:count]]) for key in ("joules", "seconds", "uncertainty_j")
    )
    piece = np.asarray([index for index, _ in done[:count]])
    heavy = np.asarray([kind == HEAVY for _, kind in done[:count]])
    found["batches"] = {"joules": joules, "seconds": seconds, "uncertainty_j": stated, "piece": piece, "heavy": heavy * 1}
    found |= judge(pieces, piece, heavy, joules, seconds, stated)


def judge(
    pieces: Sequence[Piece],
    piece: NDArray[Any],
    heavy: NDArray[Any],
    joules: NDArray[Any],
    seconds: NDArray[Any],
    stated: NDArray[Any],
) -> dict[str, Any]:
    """The batches of each group against the kinds' steady power.

    Args:
        pieces: the plan.
        piece: each batch's piece, by its place in the plan.
        heavy: whether it is heavy.
        joules: what it was given.
        seconds: how long it took.
        stated: its stated uncertainty, joules.

    Returns:
        `steady_w` by kind; `groups`, a row each; `regression`, a row for each group of both kinds and window.
    """
    ends = np.cumsum(seconds)
    starts = ends - seconds
    first = {i: starts[piece == i].min() for i in set(piece.tolist())}
    last = {i: ends[piece == i].max() for i in set(piece.tolist())}
    steady: dict[str, float] = {}
    for i, one in enumerate(pieces):
        if one.group == "steady" and i in first:
            inner = (piece == i) & (starts >= first[i] + min(SETTLING_S, one.seconds / 3)) & (ends <= last[i] - 0.1)
            steady[one.kinds[0]] = float(joules[inner].sum() / seconds[inner].sum())
    if len(steady) < 2:
        return {"steady_w": steady, "groups": [], "regression": []}
    expected = np.where(heavy, steady[HEAVY], steady[LIGHT]) * seconds
    error = np.abs(joules - expected)
    away = np.asarray([min(s - first[i], last[i] - e) for i, s, e in zip(piece.tolist(), starts, ends, strict=True)])
    groups, regression = [], []
    for name in dict.fromkeys(one.group for one in pieces):
        mine = np.isin(piece, [i for i, one in enumerate(pieces) if one.group == name])
        row: dict[str, Any] = {"group": name, "batches": int(mine.sum())}
        if not mine.any():
            continue
        row["error"] = float(error[mine].mean() / expected[mine].mean())
        inner = mine & (away > INNER_S)
        row["inner_error"] = float(error[inner].mean() / expected[inner].mean()) if inner.any() else None
        row["within"] = float((error[mine] <= stated[mine]).mean())
        row["total_error"] = float(joules[mine].sum() / expected[mine].sum() - 1)
        for kind, is_kind in ((HEAVY, heavy), (LIGHT, ~heavy)):
            chosen = mine & is_kind
            row[f"{kind}_w"] = float(joules[chosen].sum() / seconds[chosen].sum()) if chosen.any() else None
        groups.append(row)
        if name in ("batch by batch", "mixed"):
            found = (regress(heavy[mine], joules[mine], seconds[mine], window_s) for window_s in WINDOWS_S)
            regression += [
                {"group": name} | one | {f"{kind}_error": one[f"{kind}_w"] / steady[kind] - 1 for kind in (HEAVY, LIGHT)}
                for one in found
                if one is not None
            ]
    return {"steady_w": steady, "groups": groups, "regression": regression}


def summarise(found: dict[str, Any]) -> list[str]:
    """Two tables: the groups, and the regression."""
    steady = found.get("steady_w", {})
    if len(steady) < 2:
        return ["The steady periods were not measured."]
    lines = [f"Steady: heavy {number(steady[HEAVY])} W, light {number(steady[LIGHT])} W.", ""]
    rows = [
        [
            row["group"],
            row["batches"],
            percent(row["error"]),
            percent(row["inner_error"]),
            percent(row["within"], 0),
            percent(row["total_error"], 2, sign=True),
            number(row["heavy_w"]),
            number(row["light_w"]),
        ]
        for row in found["groups"]
    ]
    headers = [
        "periods", "batches", "error a batch", f"inner, {INNER_S:g} s from an edge", "steady value within ±",
        "all together", "heavy, W", "light, W",
    ]  # fmt: skip
    lines += table(headers, rows)
    rows = [
        [
            row["group"],
            f"{row['window_s']:g}",
            row["windows"],
            f"{number(row['heavy_w'])} ± {number(row['heavy_se_w'], 2)}",
            percent(row["heavy_error"], sign=True),
            f"{number(row['light_w'])} ± {number(row['light_se_w'], 2)}",
            percent(row["light_error"], sign=True),
        ]
        for row in found["regression"]
    ]
    headers = ["regression over", "window, s", "windows", "heavy, W", "to steady", "light, W", "to steady"]
    if rows:
        lines += ["", *table(headers, rows)]
    fitted = {row["group"] for row in found["regression"]}
    if any(row["group"] == "batch by batch" for row in found["groups"]) and "batch by batch" not in fitted:
        lines += ["", "Strict alternation has no regression: every window holds as much of the one kind as of the other."]
    return lines


def _train(bench: Bench, pieces: Sequence[Piece]) -> tuple[list[tuple[int, str]], list[dict[str, float]]]:
    """Each batch's piece and kind, and the callback's rows."""
    import torch

    from experiments.bench.gpu_evidence.training import Work, loader, quiet, read_batches, trainer, workplace
    from lightning_watt import WattCallback

    done: list[tuple[int, str]] = []

    class Planned(Work):
        """Manual steps, so that nothing but the planned batch runs."""

        def __init__(self) -> None:
            super().__init__(bench.load)
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            """The batch that is due."""
            index, kind, until_ns = batch
            bench.load.batch(str(kind), int(until_ns))
            done.append((int(index), str(kind)))

    class Due(torch.utils.data.IterableDataset[Any]):
        """What is due, for as long as the plan lasts."""

        def __iter__(self) -> Iterator[tuple[int, str, int]]:
            return due(pieces, bench.begin_ns or time.monotonic_ns())

    with workplace() as directory, quiet():
        watt = WattCallback(batches=True, sources=bench.sources(), **bench.watt_options())
        fit = trainer(bench.load, directory, [watt])
        # One batch is fetched ahead of the one that runs, so that Lightning knows which is the last.
        fit.fit(Planned(), loader(Due()))
        return done, read_batches(directory)


def due(pieces: Sequence[Piece], begin_ns: int) -> Iterator[tuple[int, str, int]]:
    """The batches of a plan as time goes by: piece, kind, and when it is over (CLOCK_MONOTONIC).

    A batch belongs to the first moment that the one before it leaves free, so a late host skips batches and not periods.
    """
    batch_ns = round(BATCH_S * 1e9)
    time.sleep(max(0, begin_ns - time.monotonic_ns()) / 1e9)
    start_ns = begin_ns
    for index, piece in enumerate(pieces):
        slots = max(1, round(piece.seconds / BATCH_S))
        slot = 0
        while slot < slots:
            yield index, piece.kinds[slot % len(piece.kinds)], start_ns + (slot + 1) * batch_ns
            slot = max(slot + 1, (time.monotonic_ns() - start_ns) // batch_ns)
        start_ns += slots * batch_ns
