"""Boards that a Trainer uses or a user names, and that cannot be measured: told once, named, and never silently estimated.

There is no CUDA here, so what CUDA says of the boards in use is put in its place; the driver is the lab's, all else is real.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_watt import read_record
from lightning_watt.arguments import VARIABLE
from lightning_watt.record import Record
from lightning_watt.sources import discover as discovering
from lightning_watt.sources.rapl import RaplSource
from lightning_watt.testing import Fault, Lab
from lightning_watt.trainer import facts as trainer_facts
from tests.integration.short_fit import board, seconds
from tests.integration.tiny import QUIET, loader, module, trainer, watt

pytestmark = [pytest.mark.filterwarnings(entry) for entry in QUIET]
NOWHERE = "11111111-2222-3333-4444-555555555555"


@pytest.fixture(autouse=True)
def _no_rapl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So that what is left is the same on every machine."""
    monkeypatch.setattr(discovering, "RaplSource", lambda **_: RaplSource(tmp_path / "no powercap"))


@pytest.fixture
def uses(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Say which boards the Trainer computes on, as CUDA tells them."""
    return lambda *uuids: monkeypatch.setattr(trainer_facts, "boards_in_use", lambda trainer: list(uuids))


def fit(pl: Any, directory: Path, *callbacks: Any) -> Record:
    trained = trainer(pl, directory, *callbacks, max_epochs=1)
    trained.fit(module(pl, step_s=0.03), loader(12), loader(4))
    assert trained.state.finished
    record = read_record(directory)
    assert record.status == "completed"
    return record


def bare(uuid: str) -> str:
    return uuid.removeprefix("GPU-").removeprefix("MIG-")


# ---- gpus="auto" ----


def test_a_boards_uuid_is_told_as_cuda_prints_it(monkeypatch):
    """One of a slice looks the same, so no prefix is guessed."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=f"{index}{NOWHERE[1:]}"))
    on = [SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(name))) for name in ("cpu", "cuda:3")]
    assert [trainer_facts.boards_in_use(trainer) for trainer in on] == [[], [f"3{NOWHERE[1:]}"]]


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (None, "no board with a UUID that begins with"),
        (Fault("lost"), "GPU is lost"),
        (Fault("error", code=4), "Insufficient Permissions"),
    ],
    ids=["not listed", "lost", "no permission"],
)
def test_a_board_in_use_that_nvml_does_not_hand_out_is_named_and_the_others_are_measured(
    pl, tmp_path, words, capsys, uses, fault, why
):
    lab = Lab([board(200), *([board(300, fault)] if fault else []), board(120)])
    with lab.running():
        missing = bare(lab.uuid(1)) if fault else NOWHERE
        uses(bare(lab.uuid(0)), missing, bare(lab.uuid(len(lab.boards) - 1)))
        record = fit(pl, tmp_path, watt(gpus="auto", idle_s=0.1))
    sentence = words.take(missing)
    assert why in sentence
    assert [device.uuid for device in record.energy.by_device.values()] == [lab.uuid(0), lab.uuid(len(lab.boards) - 1)]
    assert record.energy.total_j == pytest.approx(320 * seconds(record), rel=0.05)
    assert sentence in record.missing
    assert record.warnings == [sentence]
    assert f"Missing: {sentence}" in capsys.readouterr().out


def test_a_slice_in_use_is_measured_by_its_board(ptl, tmp_path, uses):
    lab = Lab([board(300), board(150, mig=2)])
    with lab.running():
        uses(bare(lab.mig_uuids(1)[1]))
        record = fit(ptl, tmp_path, watt(gpus="auto"))
    [device] = record.energy.by_device.values()
    assert (device.uuid, record.warnings) == (lab.uuid(1), [])
    assert f"{lab.mig_uuids(1)[1]} is one slice" in device.note
    assert device.joules == pytest.approx(150 * seconds(record), rel=0.05)


def test_without_any_board_in_use_the_run_is_estimated_and_says_so(ptl, tmp_path, words, capsys, uses):
    uses(NOWHERE)
    with Lab([board(200)]).running():
        record = fit(ptl, tmp_path, watt(gpus="auto"))
    sentence = words.take(NOWHERE)
    assert list(record.energy.by_device) == ["cpu0"]
    assert record.energy.provenance == "estimated"
    assert sentence in record.missing
    assert f"Missing: {sentence}" in capsys.readouterr().out


@pytest.mark.parametrize("gpus", ["auto", "all"])
def test_boards_in_use_without_nvml_are_told_by_name(ptl, tmp_path, words, capsys, uses, gpus):
    uses(NOWHERE)
    with Lab([board(200)], init_error=18).running():
        record = fit(ptl, tmp_path, watt(gpus=gpus))
    sentence = words.take("NVML does not start")
    assert "restart the machine" in sentence
    assert (f"boards is missing: {NOWHERE}." in sentence) == (gpus == "auto")
    assert record.energy.provenance == "estimated"
    assert sentence in record.missing
    assert f"Missing: {sentence}" in capsys.readouterr().out


# ---- boards that were named ----


@pytest.mark.parametrize("gpus", [[0], ["GPU-1234", 1], "all"])
@pytest.mark.parametrize("why", ["no driver", "no permission", "no board", "no pynvml"])
def test_named_boards_that_cannot_be_had_are_told_once_and_stand_in_the_table(
    ptl, tmp_path, words, capsys, monkeypatch, gpus, why
):
    lab = Lab([] if why == "no board" else [board(200)], init_error={"no driver": 9, "no permission": 4}.get(why, 0))
    if why == "no pynvml":
        monkeypatch.setitem(sys.modules, "pynvml", None)
    callback = watt(gpus=gpus)
    with lab.running():
        record = fit(ptl, tmp_path, callback)
        fit(ptl, tmp_path, callback)
    sentence = words.take("^nvml: ")
    if gpus != "all":
        assert f"The energy of these boards is missing: {', '.join(map(str, gpus))}." in sentence
    assert record.energy.provenance == "estimated"
    assert sentence in record.missing
    assert record.warnings == [sentence]
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Missing: ")]
    assert shown == [f"Missing: {sentence}"] * 2  # in both runs; RAPL was not asked for by name


def test_the_variable_that_names_a_board_without_a_driver_is_told(ptl, tmp_path, words, capsys, monkeypatch):
    monkeypatch.setenv(VARIABLE, "gpus=0,summary=table")
    with Lab([], init_error=9).running():
        record = fit(ptl, tmp_path)
    sentence = words.take("^nvml: NVML does not start")
    assert "boards is missing: 0." in sentence
    assert sentence in record.missing
    assert f"Missing: {sentence}" in capsys.readouterr().out


@pytest.mark.parametrize("gpus", ["auto", []])
def test_who_asks_for_no_board_hears_of_none(ptl, tmp_path, capsys, gpus):
    with Lab([], init_error=9).running():
        record = fit(ptl, tmp_path, watt(gpus=gpus))
    assert record.warnings == []
    assert not [sentence for sentence in record.missing if "nvml" in sentence]
    out = capsys.readouterr().out
    assert "estimated" in out
    assert "Missing" not in out


def test_a_list_that_names_a_lost_board_is_refused_with_those_that_answer(ptl, tmp_path):
    lab = Lab([board(200), board(300, Fault("lost"))])
    with lab.running(), pytest.raises(ValueError, match=r"no board 1 that answers \(GPU is lost\)") as caught:
        fit(ptl, tmp_path, watt(gpus=[0, 1]))
    assert f"Boards here: 0: {lab.uuid(0)}" in str(caught.value)


def test_a_lost_board_of_all_is_told_and_the_other_is_measured(ptl, tmp_path, words):
    with Lab([board(200, Fault("lost")), board(120)]).running():
        record = fit(ptl, tmp_path, watt(gpus="all"))
    assert words.take("no board 0 that answers") in record.missing
    assert list(record.energy.by_device) == ["gpu1"]
    assert record.energy.total_j == pytest.approx(120 * seconds(record), rel=0.05)
