"""`phase=project` and `study=advice`: real excerpts of trainings, over boards whose power is known."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.job import Outcome
from experiments.run import run
from lightning_watt import read_record
from lightning_watt.testing import Board, Lab, constant
from tests import forked
from tests.integration.conftest import Words
from tests.integration.study import composed
from tests.integration.tiny import ended, free_port, ranks_env

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.slow,
]
WATTS = 200.0
PART = (
    "phase=project",
    "device=cpu",
    "device.boards=[0]",
    "+trainer.enable_progress_bar=false",
    "phase.sampling.round_batches=4",
    "phase.sampling.warmup_batches=4",
    "phase.sampling.blocks=3",
    "phase.sampling.block_seconds=0.2",
)


@pytest.fixture(autouse=True)
def _few_words(words: Words) -> None:
    """What the callback says about a run without accuracy or counters is its own tests' matter."""
    words.left = list  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def _board() -> Iterator[None]:
    """A board that draws 200 W at all times, so that joules are seconds times 200."""
    board = Board(power=constant(WATTS), counter_ms=10)
    with Lab([board], t0_ns=time.monotonic_ns() - 10**10).running():
        yield


def projected(directory: Path, *overrides: str) -> tuple[Outcome, dict[str, Any]]:
    """A projection, and what its file holds."""
    directory.mkdir(parents=True, exist_ok=True)
    outcome = run(composed(*PART, *overrides), directory)
    return outcome, json.loads((directory / "projection.json").read_text())


def test_a_projection_is_of_the_whole_schedule_and_says_that_it_is_one(tmp_path: Path) -> None:
    outcome, found = projected(tmp_path, "watt.carbon_intensity=400", "watt.electricity_price=0.5", "watt.pue=1.5")
    # 1,294 digits to train on and 144 to validate, in batches of 32.
    assert {key: found[key] for key in ("epochs", "train_batches", "validations", "val_batches", "samples", "updates")} == {
        "epochs": 12, "train_batches": 40, "validations": 12, "val_batches": 5, "samples": 12 * 40 * 32, "updates": 480,
    }  # fmt: skip
    assert found["is"] == "projected"
    assert found["energy_j"] == pytest.approx(WATTS * found["duration_s"], rel=0.02)
    assert found["low_j"] < found["energy_j"] < found["high_j"]
    assert found["co2e_g"] == pytest.approx(1.5 * 400 * found["energy_j"] / 3.6e6)
    assert found["cost"] == pytest.approx(1.5 * 0.5 * found["energy_j"] / 3.6e6)
    assert found["start_temperature_c"] == 55  # as every board of the lab says
    assert found["measured"]["blocks"] >= 3
    assert all(name.startswith("projected_") for name in outcome.metrics)
    assert outcome.note.startswith("projected, not measured: ")
    record = read_record(tmp_path)
    assert (record.model["phase"], record.model["projects"]) == ("project", "pretrain")
    assert record.model["name"] == "resnet (test_resnet), a part of its pretrain"
    assert record.energy.total_j >= found["measured"]["energy_j"] - 5 * WATTS  # it is of the part alone
    assert outcome.checkpoint is None
    assert not list(tmp_path.rglob("*.ckpt"))


def test_beits_tokenizer_is_projected_apart(tmp_path: Path) -> None:
    outcome, found = projected(tmp_path, "model=beit")
    tokenizer = json.loads((tmp_path / "tokenizer" / "projection.json").read_text())
    assert (found["of"], tokenizer["of"]) == ("pretrain", "tokenizer")
    assert set(outcome.parts) == {"tokenizer"}
    assert outcome.note


def test_an_own_module_is_projected_without_validation(tmp_path: Path) -> None:
    _, found = projected(
        tmp_path, "model=own", "data=own", "model._target_=examples.study_module.Net",
        "data._target_=examples.study_module.Rows", "recipe.epochs=7", "recipe.batch_size=64",
    )  # fmt: skip
    assert (found["epochs"], found["train_batches"], found["validations"]) == (7, 32, 0)


def test_a_schedule_is_longer_than_the_data(tmp_path: Path) -> None:
    _, found = projected(
        tmp_path, "phase.of=finetune", "checkpoint=scratch", "phase.images=1281167", "phase.val_images=50000",
        "micro_batch=8", "recipe.epochs=3",
    )  # fmt: skip
    assert (found["of"], found["updates"], found["val_batches"]) == ("finetune", 3 * (1281167 // 32), 6250)


@pytest.mark.ddp
def test_a_projection_is_of_all_processes_boards_and_workers(tmp_path: Path) -> None:
    boards = Lab([Board(power=constant(watts), counter_ms=10) for watts in (WATTS, WATTS / 2)], missing=["nvmlInit"])
    asked = (*PART, "device.boards=[0,1]", "device.count=2", "num_workers=1", f"hydra.run.dir={tmp_path}")
    ranks = [
        forked.start("experiments.run", *asked, env=boards.env() | own, cwd=tmp_path, imports="experiments.run")
        for own in ranks_env(2, free_port())
    ]
    said = ended(ranks)
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(said)
    found = json.loads((tmp_path / "projection.json").read_text())
    assert (found["train_batches"], found["val_batches"], found["samples"]) == (40, 5, 12 * 40 * 32)  # 16 images a process
    assert (found["setup"]["device.count"], found["setup"]["num_workers"]) == (2, 1)
    assert found["energy_j"] == pytest.approx(1.5 * WATTS * found["duration_s"], rel=0.05)
    assert list(read_record(tmp_path).energy.by_device) == ["gpu0", "gpu1"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("phase.of=inference", "phase.of=inference cannot be projected"),
        ("watt=none", "watt=none measures none"),
        ("trainer.num_nodes=2", "one node"),
        ("+trainer.val_check_interval=0.5", "whole epochs"),
    ],
)
def test_what_cannot_be_projected_is_refused(override: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        run(composed(*PART, override), tmp_path)
