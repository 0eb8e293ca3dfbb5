"""The power curves that `fidelity` replays: recordings of real boards where they are at hand, and made ones like them."""

from __future__ import annotations

import csv
import random
from collections.abc import Mapping
from pathlib import Path

from lightning_watt.testing import Curve, steps

RECORDED = Path(__file__).parents[3] / "shared" / "reference" / "boards"
"""Beside the project, not in it: see its README for what was recorded, by whom, and how."""
LENGTH_S = 40.0
"""A made curve repeats after about this long."""
ALTERNATING = "alternating 52 ms"
IN_STEP = "in step with the reads"


def recorded(folder: Path = RECORDED) -> dict[str, Curve]:
    """The recordings of `folder`, by name: power meters in the supply lines of boards; none if there is no such folder."""
    found = {}
    for file in sorted(folder.glob("*_meter.csv")):
        with file.open(encoding="utf-8") as lines:
            rows = [(float(row["t_ms"]), float(row["watts"])) for row in csv.DictReader(lines)]
        row_s = (rows[1][0] - rows[0][0]) / 1000  # each row is the mean over the time to the next
        name = file.name.removesuffix("_meter.csv").replace("_", " ")
        found[f"{name}, recorded"] = steps([(row_s, watts) for _, watts in rows])
    return found


def made(seed: int = 0) -> Mapping[str, Curve]:
    """Curves like those, made: alternating in 52 ms, in step with reads once a second, a step, a training, bursts."""
    chance = random.Random(seed)
    return {
        ALTERNATING: _alternating(chance),
        IN_STEP: steps([(0.501, 290), (0.501, 120)]),
        "step": _step(chance),
        "training": _training(chance),
        "bursts": _bursts(chance),
        "rare bursts": _rare_bursts(chance),
    }


def _noisy(chance: random.Random, seconds: float, watts: float, *, piece_s: float = 0.005) -> list[tuple[float, float]]:
    """So long about `watts`, in pieces, as a meter sees it: 2 % of noise."""
    count = max(1, round(seconds / piece_s))
    return [(seconds / count, watts * chance.gauss(1, 0.02)) for _ in range(count)]


def _alternating(chance: random.Random) -> Curve:
    """As the A100's: 52 ms of work and 52 ms of none, each off by a little, with edges of some milliseconds."""
    pieces: list[tuple[float, float]] = []
    while sum(seconds for seconds, _ in pieces) < LENGTH_S:
        for watts, before in ((193.0, 65.0), (65.0, 193.0)):
            pieces += [(0.002, before + (watts - before) * share) for share in (0.3, 0.8)]
            pieces += _noisy(chance, 0.048 + chance.gauss(0, 0.0005), watts)
    return steps(pieces)


def _step(chance: random.Random) -> Curve:
    """As the step recordings: idle, 6 s of load that creeps up as the board warms, idle."""
    load = [(0.02, 192 + 10 * k / 300 + chance.gauss(0, 6)) for k in range(300)]
    return steps([*_noisy(chance, 3.7, 64), (0.004, 150), *load, (0.03, 120), (0.1, 80), *_noisy(chance, 3.7, 66)])


def _training(chance: random.Random) -> Curve:
    """Batches of 180 ms with 30 ms in which the board waits for data, and between epochs a validation and a pause."""
    pieces: list[tuple[float, float]] = []
    while sum(seconds for seconds, _ in pieces) < LENGTH_S:
        for _ in range(40):
            pieces += [*_noisy(chance, chance.gauss(0.15, 0.004), 290), (max(0.005, chance.gauss(0.03, 0.008)), 120)]
        pieces += [*_noisy(chance, 1.6, 210), (0.7, 75)]
    return steps(pieces)


def _bursts(chance: random.Random) -> Curve:
    """Load and idle of random length, 20 ms to 2 s, at random heights."""
    pieces: list[tuple[float, float]] = []
    while sum(seconds for seconds, _ in pieces) < LENGTH_S:
        pieces += _noisy(chance, 0.02 * 100 ** chance.random(), chance.uniform(150, 320))
        pieces += _noisy(chance, 0.02 * 100 ** chance.random(), chance.uniform(60, 110))
    return steps(pieces)


def _rare_bursts(chance: random.Random) -> Curve:
    """A tenth of the time, for 5 to 40 ms each, the board works; most of these a sensor of 100 ms does not see."""
    pieces: list[tuple[float, float]] = []
    while sum(seconds for seconds, _ in pieces) < LENGTH_S:
        burst_s = chance.uniform(0.005, 0.04)
        pieces += [(burst_s, 350.0), (9 * burst_s * chance.uniform(0.5, 1.5), 50.0)]
    return steps(pieces)
