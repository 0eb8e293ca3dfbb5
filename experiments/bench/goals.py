"""What `fidelity` asks of every cell, board by curve by length of window; each miss has a name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.bench.cases import GAINS
from experiments.bench.replay import Replayed
from lightning_watt.sources import NvmlSource
from lightning_watt.testing import Board, Lab, ReplayClock

SLACK, FLOOR = 1.1, 0.0002
"""No more than a tenth worse than the best simple way; an error below 0.02 % of the window is as good as none."""
COVERED, WORST = 0.95, 0.90
WIDE, FROM = 4.0, 0.01
TOTAL = 0.002
CALLS = 6.0
ALIASED = {0.4: 0.02, 3.0: 0.003}
STEPS = 0.0075  # 0.7 %, rounded

GOALS = {
    "simple": "Never worse than the best of the simple ways by more than a tenth of its error",
    "aliased": "A100, alternating load: median error under 2 % at 400 ms, under 0.3 % at 3 s",
    "step": "20 ms samples, step load: median error at most 0.7 %",
    "covered": "Truth inside the stated ± in at least 95 % of a cell's windows",
    "worst": "... and in at least 90 % in the worst cell",
    "width": "Median ± at most 4 times the median error where that is above 1 %",
    "total": "Totals of 60 s within 0.2 % (95 % of them)",
    "calls": "At most 6 counter calls a second",
    "gain": "The gain part covers every board of the published table",
}


@dataclass
class Cell:
    """One cell of the table.

    Attributes:
        board, curve: the case's and the curve's names.
        found: what came out.
        calls_a_second: of the energy counter, in the whole replay.
        has_goals: whether it is held to the goals.
    """

    board: str
    curve: str
    found: Replayed
    calls_a_second: float
    has_goals: bool = True

    def missed(self) -> list[str]:
        """The goals that it misses."""
        if not self.has_goals:
            return []
        r = self.found
        error = r.error(r.ours_j)
        misses = {
            "simple": error > SLACK * r.best_simple + FLOOR,
            "aliased": self.board == "A100" and "alternating" in self.curve and error >= ALIASED.get(r.window_s, 1.0),
            "step": self.board == "V100" and "step" in self.curve and error > STEPS,
            "covered": r.coverage < COVERED,
            "worst": r.coverage < WORST,
            "width": error > FROM and r.stated > WIDE * error,
            "total": r.window_s >= 60 and r.error(r.ours_j, 95) > TOTAL,
            "calls": self.calls_a_second > CALLS,
        }
        return [goal for goal, is_missed in misses.items() if is_missed]


def uncovered_gains() -> list[str]:
    """Boards whose published error of scale is larger than the gain that the meter states for them."""
    clock = ReplayClock()
    lab = Lab([Board(name=name) for name in GAINS], clock=clock)
    with lab.running(children=False):
        source = NvmlSource()
        gains = {device.name: device.gain for device in source.open(clock)}
        source.close()
    # A sensor that shows 10.9 % too much is 9.8 % of what it shows away from the truth.
    needed = {name: abs(error) / (1 + error) for name, error in GAINS.items()}
    return [
        f"{name} ({error:+.1%}, stated {gains[name]:.1%} of what it shows)"
        for name, error in GAINS.items()
        if needed[name] > gains[name] + 0.0005
    ]


def verdicts(cells: Sequence[Cell]) -> list[str]:
    """One line a goal: how many cells miss it, and which."""
    lines = []
    missed = [(cell, cell.missed()) for cell in cells]
    for goal, sentence in GOALS.items():
        if goal == "gain":
            where = "; ".join(uncovered_gains())
            count = f"{where.count(';') + 1} boards" if where else ""
        elif goal == "calls":
            most = {cell.board: cell.calls_a_second for cell, goals in missed if goal in goals}
            where = "; ".join(f"{board} ({calls:.1f})" for board, calls in most.items())
            count = f"{len(most)} boards"
        else:
            of_goal = [cell for cell, goals in missed if goal in goals]
            where, count = _named(of_goal), f"{len(of_goal)} of {sum(cell.has_goals for cell in cells)} cells"
        lines.append(f"- {sentence}: " + (f"**missed** by {count}. {where}." if where else "held."))
    return lines


def _named(cells: Sequence[Cell]) -> str:
    """Cells by board and curve: `A100: step at 8, 40 ms; ...`."""
    by_board: dict[str, dict[str, list[str]]] = {}
    for cell in cells:
        by_board.setdefault(cell.board, {}).setdefault(cell.curve, []).append(length(cell.found.window_s))
    return "; ".join(
        f"{board}: " + ", ".join(f"{curve} ({' '.join(lengths)})" for curve, lengths in curves.items())
        for board, curves in by_board.items()
    )


def length(window_s: float) -> str:
    """`8ms`, `3s`."""
    return f"{1000 * window_s:g}ms" if window_s < 1 else f"{window_s:g}s"
