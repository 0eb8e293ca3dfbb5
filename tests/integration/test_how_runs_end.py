"""How runs end, and what is on disk of one that failed, was interrupted or was killed."""

from __future__ import annotations

import itertools
import os
import signal
import statistics
import threading
import time
from importlib import import_module
from typing import Any

import pytest
import torchmetrics

from lightning_watt import WattCallback, read_record
from lightning_watt.record import read_journal
from lightning_watt.testing import Board, Lab, constant
from tests.integration.recorded import steady, whole
from tests.integration.tiny import (
    QUIET,
    loader,
    module,
    module_class,
    start_child,
    trainer,
)

pytestmark = [pytest.mark.filterwarnings(entry) for entry in QUIET]


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
