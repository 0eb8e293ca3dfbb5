"""The fidelity benchmark in small: replayed boards against the lab's truth, the goals, the page and the picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from experiments.bench.cases import BOARDS, FED, GAINS, board
from experiments.bench.curves import RECORDED, made, recorded
from experiments.bench.fidelity import all_cells, measure, page
from experiments.bench.goals import GOALS, Cell, uncovered_gains, verdicts
from experiments.bench.replay import Replayed, replay
from experiments.bench.truth_figure import draw
from lightning_watt.testing import constant

WINDOWS_S = (0.04, 0.4, 3.0)
CASES = {name: {**BOARDS, **FED}[name] for name in ("V100", "A100", "V100, no counter", *FED)}
CURVES = {name: made()[name] for name in ("step", "alternating 52 ms")}


@pytest.fixture(scope="module")
def cells() -> list[Cell]:
    return measure(CASES, CURVES, 20.0, WINDOWS_S)


def cell_of(cells: list[Cell], board: str, curve: str, window_s: float) -> Cell:
    return next(cell for cell in cells if (cell.board, cell.curve, cell.found.window_s) == (board, curve, window_s))


def test_every_board_is_measured_over_every_curve(cells: list[Cell]) -> None:
    assert len(cells) == len(CASES) * len(CURVES) * len(WINDOWS_S)
    for cell in cells:
        assert 60 < cell.found.true_j.mean() / cell.found.window_s < 300  # watts
        assert len(cell.found.true_j) >= 20
        assert (cell.calls_a_second > 0.5) == ("no counter" not in cell.board)


@pytest.mark.parametrize("window_s", WINDOWS_S)
def test_good_samples_give_a_step_its_shares(cells: list[Cell], window_s: float) -> None:
    found = cell_of(cells, "V100", "step", window_s).found
    assert found.error(found.ours_j) < 0.007
    assert found.error(found.ours_j) < found.best_simple
    assert found.coverage >= 0.95


def test_the_simple_ways_err_where_they_must(cells: list[Cell]) -> None:
    short = cell_of(cells, "A100", "step", 0.04).found
    assert short.error(short.counter_j) > 0.5  # a counter of 100 ms, read every 40 ms
    long = cell_of(cells, "A100", "step", 3.0).found
    assert long.error(long.line_j, 95) > 0.02  # a line of a second over an edge
    assert long.error(long.counter_j) < long.error(long.line_j)
    without = cell_of(cells, "V100, no counter", "step", 0.4).found
    assert np.isnan(without.error(without.counter_j))
    assert without.best_simple == without.error(without.smi_j)


def test_a_counter_that_sees_only_what_the_sensor_sees_is_shown_and_has_no_goals(cells: list[Cell]) -> None:
    fed = [cell for cell in cells if cell.board in FED]
    assert fed
    assert all(cell.missed() == [] for cell in fed)


def test_a_replay_comes_out_the_same_again() -> None:
    runs = [replay(board(BOARDS["A100"], CURVES["step"]), 5.0, (0.4,), seed=3).replayed[0.4] for _ in range(2)]
    np.testing.assert_array_equal(runs[0].ours_j, runs[1].ours_j)
    np.testing.assert_array_equal(runs[0].stated_j, runs[1].stated_j)


def crafted(window_s: float, error: float, stated: float, simple: float) -> Replayed:
    true = np.full(40, 100.0)
    ours, way = true * (1 + error), true * (1 + simple)
    return Replayed(window_s, np.arange(40.0), true, ours, true * stated, way, way, way)


@pytest.mark.parametrize(
    ("board", "curve", "found", "calls", "misses"),
    [
        ("V100", "training", crafted(0.4, 0.02, 0.05, 0.02), 1, []),
        ("V100", "training", crafted(0.4, 0.03, 0.05, 0.02), 1, ["simple"]),
        ("A100", "alternating 52 ms", crafted(0.4, 0.021, 0.05, 0.02), 1, ["aliased"]),
        ("A100", "alternating 52 ms", crafted(3.0, 0.0031, 0.01, 0.02), 1, ["aliased"]),
        ("A100", "alternating 52 ms", crafted(0.04, 0.3, 0.5, 0.3), 1, []),
        ("V100", "step", crafted(0.4, 0.0076, 0.01, 0.02), 1, ["step"]),
        ("V100", "training", crafted(0.4, 0.02, 0.01, 0.02), 1, ["covered", "worst"]),
        ("V100", "training", crafted(0.4, 0.02, 0.09, 0.02), 1, ["width"]),
        ("V100", "training", crafted(0.4, 0.009, 0.09, 0.02), 1, []),
        ("V100", "training", crafted(60.0, 0.003, 0.01, 0.02), 1, ["total"]),
        ("V100", "training", crafted(3.0, 0.0, 0.01, 0.02), 7, ["calls"]),
    ],
)
def test_each_goal_is_missed_by_its_own_fault(board, curve, found, calls, misses) -> None:
    cell = Cell(board, curve, found, calls)
    assert cell.missed() == misses
    assert replace(cell, has_goals=False).missed() == []
    for goal, line in zip(GOALS, verdicts([cell]), strict=True):
        if goal != "gain":
            assert ("**missed**" in line and board in line) == (goal in misses)


def test_gains_are_asked_of_boards_by_their_names() -> None:
    assert {line.split(" (")[0] for line in uncovered_gains()} <= set(GAINS)


def test_the_page_the_cells_and_the_picture(cells: list[Cell]) -> None:
    text = page(cells, CURVES)
    assert all(f"- {sentence}: " in text for sentence in GOALS.values())
    assert all(f"| {name} " in text for name in CASES)
    rows = all_cells(cells).splitlines()
    assert len(rows) == len(cells) + 1
    assert rows[0].startswith("board,curve,window_s")
    assert draw(*(cell_of(cells, name, "step", 0.04).found for name in ("V100", "A100"))).startswith(b"\x89PNG")


def test_made_curves_are_like_the_recorded_ones() -> None:
    curves = recorded()
    if not curves:
        pytest.skip(f"the recordings are not in {RECORDED.name}, beside the project")
    assert len(curves) == 5
    mean_w = {name: power.energy_pj(80 * 10**9) / 80e12 for name, power in {**curves, **made()}.items()}
    assert mean_w["alternating 52 ms"] == pytest.approx(mean_w["a100 alternating, recorded"], rel=0.1)
    assert mean_w["step"] == pytest.approx(mean_w["a100 step, recorded"], rel=0.15)
    (row,) = measure({"A100": BOARDS["A100"]}, {"a100 step, recorded": curves["a100 step, recorded"]}, 8.0, (0.4,))
    assert row.found.error(row.found.ours_j) < 0.02
    assert recorded(RECORDED / "nowhere") == {}


def test_constant_power_is_exact_by_every_way_over_seconds() -> None:
    found = replay(board(BOARDS["V100"], constant(200)), 8.0, (3.0,)).replayed[3.0]
    for way in (found.ours_j, found.line_j, found.smi_j):
        assert found.error(way, 100) < 0.001
    assert found.error(found.counter_j, 100) < 0.008  # a tick at either edge
