"""Lineages of runs, also after they were moved or when records contradict each other."""

from __future__ import annotations

import os
import shutil

import pytest

from experiments.report.inputs.lineage import lineages
from experiments.report.inputs.records import load
from lightning_watt.record import Inherited
from tests.unit.experiments.report.made import lifecycle, made, write


def found_in(root):
    return lineages(load(root).runs)


def paths(lineage):
    return [run.path for run in lineage.runs]


def test_a_lifecycle_is_one_line(tmp_path):
    lifecycle(tmp_path / "vit")
    (lineage,) = found_in(tmp_path)
    assert paths(lineage) == ["vit/pretrain", "vit/finetune", "vit/inference"]
    assert (lineage.own_j, lineage.train_j, lineage.train_uncertainty_j) == (100, 400, pytest.approx(40))
    assert lineage.shares() == {"pretrain": 300, "finetune": 100}
    assert (lineage.accuracy, lineage.status, lineage.provenance) == (0.9, "completed", "measured")


def test_beits_tokenizer_is_the_start_of_its_line(tmp_path):
    first = write(tmp_path / "pretrain/tokenizer", made(20, None, phase="tokenizer"))
    carried = [Inherited(path=str(first), total_j=20)]
    second = write(tmp_path / "pretrain", made(100, 0.2, phase="pretrain", inherited=carried))
    write(tmp_path / "finetune", made(50, inherited=[Inherited(path=str(second), total_j=120)]))
    (lineage,) = found_in(tmp_path)
    assert lineage.shares() == {"tokenizer": 20, "pretrain": 100, "finetune": 50}


def test_what_has_no_record_here_has_the_plus_minus_that_was_inherited(tmp_path):
    known = Inherited(path="/gone", total_j=300, uncertainty_j=20, boundary_j=12, gain_j=16)
    write(tmp_path / "finetune", made(100, inherited=[known]))
    (lineage,) = found_in(tmp_path)
    assert lineage.train_uncertainty_j == pytest.approx((12**2 + 26**2) ** 0.5)


def test_a_directory_that_was_moved_is_recognised_by_its_energy(tmp_path):
    lifecycle(tmp_path / "before/vit")
    lifecycle(tmp_path / "before/swin", family="swin", scale=2)
    shutil.move(tmp_path / "before", tmp_path / "after")
    assert [len(lineage.runs) for lineage in found_in(tmp_path / "after")] == [3, 3]


def test_two_candidates_after_a_move_are_none(tmp_path):
    lifecycle(tmp_path / "before/a")
    lifecycle(tmp_path / "before/b")
    shutil.move(tmp_path / "before", tmp_path / "after")
    found = found_in(tmp_path / "after")
    assert all(len(lineage.runs) == 1 for lineage in found)
    inference = next(lineage for lineage in found if lineage.inference)
    # The energy is in the record all the same.
    assert (inference.train_j, inference.own_j, inference.train_uncertainty_j) == (400, None, None)


def test_a_checkpoints_path_leads_to_its_run(tmp_path):
    first = write(tmp_path / "a", made(300, phase="pretrain"))
    write(tmp_path / "b", made(inherited=[Inherited(path=f"{first}/checkpoints/last.ckpt", total_j=250)]))
    (lineage,) = found_in(tmp_path)
    assert paths(lineage) == ["a", "b"]
    assert (lineage.train_j, lineage.train_uncertainty_j) == (350, None)


@pytest.mark.parametrize(
    ("inherits", "joules", "starts"),
    [
        ("", 300, ["a"]),
        ("", 20, ["a/watt-v1.json"]),
        ("", 320, ["a", "a/watt-v1.json"]),  # as energy_of(directory) sums them
        ("checkpoints/last.ckpt", 250, ["a"]),
        ("checkpoints/last.ckpt", 15, []),  # it may be of either
        ("", 7, []),
    ],
)
def test_the_start_is_found_among_several_runs_of_one_directory(tmp_path, inherits, joules, starts):
    first = write(tmp_path / "a", made(300, phase="pretrain"))
    write(first, made(20, phase="pretrain", family="mae"), "watt-v1.json")
    path = os.path.normpath(first / inherits)
    write(tmp_path / "b", made(inherited=[Inherited(path=path, total_j=joules)]))
    line = next(lineage for lineage in found_in(tmp_path) if lineage.end.path == "b")
    assert sorted(paths(line)) == [*starts, "b"]


def test_another_run_in_the_same_directory_is_not_taken_for_the_start(tmp_path):
    first = write(tmp_path / "a", made(300, phase="pretrain"))
    write(tmp_path / "b", made(inherited=[Inherited(path=str(first), total_j=250)]))
    assert [paths(lineage) for lineage in found_in(tmp_path)] == [["a"], ["b"]]
    assert found_in(tmp_path)[1].shares() == {"before": 250, "finetune": 100}


def test_records_that_say_to_have_come_from_each_other_stand_alone(tmp_path):
    for name, other in (("a", "b"), ("b", "a"), ("c", "c")):
        energy = Inherited(path=str(tmp_path / other), total_j=200)
        write(tmp_path / name, made(100, inherited=[energy, Inherited(path="x", total_j=0)]))
    for name in ("a", "b"):
        write(
            tmp_path / name, made(0.0, inherited=[Inherited(path=str(tmp_path / ("b" if name == "a" else "a")), total_j=0)])
        )
    assert sorted(paths(lineage) for lineage in found_in(tmp_path)) == [["a"], ["b"], ["c"]]


def test_the_worst_status_and_a_mixture_of_provenances_show(tmp_path):
    first = write(tmp_path / "a", made(300, phase="pretrain", status="interrupted", provenance="estimated"))
    write(tmp_path / "b", made(inherited=[Inherited(path=str(first), total_j=300)]))
    (lineage,) = found_in(tmp_path)
    assert (lineage.status, lineage.provenance) == ("interrupted", "mixed")


@pytest.mark.parametrize("path", ["../../etc", "/etc/passwd", "\0", "", "a" * 100_000, "<script>"])
def test_where_a_record_says_it_came_from_is_only_compared(tmp_path, path):
    write(tmp_path / "a", made(inherited=[Inherited(path=path, total_j=5)]))
    (lineage,) = found_in(tmp_path)
    assert lineage.train_j == 105
