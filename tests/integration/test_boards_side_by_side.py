"""`study=boards` over three boards of the lab by name, whose power is known: are the ratios those of the truth?"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from statistics import fmean
from typing import Any

import pytest

from experiments.report.cells import Table
from experiments.report.comparison import Comparison, compare
from experiments.report.devices.tables import by_device, orders
from experiments.report.inputs.lineage import lineages
from experiments.report.inputs.records import load
from experiments.report.inputs.run import Run
from lightning_watt.testing import Lab, constant, named

pytestmark = pytest.mark.slow
BOARDS = {"RTX 3090": (300.0, 0.97), "A100": (220.0, 0.95), "H100": (260.0, 1.04)}
"""By name: its power in watts, and what its counter shows of it, which is less than what their sensors have wrong."""
NAMES = {"NVIDIA GeForce RTX 3090": 300.0, "NVIDIA A100-PCIE-40GB": 220.0, "NVIDIA H100 PCIe": 260.0}
MODELS, ROUNDS = ("resnet", "efficientnet"), 2


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Run], Comparison]:
    """What a sweep over the boards printed, its runs in the order of their start, and what the report compares."""
    directory = tmp_path_factory.mktemp("boards")
    boards = [named(name, power=constant(watts), counter_gain=gain) for name, (watts, gain) in BOARDS.items()]
    command = [
        *(sys.executable, "-m", "experiments.run", "-m", "study=boards", f"model={','.join(MODELS)}", f"rounds={ROUNDS}"),
        *("scale=tiny", "device=cpu", "device.boards=0,1,2", "recipe.epochs=1", "+trainer.enable_progress_bar=false"),
        *("trainer.limit_train_batches=8", "trainer.limit_val_batches=1", "trainer.limit_test_batches=2"),
        *("phase.inference.min_seconds=1", "phase.inference.max_seconds=1.2", f"hydra.sweep.dir={directory / 'sweep'}"),
    ]
    # torch must not take the boards for its own.
    lab = Lab(boards, age_s=10)
    env = lab.env() | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "TMPDIR": str(directory)}
    done = subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    runs = sorted(load(directory / "sweep").runs, key=lambda run: run.started_s or 0.0)
    (comparison,) = compare(lineages(runs))
    return done.stdout, runs, comparison


def cells(table: Table, *names: str) -> dict[tuple[str, str], list[Any]]:
    """Some columns of Table 2, by recipe and device."""
    at = [table.columns.index(name) for name in names]
    return {(row[0], row[1]): [row[n] for n in at] for row in table.rows}  # type: ignore[misc]


def test_the_boards_come_in_turn(swept: tuple[str, list[Run], Comparison]) -> None:
    trained = [run for run in swept[1] if run.phase == "pretrain"]
    assert {row[-1] for row in by_device(swept[2]).rows} == {"in turn"}
    jobs = [(run.facts["family"], run.devices) for run in trained]
    each = len(MODELS) * len(NAMES)
    assert [run.seed for run in trained] == [seed for seed in range(ROUNDS) for _ in range(each)]
    assert jobs[:each] == jobs[each:][::-1]  # as early as late
    assert len(set(jobs)) == each
    assert all(a.started_s < b.started_s for a, b in pairwise(trained))  # type: ignore[operator]


TOOK: dict[str, Callable[[Run], float]] = {
    "train": lambda run: run.seconds if run.phase != "inference" else 0.0,
    "inference": lambda run: 1 / run.per_second if run.per_second else 0.0,
}
"""Seconds of a run that a ratio is of."""


def assert_true(runs: list[Run], table: Table, column: str) -> None:
    """Each ratio is that of the truth, a board's watts times the seconds that its jobs took, within its plus or minus."""
    base, rounds = "NVIDIA A100-PCIE-40GB", {run.seed for run in runs}
    shown = cells(table, f"{column}: by {base}", "runs")
    assert {label for label, _ in shown} == set(MODELS)

    def truth(model: str, name: str) -> float:
        mine = [run for run in runs if (run.facts["family"], run.devices) == (model, name)]
        return NAMES[name] * sum(map(TOOK[column], mine))

    for (model, name), (ratio, count) in shown.items():
        assert count == len(rounds)
        if name == base:
            assert ratio is None
            continue
        expected = truth(model, name) / truth(model, base)
        assert abs(ratio.value - expected) <= ratio.plus_minus
        assert ratio.plus_minus > 0.07 * ratio.value  # both boards' scales


@pytest.mark.parametrize("column", TOOK)
def test_the_ratios_are_those_of_the_truth_within_their_plus_or_minus(
    column: str, swept: tuple[str, list[Run], Comparison]
) -> None:
    _, runs, comparison = swept
    assert_true(runs, by_device(comparison), column)
    for seed in range(ROUNDS):  # without the spread over rounds, which is wide over two
        of_seed = [run for run in runs if run.seed == seed]
        (alone,) = compare(lineages(of_seed))
        assert_true(of_seed, by_device(alone), column)


def test_energy_time_and_sam_stand_beside_the_board(swept: tuple[str, list[Run], Comparison]) -> None:
    _, runs, comparison = swept
    shown = cells(by_device(comparison), "train", "train time (s)", "SAM shifted, with inherited", "inferences a second")
    for (model, name), (train, seconds, score, per_second) in shown.items():
        mine = [run for run in runs if (run.facts["family"], run.devices) == (model, name)]
        assert train.joules == pytest.approx(sum(run.own_j or 0.0 for run in mine if run.phase != "inference") / ROUNDS)
        assert train.joules == pytest.approx(NAMES[name] * seconds, abs=train.plus_minus_j)
        assert per_second == pytest.approx(fmean(run.per_second for run in mine if run.per_second))
        assert score.value > 0


def test_the_sweep_ends_with_its_tables(swept: tuple[str, list[Run], Comparison]) -> None:
    said, _, comparison = swept
    assert "Table 2: by device" in said
    table = orders(comparison)
    assert [row[2] for row in table.rows if row[0] == "inference energy"] == sorted(NAMES)
    assert {row[table.columns.index("surely")] for row in table.rows} == {None, 0}  # on one CPU no order changes
    assert "boards.md" in said
