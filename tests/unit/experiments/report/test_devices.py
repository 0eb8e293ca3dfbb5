"""Boards side by side: which results are held against each other, with which plus or minus, and whether an order changes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from experiments.report.comparison import Comparison, compare
from experiments.report.devices.recipes import by_recipe, device_ratio, side_by_side
from experiments.report.devices.tables import by_device, orders, orders_of, verdict
from experiments.report.figures.boards import draw
from experiments.report.inputs.lineage import lineages
from experiments.report.inputs.records import load
from experiments.report.metrics import Amount
from lightning_watt.record import Record
from tests.unit.experiments.report.made import made, write

A, B = "NVIDIA A100", "NVIDIA H100"
UUIDS = {A: "GPU-aaaa1111-1", B: "GPU-bbbb2222-2"}


def run(joules: float, family: str = "vit", device: str = A, *, boundary: float = 0.01, seed: int = 0, **more) -> Record:
    """A training whose edges are known to 1 % and whose board's scale to 10 %."""
    record = made(joules, family=family, device=device, seed=seed, **{"uuid": UUIDS[device], **more})
    record.energy.boundary_j, record.energy.gain_j = boundary * joules, 0.1 * joules
    record.energy.uncertainty_j = math.hypot(boundary, 0.1) * joules
    return record


def compared(root: Path) -> Comparison:
    (comparison,) = compare(lineages(load(root).runs))
    return comparison


def grid(root: Path, joules: dict[tuple[str, str], float], **more) -> Comparison:
    """One training of each family on each device."""
    for (family, device), one in joules.items():
        write(root / f"{family}-{device}", run(one, family, device, **more))
    return compared(root)


def test_an_order_that_changes_by_more_than_the_plus_or_minus_is_named(tmp_path: Path) -> None:
    """Within a board 1 % is known, though each board's scale may be off by ten times as much."""
    comparison = grid(tmp_path, {("vit", A): 100, ("swin", A): 105, ("vit", B): 105, ("swin", B): 100})
    said = verdict(orders_of(comparison))
    assert said.startswith(f"By train energy the order changes by more than the ±: swin and vit between {A} and {B}.")
    table = orders(comparison)
    assert [list(row[2:]) for row in table.rows if row[0] == "train energy"] == [
        [A, 2, "vit (1); swin (2)", None, None, None],
        [B, 2, "swin (1); vit (2)", 1, 1, -1.0],
    ]


@pytest.mark.parametrize("boundary", [0.01, 0.08])
def test_a_tie_on_either_device_is_no_change(boundary: float, tmp_path: Path) -> None:
    numbers = {("vit", A): 100, ("swin", A): 105, ("vit", B): 100.5, ("swin", B): 100}
    comparison = grid(tmp_path, numbers, boundary=boundary)
    assert "By train energy the order changes, but by no more than the ±." in verdict(orders_of(comparison))
    (on_b,) = [row for row in orders(comparison).rows if (row[0], row[2]) == ("train energy", B)]
    assert list(on_b[4:7]) == ["swin (1 to 2); vit (1 to 2)", 1, 0]


def test_one_order_everywhere_and_one_device_are_said(tmp_path: Path) -> None:
    comparison = grid(tmp_path, {("vit", A): 100, ("swin", A): 105, ("vit", B): 50, ("swin", B): 55})
    assert "By train energy the order is the same on all devices." in verdict(orders_of(comparison))
    alone = grid(tmp_path / "alone", {("vit", A): 100, ("swin", A): 105})
    assert verdict(orders_of(alone)).startswith("No two models were run on two devices")
    assert (by_device(alone).rows, orders(alone).rows) == ([], [])
    assert "`study=boards`" in draw(alone).why


def ratio(root: Path, starts: dict[str, list[float]], joules: dict[str, list[float]]) -> Amount:
    for device, of_device in joules.items():
        for seed, one in enumerate(of_device):
            record = run(one, device=device, seed=seed, boundary=0.0)
            record.started_unix = starts[device][seed] if starts else 0.0
            write(root / f"{device}{seed}", record)
    (recipe,) = side_by_side(compared(root))
    found = device_ratio(recipe.trained, B, A, "train_j")
    assert found is not None
    return found


def test_rounds_are_compared_one_by_one(tmp_path: Path) -> None:
    """From round to round all boards take more: that is in both, and says nothing of their ratio."""
    joules = {A: [100.0, 140.0, 140.0, 100.0], B: [200.0, 280.0, 280.0, 200.0]}
    starts = {A: [1e9, 1e9 + 20, 1e9 + 40, 1e9 + 60], B: [1e9 + 10, 1e9 + 30, 1e9 + 50, 1e9 + 70]}
    gains = 2 * math.hypot(0.1, 0.1)
    assert ratio(tmp_path / "in turn", starts, joules).plus_minus == pytest.approx(gains)
    apart = ratio(tmp_path / "not known when", {}, joules)
    assert apart.value == pytest.approx(2.0)
    assert apart.plus_minus > 2 * gains


def test_a_drift_of_the_machine_is_in_the_plus_or_minus(tmp_path: Path) -> None:
    """Each board rises by 1 % of its mean a second; the second one always comes 10 s after the first."""
    starts = {A: [1e9, 1e9 + 20, 1e9 + 40], B: [1e9 + 10, 1e9 + 30, 1e9 + 50]}
    joules = {A: [80.0, 100.0, 120.0], B: [160.0, 200.0, 240.0]}
    found = ratio(tmp_path, starts, joules)
    assert found.plus_minus == pytest.approx(2 * math.hypot(0.1, 0.1, 0.01 * 10))


def boards_of_one_name(root: Path, seeds: dict[str, list[int]]) -> Comparison:
    for uuid, of_board in seeds.items():
        for seed in of_board:
            for family in ("vit", "swin"):
                joules = 100.0 if uuid == "GPU-aaaa1111-1" else 110.0
                write(root / f"{uuid}{family}{seed}", run(joules, family, uuid=uuid, seed=seed))
    return compared(root)


def test_boards_of_one_name_stand_apart_if_each_recipe_ran_on_each(tmp_path: Path) -> None:
    crossed = boards_of_one_name(tmp_path / "crossed", {"GPU-aaaa1111-1": [0, 1], "GPU-cccc3333-3": [0, 1]})
    names = [f"{A} (GPU-aaaa1111)", f"{A} (GPU-cccc3333)"]
    assert [sorted(recipe.trained) for recipe in by_recipe(crossed)] == [names] * 2
    table = by_device(crossed)
    at = table.columns.index(f"train: by {names[0]}")
    assert [row[at] and row[at].value for row in table.rows] == [None, pytest.approx(1.1)] * 2
    # Jobs that took whichever board was free: their boards are one device.
    free = boards_of_one_name(tmp_path / "free", {"GPU-aaaa1111-1": [0, 1], "GPU-cccc3333-3": []})
    write(tmp_path / "free" / "other", run(110, "vit", uuid="GPU-cccc3333-3", seed=2))
    assert [list(recipe.trained) for recipe in by_recipe(compared(tmp_path / "free"))] == [[A]] * 2
    assert by_device(free).rows == []


def test_trainings_alone_are_drawn_without_an_empty_half(tmp_path: Path) -> None:
    """Beside them stood two panels from 0 to 1 with "no run"."""
    picture = draw(grid(tmp_path, {("vit", A): 100, ("vit", B): 50}))
    assert picture.figure is not None
    assert [axes.get_title() for axes in picture.figure.axes] == ["train", "train, by device"]
