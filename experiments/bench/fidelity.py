"""How true a window's joules are, from a batch of 8 ms to a minute, on boards as they were published.

Each board of `cases` is replayed over made power curves, and over recorded ones where these are at hand. Beside the meter
stand three simple ways: a straight line between reads a second apart (CodeCarbon's), the counter at both edges (Zeus's), and
the polled power that nvidia-smi shows. Every goal is checked in every cell.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from experiments.bench.about import RESULTS, about
from experiments.bench.cases import BOARDS, FED, board
from experiments.bench.curves import ALTERNATING, RECORDED, made, recorded
from experiments.bench.goals import Cell, length, verdicts
from experiments.bench.replay import WINDOWS_S, replay
from experiments.bench.truth_figure import draw
from lightning_watt.testing import Curve, named

SECONDS = 300.0

PAGE = """# How true a window's joules are

`python -m experiments.bench.fidelity` on {about}.

The meter is replayed on a clock of its own, {seconds:g} s for each board and curve, over the lab's boards (as published;
their counters add up the truth, unless it says otherwise). Curves: {curves}.
All numbers are percent of the mean window; every cell is in [{csv}]({csv}). There are up to 400 windows of each length;
those of a minute are 20 that overlap, so their percentages are coarse.

## Goals

{verdicts}

## Errors

Median error, the median over the curves: ours / straight line between reads / counter at the edges / nvidia-smi.

{errors}

The same over the made load that alternates in 52 ms, where sensors that look now and then see something else than there was:

{aliased}

## What is stated

95 % of the errors are below the first number; the median ±; the truth is inside it in so many percent of the windows, over
the curves / in the worst curve. The ± is that of the edges: the part of the board's scale comes on top.

{stated}
{recorded}
## Each window against the truth

Windows of 40 ms, bursts of load. Above: joules over time, the truth in grey. Below: what the meter stated for a window over
what it truly used; on the line both are equal.

![Stated over true joules of every window](fidelity.png)
"""

OF_RECORDINGS = """
## Recorded curves, each on the board that it was recorded from

Ours / line / counter / nvidia-smi; then the median ± and how many percent it covers. Also in the tables above.

{table}
"""


def measure(
    cases: Mapping[str, tuple[str, Mapping[str, Any]]],
    curves: Mapping[str, Curve],
    seconds: float = SECONDS,
    windows_s: tuple[float, ...] = WINDOWS_S,
) -> list[Cell]:
    """Every board of `cases` over every curve."""
    cells: list[Cell] = []
    for number, (name, case) in enumerate(cases.items()):
        for curve, power in curves.items():
            run = replay(board(case, power), seconds, windows_s, seed=number)
            row = run.replayed.values()
            cells += [Cell(name, curve, found, run.calls_a_second, has_goals=name not in FED) for found in row]
    return cells


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.3g}" if value >= 0.001 else f"{100 * value:.2f}"


def _four(cells: Sequence[Cell]) -> str:
    ways = [
        [c.found.error(way) for way in (c.found.ours_j, c.found.line_j, c.found.counter_j, c.found.smi_j)] for c in cells
    ]
    return " / ".join(_percent(float(value)) for value in np.median(ways, axis=0))


def _stated(cells: Sequence[Cell]) -> str:
    error, plus = (
        np.median([v(c) for c in cells]) for v in (lambda c: c.found.error(c.found.ours_j, 95), lambda c: c.found.stated)
    )
    covered = [c.found.coverage for c in cells]
    return f"{_percent(float(error))} ± {_percent(float(plus))}, {100 * np.mean(covered):.0f} / {100 * min(covered):.0f}"


def table(cells: Sequence[Cell], cell_text: Any) -> str:
    """Boards by lengths of window, as a Markdown table."""
    lengths = list(dict.fromkeys(cell.found.window_s for cell in cells))
    rows = []
    for name in dict.fromkeys(cell.board for cell in cells):
        mine = [cell for cell in cells if cell.board == name]
        calls = max(cell.calls_a_second for cell in mine)
        rows.append([name, f"{calls:.1f}", *(cell_text([c for c in mine if c.found.window_s == w]) for w in lengths)])
    headers = ["board", "calls/s", *map(length, lengths)]
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)


def of_recordings(cells: Sequence[Cell]) -> str:
    """The recorded curves on their own boards; nothing where there are none."""
    own = [c for c in cells if c.curve.endswith(", recorded") and c.board.lower().replace(" ", "") == c.curve.split()[0]]
    if not own:
        return ""
    lengths = list(dict.fromkeys(cell.found.window_s for cell in own))
    rows = []
    for curve in dict.fromkeys(cell.curve for cell in own):
        by_length = {cell.found.window_s: cell for cell in own if cell.curve == curve}
        texts = [f"{_four([c])}; ± {_percent(c.found.stated)}, {100 * c.found.coverage:.0f}" for c in by_length.values()]
        rows.append([curve.removesuffix(", recorded"), *texts])
    text = tabulate(rows, headers=["curve", *map(length, lengths)], tablefmt="github", disable_numparse=True)
    return OF_RECORDINGS.format(table=text)


def all_cells(cells: Sequence[Cell]) -> str:
    """Every cell, as CSV; shares of the mean window."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    names = ("ours", "ours_95", "stated", "coverage", "line", "counter", "nvidia_smi")
    lines.writerow(["board", "curve", "window_s", "windows", *names, "missed"])
    for cell in cells:
        r = cell.found
        numbers = (
            r.error(r.ours_j),
            r.error(r.ours_j, 95),
            r.stated,
            r.coverage,
            *map(r.error, (r.line_j, r.counter_j, r.smi_j)),
        )
        shown = [f"{number:.5f}" for number in numbers]
        lines.writerow([cell.board, cell.curve, r.window_s, len(r.true_j), *shown, " ".join(cell.missed())])
    return text.getvalue()


def page(cells: Sequence[Cell], curves: Mapping[str, Curve]) -> str:
    """The page."""
    return PAGE.format(
        about=about(),
        seconds=SECONDS,
        curves="; ".join(curves),
        csv="fidelity.csv",
        verdicts="\n".join(verdicts(cells)),
        errors=table(cells, _four),
        aliased=table([cell for cell in cells if cell.curve == ALTERNATING], _four),
        stated=table(cells, _stated),
        recorded=of_recordings(cells),
    )


def main() -> None:
    """Replay everything, print the page, and write it with the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--recorded", type=Path, default=RECORDED, help="a folder with recorded curves (default: %(default)s)"
    )
    parser.add_argument("--into", type=Path, default=RESULTS, help="where to write the page (default: %(default)s)")
    parser.add_argument("--strict", action="store_true", help="exit with status 1 if a goal is missed")
    chosen = parser.parse_args()
    curves = {**made(), **recorded(chosen.recorded)}
    cells = measure({**BOARDS, **FED}, curves)
    picture = [replay(named(name, power=curves["bursts"]), 12.0, (0.04,)).replayed[0.04] for name in ("V100", "A100")]
    text = page(cells, curves)
    chosen.into.mkdir(exist_ok=True, parents=True)
    (chosen.into / "fidelity.md").write_text(text)
    (chosen.into / "fidelity.csv").write_text(all_cells(cells))
    (chosen.into / "fidelity.png").write_bytes(draw(*picture))
    print(text)
    if chosen.strict and any("**missed**" in line for line in verdicts(cells)):
        sys.exit("A goal is missed.")


if __name__ == "__main__":
    main()
