"""The run's files and the checkpoint's energy: how runs end, how they are killed, and how they go on."""

from __future__ import annotations

import itertools
import json
import os
import signal
import statistics
import sys
import threading
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import torchmetrics

from lightning_watt import WattCallback, energy_of, read_record
from lightning_watt.errors import RecordError
from lightning_watt.record import read_journal
from lightning_watt.testing import Board, Lab, constant
from tests.integration.tiny import (
    QUIET,
    WEIGHTS_ONLY,
    Steady,
    finished,
    loader,
    module,
    module_class,
    start_child,
    trainer,
    watt,
)

pytestmark = [pytest.mark.filterwarnings(entry) for entry in QUIET]


def steady(**options: Any) -> WattCallback:
    return watt(gpus="auto", sources=[Steady()], **options)


def whole(directory: Path) -> Any:
    """The record, its sums found right."""
    record = read_record(directory)
    stages, devices = record.energy.by_stage.values(), record.energy.by_device.values()
    assert sum(stage.joules for stage in stages) == pytest.approx(record.energy.total_j, rel=1e-9)
    assert sum(device.joules for device in devices) == pytest.approx(record.energy.total_j, rel=1e-9)
    return record


# ---- how runs end ----


def failing(error: BaseException, stage: str, batch: int = 2, epoch: int = 1, action: Any = None) -> Any:
    """Raises in that batch of that stage, the given number of epochs on."""
    seen = itertools.count()

    def on_batch(now: str, index: int) -> None:
        if now == stage and index == batch and next(seen) == epoch:
            raise error

    return on_batch


class BurntToastError(Exception):
    """What a training raises."""


@pytest.mark.parametrize("stage", ["train", "validate"])
def test_a_run_that_raised_is_failed_and_keeps_its_energy(ptl, tmp_path, stage):
    trained = trainer(ptl, tmp_path, steady(), max_epochs=5)
    with pytest.raises(BurntToastError):
        trained.fit(module(ptl, step_s=0.01, on_batch=failing(BurntToastError(), stage)), loader(4), loader(3))
    record = whole(tmp_path)
    assert record.status == "failed"
    assert record.energy.by_stage["train"].batches == {"train": 6, "validate": 8}[stage]
    assert record.energy.total_j > 10 * 0.01 * 100
    assert read_journal(tmp_path)[-1]["total_j"] == pytest.approx(record.energy.total_j)


def test_a_run_that_raises_before_its_first_batch_is_failed(ptl, tmp_path):
    tiny = module(ptl)
    tiny.on_fit_start = lambda: (_ for _ in ()).throw(BurntToastError)
    with pytest.raises(BurntToastError):
        trainer(ptl, tmp_path, steady()).fit(tiny, loader(2), loader(1))
    assert whole(tmp_path).status == "failed"


class BrokenMetric(torchmetrics.Metric):
    """A metric that cannot be computed."""

    def update(self) -> None: ...

    def compute(self) -> Any:
        raise BurntToastError


def test_a_metric_whose_compute_raises_ends_the_training_and_not_our_end(ptl, tmp_path, capsys):
    """Lightning computes it after the epoch's hooks; from then on each look at its metrics raises again."""

    class Metered(module_class(ptl)):
        def __init__(self) -> None:
            super().__init__()
            self.metric = BrokenMetric()

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.metric.update()
            self.log("broken", self.metric, on_step=False, on_epoch=True, prog_bar=True)
            return super().training_step(batch, batch_idx)

    with pytest.raises(BurntToastError):
        trainer(ptl, tmp_path, steady()).fit(Metered(), loader(4), loader(2))
    assert whole(tmp_path).status == read_journal(tmp_path)[-1]["status"] == "failed"
    assert {file.name for file in tmp_path.iterdir()} == {"watt.json", "watt.jsonl"}
    assert "Record: " in capsys.readouterr().out


@pytest.mark.parametrize(
    "step",
    [
        "run.session.Session.end",
        "trainer.publisher.Publisher.catch_up",
        "trainer.ending.log_record",
        "trainer.hparams.HParamsTable.end",
        "record.text.drawn.say",
    ],
)
def test_each_step_of_the_end_is_guarded_by_itself(ptl, tmp_path, monkeypatch, capsys, words, step):
    trained = trainer(ptl, tmp_path, steady(), max_epochs=1)

    class Breaks(ptl.Callback):
        def on_fit_end(self, *_: Any) -> None:
            monkeypatch.setattr(f"lightning_watt.{step}", failing_step)

    def failing_step(*_: Any, **__: Any) -> None:
        raise BurntToastError

    trained.callbacks.append(Breaks())
    trained.fit(module(ptl), loader(4), loader(2))
    words.take("failed$")
    words.take("the training goes on. Please report it.")
    assert whole(tmp_path).status == read_journal(tmp_path)[-1]["status"] == "completed"
    assert {file.name for file in tmp_path.iterdir()} == {"watt.json", "watt.jsonl"}
    assert ("Record: " in capsys.readouterr().out) is (step != "record.text.drawn.say")
    assert readers() == []


def readers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("lightning_watt reader")]


def test_the_reader_does_not_outlive_a_search_that_fails(ptl, tmp_path):
    """Lightning takes all callbacks out for a learning-rate search, so if that raises nobody tells ours."""
    model = module(ptl, step_s=0.05, on_batch=failing(BurntToastError(), "train", epoch=0))
    model.lr = 0.1
    trained = trainer(ptl, tmp_path, steady())
    with pytest.raises(BurntToastError):
        import_module(f"{ptl.__name__}.tuner").Tuner(trained).lr_find(model, loader(8), num_training=20)
    assert not any(isinstance(callback, WattCallback) for callback in trained.callbacks)
    for _ in range(300):
        if not readers():
            break
        time.sleep(0.1)
    assert readers() == []
    assert whole(tmp_path).status == read_journal(tmp_path)[-1]["status"] == "failed"
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".watt")]


def test_a_validation_inside_a_fit_of_the_same_trainer_ends_nothing(ptl, tmp_path):
    """Lightning's own loops do not bear it, with us or without; what was measured is whole all the same."""

    class Nested(ptl.Callback):
        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            trainer.validate(module, loader(2), verbose=False)

    trained = trainer(ptl, tmp_path, steady(), Nested())
    with pytest.raises(AssertionError):
        trained.fit(module(ptl), loader(3), loader(3))
    record = whole(tmp_path)
    assert record.status == "failed"
    assert {stage: record.energy.by_stage[stage].batches for stage in ("train", "validate")} == {"train": 3, "validate": 5}
    assert readers() == []


def test_a_run_whose_end_was_kept_from_us_is_over_when_the_next_begins(ptl, tmp_path):
    """A callback before ours raises in its `on_exception`, so Lightning never comes to ours."""

    class InTheWay(ptl.Callback):
        def on_exception(self, *_: Any) -> None:
            raise LookupError

    callback = steady()
    failed = trainer(ptl, tmp_path, InTheWay(), callback, max_epochs=5)
    with pytest.raises(LookupError):
        failed.fit(module(ptl, on_batch=failing(BurntToastError(), "train")), loader(4), loader(2))
    assert len(readers()) == 1  # which waits some time for us
    trained = trainer(ptl, tmp_path, callback, max_epochs=1)
    trained.fit(module(ptl), loader(4), loader(2))
    assert readers() == []
    assert whole(tmp_path).status == "completed"
    assert [line["status"] for line in read_journal(tmp_path) if "status" in line] == ["failed", "completed"]


def test_an_interrupted_run_says_so(ptl, tmp_path):
    trained = trainer(ptl, tmp_path, steady(), max_epochs=5)
    with pytest.raises(SystemExit):
        trained.fit(module(ptl, on_batch=failing(KeyboardInterrupt(), "train")), loader(4), loader(2))
    assert whole(tmp_path).status == "interrupted"


def test_a_terminated_run_says_so(ptl, tmp_path):
    def on_batch(stage, index):
        if stage == "train" and index == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit):
        trainer(ptl, tmp_path, steady(), max_epochs=5).fit(module(ptl, on_batch=on_batch), loader(4), loader(2))
    assert whole(tmp_path).status == "interrupted"


def test_a_run_after_a_failed_one_goes_on_with_the_same_callback(ptl, tmp_path):
    trained = trainer(ptl, tmp_path, steady(), max_epochs=1)
    with pytest.raises(BurntToastError):
        trained.fit(module(ptl, on_batch=failing(BurntToastError(), "train", epoch=0)), loader(4), loader(2))
    before = whole(tmp_path).energy
    trained.fit(module(ptl), loader(4), loader(2))
    record = whole(tmp_path)
    assert record.status == "completed"
    assert record.energy.by_stage["train"].batches == before.by_stage["train"].batches + 4
    assert record.energy.total_j > before.total_j


def test_while_it_runs_the_record_says_running(ptl, tmp_path):
    """Written at every epoch's end by the meter's thread."""
    seen: list[str] = []

    def on_batch(stage, index):
        if stage == "train" and (tmp_path / "watt.json").exists():
            seen.append(read_record(tmp_path).status)

    trainer(ptl, tmp_path, steady(), max_epochs=3).fit(module(ptl, step_s=0.02, on_batch=on_batch), loader(10), loader(2))
    assert set(seen) == {"running"}
    assert read_record(tmp_path).status == "completed"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["watt.json", "watt.jsonl"]  # no half files stay


# ---- killed ----


@pytest.mark.ddp
def test_a_killed_process_loses_at_most_one_interval(tmp_path):
    lab = Lab([Board(power=constant(250), counter_ms=10)])
    interval = 0.25
    process = start_child(
        tmp_path,
        lab.env(),
        fresh=True,
        watt={"interval": interval},
        trainer={"max_epochs": 10_000},
        module={"step_s": 0.02},
        batches=[10, 2],
    )
    try:
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline and process.poll() is None:
            if (tmp_path / "watt.json").exists() and len(read_journal(tmp_path)) >= 12:
                break
            time.sleep(0.05)
        before = read_journal(tmp_path)
    finally:
        process.kill()
        out, _ = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL, out
    assert len(before) >= 12, out
    lines = read_journal(tmp_path)
    assert lines[: len(before)] == before  # what another process could read before the kill is there after it
    # A line an interval, each with the energy up to its own read: so what is lost is what came after the last.
    gaps = [later["t"] - line["t"] for line, later in itertools.pairwise(lines)]
    assert statistics.median(gaps) < 2 * interval
    used = [(later["total_j"] - line["total_j"]) for line, later in itertools.pairwise(lines[2:])]
    assert statistics.median(used) == pytest.approx(250 * statistics.median(gaps[2:]), rel=0.25)
    record = whole(tmp_path)
    assert record.status == "running"
    assert 0 < record.energy.total_j <= lines[-1]["total_j"] + 1e-6  # a microjoule


# ---- going on ----


@pytest.mark.parametrize("place", ["same directory", "another directory"])
def test_a_resumed_run_goes_on_where_its_checkpoint_was(pl, tmp_path, place):
    first, second = (tmp_path, tmp_path) if place == "same directory" else (tmp_path / "1", tmp_path / "2")
    trained = trainer(pl, first, steady(), max_epochs=1)
    trained.fit(module(pl, step_s=0.01), loader(6), loader(2))
    path = tmp_path / "one.ckpt"
    trained.save_checkpoint(path)
    before = whole(first).energy
    again = trainer(pl, second, steady(), max_epochs=2)
    again.fit(module(pl, step_s=0.01), loader(6), loader(2), ckpt_path=path, **WEIGHTS_ONLY)
    record = whole(second)
    assert record.resumed_j == pytest.approx(before.total_j, rel=1e-9)
    assert record.energy.total_j > before.total_j + 6 * 0.01 * 100
    stages = record.energy.by_stage
    assert (stages["train"].batches, stages["validate"].batches) == (12, 4)
    assert list(record.energy.by_device) == ["gpu0"]
    assert float(again.callback_metrics["watt/energy_kwh"]) * 3.6e6 == pytest.approx(record.energy.total_j, rel=0.1)
    assert [(row.stage, row.epoch) for row in record.epochs] == [
        ("train", 0),
        ("validate", 0),
        ("train", 1),
        ("validate", 1),
    ]


def test_the_best_accuracy_survives_a_resume(ptl, tmp_path):
    accuracy, path = [0.9, 0.6], tmp_path / "one.ckpt"
    trained = trainer(ptl, tmp_path / "1", steady(), max_epochs=1)
    trained.fit(module(ptl, accuracy=accuracy), loader(3), loader(1))
    trained.save_checkpoint(path)
    again = trainer(ptl, tmp_path / "2", steady(), max_epochs=2)
    again.fit(module(ptl, accuracy=accuracy), loader(3), loader(1), ckpt_path=path, **WEIGHTS_ONLY)
    found = whole(tmp_path / "2").accuracy
    assert (found.last, found.best) == (pytest.approx(0.6), pytest.approx(0.9))


def test_resuming_with_the_callback_itself_counts_nothing_twice(ptl, tmp_path):
    trained = trainer(ptl, tmp_path, steady(), max_epochs=1)
    tiny = module(ptl, step_s=0.01)
    trained.fit(tiny, loader(6), loader(2))
    path = tmp_path / "one.ckpt"
    trained.save_checkpoint(path)
    before = whole(tmp_path).energy.total_j
    trained.fit_loop.max_epochs = 2
    trained.fit(tiny, loader(6), loader(2), ckpt_path=path, **WEIGHTS_ONLY)
    record = whole(tmp_path)
    assert record.energy.by_stage["train"].batches == 12
    assert (record.resumed_j, record.energy.total_j > before) == (0, True)


def test_a_checkpoint_of_a_resumed_run_can_be_resumed(ptl, tmp_path):
    path, totals = None, [0.0]
    for epochs in (1, 2, 3):
        trained = trainer(ptl, tmp_path / str(epochs), steady(), max_epochs=epochs)
        trained.fit(module(ptl, step_s=0.01), loader(4), loader(2), ckpt_path=path, **WEIGHTS_ONLY)
        path = tmp_path / f"{epochs}.ckpt"
        trained.save_checkpoint(path)
        totals.append(whole(tmp_path / str(epochs)).energy.total_j)
        assert energy_of(path).total_j == pytest.approx(totals[-1], rel=1e-9)
    assert totals == sorted(totals)
    assert read_record(tmp_path / "3").energy.by_stage["train"].batches == 12


@pytest.mark.ddp
@pytest.mark.slow
def test_a_resumed_run_in_a_new_process_goes_on(tmp_path):
    lab = Lab([Board(power=constant(250), counter_ms=10), Board(power=constant(50), counter_ms=10)])
    path = tmp_path / "one.ckpt"
    shared = {"env": lab.env(), "module": {"step_s": 0.02}}
    finished(start_child(tmp_path / "1", trainer={"max_epochs": 1}, save=str(path), **shared))
    finished(start_child(tmp_path / "2", fresh=True, trainer={"max_epochs": 2}, ckpt_path=str(path), **shared))
    first, second = whole(tmp_path / "1").energy, whole(tmp_path / "2")
    assert second.resumed_j == pytest.approx(first.total_j, rel=1e-9)
    assert second.energy.by_stage["train"].batches == 12
    for label in ("gpu0", "gpu1"):
        assert second.energy.by_device[label].joules > first.by_device[label].joules
    # The pause between the two processes was nobody's: all seconds are those of the accounts.
    seconds = sum(stage.seconds for stage in second.energy.by_stage.values())
    assert second.energy.total_j == pytest.approx(300 * seconds, rel=0.1)


def test_a_test_of_a_foreign_checkpoint_does_not_give_its_energy_to_the_next_fit(ptl, tmp_path):
    foreign = trainer(ptl, tmp_path / "foreign", steady(), max_epochs=1)
    foreign.fit(module(ptl, step_s=0.02), loader(6), loader(2))
    path = tmp_path / "foreign.ckpt"
    foreign.save_checkpoint(path)
    trained = trainer(ptl, tmp_path / "own", steady(), max_epochs=1)
    tiny = module(ptl)
    trained.test(tiny, loader(2), ckpt_path=path, verbose=False, **WEIGHTS_ONLY)
    trained.fit(tiny, loader(3), loader(1))
    record = whole(tmp_path / "own")
    assert record.energy.by_stage["train"].batches == 3
    assert record.resumed_j == 0


# ---- what a checkpoint carries ----


def test_each_checkpoint_carries_the_energy_up_to_it(ptl, tmp_path):
    every = ptl.callbacks.ModelCheckpoint(tmp_path / "all", "{epoch}", save_top_k=-1, every_n_epochs=1)
    trained = trainer(ptl, tmp_path, every, steady(), max_epochs=3, enable_checkpointing=True)
    trained.fit(module(ptl, step_s=0.03), loader(6), loader(2))
    carried = [energy_of(tmp_path / "all" / f"epoch={epoch}.ckpt").total_j for epoch in range(3)]
    total_j = whole(tmp_path).energy.total_j
    assert carried == sorted(carried)
    assert 0 < carried[0] < carried[2] <= total_j
    # The last one is behind by what its last read had not seen: the interval of 0.1 s, and what a busy machine adds.
    assert carried[2] > 0.5 * total_j


def test_a_checkpoint_loads_without_running_code(ptl, tmp_path):
    trained = trainer(ptl, tmp_path, steady(), max_epochs=1)
    tiny = module(ptl)
    tiny.watt_inherits = [fitted(ptl, tmp_path / "before")]
    trained.fit(tiny, loader(3), loader(1))
    trained.save_checkpoint(tmp_path / "one.ckpt")
    state = torch.load(tmp_path / "one.ckpt", weights_only=True)["callbacks"]["WattCallback"]
    assert json.loads(json.dumps(state)) == state  # plain values, and nothing else
    assert state["inherited"][0]["total_j"] > 0


def test_a_subclass_saves_under_the_same_key(ptl, tmp_path):
    class Mine(WattCallback):
        pass

    trained = trainer(ptl, tmp_path, Mine(sources=[Steady()]), max_epochs=1)
    trained.fit(module(ptl), loader(3), loader(1))
    trained.save_checkpoint(tmp_path / "one.ckpt")
    assert energy_of(tmp_path / "one.ckpt").total_j == pytest.approx(whole(tmp_path).energy.total_j, rel=1e-9)


def test_energy_of_says_what_is_wrong(ptl, tmp_path):
    bare = trainer(ptl, tmp_path, max_epochs=1)
    bare.fit(module(ptl), loader(2), loader(1))
    bare.save_checkpoint(tmp_path / "bare.ckpt")
    (tmp_path / "torn.ckpt").write_bytes((tmp_path / "bare.ckpt").read_bytes()[:200])
    for name, why in [("bare.ckpt", "no WattCallback"), ("torn.ckpt", "cannot be read"), ("none.ckpt", "no such file")]:
        with pytest.raises(RecordError, match=why):
            energy_of(tmp_path / name)
    with pytest.raises(RecordError, match="record=True"):
        energy_of(tmp_path)


# ---- lineage ----


def fitted(pl: Any, directory: Path) -> Path:
    """The run directory of a short fit."""
    trainer(pl, directory, steady(), max_epochs=1).fit(module(pl, step_s=0.01), loader(4), loader(2))
    return directory


@pytest.mark.parametrize("kind", ["directory", "record", "checkpoint"])
def test_a_run_inherits_what_its_module_says(ptl, tmp_path, kind):
    trained = trainer(ptl, tmp_path / "pretrain", steady(), max_epochs=1)
    trained.fit(module(ptl, step_s=0.01), loader(4), loader(2))
    trained.save_checkpoint(tmp_path / "pretrain.ckpt")
    paths = {"directory": "pretrain", "record": "pretrain/watt.json", "checkpoint": "pretrain.ckpt"}
    path = tmp_path / paths[kind]
    before = whole(tmp_path / "pretrain").energy
    before_j = before.total_j
    tiny = module(ptl)
    tiny.watt_inherits = str(path)
    finetune = trainer(ptl, tmp_path / "finetune", steady(sam_unit="J"), max_epochs=1)
    finetune.fit(tiny, loader(4), loader(2))
    record = whole(tmp_path / "finetune")
    (inherited,) = record.inherited
    assert (inherited.path, inherited.total_j) == (str(path), pytest.approx(before_j, rel=1e-9))
    assert inherited.gain_j == pytest.approx(before.gain_j, rel=1e-9)
    assert inherited.boundary_j == pytest.approx(before.boundary_j, rel=0.5)  # a checkpoint's edge is another moment's
    carried = energy_of(tmp_path / "finetune")
    assert carried.plus_minus.gain_j == pytest.approx(record.energy.gain_j + before.gain_j)
    assert (carried.own_j, carried.total_j) == (record.energy.total_j, pytest.approx(record.energy.total_j + before_j))
    assert record.sam.shifted_with_inherited < record.sam.shifted
    # A third run inherits all of it.
    finetune.save_checkpoint(tmp_path / "finetune.ckpt")
    again = energy_of(tmp_path / "finetune.ckpt")
    assert again.total_j == pytest.approx(carried.total_j, rel=1e-9)
    assert again.plus_minus.gain_j == pytest.approx(carried.plus_minus.gain_j, rel=1e-9)


def test_what_cannot_be_inherited_is_told_and_is_not_zero(ptl, tmp_path, words):
    tiny = module(ptl)
    tiny.watt_inherits = [tmp_path / "nowhere"]
    trainer(ptl, tmp_path, steady(), max_epochs=1).fit(tiny, loader(3), loader(1))
    sentence = words.take("inherits is not known")
    assert str(tmp_path / "nowhere") in sentence
    record = whole(tmp_path)
    assert record.inherited == []
    assert record.warnings == [sentence]


# ---- other keys ----


def test_best_belongs_to_the_metric_that_is_named(ptl, tmp_path):
    trained = trainer(ptl, tmp_path, steady(), max_epochs=1)
    tiny = module(ptl, accuracy=[0.9])
    trained.fit(tiny, loader(3), loader(1))
    assert read_record(tmp_path).accuracy.best == pytest.approx(0.9)
    trained.test(tiny, loader(2), verbose=False)
    accuracy = read_record(tmp_path).accuracy
    assert (accuracy.metric, accuracy.last, accuracy.best) == ("test_acc", pytest.approx(0.25), pytest.approx(0.25))


def test_what_a_model_says_about_itself_is_in_the_record(ptl, tmp_path):
    tiny = module(ptl)
    tiny.watt_model_info = {"family": "linear", "input": (8,), "dtype": torch.float32}
    trainer(ptl, tmp_path, steady(), max_epochs=1).fit(tiny, loader(3), loader(1))
    model = read_record(tmp_path).model
    assert (model["name"], model["params"], model["family"]) == ("Tiny", 18, "linear")
    assert (model["input"], model["dtype"]) == ([8], "torch.float32")


def test_saved_hyperparameters_are_facts_of_the_run(ptl, tmp_path):
    """The module's and the data's."""

    class Saved(type(module(ptl))):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.save_hyperparameters()

    class Data(ptl.LightningDataModule):
        def __init__(self, fold: int) -> None:
            super().__init__()
            self.save_hyperparameters()

        def train_dataloader(self):
            return loader(3)

    trainer(ptl, tmp_path / "a", steady(), max_epochs=1).fit(Saved(width=3), datamodule=Data(fold=2))
    model = read_record(tmp_path / "a").model
    assert (model["hyperparameters"], model["data_hyperparameters"]) == ({"width": 3}, {"fold": 2})
    trainer(ptl, tmp_path / "b", steady(), max_epochs=1).fit(module(ptl), loader(3))
    assert "hyperparameters" not in read_record(tmp_path / "b").model


def test_without_a_record_no_file_is_written(ptl, tmp_path):
    trained = trainer(ptl, tmp_path, steady(record=False, batches=True), max_epochs=1)
    trained.fit(module(ptl), loader(3), loader(1))
    assert list(tmp_path.iterdir()) == []
    assert "watt/energy_kwh" in trained.callback_metrics


@pytest.mark.parametrize(("interval", "least", "most"), [(0.1, 4, 10_000), (60.0, 0, 1)], ids=["often", "seldom"])
def test_an_interval_of_its_own_reaches_the_journal(ptl, tmp_path, interval, least, most):
    """While one batch lasts, where no stage's edge asks for a line; the first edge's own may still be on its way."""
    grown = []

    def on_batch(stage: str, index: int) -> None:
        if (stage, index) == ("train", 8):
            before, began = len(read_journal(tmp_path)), time.monotonic()
            while (waited_s := time.monotonic() - began) < 2.5 or (
                len(read_journal(tmp_path)) < before + least and waited_s < 60
            ):
                time.sleep(0.1)
            grown.append(len(read_journal(tmp_path)) - before)

    source = Steady()
    source.due_s = 60.0  # otherwise it is read every second, whatever the interval
    callback = watt(gpus="auto", sources=[source], interval=interval)
    trained = trainer(ptl, tmp_path, callback, max_epochs=1, num_sanity_val_steps=0)
    trained.fit(module(ptl, step_s=0.02, on_batch=on_batch), loader(10), loader(1))
    assert least <= grown[0] <= most


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_the_files_are_not_met_by_whoever_loads_every_file_beside_the_checkpoints(tmp_path, ptl):
    """Many a script does `for file in checkpoint_dir.iterdir(): torch.load(file)`."""
    run = tmp_path / "run"
    keeps = ptl.callbacks.ModelCheckpoint(run, save_top_k=-1)
    callback = WattCallback(sources=[Steady()], interval=0.1)
    made = trainer(ptl, run, callback, keeps, enable_checkpointing=True)
    made.fit(module(ptl, step_s=0.05), loader(3), loader(2))
    beside = sorted(run.iterdir())
    assert sorted(file.suffix for file in beside) == [".ckpt", ".ckpt"]
    for file in beside:
        torch.load(file, weights_only=True)
    assert read_record(run).status == "completed"
    assert energy_of(run).total_j == read_record(run).energy.total_j > 0

    keeps = ptl.callbacks.ModelCheckpoint(save_top_k=-1)
    callback = WattCallback(sources=[Steady()])
    again = trainer(ptl, tmp_path / "again", callback, keeps, max_epochs=3, enable_checkpointing=True)
    again.fit(module(ptl), loader(3), loader(2), ckpt_path=str(beside[-1]), **WEIGHTS_ONLY)
    assert read_record(tmp_path / "again").resumed_j > 0
    assert read_record(tmp_path / "again").missing == []  # its journal was found


def test_a_record_says_which_commit_of_the_project_and_which_job_of_the_cluster_it_is_of(ptl, tmp_path, monkeypatch, capsys):
    sacct = tmp_path / "sacct"
    sacct.write_text('#!/bin/sh\necho "7|"\necho "7.0|7200"\n')
    sacct.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    project = tmp_path / "project"
    (project / ".git").mkdir(parents=True)
    (project / ".git" / "HEAD").write_text("a" * 40)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(project / "train.py"), raising=False)
    options = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "devices": 1}
    trainer(ptl, tmp_path / "run", steady(), max_epochs=1, **options).fit(module(ptl), loader())
    record = read_record(tmp_path / "run")
    assert record.software["git_commit"] == "a" * 40
    assert (record.hardware["slurm_job_id"], record.slurm_j) == ("7", 7200.0)
    said = " ".join(capsys.readouterr().out.split())
    assert "Slurm had counted 7200 J for its job 7 by then" in said
