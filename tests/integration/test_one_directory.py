"""Several runs in one directory: none replaces another one's record, and the sum over all holds each joule once."""

from __future__ import annotations

import json
import os
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

from lightning_watt import WattCallback, WattWarning, energy_of, read_record
from lightning_watt.record import read_journal, read_records
from lightning_watt.record.journal import read_traces
from tests.integration.tiny import QUIET, WEIGHTS_ONLY, Steady, loader, module, start_child, trainer, watt

NO_SAVING = "ignore:Be aware that when using `ckpt_path`, callbacks used to create the checkpoint"
pytestmark = [pytest.mark.filterwarnings(entry) for entry in (*QUIET, NO_SAVING)]


def steady(**options: Any) -> WattCallback:
    return watt(gpus="auto", sources=[Steady()], **options)


def fit(
    pl: Any, directory: Path | str, callback: WattCallback | None = None, *, step_s: float = 0.01, **options: Any
) -> Any:
    """The Trainer of a short fit."""
    settings = {"max_epochs": 1} | {name: value for name, value in options.items() if name != "ckpt_path"}
    made = trainer(pl, directory, callback or steady(), **settings)
    made.fit(module(pl, step_s=step_s), loader(5), loader(2), ckpt_path=options.get("ckpt_path"), **WEIGHTS_ONLY)
    return made


def names(directory: Path) -> set[str]:
    return {file.name for file in directory.iterdir() if file.is_file() and file.suffix != ".ckpt"}


def whole_j(directory: Path) -> float:
    """What all sessions in the journals of a directory used themselves: each joule once, by construction."""
    return sum(trace.total_uj for trace in read_traces([directory]).by_session.values()) / 1e6


def test_a_second_trainer_in_a_directory_leaves_the_first_ones_record_alone(pl, tmp_path, capsys):
    fit(pl, tmp_path, steady(batches=True))
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}
    trainer(pl, tmp_path, steady(batches=True)).predict(module(pl, step_s=0.01), loader(3))
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert names(tmp_path) - before.keys() == {"watt-v1.json", "watt-v1.jsonl", "watt_batches-v1.csv"}
    assert f"Record: {tmp_path / 'watt-v1.json'}" in capsys.readouterr().out
    training, prediction = read_records(tmp_path)
    assert ("train" in training.energy.by_stage, set(prediction.energy.by_stage)) == (True, {"predict", "other"})
    assert read_record(tmp_path).session == prediction.session
    assert energy_of(tmp_path).total_j == pytest.approx(training.energy.total_j + prediction.energy.total_j)


def test_a_test_by_the_same_callback_goes_on_in_the_run_s_record(ptl, tmp_path):
    """In the same Trainer or in the next: it is one session, whose record has all stages."""
    callback = steady()
    trained = fit(ptl, tmp_path, callback)
    trained.test(module(ptl), loader(2), verbose=False)
    trainer(ptl, tmp_path, callback).predict(module(ptl), loader(2))
    assert names(tmp_path) == {"watt.json", "watt.jsonl"}
    assert {"train", "validate", "test", "predict"} <= set(read_record(tmp_path).energy.by_stage)


def test_a_run_between_two_stages_of_another_one_changes_nothing(ptl, tmp_path):
    callback = steady()
    trained = fit(ptl, tmp_path, callback)
    fit(ptl, tmp_path)
    trained.test(module(ptl), loader(2), verbose=False)
    assert names(tmp_path) == {"watt.json", "watt.jsonl", "watt-v1.json", "watt-v1.jsonl"}
    assert "test" in read_record(tmp_path / "watt.json").energy.by_stage
    assert energy_of(tmp_path).own_j == pytest.approx(whole_j(tmp_path))


@pytest.mark.ddp
def test_the_record_of_a_killed_run_is_not_replaced_by_another_run(ptl, tmp_path):
    process = start_child(tmp_path, trainer={"max_epochs": 10_000}, module={"step_s": 0.02}, batches=[5, 2])
    try:
        wait_for(tmp_path / "watt.json")
    finally:
        process.kill()
        process.communicate(timeout=30)
    killed = (tmp_path / "watt.json").read_bytes()
    assert json.loads(killed)["status"] == "running"
    fit(ptl, tmp_path)
    assert (tmp_path / "watt.json").read_bytes() == killed
    assert read_record(tmp_path).status == read_record(tmp_path / "watt-v1.json").status == "completed"


def wait_for(file: Path) -> None:
    for _ in range(1000):
        if file.exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"{file} did not come")


@pytest.mark.ddp
def test_two_processes_in_one_directory_have_a_record_each_and_the_second_says_so(ptl, tmp_path, words):
    shared = {"watt": {"batches": True}, "module": {"step_s": 0.02}, "batches": [5, 2]}
    process = start_child(tmp_path, trainer={"max_epochs": 10_000}, **shared)
    try:
        wait_for(tmp_path / "watt.json")
        fit(ptl, tmp_path, steady(batches=True))
        assert process.poll() is None
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.communicate(timeout=60)
    sentence = words.take("Another run is writing to")
    assert "(watt.jsonl)" in sentence
    first, second = (read_record(tmp_path / name) for name in ("watt.json", "watt-v1.json"))
    assert first.session != second.session
    assert second.warnings == [sentence]
    for name, record in (("watt.jsonl", first), ("watt-v1.jsonl", second)):
        whole = [line for line in read_journal(tmp_path / name) if "session" in line]
        assert {line["session"] for line in whole} == {record.session}
    rows = (tmp_path / "watt_batches-v1.csv").read_text().splitlines()
    assert len(rows) == 1 + 5 + 2 + 2
    assert energy_of(tmp_path).own_j == pytest.approx(first.energy.total_j + second.energy.total_j)


# ---- resumed there ----


def test_a_run_that_is_resumed_in_its_directory_has_one_record(ptl, tmp_path):
    """It holds all of the first one, also what that had used after the checkpoint."""

    def breaks(stage: str, index: int) -> None:
        if (stage, index, broken.current_epoch) == ("train", 3, 1):
            raise ArithmeticError

    fit(ptl, tmp_path)
    keeps = ptl.callbacks.ModelCheckpoint(tmp_path / "kept", save_last=True)
    broken = module(ptl, step_s=0.01, on_batch=breaks)
    failing = trainer(ptl, tmp_path, steady(), keeps, enable_checkpointing=True, max_epochs=3)
    with pytest.raises(ArithmeticError):
        failing.fit(broken, loader(5), loader(2))
    fit(ptl, tmp_path, max_epochs=3, ckpt_path=tmp_path / "kept" / "last.ckpt")
    assert names(tmp_path) == {"watt.json", "watt.jsonl", "watt-v1.json", "watt-v1.jsonl"}
    resumed = read_record(tmp_path / "watt-v1.json")
    assert (resumed.status, len(resumed.resumes), resumed.wasted_j > 0) == ("completed", 1, True)
    assert energy_of(tmp_path).own_j == pytest.approx(whole_j(tmp_path))


def test_a_record_with_joules_that_the_resumed_run_lacks_is_kept(ptl, tmp_path):
    """A run completed, and is resumed from before its end: what it used from there on is in its own record only."""
    keeps = ptl.callbacks.ModelCheckpoint(tmp_path / "kept", save_top_k=-1, filename="{epoch}")
    made = trainer(ptl, tmp_path, steady(), keeps, enable_checkpointing=True, max_epochs=3)
    made.fit(module(ptl, step_s=0.01), loader(5), loader(2))
    before = (tmp_path / "watt.json").read_bytes()
    fit(ptl, tmp_path, max_epochs=2, ckpt_path=tmp_path / "kept" / "epoch=0.ckpt")
    assert (tmp_path / "watt.json").read_bytes() == before
    first, second = read_records(tmp_path)
    assert second.resumed_j > 0
    assert first.energy.total_j < energy_of(tmp_path).own_j < first.energy.total_j + second.energy.total_j
    assert energy_of(tmp_path).own_j == pytest.approx(whole_j(tmp_path), rel=0.02)


# ---- elsewhere ----


@pytest.mark.parametrize("through", ["default_root_dir", "logger"])
def test_a_remote_run_directory_gets_the_files_and_nothing_is_left_here(ptl, tmp_path, monkeypatch, words, capsys, through):
    monkeypatch.chdir(tmp_path)
    url = f"memory://{tmp_path.name}/{through}"
    logger = ptl.loggers.CSVLogger(url, name="", version="one") if through == "logger" else False
    root = tmp_path if logger else url
    place = f"{url}/one" if logger else url
    callback = steady(batches=True)
    trained = trainer(ptl, root, callback, logger=logger, max_epochs=1)
    trained.fit(module(ptl, step_s=0.01), loader(5), loader(2))
    trained.test(module(ptl), loader(2), verbose=False)
    assert "is remote (memory://)" in words.take("directory is remote")
    record = read_record(place)
    assert record.status == "completed"
    assert {"train", "validate", "test"} <= set(record.energy.by_stage)
    assert energy_of(place).own_j == record.energy.total_j
    assert f"Record: {place}/watt.json" in capsys.readouterr().out
    assert [path for path in tmp_path.rglob("*") if "watt" in path.name or ":" in path.name] == []
    trained.save_checkpoint(tmp_path / "one.ckpt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", WattWarning)  # it says so again
        fit(ptl, root, logger=logger, max_epochs=2, ckpt_path=tmp_path / "one.ckpt")
    resumed = read_record(place)
    assert (resumed.resumed_j, resumed.missing) == (pytest.approx(record.energy.total_j), [])
    assert energy_of(place).own_j == pytest.approx(resumed.energy.total_j)


# ---- ends that are no failure ----


def test_a_pruned_trial_is_interrupted_and_not_failed(ptl, tmp_path):
    """Optuna's callback raises this; Optuna itself is not needed to know it."""
    pruned = type("TrialPruned", (Exception,), {"__module__": "optuna.exceptions"})

    def on_batch(stage: str, index: int) -> None:
        if (stage, index) == ("train", 2):
            raise pruned

    with pytest.raises(pruned):
        trainer(ptl, tmp_path, steady()).fit(module(ptl, on_batch=on_batch), loader(4), loader(1))
    assert read_record(tmp_path).status == "interrupted"
    assert read_journal(tmp_path)[-1]["status"] == "interrupted"


# ---- nothing on disk ----


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
@pytest.mark.parametrize("kind", ["fast_dev_run", "barebones"])
def test_a_rehearsal_leaves_nothing_on_disk(ptl, tmp_path, monkeypatch, capsys, words, kind):
    monkeypatch.chdir(tmp_path)
    fit(ptl, tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    capsys.readouterr()
    settings = {"max_epochs": 1, "accelerator": "cpu", "default_root_dir": tmp_path, kind: True}
    rehearsal = steady(batches=True)
    ptl.Trainer(callbacks=[rehearsal], **settings).fit(module(ptl), loader(3), loader(2))
    if words.left():  # barebones logs no metric
        words.take("No accuracy was logged")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert rehearsal.result is not None
    assert rehearsal.result.energy.total_j > 0
    assert "Record:" not in capsys.readouterr().out
