"""Finding and reading records, among them hostile ones."""

from __future__ import annotations

import os

import pytest

from experiments.report.figures.stages import STAGES
from experiments.report.inputs.records import MOST_STAGES, load
from experiments.report.inputs.run import MOST_CURVE_POINTS
from lightning_watt.accounts import ledger
from lightning_watt.record import Inherited, Stage
from tests.unit.experiments.report.made import curve, made, write, write_raw


def only(root):
    found = load(root)
    assert len(found.runs) == 1
    return found.runs[0]


def test_every_record_below_is_found_in_the_order_of_its_path(tmp_path):
    for name in ("b/pretrain/tokenizer", "b/pretrain", "a"):
        write(tmp_path / name, made())
    assert [run.path for run in load(tmp_path).runs] == ["a", "b/pretrain", "b/pretrain/tokenizer"]


def test_every_run_of_one_directory_is_found(tmp_path):
    for version, joules in (("", 100), ("-v10", 10), ("-v2", 20)):
        write(tmp_path / "a", made(joules), f"watt{version}.json")
    (tmp_path / "a" / "watt.rank2.json").write_text("a rank's own part")
    found = load(tmp_path)
    assert [(run.path, run.own_j) for run in found.runs] == [("a", 100), ("a/watt-v2.json", 20), ("a/watt-v10.json", 10)]
    assert not found.broken


def test_a_record_in_the_directory_itself_has_its_name(tmp_path):
    write(tmp_path / "run", made())
    assert only(tmp_path / "run").path == "run"


def test_what_the_record_says_arrives(tmp_path):
    write(tmp_path / "r", made(100, 0.9, inherited=[Inherited(path="/x", total_j=20)], year=2021))
    run = only(tmp_path)
    assert (run.own_j, run.inherited_j, run.carried_j, run.uncertainty_j) == (100, 20, 120, 10)
    assert (run.status, run.accuracy, run.task_accuracy, run.provenance, run.devices) == (
        "completed",
        0.9,
        0.9,
        "measured",
        "NVIDIA H100",
    )
    assert (run.numbers["year"], run.facts["family"], run.phase) == (2021, "vit", "finetune")
    assert [joules for joules, _ in run.curve] == pytest.approx([25, 50, 75, 100])
    assert [reached for _, reached in run.curve] == pytest.approx([0.225, 0.45, 0.675, 0.9])


def test_joules_of_an_inference(tmp_path):
    write(tmp_path / "r", made(10, phase="inference"))
    assert only(tmp_path).per_sample_j == pytest.approx((0.01, 0.001))
    write(tmp_path / "r", made(10, phase="finetune"))
    assert only(tmp_path).per_sample_j is None


def test_a_run_from_elsewhere_has_its_phase_from_what_it_did(tmp_path):
    write_raw(tmp_path / "r", made(), model={})
    run = only(tmp_path)
    assert (run.phase, run.name, run.facts["data"], run.task_accuracy) == ("train", "unnamed model", "", 0.9)
    write_raw(tmp_path / "r", made(phase="inference"), model={})
    assert only(tmp_path).phase == "inference"


def test_what_self_supervised_pretraining_calls_accuracy_is_no_top1(tmp_path):
    write(tmp_path / "r", made(phase="pretrain", family="beit", pretraining="masked tokens"))
    run = only(tmp_path)
    assert (run.accuracy, run.task_accuracy) == (0.9, None)


def test_nothing_measured_is_not_zero(tmp_path):
    write(tmp_path / "r", made(None))
    run = only(tmp_path)
    assert (run.own_j, run.provenance, run.stages) == (None, "", {})


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b"{" * 100_000, b'{"schema_version": 99}', b"NaN", b'{"schema_version": 1}']
)
def test_a_broken_record_is_listed_and_the_others_are_read(tmp_path, content):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/watt.json").write_bytes(content)
    write(tmp_path / "good", made())
    found = load(tmp_path)
    assert [run.path for run in found.runs] == ["good"]
    assert [broken.path for broken in found.broken] == ["bad/watt.json"]
    assert found.broken[0].why
    assert str(tmp_path) not in found.broken[0].why


@pytest.mark.parametrize(
    "raw", ["NaN", "Infinity", "1e999", "1" + "0" * 400, "1e300", "-5", '"5"', "[5]"], ids=lambda raw: raw[:9]
)
def test_an_energy_that_no_run_can_have_is_listed(tmp_path, raw):
    write_raw(tmp_path / "r", made(), energy__total_j=123456789)
    file = tmp_path / "r/watt.json"
    file.write_text(file.read_text().replace("123456789", raw))
    found = load(tmp_path)
    assert not found.runs
    assert len(found.broken) == 1


@pytest.mark.parametrize("accuracy", [-0.1, 1.5, 1e300, 97.0])
def test_an_impossible_accuracy_is_left_out_with_a_note(tmp_path, accuracy):
    write(tmp_path / "r", made(accuracy=accuracy, epochs=curve(1.0, accuracy)))
    run = only(tmp_path)
    assert run.accuracy is None
    assert "not in [0, 1]" in run.notes[0]
    assert all(0 <= reached <= 1 for _, reached in run.curve)


@pytest.mark.parametrize("value", [None, [], {}, "2.5", "<script>", True, -1, 1e300, "9" * 5000], ids=str)
def test_impossible_facts_about_a_model_are_left_out(tmp_path, value):
    names = ("params", "gflops_per_sample", "year", "image_size", "num_classes")
    write(tmp_path / "r", made(**dict.fromkeys(names, value)))
    assert not {name for name in names if name in only(tmp_path).numbers}


def test_texts_are_one_short_clean_line(tmp_path):
    write(tmp_path / "r", made(name="a\n\x1b[2J\u202e" + "x" * 10_000, device="\r\nb" * 5000, data=["no", "text"]))
    run = only(tmp_path)
    for shown in (run.name, run.devices, *run.facts.values()):
        assert shown.isprintable()
        assert len(shown) <= 80
    assert run.facts["data"] == ""


def test_stages_beyond_reason_are_left_out_with_a_note(tmp_path):
    many = {f"stage{n}": Stage(joules=1.0, seconds=1.0) for n in range(1000)}
    record = made()
    record.energy.by_stage = {"train": Stage(joules=1e300, seconds=1.0), **many}
    write(tmp_path / "r", record)
    run = only(tmp_path)
    assert len(run.stages) < MOST_STAGES
    assert len(run.notes) == 2


def test_a_long_curve_is_thinned_and_keeps_its_end(tmp_path):
    write(tmp_path / "r", made(epochs=curve(100.0, 0.9, length=5000)))
    run = only(tmp_path)
    assert len(run.curve) <= MOST_CURVE_POINTS
    assert run.curve[-1] == pytest.approx((100.0, 0.9))


def test_links_pipes_and_directories_of_that_name_are_listed_and_not_opened(tmp_path):
    write(tmp_path / "outside", made())
    runs = tmp_path / "runs"
    for name in ("link", "pipe", "directory"):
        (runs / name).mkdir(parents=True)
    (runs / "link/watt.json").symlink_to(tmp_path / "outside/watt.json")
    os.mkfifo(runs / "pipe/watt.json")
    (runs / "directory/watt.json").mkdir()
    (runs / "tree").symlink_to(tmp_path / "outside")
    found = load(runs)
    assert not found.runs
    assert sorted(broken.path for broken in found.broken) == ["directory/watt.json", "link/watt.json", "pipe/watt.json"]


def test_a_directory_that_is_not_there_is_said(tmp_path):
    with pytest.raises(NotADirectoryError, match="no directory"):
        load(tmp_path / "nowhere")


def test_the_stages_figure_names_every_stage():
    assert STAGES == ledger.STAGES


def test_jobs_that_did_not_complete_are_found_by_their_outcome(tmp_path):
    outcomes = {
        "a": '{"status": "failed", "error": "ValueError: no\\u0000 such\\nmodel", "model": "vit", "phase": "pretrain"}',
        "b": '{"status": "completed"}',
        "c": '{"status": "interrupted", "error": "SystemExit"}',
        "d": "[" * 100_000,
        "e": '{"status": ["failed"]}',
    }
    for name, content in outcomes.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "outcome.json").write_text(content)
    found = load(tmp_path).failed
    assert [(job.path, job.status) for job in found] == [("a", "failed"), ("c", "interrupted")]
    assert found[0].asked.startswith("model=vit phase=pretrain")
    assert found[0].why.startswith("ValueError: no")
    assert found[0].why.isprintable()
