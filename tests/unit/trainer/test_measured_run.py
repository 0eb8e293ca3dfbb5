"""A run as the hooks drive it, over a scripted source and a clock that only moves when told to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import count
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_watt import EnergyMeter
from lightning_watt.accounts.events import LogPoint
from lightning_watt.accounts.ledger import Account
from lightning_watt.record import read_journal, read_record
from lightning_watt.record.claim import RunFiles
from lightning_watt.record.writer import RunWriter, Turn
from lightning_watt.run.resume import go_on
from lightning_watt.run.session import Session
from lightning_watt.run.state import RunState
from lightning_watt.settings import Settings
from lightning_watt.testing import FakeClock, ScriptedSource
from lightning_watt.trainer import measured_run, publisher
from lightning_watt.trainer.measured_run import MeasuredRun, guarded
from tests.unit.settling import settle


def a_trainer() -> SimpleNamespace:
    """One rank on a CPU, in its fit, after ten training batches of a hundred."""
    return SimpleNamespace(
        world_size=1,
        is_global_zero=True,
        global_step=7,
        current_epoch=1,
        loggers=[],
        callbacks=[],
        lr_scheduler_configs=[],
        should_stop=False,
        state=SimpleNamespace(fn="fit", status="running"),
        progress_bar_callback=object(),
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(total_batch_idx=9, _batches_that_stepped=7)),
        num_val_batches=[],
        num_training_batches=50,
        max_epochs=2,
        max_steps=-1,
        accumulate_grad_batches=1,
        check_val_every_n_epoch=1,
        val_check_batch=50,
        ckpt_path=None,
        print=print,
        _logger_connector=SimpleNamespace(_callback_metrics={}, _progress_bar_metrics={}),
    )


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def gate() -> threading.Event:
    """While it is not set, the driver does not answer."""
    opened = threading.Event()
    opened.set()
    return opened


@pytest.fixture
def source(gate: threading.Event) -> ScriptedSource:
    """100 W."""
    return ScriptedSource(before_read=gate.wait)


@pytest.fixture
def run(clock: FakeClock, tmp_path: Any, source: ScriptedSource) -> Iterator[MeasuredRun]:
    """One that measures a board of 100 W, has used 200 J of it, and writes files."""
    run = MeasuredRun(Settings(sam_unit="J", batches=True))
    run.session, run.meter, run.is_set_up = Session(id="mine"), EnergyMeter(sources=[source], clock=clock), True
    run.writer = RunWriter(RunFiles(tmp_path), run.meter.complaints.append)
    run.session.on_settled = run.write
    run.session.begin(run.meter, Account("other", 0))
    for _ in range(2):  # after the second reading its power is known
        settle(run.meter)
        clock.sleep(1)
    yield run
    run.session.end()
    if run.writer is not None:
        run.writer.close()


def test_an_epoch_s_batches_energy_and_accuracy_reach_the_record(run, clock):
    trainer = a_trainer()
    run.start_training(trainer)
    for index in range(2):
        clock.sleep(1)
        run.end_batch(trainer, torch.zeros(8, 3), index, trains=True)
    trainer._logger_connector._callback_metrics["val_acc"] = torch.tensor(0.75)
    run.end_epoch(trainer, "train", then="train")
    run.close_train_epoch(trainer)
    settle(run.meter)
    record = run.to_record()
    assert record is not None
    train = record.energy.by_stage["train"]
    assert (train.joules, train.seconds, train.batches, train.samples) == (200.0, 2.0, 2, 16)
    assert (record.accuracy.metric, record.accuracy.last) == ("val_acc", 0.75)
    assert record.sam.shifted == pytest.approx(5 * 0.75**5 / torch.log10(torch.tensor(410.0)).item())
    assert trainer._logger_connector._callback_metrics["watt/train/energy_kwh"] * 3.6e6 == pytest.approx(200.0)
    assert run.has_trained


def test_what_was_settled_is_in_the_files(run, clock, tmp_path):
    trainer = a_trainer()
    run.start_training(trainer)
    clock.sleep(1)
    run.end_batch(trainer, torch.zeros(4), 0)
    run.end_epoch(trainer, "train", then="other")
    settle(run.meter)
    assert read_journal(tmp_path)[-1]["device_uj"] == {"gpu0": 300_000_000}
    assert read_record(tmp_path / "watt.json").status == "running"
    assert (tmp_path / "watt_batches.csv").read_text().splitlines()[1].startswith("train,1,0,100.000000,1.000000,")


def test_in_a_long_run_each_reading_has_its_line_and_those_that_were_asked_for_have_none(run, monkeypatch):
    """Reads come up to a fifth sooner than the interval. Without a line of each, a kill would lose nearly two."""
    begin_s = now_s = monotonic() + 10
    monkeypatch.setattr(measured_run, "FIRST_LINES", 0)
    monkeypatch.setattr(measured_run, "monotonic", lambda: now_s)
    run.state.interval_s = 1.0
    written = []
    monkeypatch.setattr(run.writer, "journal", lambda line: written.append(now_s - begin_s))
    for seconds in (1.0, 0.81, 1.0, 0.9, 0.1, 0.1, 0.75):  # the two of 0.1 s were asked for
        now_s += seconds
        run.write([], epoch_over=False)
    assert written == pytest.approx([1.0, 1.81, 2.81, 3.71, 4.66])


def test_a_checkpoint_has_the_energy_until_now_and_none_before_the_run_began(run, clock):
    clock.sleep(3)
    state = run.state_dict()
    later = Session()
    assert later.resume(state["session"])
    assert later.totals().total_j == 500.0
    run.is_set_up = False
    assert run.state_dict() == {}


def joules_by_stage(session: Session) -> dict[str, float]:
    return {stage: round(usage.total_uj / 1e6, 3) for stage, usage in session.totals().by_stage().items()}


@pytest.mark.parametrize("ending", ["settled", "killed before"])
def test_what_a_checkpoint_guessed_is_corrected_by_what_its_session_settled(run, clock, source, gate, tmp_path, ending):
    """100 W were known when it was saved; 250 W are what the next reading shows for the seconds before and after."""
    source.labels, source.counter_uj = ("gpu0", "cpu0"), lambda ns: ns * 100 // 1000 + max(0, ns - 2 * 10**9) * 150 // 1000
    run.session.end()
    run.session, run.meter = Session(), EnergyMeter(sources=[source], clock=clock)
    run.session.on_settled = run.write
    run.session.begin(run.meter, Account("other", 0))
    for _ in range(2):
        settle(run.meter)
        clock.sleep(1)
    settle(run.meter)
    gate.clear()
    for stage, epoch in (("train", 0), ("validate", 0), ("train", 1)):
        run.session.switch(Account(stage, epoch))
        clock.sleep(1)
        run.session.tally.batches += 1
    state = run.state_dict()
    clock.sleep(1)
    if ending == "killed before":
        later, resumed = Session(), RunState(directory=tmp_path)
        go_on(later, resumed, state, None, adds=True)
    gate.set()
    settle(run.meter)
    if ending == "settled":
        later, resumed = Session(), RunState(directory=tmp_path)
        go_on(later, resumed, state, None, adds=True)
    guessed = {"train": 400.0, "validate": 200.0, "other": 400.0, "wasted": 0.0}
    settled = {"train": 1000.0, "validate": 500.0, "other": 400.0, "wasted": 500.0}
    assert joules_by_stage(later) == (settled if ending == "settled" else guessed)
    totals = later.totals()
    assert totals.by_device() == dict.fromkeys(("gpu0", "cpu0"), totals.total_uj // 2)
    assert totals.by_stage()["train"].batches == 2
    epochs_uj = {a.epoch: u.total_uj for a, u in later.others.earlier.accounts.items() if a.stage == "train"}
    assert epochs_uj[0] == pytest.approx(epochs_uj[1])
    # The guess is as uncertain as it is large; what was settled is as sure as its edges.
    variance, own = totals.by_stage()["validate"].edge_variance, run.session.ledger.by_stage()["validate"].edge_variance
    assert variance == pytest.approx((200 * 1e6) ** 2 if ending == "killed before" else own)


def test_a_step_that_fails_is_reported_once_and_stops_nothing(run, caplog, recwarn):
    @guarded
    def fails(run: MeasuredRun) -> None:
        raise ZeroDivisionError("oops")

    with pytest.warns(match="fails failed .*oops.*; the training goes on"):
        fails(run)
    fails(run)
    assert list(run.state.warn_once.said) == ["fails"]


def test_a_run_whose_trainer_has_gone_keeps_what_is_known_as_failed(run, clock, tmp_path):
    clock.sleep(2)
    settle(run.meter)
    run.end_alone()
    record = read_record(tmp_path / "watt.json")
    assert (record.status, record.energy.total_j) == ("failed", 400.0)
    assert read_journal(tmp_path)[-1]["status"] == "failed"


def test_before_every_callback_was_set_up_nothing_is_written_for_a_while(run, clock, tmp_path):
    run.is_set_up, run.writes_from_s = False, float("inf")
    settle(run.meter)
    before = read_journal(tmp_path)
    clock.sleep(1)
    settle(run.meter)
    assert read_journal(tmp_path) == before


@pytest.mark.parametrize("is_monitored", [False, True])
def test_values_that_nobody_decides_by_take_no_more_than_their_share_of_a_long_training_of_short_epochs(
    run, clock, monkeypatch, is_monitored
):
    """Epochs of a millisecond, whose values take half of that."""
    now_s = iter(count(0.0, 0.0005))
    monkeypatch.setattr(publisher, "FIRST_VALUES", 3)
    run.publisher.values_turn = Turn(0.01, now_s.__next__)
    trainer, given = a_trainer(), []
    if is_monitored:
        trainer.callbacks = [SimpleNamespace(monitor="watt/energy_kwh")]
    monkeypatch.setattr(run.publisher, "publish", lambda *_: given.append(run.session.tally.batches))
    run.start_training(trainer)
    for _ in range(300):
        run.session.tally.batches += 1
        run.end_epoch(trainer, "validate", then="train")
    assert given[:3] == [1, 2, 3]
    assert len(given) == (300 if is_monitored else pytest.approx(6, abs=2))


@pytest.mark.parametrize("is_monitored", [False, True])
def test_who_monitors_us_is_looked_for_once_at_an_epoch_s_end_if_nobody_does(run, monkeypatch, is_monitored):
    trainer, looked, filled = a_trainer(), list[bool](), list[bool]()
    trainer.callbacks = [SimpleNamespace(monitor="watt/energy_kwh")] * is_monitored
    run.start_training(trainer)
    decide, fill = run.monitors.decide, run.monitors.fill
    monkeypatch.setattr(run.monitors, "decide", lambda *a: looked.append(True) or decide(*a), raising=False)
    monkeypatch.setattr(run.monitors, "fill", lambda *a: filled.append(True) or fill(*a))
    run.end_epoch(trainer, "validate", then="train")
    assert (len(looked), len(filled)) == (1, int(is_monitored))


@pytest.mark.parametrize("has_logger", [False, True])
def test_without_a_logger_the_ends_of_epochs_between_two_readings_are_one_row(run, has_logger):
    trainer = a_trainer()
    trainer.loggers = [SimpleNamespace(log_metrics=lambda **_: None, save=lambda: None)] * has_logger
    run.start_training(trainer)
    rows: list[LogPoint] = []
    note = run.session.note
    run.session.note = lambda payload, **asks: (
        rows.append(payload) if isinstance(payload, LogPoint) else None,
        note(payload, **asks),
    )
    for _ in range(2):
        for _ in range(5):
            run.end_epoch(trainer, "validate", then="train")
        settle(run.meter)
    # A reading is seen at the end of the epoch after it.
    assert len(rows) == 10 if has_logger else 2 <= len(rows) <= 4


@pytest.mark.parametrize("has_logger", [False, True])
def test_without_a_logger_the_rows_of_a_training_between_two_readings_are_one(run, has_logger):
    trainer = a_trainer()
    trainer.loggers = [SimpleNamespace(log_metrics=lambda **_: None, save=lambda: None)] * has_logger
    run.start_training(trainer)
    run.every, rows, note = 2, list[LogPoint](), run.session.note
    run.session.note = lambda payload, **asks: (
        rows.append(payload) if isinstance(payload, LogPoint) else None,
        note(payload, **asks),
    )
    for _ in range(2):
        for index in range(10):
            run.end_batch(trainer, torch.zeros(8, 3), index, trains=True)
        settle(run.meter)
    assert len(rows) == 10 if has_logger else 2 <= len(rows) <= 3


def test_a_row_and_the_values_of_its_moment_ask_the_trainer_once(run, monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(measured_run.facts, "batches_ahead", lambda *_: asked.append("ahead"))
    trainer = a_trainer()
    run.start_training(trainer)
    run.session.tally.batches += 1
    run.end_epoch(trainer, "validate", then="train")
    assert len(asked) == 1
