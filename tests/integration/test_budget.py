"""The budget and the forecast, in the lab: where the training stops, what it had used by then, and what was foretold."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
import torch

from lightning_watt import energy_of, read_record
from lightning_watt.sources.base import Clock, Device, Failure, Reading
from lightning_watt.testing import Board, Lab, constant
from lightning_watt.units import J_PER_KWH, UJ_PER_J, kwh
from tests.integration.tiny import QUIET, WEIGHTS_ONLY, Steady, columns, loader, module, module_class, stream, trainer, watt

pytestmark = [pytest.mark.filterwarnings(entry) for entry in QUIET]
WATTS, STEP_S = 200.0, 0.02
TRAIN_J, VALIDATE_J = 4.0, 1.0


@pytest.fixture
def board():
    with Lab([Board(power=constant(WATTS), counter_ms=10)], age_s=10).running() as lab:
        yield lab


class PerBatch(Steady):
    """A device that draws by the batch and not by the second, so that a busy machine changes nothing."""

    def __init__(self, train_j: float = TRAIN_J, validate_j: float = VALIDATE_J) -> None:
        super().__init__()
        self.used_j, self.costs_j = 0.0, {"train": train_j, "validate": validate_j}

    def read(self) -> list[Reading | Failure]:
        return [Reading(self.label, self.clock.now_ns(), round(self.used_j * UJ_PER_J))]

    def open(self, clock: Clock) -> list[Device]:
        self.clock, self.is_open = clock, True
        return [Device(self.label, "a device", "uuid", self.name, tick_s=0.001, always_draws=False, max_power_w=math.inf)]

    def on_batch(self, stage: str, index: int) -> None:
        self.used_j += self.costs_j[stage]


class Times:
    """When the training began and ended, for the lab's truth."""

    def __new__(cls, pl: Any) -> Any:
        class Stopwatch(pl.Callback):
            def setup(self, trainer, module, stage):
                self.began_ns = time.monotonic_ns()

            def on_train_end(self, trainer, module):
                self.ended_ns = time.monotonic_ns()

        return Stopwatch()


@pytest.mark.parametrize("batches", [12, 1000], ids=["short epochs", "within one epoch"])
@pytest.mark.parametrize("interval", [0.1, 1.0])
def test_the_training_stops_before_it_passes_the_budget(ptl, tmp_path, words, capsys, interval, batches):
    """Also where a reading is a second old, which is fifty batches; the validation that Lightning adds is kept back for."""
    budget_j, validation = 500.0, 3
    source = PerBatch()
    callback = watt(gpus="auto", sources=[source], interval=interval, budget_kwh=kwh(budget_j))
    checkpoint = ptl.callbacks.ModelCheckpoint(tmp_path / "kept", save_last=True)
    trained = trainer(ptl, tmp_path, callback, checkpoint, max_epochs=1000, enable_checkpointing=True)
    trained.fit(module(ptl, step_s=STEP_S, on_batch=source.on_batch), loader(batches), loader(validation))
    words.take("budget")
    assert trained.state.finished
    # Not passed, but for the batch that was under way when its neighbours were read; and used but for what was kept back.
    assert budget_j - 2 * validation * VALIDATE_J - 3 * TRAIN_J <= source.used_j <= budget_j + TRAIN_J
    record = read_record(tmp_path)
    assert (record.status, record.energy.total_j) == ("completed", pytest.approx(source.used_j, abs=2.0))
    # The checkpoint of the last step is there, and that the schedule could not be kept was foretold.
    assert torch.load(tmp_path / "kept" / "last.ckpt", weights_only=True)["global_step"] == trained.global_step
    # It holds the moment that was not read yet by the last known power, which this source does not follow.
    assert energy_of(tmp_path / "kept" / "last.ckpt").own_j == pytest.approx(source.used_j, rel=0.1)
    assert capsys.readouterr().out.count("more than the budget of") == 1


@pytest.mark.parametrize(
    ("budget_j", "batches", "validation", "options", "interval"),
    [
        (30.0, 100, 3, {"log_every_n_steps": 50}, 0.1),  # long before the first row
        (40.0, 100, 3, {}, 1.0),  # used up within one interval
        (90.0, 15, 20, {"num_sanity_val_steps": 0}, 0.1),  # the validation has never been seen
        (120.0, 16, 12, {"val_check_interval": 0.25}, 0.1),  # several validations until then
        (120.0, 12, 20, {"check_val_every_n_epoch": 2}, 0.1),
        (120.0, 100, 8, {"val_check_interval": 9, "check_val_every_n_epoch": None}, 0.1),
    ],
    ids=["first rows", "one interval", "no sanity check", "quarters", "every other epoch", "through"],
)
def test_a_small_budget_is_passed_by_no_more_than_a_reading_takes(
    ptl, tmp_path, words, budget_j, batches, validation, options, interval
):
    """Readings come 0.1 s after they are asked for, which is five batches, or ten where the machine is busy.

    There a stall that a reading saw as work may also stop it early: how far it goes is `test_forecast`'s, with exact rates.
    """
    source = PerBatch()
    callback = watt(gpus="auto", sources=[source], interval=interval, budget_kwh=kwh(budget_j))
    trained = trainer(ptl, tmp_path, callback, max_epochs=100, **options)
    trained.fit(module(ptl, step_s=STEP_S, on_batch=source.on_batch), loader(batches), loader(validation))
    words.take("the training stops here")
    assert 0 < source.used_j <= budget_j + 10 * TRAIN_J


@pytest.mark.parametrize("loaders", [lambda: loader(300), lambda: stream(300), lambda: [loader(2), loader(300)]])
def test_a_first_validation_that_does_not_fit_ends_where_the_budget_does(ptl, tmp_path, words, loaders):
    """It alone would use ten times the budget; what follows a validation follows, and the next one is whole."""
    budget_j, source = 40.0, PerBatch()
    callback = watt(gpus="auto", sources=[source], budget_kwh=kwh(budget_j))
    watches = ptl.callbacks.EarlyStopping("val_acc", mode="max", check_on_train_epoch_end=False)  # it raises without a value
    checkpoint = ptl.callbacks.ModelCheckpoint(tmp_path / "kept", monitor="val_acc")
    trained = trainer(
        ptl, tmp_path, callback, watches, checkpoint, max_epochs=100, num_sanity_val_steps=0, enable_checkpointing=True
    )
    tiny = module(ptl, step_s=0.01, on_batch=source.on_batch, name="val_acc", at="on_validation_epoch_end")
    trained.fit(tiny, loader(15), loaders())
    words.take("in the middle of the first validation: it ends after .* what it logs is of these only")
    assert budget_j - 2 * TRAIN_J < source.used_j <= budget_j + 10 * TRAIN_J
    assert trained.state.finished
    assert float(trained.callback_metrics["val_acc"]) == pytest.approx(0.5)
    assert checkpoint.best_model_path
    used_j, tiny.step_s = source.used_j, 0.0
    trained.validate(tiny, loaders(), verbose=False)
    assert source.used_j - used_j >= 300 * VALIDATE_J
    words.take("the training stops here")


def test_where_a_first_validation_shows_that_no_second_one_fits_the_training_ends_with_it(ptl, tmp_path, words):
    source = PerBatch(train_j=1.0, validate_j=10.0)
    callback = watt(gpus="auto", sources=[source], budget_kwh=kwh(100.0))
    trained = trainer(ptl, tmp_path, callback, max_epochs=100, num_sanity_val_steps=0, val_check_interval=5)
    trained.fit(module(ptl, step_s=STEP_S, on_batch=source.on_batch), loader(20), loader(6))
    words.take("the training stops here")
    # At the end of the first validation; if its last reading comes late, after the second; a third is beyond all bounds.
    assert 5 * 1.0 + 6 * 10.0 <= source.used_j <= 2 * (5 * 1.0 + 6 * 10.0)


def test_first_batches_that_take_long_do_not_use_up_the_budget(ptl, tmp_path, words):
    """The first batch compiles, say: 0.6 s at the board's power, by which no more than three would fit in."""
    source = PerBatch()

    def on_batch(stage: str, index: int) -> None:
        if stage == "train" and source.used_j == 0:
            time.sleep(0.6)
            source.used_j += 120.0
        source.on_batch(stage, index)

    callback = watt(gpus="auto", sources=[source], interval=1.0, budget_kwh=kwh(400.0))
    trained = trainer(ptl, tmp_path, callback, max_epochs=100, limit_val_batches=0)
    tiny = module(ptl, step_s=STEP_S, at="training_step", name="train_acc", on_batch=on_batch)
    trained.fit(tiny, loader(1000))
    words.take("the training stops here")
    assert 400.0 - 20 * TRAIN_J <= source.used_j <= 400.0 + 10 * TRAIN_J


@pytest.mark.parametrize("minimum", [{"min_epochs": 3}, {"min_steps": 24}], ids=str)
def test_what_lightning_does_not_let_us_stop_is_said(ptl, tmp_path, words, minimum):
    source = PerBatch()
    callback = watt(gpus="auto", sources=[source], budget_kwh=kwh(40.0))
    trained = trainer(ptl, tmp_path, callback, max_epochs=100, **minimum)
    trained.fit(module(ptl, step_s=STEP_S, on_batch=source.on_batch), loader(8), loader(2))
    ((name, value),) = minimum.items()
    words.take(f"the Trainer's .*{name}={value} makes it go on until then. Lower that to keep the budget")
    assert trained.global_step == 24  # and no further
    assert "stops here" not in str(read_record(tmp_path).warnings)


def test_on_a_board_it_stops_before_too(ptl, tmp_path, board, words):
    """The lab's truth, in seconds of a machine that may be busy; a stop when a reading shows it would be 200 J late."""
    times = Times(ptl)
    trained = trainer(ptl, tmp_path, watt(interval=1.0, budget_kwh=kwh(600.0)), times, max_epochs=1000)
    trained.fit(module(ptl, step_s=STEP_S), loader(1000), loader(3))
    words.take("budget")
    assert 0.5 * 600.0 < board.true_joules(0, times.began_ns, times.ended_ns) < 1.2 * 600.0


def test_a_budget_that_lasts_stops_and_says_nothing(ptl, tmp_path, capsys):
    source = PerBatch()
    needed_j = 2 * VALIDATE_J + 3 * (10 * TRAIN_J + 2 * VALIDATE_J)
    trained = trainer(ptl, tmp_path, watt(gpus="auto", sources=[source], budget_kwh=kwh(2 * needed_j)), max_epochs=3)
    trained.fit(module(ptl, step_s=STEP_S, on_batch=source.on_batch), loader(10), loader(2))
    assert (trained.current_epoch, trained.global_step, source.used_j) == (3, 30, needed_j)
    assert "the budget" not in capsys.readouterr().out


def test_a_fit_whose_budget_is_used_up_does_not_begin(ptl, tmp_path, words):
    source = PerBatch()
    trained = trainer(ptl, tmp_path, watt(gpus="auto", sources=[source], budget_kwh=kwh(150.0)), max_epochs=1000)
    tiny = module(ptl, step_s=STEP_S, on_batch=source.on_batch)
    trained.fit(tiny, loader(8), loader(2))
    words.take("budget")
    steps = trained.global_step
    trained.fit(tiny, loader(8), loader(2))
    # What still fits in, where the first one kept back more than its validation took.
    assert trained.global_step <= steps + 2
    assert source.used_j <= 150.0 + TRAIN_J


def test_a_resumed_run_has_what_is_left_of_the_budget(ptl, tmp_path, words):
    path, source = tmp_path / "one.ckpt", PerBatch()
    tiny = module(ptl, step_s=STEP_S, on_batch=source.on_batch)
    first = trainer(ptl, tmp_path / "1", watt(gpus="auto", sources=[source]), max_epochs=2)
    first.fit(tiny, loader(10), loader(2))
    first.save_checkpoint(path)
    carried_j = energy_of(path).own_j
    limit = kwh(carried_j + 150.0)
    again = trainer(ptl, tmp_path / "2", watt(gpus="auto", sources=[source], budget_kwh=limit), max_epochs=1000)
    again.fit(tiny, loader(10), loader(2), ckpt_path=path, **WEIGHTS_ONLY)
    words.take("budget")
    record = read_record(tmp_path / "2")
    assert record.resumed_j == pytest.approx(carried_j)
    assert carried_j == pytest.approx(86.0, abs=2.0)
    assert carried_j + 130.0 <= record.energy.total_j <= carried_j + 150.0 + TRAIN_J


def test_the_forecast_and_its_interval_hold_the_true_end_from_the_first_epoch_on(ptl, tmp_path):
    """Validation is cheaper a batch than training; both are counted by themselves."""
    source = PerBatch()
    logger = ptl.loggers.CSVLogger(tmp_path)
    trained = trainer(ptl, tmp_path, watt(gpus="auto", sources=[source]), logger=logger, max_epochs=4)
    trained.fit(module(ptl, step_s=0.03, on_batch=source.on_batch), loader(12), loader(6))
    assert source.used_j == 2 * VALIDATE_J + 4 * (12 * TRAIN_J + 6 * VALIDATE_J)
    found = columns(trained.log_dir)
    told, spread = dict(found["watt/forecast_kwh"]), dict(found["watt/forecast_uncertainty_kwh"])
    # In the first epoch, where the sanity check stands for the validation; and with an interval before the second.
    assert min(told) <= 6
    assert min(spread) <= 12
    late = {step: value * J_PER_KWH for step, value in told.items() if step >= 12}
    assert list(late.values()) == pytest.approx([source.used_j] * len(late), rel=0.1)
    inside = [abs(value - source.used_j) <= spread[step] * J_PER_KWH + TRAIN_J for step, value in late.items()]
    assert sum(inside) >= 0.9 * len(inside) > 0
    record = read_record(trained.log_dir)
    assert record.forecast_kwh == pytest.approx(record.energy.total_kwh, rel=0.03)
    assert record.forecast_uncertainty_kwh < 0.1 * record.energy.total_kwh


def test_without_an_end_there_is_no_forecast_and_with_a_limit_of_time_there_is_one(ptl, tmp_path):
    source = PerBatch()

    def forecasts(name: str, **options: Any) -> list[float]:
        logger = ptl.loggers.CSVLogger(tmp_path, name)
        callback = watt(gpus="auto", sources=[source])
        trained = trainer(ptl, tmp_path, callback, logger=logger, max_epochs=-1, limit_val_batches=0, **options)
        tiny = module(ptl, step_s=STEP_S, at="training_step", name="train_acc", on_batch=on_batch)
        trained.fit(tiny, loader(25))
        return [value * J_PER_KWH for _, value in columns(trained.log_dir).get("watt/forecast_kwh", [])]

    def on_batch(stage: str, index: int) -> None:
        source.on_batch(stage, index)
        if index == 24 and not limited:
            raise KeyboardInterrupt

    limited = False
    with pytest.raises(SystemExit):
        forecasts("open")
    assert "watt/forecast_kwh" not in columns(tmp_path / "open" / "version_0")
    limited, source.used_j = True, 0.0
    found = forecasts("time", max_time={"seconds": 1.5})
    # By the pace so far: as good as that is even.
    assert found[-1] == pytest.approx(source.used_j, rel=0.2)
    assert min(found) < 2 * source.used_j


def test_the_steps_of_two_optimizers_are_counted_as_lightning_counts_them(ptl, tmp_path):
    class Two(module_class(ptl)):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            for optimizer in self.optimizers():
                loss = (
                    self._step("train", batch, batch_idx)
                    if optimizer is self.optimizers()[0]
                    else self.layer(batch[0]).sum()
                )
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()
            self.log("train_acc", 0.5)

        def configure_optimizers(self) -> list[torch.optim.Optimizer]:
            return [torch.optim.SGD(self.parameters(), lr=0.01) for _ in range(2)]

    source, logger = PerBatch(), ptl.loggers.CSVLogger(tmp_path)
    options = {"max_steps": 60, "max_epochs": -1, "limit_val_batches": 0, "logger": logger}
    trained = trainer(ptl, tmp_path, watt(gpus="auto", sources=[source]), **options)
    trained.fit(Two(step_s=STEP_S, on_batch=source.on_batch, manual=True), loader(20))
    assert source.used_j == 30 * TRAIN_J
    found = [value * J_PER_KWH for _, value in columns(trained.log_dir)["watt/forecast_kwh"]]
    late = found[
        len(found) // 2 :
    ]  # once a batch's energy is known well; counted as steps, the batches would be twice as many
    assert late == pytest.approx([source.used_j] * len(late), rel=0.25)
    assert found[-1] == pytest.approx(source.used_j, rel=0.05)


def test_no_validation_is_kept_back_where_there_is_none(ptl, tmp_path, words):
    source = PerBatch()
    callback = watt(gpus="auto", sources=[source], budget_kwh=kwh(200.0))
    trained = trainer(ptl, tmp_path, callback, max_epochs=1000, limit_val_batches=0)
    tiny = module(ptl, step_s=STEP_S, at="training_step", name="train_acc", on_batch=source.on_batch)
    trained.fit(tiny, loader(10))
    words.take("budget")
    assert 200.0 - 2 * TRAIN_J <= source.used_j <= 200.0 + TRAIN_J
