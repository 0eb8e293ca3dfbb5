"""Projections in the report: apart from what was measured, held against it, and compared with each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from experiments import load_runs
from experiments.projection.advice import advice
from experiments.projection.advised import AdviceTable
from experiments.projection.order import counterbalanced
from experiments.projection.tables import held_against, projected
from experiments.report.__main__ import main
from experiments.report.cells import Table
from experiments.report.figures.projected import draw_years, row_names
from experiments.report.inputs.projected import read_projection
from tests.unit.experiments.report.made import made, write


def project(root: Path, joules: float = 1000.0, *, number: int = 0, start_s: float = 1.0, **more: Any) -> Path:
    """The record of a part of a training, with a projection of the whole beside it."""
    facts = more.pop("facts", {})
    setup = {"recipe.batch_size": 32, "compile": False, "num_workers": 0, "device.count": 1} | more.pop("setup", {})
    content = {
        "is": "projected", "of": "pretrain", "energy_j": joules, "plus_minus_j": 20.0, "gain_j": 0.1 * joules, "once_j": 5.0,
        "low_j": 0.88 * joules, "high_j": 1.12 * joules, "duration_s": 3600.0, "duration_plus_minus_s": 60.0,
        "samples": 10_000, "epochs": 12, "round": number, "start_temperature_c": 50.0, "others_cpus": 0.0, "others": "",
        "setup": setup,
    } | more  # fmt: skip
    record = made(10, 0.2, phase="project", settings="abc", **facts)
    record.started_unix = start_s
    write(root, record)
    (root / "projection.json").write_text(json.dumps(content))
    return root


def candidates(root: Path, **joules: list[float]) -> Table:
    """The advice on candidates by name, each with its joules by round; they come in turn, early and late alike."""
    for column, (name, values) in enumerate(joules.items()):
        for number, value in enumerate(values):
            place = counterbalanced(len(joules), number).index(column)
            project(
                root / f"{number}-{name}", value, number=number, start_s=100.0 * (len(joules) * number + place + 1),
                setup={"compile": name},
            )  # fmt: skip
    (table,) = advice(load_runs(root))
    return table


def column(table: Table, name: str) -> list[Any]:
    return [row[list(table.columns).index(name)] for row in table.rows]


def test_a_part_is_in_no_comparison_and_its_projection_is_marked(tmp_path: Path):
    project(tmp_path / "part", 1000.0)
    assert main([str(tmp_path)]) == 0
    report = (tmp_path / "report/report.md").read_text()
    head, _, apart = report.partition("## Projected, not measured")
    assert "1 of the records are of parts of trainings" in head
    assert not (tmp_path / "report/tables/table1_models.csv").exists()  # with an accuracy and an energy it would be ranked
    assert "projected, measured" in apart
    assert [file.name for file in (tmp_path / "report/figures").glob("*.png")] == ["figure12_projected_all.png"]


def test_projected_trainings_are_drawn_by_year(tmp_path: Path):
    """Each doubles in two years; a training is drawn once, however often it was projected."""
    models = ("vgg16", "resnet50", "efficientnet_b0", "swin_base", "convnext_base")
    for n, name in enumerate(models):
        facts = {"timm_name": f"{name}.in1k", "year": 2014 + 2 * n, "published_top1": (0.7, 0.73, 0.77, 0.79, 0.83)[n]}
        for number in range(2):
            project(tmp_path / f"{name}{number}", 3.6e9 * 2**n, number=number, facts=facts)
    picture = draw_years(held_against(load_runs(tmp_path), load_runs(tmp_path, "stages")))
    assert picture.figure is not None
    left, right = picture.figure.axes
    assert (left.get_title(), right.get_title()) == (
        "accuracy: +1.6 points a year, R² = 0.99", "energy: doubles every 2 years, R² = 1.00"
    )  # fmt: skip
    drawn = [line.get_ydata()[0] for line in right.lines if len(line.get_xdata()) == 1 and line.get_marker() == "o"]
    assert drawn == pytest.approx([1000, 2000, 4000, 8000, 16000])
    assert {text.get_text() for text in right.texts} == {"vgg16", "convnext_base"}
    few = load_runs(tmp_path).head(2)
    assert "`study=years_training`" in draw_years(held_against(few, load_runs(tmp_path, "stages"))).why


def test_rows_of_one_training_are_told_apart(tmp_path: Path):
    """Sixteen rows of a study=advice had one name."""
    for number in range(2):
        for size in (32, 64):
            project(
                tmp_path / f"{number}-{size}", number=number, setup={"recipe.batch_size": size}, facts={"timm_name": "vit"}
            )
    project(tmp_path / "alone", facts={"timm_name": "resnet"})
    names = row_names(load_runs(tmp_path))
    assert sorted(name.removeprefix("vit, digits, pretrain, ") for name in names if name.startswith("vit")) == [
        "batch_size=32, round 0", "batch_size=32, round 1", "batch_size=64, round 0", "batch_size=64, round 1"
    ]  # fmt: skip
    assert [name for name in names if name.startswith("resnet")] == ["resnet, digits, pretrain"]


def test_a_projection_is_held_against_the_training_with_its_settings(tmp_path: Path):
    project(tmp_path / "part", 1000.0)
    write(tmp_path / "whole", made(1100, 0.9, phase="pretrain", settings="abc"))
    write(tmp_path / "another", made(5000, 0.9, phase="pretrain", settings="def"))
    table = projected(load_runs(tmp_path), load_runs(tmp_path, "stages"))
    assert [cell.joules for cell in column(table, "with the same settings, measured")] == [1100]
    assert column(table, "energy inside its ±") == ["no: 5 times"]  # the scale's error is in both
    (tmp_path / "part/projection.json").unlink()
    assert projected(load_runs(tmp_path), load_runs(tmp_path, "stages")).rows == []


def test_rounds_are_compared_one_by_one(tmp_path: Path):
    """All candidates take less from round to round; their difference does not change."""
    drifting = {"true": [1000.0, 801.0, 600.0, 400.0], "false": [1030.0, 829.0, 630.0, 431.0]}
    assert column(candidates(tmp_path, **drifting), "larger than its ±?") == ["fewest", "yes"]  # as early as late
    table = candidates(tmp_path / "three", **{name: joules[:3] for name, joules in drifting.items()})
    assert column(table, "larger than its ±?") == ["fewest", "no"]  # one came later, by how much is not known
    table = candidates(tmp_path / "steady", true=[1000, 990, 1010, 1000], false=[1051, 1039, 1060, 1050])
    assert column(table, "larger than its ±?") == ["fewest", "yes"]
    (_, more) = column(table, "more than the fewest (%)")
    assert more.value == pytest.approx(5, rel=0.01)
    assert more.plus_minus < 2
    assert table.note.startswith("compile=true takes the fewest joules; the next takes 5 ± ")
    assert set(column(table, "comparison")) == {"fair"}


def test_what_is_within_its_plus_or_minus_is_not_called_better(tmp_path: Path):
    table = candidates(tmp_path, true=[1000, 1100, 950], false=[1050, 1000, 1060])
    assert column(table, "larger than its ±?") == ["fewest", "no"]
    assert "no difference is larger than its ±" in table.note
    once = candidates(tmp_path / "once", true=[1000], false=[1025])
    assert column(once, "larger than its ±?") == ["fewest", "no"]  # each states ± 20 of itself
    assert set(column(once, "comparison")) == {"not repeated"}


def test_the_first_job_of_a_process_may_begin_more_slowly(tmp_path: Path):
    for number in range(3):
        for place, on in enumerate((False, True)):
            cold = 300.0 if number == place == 0 else 5.0
            project(
                tmp_path / f"{number}-{on}", 1000.0 + 50 * on + number + cold, once_j=cold, number=number,
                start_s=100.0 * (2 * number + place + 1), setup={"compile": on},
            )  # fmt: skip
    (table,) = advice(load_runs(tmp_path))
    assert column(table, "compile") == ["False", "True"]
    assert column(table, "larger than its ±?") == ["fewest", "yes"]
    assert [cell.joules for cell in column(table, "of that once")] == [5, 5]


def test_between_devices_the_scales_count(tmp_path: Path):
    for number in range(3):
        for count, joules in ((1, 1000.0), (2, 1050.0)):
            project(
                tmp_path / f"{number}-{count}", joules + number, number=number, start_s=100.0 * (2 * number + count),
                setup={"device.count": count},
            )  # fmt: skip
    (table,) = advice(load_runs(tmp_path))
    assert column(table, "device.count") == ["1", "2"]
    assert column(table, "larger than its ±?") == ["fewest", "no"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"start_temperature_c": 58.0}, "began 8 °C hotter"),
        ({"others": "Shared with 7."}, "others at work in 3 of 3 rounds"),
        ({"start_s": 1e6}, "not in turn with the others"),
    ],
)
def test_an_unfair_comparison_says_so(more: dict[str, Any], said: str, tmp_path: Path):
    for number in range(3):
        project(tmp_path / f"{number}-a", 1000.0 + number, number=number, start_s=200.0 * number + 1)
        unfair = {"start_s": 200.0 * number + 101} | more
        unfair["start_s"] += number
        project(tmp_path / f"{number}-b", 1100.0 + number, number=number, setup={"compile": True}, **unfair)
    (table,) = advice(load_runs(tmp_path))
    assert said in column(table, "comparison")
    assert "not fair in all rows" in table.note


def test_a_sweep_ends_with_its_advice(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    candidates(tmp_path, true=[1000, 990, 1010], false=[1051, 1039, 1060])
    sweep = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    AdviceTable().on_multirun_end(sweep)
    assert (tmp_path / "advice.md").read_text().startswith("### Advice, projected: pretrain of test")
    assert "compile=true takes the fewest joules" in " ".join(capsys.readouterr().out.split())


def test_other_trainings_are_other_tables(tmp_path: Path):
    project(tmp_path / "a")
    project(tmp_path / "b", of="finetune", setup={"compile": True})
    project(tmp_path / "c", epochs=3, setup={"compile": True})
    assert advice(load_runs(tmp_path)) == []


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"energy_j": "many"}', json.dumps({"energy_j": 1e30}), "[" * 100_000, '{"samples": 0}']
)
def test_a_projection_that_cannot_be_used_is_none(content: str, tmp_path: Path):
    (tmp_path / "projection.json").write_text(content)
    assert read_projection(tmp_path) is None


def test_a_link_is_not_followed(tmp_path: Path):
    project(tmp_path / "there")
    (tmp_path / "projection.json").symlink_to(tmp_path / "there/projection.json")
    assert read_projection(tmp_path) is None
    assert read_projection(tmp_path / "there").setup["compile"] == "False"
