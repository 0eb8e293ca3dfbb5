"""The figure over the years: published accuracies beside inferences with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from matplotlib.axes import Axes

from experiments.report.comparison import compare
from experiments.report.figures.style import Picture
from experiments.report.figures.years import draw, draw_inference
from experiments.report.inputs.frames import runs_frame
from experiments.report.inputs.lineage import lineages
from experiments.report.inputs.records import load
from experiments.report.inputs.reference import read_reference
from experiments.report.tables import models
from tests.unit.experiments.report.made import made, write

MODELS = (("vgg16", 2014, 0.716, 90.0), ("mobilenetv2_100", 2018, 0.729, 10.0), ("davit_base", 2022, 0.847, 80.0))
STEADY = (("vgg16", 2014, 0.70, 10.0), ("mobilenetv2_100", 2018, 0.7401, 20.0), ("davit_base", 2022, 0.78, 40.0))


def drawn(directory: Path, models: Sequence[tuple[str, int, float, float]]) -> Picture:
    for name, year, top1, joules in models:
        facts = {"timm_name": f"{name}.in1k", "name": name, "year": year, "published_top1": top1, "start": "scratch"}
        write(directory / name, made(joules, 0.1, phase="inference", **facts))
    (comparison,) = compare(lineages(load(directory).runs))
    return draw_inference(comparison)


def fitted(axes: Axes) -> bool:
    """Whether a line is drawn."""
    return any(len(line.get_xdata()) > 2 for line in axes.lines)


def test_an_accuracy_that_random_weights_have_is_not_drawn(tmp_path: Path) -> None:
    picture = drawn(tmp_path, MODELS)
    assert picture.figure is not None
    left, right = picture.figure.axes
    tops = sorted(float(line.get_ydata()[0]) for line in left.lines if len(line.get_xdata()) == 1)
    assert tops == pytest.approx([top1 for _, _, top1, _ in MODELS])
    assert left.get_title() == "accuracy: no sure change, p = 0.28"
    assert "The weights of 3 of 3 models were random" in picture.caption
    assert not fitted(left)
    assert "energy of an inference" in right.get_ylabel()
    assert {text.get_text() for text in left.texts} == {name for name, *_ in MODELS}  # each the best by then
    assert {text.get_text() for text in right.texts} == {"vgg16", "mobilenetv2_100"}


def test_a_change_that_is_sure_has_a_line(tmp_path: Path) -> None:
    picture = drawn(tmp_path, STEADY)
    assert picture.figure is not None
    left, right = picture.figure.axes
    assert left.get_title() == "accuracy: +1 points a year, R² = 1.00"
    assert right.get_title() == "energy: doubles every 4 years, R² = 1.00"
    assert fitted(left)
    assert fitted(right)


def test_random_weights_are_named_and_have_no_accuracy(tmp_path: Path) -> None:
    """Records of theirs once held the accuracy of guessing, which looked like a result."""
    drawn(tmp_path, MODELS)
    found = load(tmp_path).runs
    assert {run.notes for run in found} == {("random weights, so without accuracy",)}
    (comparison,) = compare(lineages(found))
    assert {(one.accuracy, one.learnt, one.ranked) for one in comparison.results} == {(None, True, False)}
    assert all(", random weights" in one.label for one in comparison.results)
    said = models(comparison)
    assert {row[said.columns.index("top-1 (%)")] for row in said.rows} == {None}
    assert set(runs_frame(found)["accuracy"].isna()) == {True}


def test_two_years_are_no_development(tmp_path: Path) -> None:
    picture = drawn(tmp_path, MODELS[:2])
    assert picture.figure is None
    assert "`study=years`" in picture.why


def test_a_line_is_of_one_device(tmp_path: Path) -> None:
    """It went through trainings on eight boards and on one, which differ for other reasons than their year."""
    rows = [f"ResNet50,{2010 + n},{2**n},0.5,A" for n in range(4)] + [f"VGG16,{2010 + n},{40 - n},0.5,B" for n in range(3)]
    file = tmp_path / "reference.csv"
    file.write_text("model,year,kwh,accuracy,device\n" + "\n".join(rows) + "\n")
    (comparison,) = compare([], trainings=read_reference(file)[0])
    picture = draw(comparison)
    assert picture.figure is not None
    assert picture.figure.axes[1].get_title() == "energy: doubles every 1 years, R² = 1.00"  # as those on A do
    assert "The fits use mixed energies of A only." in picture.caption
