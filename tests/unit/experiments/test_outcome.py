"""What a job came to: saved, described, and gathered."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from experiments.job import Outcome
from experiments.outcome import describe, energy_tables, save_outcome
from experiments.sweep import SweepTable, sweep_table
from lightning_watt.record.writer import to_json
from tests.unit.record.made import a_record

CHOICES = {"model": "vit", "phase": "lifecycle", "data": "digits", "scale": "tiny"}


def lifecycle(directory: Path) -> Outcome:
    first = Outcome(directory / "pretrain", directory / "pretrain" / "last.ckpt", {"test_acc": 0.5})
    third = Outcome(directory / "inference", None, {"test_acc": 0.75, "joules_per_image": math.nan}, note="stopped by time")
    return Outcome(directory, first.checkpoint, third.metrics, {"pretrain": first, "inference": third})


def test_an_outcome_is_saved_as_plain_json(tmp_path: Path) -> None:
    save_outcome(tmp_path, CHOICES, lifecycle(tmp_path))
    saved = json.loads((tmp_path / "outcome.json").read_text())
    assert saved["status"] == "completed"
    assert saved["parts"]["inference"]["metrics"] == {"test_acc": 0.75, "joules_per_image": None}
    assert saved["parts"]["inference"]["note"] == "stopped by time"


def test_a_failure_is_saved_with_its_reason(tmp_path: Path) -> None:
    save_outcome(tmp_path, CHOICES, error=ValueError("no such thing"))
    saved = json.loads((tmp_path / "outcome.json").read_text())
    assert (saved["status"], saved["error"]) == ("failed", "ValueError: no such thing")


def test_an_interruption_is_no_failure(tmp_path: Path) -> None:
    save_outcome(tmp_path, CHOICES, error=SystemExit(1))
    assert json.loads((tmp_path / "outcome.json").read_text())["status"] == "interrupted"


def test_each_part_that_was_measured_has_one_table(tmp_path: Path) -> None:
    """A fit and its test are one run, so that its energy is printed once."""
    assert energy_tables(lifecycle(tmp_path)) == []
    (tmp_path / "pretrain").mkdir()
    (tmp_path / "pretrain" / "watt.json").write_bytes(to_json(a_record(status="completed")))
    [table] = energy_tables(lifecycle(tmp_path))
    assert "Energy 2 ± 0.1 kWh" in table


def test_the_description_says_everything_once(tmp_path: Path) -> None:
    (tmp_path / "pretrain").mkdir()
    (tmp_path / "pretrain" / "watt.json").touch()
    said = describe(lifecycle(tmp_path))
    assert said.count("test_acc 0.75") == 1
    assert f"record       {tmp_path}/pretrain/watt.json" in said
    assert said.splitlines()[-1] == f"curves       tensorboard --logdir {tmp_path}"


def test_the_table_has_a_row_for_each_run(tmp_path: Path) -> None:
    save_outcome(tmp_path, CHOICES, lifecycle(tmp_path))
    done = json.loads((tmp_path / "outcome.json").read_text())
    failed = {**CHOICES, "model": "mae", "status": "failed", "error": "x"}
    console = Console(width=120, file=io.StringIO())
    console.print(sweep_table([done, failed]))
    rows = [line for line in console.file.getvalue().splitlines() if "digits" in line]
    assert [row.split("│")[3].strip() for row in rows] == ["pretrain", "inference", "lifecycle"]
    assert "failed" in rows[-1]


def test_random_weights_are_named_in_the_place_of_an_accuracy(tmp_path: Path) -> None:
    outcome = Outcome(tmp_path, metrics={"joules_per_image": 1.0}, start="scratch", note="stopped by time")
    assert "random weights: energy alone, no accuracy; stopped by time" in describe(outcome)
    save_outcome(tmp_path, CHOICES | {"phase": "inference"}, outcome)
    table = sweep_table([json.loads((tmp_path / "outcome.json").read_text())])
    assert [list(column.cells) for column in table.columns if column.header == "top-1"] == [["random weights"]]


def test_a_model_of_timms_is_named_whatever_became_of_it() -> None:
    """A sweep of projections, and a failed job, had the name of the option in each row."""
    about = CHOICES | {"model": "timm", "phase": "project", "overrides": ["model.timm_name=resnet18.tv_in1k"]}
    table = sweep_table([about | {"status": "completed", "directory": ""}, about | {"status": "failed", "error": "x"}])
    assert list(table.columns[0].cells) == ["resnet18.tv_in1k"] * 2


def test_no_number_is_cut_off_where_the_output_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside timm's long names the numbers of `study=years` were "0.0…"."""
    metrics = {"test_acc": 0.7654, "joules_per_image": 0.01234, "wh_per_1000_images": 0.005678, "images_per_second": 0.4321}
    name = "beit_base_patch16_224.in22k_ft_in22k_in1k"
    choices = CHOICES | {"model": "timm", "phase": "inference"}
    (tmp_path / "0-job").mkdir()
    save_outcome(tmp_path / "0-job", choices, Outcome(tmp_path, metrics=metrics, model=name))
    SweepTable().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    said = capsys.readouterr().out
    assert all(text in said for text in (name, "0.7654", "0.01234", "0.005678", "0.4321"))
    assert "…" not in said


def test_what_was_swept_stands_in_the_table() -> None:
    outcomes = [
        {**CHOICES, "phase": "pretrain", "status": "completed", "overrides": ["model=vit", "recipe.epochs=2", f"+a.b={lr}"]}
        for lr in (0.1, 0.2)
    ]
    headings = [str(column.header) for column in sweep_table(outcomes).columns]
    assert headings[:4] == ["model", "on", "a.b", "phase"]
    assert list(sweep_table(outcomes).columns[2].cells) == ["0.1", "0.2"]
