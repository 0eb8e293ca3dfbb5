"""What is compared with what."""

from __future__ import annotations

import math

import msgspec
import pytest

from experiments.report.comparison import compare
from experiments.report.devices.recipes import by_recipe
from experiments.report.devices.tables import by_device
from experiments.report.figures import learning, tradeoff
from experiments.report.figures.pretraining import pairs
from experiments.report.inputs.lineage import lineages
from experiments.report.inputs.records import load
from experiments.report.inputs.reference import read_reference
from experiments.report.metrics import SamSettings
from experiments.report.tables import model_ranks, sensitivities
from lightning_watt.record import Inherited
from tests.unit.experiments.report.made import REFERENCE, lifecycle, made, write


def compared(root, **more):
    return compare(lineages(load(root).runs), **more)


@pytest.fixture
def trainings(tmp_path):
    file = tmp_path / "reference.csv"
    file.write_text(REFERENCE)
    return read_reference(file)[0]


def test_data_sets_and_the_reference_stand_apart(tmp_path, trainings):
    lifecycle(tmp_path / "runs/a")
    lifecycle(tmp_path / "runs/b", family="swin")
    lifecycle(tmp_path / "runs/c", data="emoji")
    found = compared(tmp_path / "runs", trainings=trainings)
    assert [comparison.title for comparison in found] == ["digits", "emoji", "reference (4 trainings, 10 epochs)"]
    assert [len(comparison.results) for comparison in found] == [2, 1, 4]


def test_measured_and_estimated_energies_are_never_ranked_together(tmp_path):
    lifecycle(tmp_path / "a", "vit", accuracy=0.8)
    lifecycle(tmp_path / "b", "swin", scale=0.01, accuracy=0.9, provenance="estimated")
    (comparison,) = compared(tmp_path)
    assert comparison.pareto() == {"vit": "yes", "swin": "yes"}
    assert [result.label for result in comparison.ranked("measured")] == ["vit"]


@pytest.mark.parametrize("status", ["failed", "interrupted", "running"])
def test_what_did_not_complete_is_kept_and_not_ranked(tmp_path, status):
    write(tmp_path / "a", made(status=status))
    write(tmp_path / "b", made())
    (comparison,) = compared(tmp_path)
    assert sorted(result.state for result in comparison.results) == ["completed", status]
    assert len(comparison.ranked("measured")) == 1


def test_what_did_not_learn_is_kept_and_not_ranked(tmp_path, trainings):
    (comparison,) = compare([], trainings)
    (failed,) = [result for result in comparison.results if not result.ranked]
    assert (failed.label, failed.state) == ("VGG16 (PyTorch)", "completed, did not learn")
    write(tmp_path / "a", made(accuracy=0.12, num_classes=10))
    assert compared(tmp_path)[0].results[0].learnt is False


def test_below_one_kwh_there_is_no_sam_but_a_shifted_one(trainings):
    (comparison,) = compare([], trainings)
    quick = next(result for result in comparison.results if result.family == "QuickNet")
    assert comparison.sam(quick) is None
    assert comparison.sam(quick, shifted=True) > 0
    assert comparison.pareto()["QuickNet (TF)"] == "yes"


def test_repetitions_are_one_entry_with_their_spread(tmp_path):
    for n, scale in enumerate((1.0, 1.1, 1.2)):
        lifecycle(tmp_path / str(n), scale=scale, accuracy=0.9 + n / 100)
    ((result,),) = (comparison.results for comparison in compared(tmp_path))
    assert result.count == 3
    assert (result.train_j, result.spread_j) == (pytest.approx(440), pytest.approx(40))
    assert (result.accuracy, result.accuracy_spread) == (pytest.approx(0.91), pytest.approx(0.01))


def test_runs_of_other_lengths_are_no_repetitions(tmp_path):
    for name, samples in (("a", 100), ("b", 100), ("c", 200)):
        record = made()
        record.energy.by_stage["train"].samples = samples
        write(tmp_path / name, record)
    assert sorted(result.count for result in compared(tmp_path)[0].results) == [1, 2]


def test_only_a_run_that_says_so_is_without_pretraining(tmp_path):
    lifecycle(tmp_path / "a")
    write(tmp_path / "b", made())
    assert pairs(compared(tmp_path)[0].results) == []
    write(tmp_path / "c", made(start="scratch"))
    ((without, pretrained),) = pairs(compared(tmp_path)[0].results)
    assert (without.variant, pretrained.variant) == ("from scratch", "")
    assert "pretrain" in pretrained.label  # the one that was, and not the finetuning alone of b


def test_labels_are_as_short_as_they_can_be_and_tell_entries_apart(tmp_path):
    lifecycle(tmp_path / "a")
    lifecycle(tmp_path / "b", "swin", device="NVIDIA H100")
    lifecycle(tmp_path / "c", "swin", device="NVIDIA A100-SXM4-40GB")
    write(tmp_path / "d", made(family="vit", start="scratch"))
    write(tmp_path / "e", made(family="mae", scale="small"))
    lifecycle(tmp_path / "f", "mae")
    labels = {result.label for result in compared(tmp_path)[0].results}
    assert labels == {"vit", "swin, H100", "swin, A100", "vit, from scratch", "mae, small", "mae, tiny"}


def test_zero_shot_inference_is_told_from_finetuned(tmp_path):
    lifecycle(tmp_path / "a", "clip", pretraining="image and text")
    first = write(tmp_path / "b/pretrain", made(250, 0.6, phase="pretrain", family="clip", pretraining="image and text"))
    carried = [Inherited(path=str(first), total_j=250)]
    write(tmp_path / "b/inference", made(5, 0.6, phase="inference", family="clip", inherited=carried))
    labels = {result.label for result in compared(tmp_path)[0].results}
    assert labels == {"clip, pretrain + finetune + inference", "clip, pretrain + inference"}


def test_sam_is_taken_as_the_records_agree_or_as_asked(tmp_path):
    write(tmp_path / "a", made(unit="J"))
    assert compared(tmp_path)[0].settings.unit == "J"
    write(tmp_path / "b", made(unit="Wh"))
    assert compared(tmp_path)[0].settings == SamSettings()
    asked = SamSettings(2, 1, "Wh")
    assert compared(tmp_path, settings=asked)[0].settings == asked


def test_runs_with_other_settings_are_not_averaged(tmp_path):
    """Two seeds are repetitions; another learning rate is another result, with its recipe in its label."""
    for n, (settings, lr) in enumerate([("aaaa0000", 0.001), ("aaaa0000", 0.001), ("bbbb1111", 0.01)]):
        write(tmp_path / str(n), made(settings=settings, lr=lr, phase="pretrain"))
    (comparison,) = compared(tmp_path)
    assert {result.label: result.count for result in comparison.results} == {"vit, lr 0.001": 2, "vit, lr 0.01": 1}


def own(joules, accuracy=0.9, processes=1, **facts):
    """A run of somebody's own module: its record has the class's name and size, and what is given."""
    record = made(joules, accuracy, phase="train")
    record.model = {"name": "MyNet", "params": 10_000, **facts}
    record.hardware = {"world_size": processes, "precision": "32-true"}
    return record


def counts(root):
    return sorted(result.count for result in compared(root)[0].results)


def test_without_facts_runs_stand_alone(tmp_path):
    """Two modules of one name may have other widths, rates or data: no record says that they are repetitions."""
    for n in range(2):
        write(tmp_path / str(n), own(10 + 90 * n))
    assert counts(tmp_path) == [1, 1]


@pytest.mark.parametrize(
    "facts",
    [
        ({"lr": 0.1}, {"lr": 0.2}),
        ({"hyperparameters": {"lr": 0.1}}, {"hyperparameters": {"lr": 0.2}}),
        ({"hyperparameters": {"lr": 0.1}}, {"hyperparameters": {"lr": 0.1}, "data_hyperparameters": {"fold": 2}}),
        ({"dropout": [0.1, {"at": 3}]}, {"dropout": [0.1, {"at": 4}]}),
    ],
)
def test_runs_whose_facts_differ_are_not_averaged(tmp_path, facts):
    for n, told in enumerate((facts[0], facts[0], facts[1])):
        write(tmp_path / str(n), own(10 + n, **told))
    assert counts(tmp_path) == [1, 2]


def test_repetitions_may_differ_in_their_seeds_and_nothing_else(tmp_path):
    for n in range(3):
        write(tmp_path / str(n), own(10 + n, seed=n, hyperparameters={"lr": 0.1, "seed": n, "act": f"<relu at 0x7f{n}>"}))
    assert counts(tmp_path) == [3]
    write(tmp_path / "two", own(10, processes=2, hyperparameters={"lr": 0.1, "act": "<relu at 0x7f>"}))
    assert counts(tmp_path) == [1, 3]
    assert [result.label for result in compared(tmp_path)[0].results] == ["MyNet, 1 process", "MyNet, 2 processes"]


def test_a_row_of_table_2_is_one_recipe(tmp_path):
    """The same model for two epochs on one board and for six on the other are two rows, and no board is dropped."""
    for device, joules in (("NVIDIA H100", 400), ("NVIDIA RTX A4000", 120)):
        for epochs in (2, 4):
            write(tmp_path / f"{device}{epochs}", made(joules * epochs, 0.9, epochs_=epochs, device=device))
    write(tmp_path / "v0", made(700, 0.8, family="swin", epochs_=2, device="NVIDIA H100"))
    write(tmp_path / "v1", made(900, 0.05, family="swin", epochs_=6, device="NVIDIA RTX A4000"))
    recipes = by_recipe(compared(tmp_path)[0])
    assert [sorted(recipe.trained) for recipe in recipes] == [
        ["NVIDIA H100"], ["NVIDIA RTX A4000"], *[["NVIDIA H100", "NVIDIA RTX A4000"]] * 2
    ]  # fmt: skip
    table = by_device(compared(tmp_path)[0])
    ratio_of = table.columns.index("train: by NVIDIA H100")
    ratios = {(row[0], row[1]): row[ratio_of] for row in table.rows}
    assert len(ratios) == 4  # the rows of a recipe on one device alone are in Table 1
    assert {ratio for (_, device), ratio in ratios.items() if device == "NVIDIA H100"} == {None}
    # Each energy is known to 10 %, and the gain errors of two boards have nothing to do with each other.
    expected = (pytest.approx(0.3), pytest.approx(0.3 * math.hypot(0.1, 0.1)))
    others = [ratio for (_, device), ratio in ratios.items() if device != "NVIDIA H100"]
    assert [(ratio.value, ratio.plus_minus) for ratio in others] == [expected] * 2


def test_two_results_of_one_recipe_on_one_device_are_two_rows(tmp_path):
    for n, torch in enumerate(("2.7", "2.8")):
        record = made(100 + n)
        record.software = {"torch": torch}
        write(tmp_path / torch, record)
    assert [sorted(recipe.trained) for recipe in by_recipe(compared(tmp_path)[0])] == [["NVIDIA H100"]] * 2


def split(joules, boundary_j, gain_j, **more):
    record = made(joules, **more)
    record.energy.boundary_j, record.energy.gain_j = boundary_j, gain_j
    record.energy.uncertainty_j = math.hypot(boundary_j, gain_j)
    return record


def test_on_one_board_the_boundary_part_decides_and_between_boards_the_gain_too(tmp_path):
    for n, joules in enumerate((100, 104)):
        write(tmp_path / str(n), split(joules, 1.0, 5.0, accuracy=0.9, family=f"net{n}"))
    assert ranked_by_energy(tmp_path) == [1, 2]
    other = split(104, 1.0, 5.0, accuracy=0.9, family="net1")
    device = other.energy.by_device["gpu0"]
    other.energy.by_device["gpu0"] = msgspec.structs.replace(device, uuid="GPU-2")
    write(tmp_path / "1", other)
    assert ranked_by_energy(tmp_path) == ["1 to 2", "1 to 2"]
    assert compared(tmp_path)[0].pareto() == {"net0": "perhaps", "net1": "perhaps"}


def test_an_estimate_is_never_sure_by_its_edges(tmp_path):
    for n, joules in enumerate((100, 104)):
        write(tmp_path / str(n), split(joules, 1.0, 5.0, accuracy=0.9, family=f"net{n}", provenance="estimated"))
    assert ranked_by_energy(tmp_path) == ["1 to 2", "1 to 2"]


def test_sensitivity_tells_what_is_sure_of_a_rank(tmp_path):
    for n, joules in enumerate((100, 100.1, 300)):
        write(tmp_path / str(n), split(joules, 1.0, 5.0, accuracy=0.9, family=f"net{n}", unit="J"))
    table = sensitivities(compared(tmp_path)[0])
    base, high = (row for row in table.rows if row[:2] in (("SAM", 5.0), ("SAM", 10.0)) and row[2:4] == (5.0, "J"))
    assert base[-1] == "net0 (1 to 2); net1 (1 to 2); net2 (3)"
    assert dict(zip(table.columns, high, strict=True))["surely"] == 0


def test_seeds_that_spread_more_than_models_differ_make_a_tie(tmp_path):
    for family, energies in (("resnet", (90, 110, 100)), ("vit", (95, 115, 105)), ("swin", (300, 310, 305))):
        for n, joules in enumerate(energies):
            write(tmp_path / f"{family}{n}", split(joules, 0.1, 0.0, accuracy=0.9, family=family, seed=n))
    assert ranked_by_energy(tmp_path) == ["1 to 2", "1 to 2", 3]


def ranked_by_energy(root):
    table = model_ranks(compared(root)[0])
    return sorted((row[table.columns.index("by train energy")] for row in table.rows), key=str)


def test_tasks_share_no_ranking(tmp_path):
    """Two tasks on one data set, from one pretraining, are two comparisons, each with its own accuracy's name."""
    first = write(tmp_path / "pretrain", made(300, 0.9, phase="pretrain", task="classify", metric="top-1"))
    carried = [Inherited(path=str(first), total_j=300)]
    for task, metric, accuracy in (("classify", "top-1", 0.9), ("segment", "mean IoU", 0.4), ("action", "clip top-1", 0.7)):
        write(tmp_path / task, made(100, accuracy, inherited=carried, task=task, metric=metric))
    write(tmp_path / "old", made(90, 0.8, family="swin"))  # of before there were tasks
    found = compare(lineages(load(tmp_path).runs))
    told = {(one.title, one.metric, tuple(sorted(result.accuracy for result in one.results))) for one in found}
    assert told == {
        ("digits", "top-1", (0.8, 0.9)),
        ("segment: digits", "mean IoU", (0.4,)),
        ("action: digits", "clip top-1", (0.7,)),
    }


def test_figures_of_accuracy_say_which_one_it_is(tmp_path):
    write(tmp_path, made(100, 0.4, task="segment", metric="mean IoU"))
    (comparison,) = compare(lineages(load(tmp_path).runs))
    for draw in (learning.draw, tradeoff.draw):
        picture = draw(comparison)
        assert picture.figure.axes[0].get_ylabel().startswith("mean IoU")
    assert "validation's mean IoU" in learning.draw(comparison).caption


def test_repetitions_are_told_apart_by_their_seed_in_the_figure_of_learning(tmp_path):
    """Their names were "vit", "vit (1)", "vit (2)" and, after another model, "mvit (4)"."""
    for n, seed in enumerate((0, 1, 1)):
        write(tmp_path / str(n), made(seed=seed, settings="aaaa0000"))
    write(tmp_path / "other", made(family="swin", settings="bbbb1111"))
    (comparison,) = compared(tmp_path)
    [legend] = learning.draw(comparison).figure.legends
    names = sorted(text.get_text() for text in legend.get_texts())
    assert names == ["swin", "vit, seed 0", "vit, seed 1 (1 of 2)", "vit, seed 1 (2 of 2)"]


def test_the_legend_of_learning_keeps_inside_the_figure(tmp_path):
    """Names of a sweep, in four columns, were cut off at both sides."""
    for n, family in enumerate(("resnet", "mobilenet", "swin", "efficientnet")):
        long = f"{family}, a recipe of many words"
        write(tmp_path / str(n), made(family=long, settings=f"aaaa000{n}"))
    (comparison,) = compared(tmp_path)
    figure = learning.draw(comparison).figure
    figure.draw_without_rendering()
    [legend] = figure.legends
    box, whole = legend.get_window_extent(), figure.bbox
    assert whole.x0 <= box.x0
    assert box.x1 <= whole.x1


def test_a_segmentation_without_accuracy_does_not_take_its_encoders(tmp_path):
    first = write(tmp_path / "pretrain", made(300, 0.9, phase="pretrain", task="classify"))
    carried = [Inherited(path=str(first), total_j=300)]
    write(tmp_path / "segment", made(100, None, inherited=carried, task="segment", epochs=[]))
    (lineage,) = lineages(load(tmp_path).runs)
    assert (lineage.train_j, lineage.accuracy) == (400, None)
