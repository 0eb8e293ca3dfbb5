"""Two boards in the lab, eight seconds of `Trainer.fit`: every number against the power curves' exact integral."""

from __future__ import annotations

import csv
import itertools
import json
import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_watt import energy_of, read_record
from lightning_watt.accounts.ledger import STAGES
from lightning_watt.testing import Board, Lab, constant, square
from lightning_watt.units import J_PER_KWH
from tests.integration.tiny import BATCH, QUIET, loader, module, package, trainer, watt

pytestmark = [pytest.mark.slow, *(pytest.mark.filterwarnings(entry) for entry in QUIET)]
pl = package("pytorch_lightning")
TRAIN, VALIDATE, EPOCHS, STEP_S = 18, 6, 2, 0.16


class Stopwatch(pl.Callback):
    """When each stage began, on the host's clock, noted just before WattCallback's own hook.

    WattCallback puts itself first in `setup`, so this puts itself before it once that is done.
    """

    def __init__(self) -> None:
        self.began: list[tuple[str, int]] = []

    def _note(self, stage: str) -> None:
        self.began.append((stage, time.monotonic_ns()))

    def spans(self, stage: str) -> list[tuple[int, int]]:
        return [(t0, t1) for (name, t0), (_, t1) in itertools.pairwise(self.began) if name == stage]

    def _to_the_front(self, trainer, *_: Any) -> None:
        trainer.callbacks = [self, *(callback for callback in trainer.callbacks if callback is not self)]

    on_fit_start = _to_the_front

    def on_sanity_check_start(self, trainer, module):
        self._note("sanity_check")

    def on_sanity_check_end(self, trainer, module):
        self._note("other")

    def on_train_start(self, trainer, module):
        self._note("train")

    def on_validation_start(self, trainer, module):
        if not trainer.sanity_checking:
            self._note("validate")

    def on_validation_end(self, trainer, module):
        if not trainer.sanity_checking:
            self._note("train")

    def on_train_end(self, trainer, module):
        self._note("other")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The fit, and a short test and prediction after it."""
    directory = tmp_path_factory.mktemp("truth")
    boards = [
        Board(power=square(300, 80, 0.81), counter_ms=100),
        Board(power=constant(120), counter_ms=100, counter_phase_ms=37),
    ]
    lab = Lab(boards, age_s=10)
    callback, stopwatch = watt(interval=1.0, batches=True, carbon_intensity=400.0, pue=1.5), Stopwatch()
    logger = pl.loggers.TensorBoardLogger(directory, name="run", version="0")
    with lab.running():
        trained = trainer(pl, directory, callback, stopwatch, max_epochs=EPOCHS, logger=logger, log_every_n_steps=3)
        tiny = module(pl, step_s=STEP_S)
        trained.fit(tiny, loader(TRAIN), loader(VALIDATE))
        session = callback._run.session
        # The session's first mark is its own `began_ns`; its accounts follow each other without a gap, so their summed
        # nanoseconds end at its last mark.
        begin_ns = session.began_ns
        end_ns = begin_ns + sum(entry.ns for entry in session.ledger.accounts.values())
        fit_record = read_record(logger.log_dir)
        fit_raw = json.loads((Path(logger.log_dir) / "watt.json").read_text())
        tiny.step_s = 0.05
        trained.test(tiny, loader(6), verbose=False)
        trained.predict(tiny, loader(6))
    return SimpleNamespace(
        lab=lab,
        record=fit_record,
        raw=fit_raw,
        last=read_record(logger.log_dir),
        spans=stopwatch.spans,
        begin_ns=begin_ns,
        end_ns=end_ns,
        directory=Path(logger.log_dir),
        events=EventAccumulator(logger.log_dir, size_guidance={"scalars": 0, "tensors": 0}).Reload(),
        metrics={name: float(value) for name, value in trained.callback_metrics.items()},
    )


def truth(run: SimpleNamespace, t0_ns: int, t1_ns: int) -> float:
    return run.lab.true_joules(0, t0_ns, t1_ns) + run.lab.true_joules(1, t0_ns, t1_ns)


def test_the_total_is_true_to_half_a_percent(run):
    true_j = truth(run, run.begin_ns, run.end_ns)
    assert run.end_ns - run.begin_ns > 7e9
    assert run.record.energy.total_j == pytest.approx(true_j, rel=0.005)
    assert run.record.energy.total_kwh == pytest.approx(run.record.energy.total_j / J_PER_KWH, rel=1e-12)
    assert abs(run.record.energy.total_j - true_j) < run.record.energy.uncertainty_j


def test_each_board_is_true(run):
    for index, label in enumerate(["gpu0", "gpu1"]):
        device = run.record.energy.by_device[label]
        assert device.joules == pytest.approx(run.lab.true_joules(index, run.begin_ns, run.end_ns), rel=0.005)
        assert (device.uuid, device.source, device.provenance) == (run.lab.uuid(index), "nvml-counter", "measured")
        assert device.tick_s == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("when", ["record", "last"])
def test_stages_and_devices_sum_to_the_total(run, when):
    energy = getattr(run, when).energy
    assert sum(stage.joules for stage in energy.by_stage.values()) == pytest.approx(energy.total_j, rel=1e-9)
    assert sum(device.joules for device in energy.by_device.values()) == pytest.approx(energy.total_j, rel=1e-9)
    assert set(energy.by_stage) <= set(STAGES)


@pytest.mark.parametrize("stage", ["train", "validate", "sanity_check"])
def test_each_stage_is_true_to_its_own_time(run, stage):
    spans, found = run.spans(stage), run.record.energy.by_stage[stage]
    true_j = sum(truth(run, *span) for span in spans)
    true_s = sum(t1 - t0 for t0, t1 in spans) / 1e9
    assert found.seconds == pytest.approx(true_s, abs=0.02)
    assert found.joules == pytest.approx(true_j, rel=0.02, abs=2.0)
    assert abs(found.joules - true_j) < 2 * found.uncertainty_j


def test_batches_and_samples_are_counted(run):
    stages = run.record.energy.by_stage
    assert (stages["train"].batches, stages["train"].samples) == (EPOCHS * TRAIN, EPOCHS * TRAIN * BATCH)
    assert (stages["validate"].batches, stages["validate"].samples) == (EPOCHS * VALIDATE, EPOCHS * VALIDATE * BATCH)
    assert (stages["sanity_check"].batches, stages["other"].batches) == (2, 0)
    assert run.last.energy.by_stage["test"].batches == run.last.energy.by_stage["predict"].batches == 6


def test_the_record_has_every_key_of_the_contract(run):
    raw = run.raw
    assert {"schema_version", "status", "energy", "accuracy", "sam", "epochs", "inherited", "hardware", "model"} <= set(raw)
    assert "software" in raw
    assert (raw["schema_version"], raw["status"]) == (1, "completed")
    assert {"total_j", "total_kwh", "uncertainty_j", "provenance", "by_stage", "by_device"} <= set(raw["energy"])
    assert all({"joules", "seconds", "batches", "samples"} <= set(stage) for stage in raw["energy"]["by_stage"].values())
    keys = {"joules", "name", "uuid", "source", "provenance"}
    assert all(keys <= set(device) for device in raw["energy"]["by_device"].values())
    assert raw["accuracy"] == {"metric": "val_acc", "last": pytest.approx(0.6), "best": pytest.approx(0.6)}
    assert {"alpha": 5.0, "beta": 5.0, "unit": "kWh", "value": None}.items() <= raw["sam"].items()
    assert raw["sam"]["shifted"] == pytest.approx(5 * 0.6**5 / math.log10(10 + raw["energy"]["total_kwh"]))
    assert raw["model"]["params"] == 18
    assert raw["warnings"] == []


def test_epochs_sum_to_their_stages(run):
    rows = [(row.stage, row.epoch) for row in run.record.epochs]
    assert sorted(rows) == [("train", 0), ("train", 1), ("validate", 0), ("validate", 1)]
    for stage in ("train", "validate"):
        mine = [row for row in run.record.epochs if row.stage == stage]
        total = run.record.energy.by_stage[stage]
        assert sum(row.joules for row in mine) == pytest.approx(total.joules, rel=1e-9)
        assert sum(row.seconds for row in mine) == pytest.approx(total.seconds, rel=1e-9)
        assert [row.accuracy for row in mine] == pytest.approx([0.5, 0.6])


def test_the_event_file_has_every_tag_that_applies(run):
    there = set(run.events.Tags()["scalars"])
    stages = ("train", "validate", "test", "predict", "sanity_check", "other")
    wanted = {f"watt/{stage}/energy_kwh" for stage in stages}
    wanted |= {"watt/energy_kwh", "watt/power_w", "watt/gpu0/power_w", "watt/gpu1/power_w", "watt/joules_per_batch"}
    wanted |= {"watt/joules_per_sample", "watt/accuracy", "watt/sam_shifted", "watt/uncertainty_kwh", "watt/forecast_kwh"}
    wanted |= {"watt/forecast_uncertainty_kwh", "watt/co2e_g", "watt_vs_energy/accuracy", "watt_vs_energy/sam_shifted"}
    assert sorted(wanted - there) == []
    assert "watt/sam" not in there  # the run stays far below 1 kWh, where the equation is undefined
    assert sorted(tag for tag in there - wanted if tag.startswith("watt")) == []


def test_the_logged_curves_are_those_of_the_boards(run):
    energy = [event.value * J_PER_KWH for event in run.events.Scalars("watt/energy_kwh")]
    assert energy == sorted(energy)
    assert energy[-1] == pytest.approx(run.last.energy.total_j, rel=0.02)
    power = [event.value for event in run.events.Scalars("watt/gpu1/power_w")]
    assert power == pytest.approx([120.0] * len(power), rel=0.05)
    both = [event.value for event in run.events.Scalars("watt/power_w")]
    # 200 to 420 W; the point at an epoch's end is the mean of a stretch of a millisecond, and off by some percent.
    assert 0.9 * 200 < min(both) < 0.7 * 420
    assert 1.3 * 200 < max(both) < 1.1 * 420
    co2e = run.events.Scalars("watt/co2e_g")[-1].value
    assert co2e == pytest.approx(run.events.Scalars("watt/energy_kwh")[-1].value * 1.5 * 400, rel=1e-5)


def test_joules_per_batch_are_those_of_the_stretch(run):
    """A train batch takes STEP_S and some milliseconds at 200 to 420 W."""
    per_batch = run.events.Scalars("watt/joules_per_batch")
    per_sample = run.events.Scalars("watt/joules_per_sample")
    train = [event.value for event in per_batch if event.step < EPOCHS * TRAIN]  # then comes the test's
    assert min(train) > 0.9 * STEP_S * 200
    assert sum(train) / len(train) == pytest.approx(run.record.energy.by_stage["train"].joules / EPOCHS / TRAIN, rel=0.25)
    assert [e.value * BATCH for e in per_sample] == pytest.approx([e.value for e in per_batch], rel=1e-5)


@pytest.mark.parametrize("tag", ["watt_vs_energy/accuracy", "watt_vs_energy/sam_shifted"])
def test_the_step_axis_over_energy_is_joules(run, tag):
    steps = [event.step for event in run.events.Scalars(tag)]
    assert steps == sorted(steps)
    assert steps[0] > 0
    assert steps[-1] == pytest.approx(run.last.energy.total_j, rel=0.03)
    by_energy = {event.step for event in run.events.Scalars(tag)}
    logged = {round(event.value * J_PER_KWH) for event in run.events.Scalars("watt/energy_kwh")}
    assert by_energy <= {joules + off for joules in logged for off in (-1, 0, 1)}


def test_sam_in_the_log_follows_the_accuracy_beside_it(run):
    accuracy, sam = run.events.Scalars("watt/accuracy"), run.events.Scalars("watt/sam_shifted")
    assert [event.step for event in sam] == [event.step for event in accuracy]
    assert [event.value for event in sam] == pytest.approx([5 * event.value**5 for event in accuracy], rel=1e-4)
    assert {round(event.value, 4) for event in accuracy} == {0.5, 0.6, 0.25}  # the last is the test's


def test_the_forecast_comes_near_the_fits_energy(run):
    """Half way through, the forecast is for the whole fit; two stages at steady rates leave little doubt."""
    middle = EPOCHS * TRAIN // 2
    late = [e.value * J_PER_KWH for e in run.events.Scalars("watt/forecast_kwh") if middle < e.step <= EPOCHS * TRAIN]
    assert late
    assert late == pytest.approx([run.record.energy.total_j] * len(late), rel=0.15)


def test_the_journal_rises_to_the_total(run):
    lines = [json.loads(line) for line in (run.directory / "watt.jsonl").read_text().splitlines()]
    times, totals = [line["t"] for line in lines], [line["total_j"] for line in lines]
    assert times == sorted(times)
    assert totals == sorted(totals)
    assert len(lines) >= 8  # one a second
    assert totals[-1] == pytest.approx(run.last.energy.total_j, rel=1e-9)
    assert {line["stage"] for line in lines} >= {"train", "validate"}


@pytest.mark.parametrize(("stage", "batches", "epochs"), [("train", TRAIN, EPOCHS), ("validate", VALIDATE, EPOCHS)])
def test_the_batches_sum_to_their_stage(run, stage, batches, epochs):
    with (run.directory / "watt_batches.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["stage"] == stage]
    assert list(rows[0]) == ["stage", "epoch", "batch", "joules", "seconds", "uncertainty_j"]
    numbers = [(int(row["epoch"]), int(row["batch"])) for row in rows]
    assert numbers == [(epoch, batch) for epoch in range(epochs) for batch in range(batches)]
    total = run.record.energy.by_stage[stage]
    # What is missing is the time between the last batch and the end of its stage, some milliseconds each.
    assert sum(float(row["seconds"]) for row in rows) == pytest.approx(total.seconds, rel=0.05)
    assert sum(float(row["joules"]) for row in rows) == pytest.approx(total.joules, rel=0.05)
    assert all(float(row["joules"]) > 0.9 * STEP_S * 200 * 0.5 for row in rows)
    assert all(float(row["uncertainty_j"]) > 0 for row in rows)


def test_the_directory_carries_the_total(run):
    assert energy_of(run.directory).total_j == run.last.energy.total_j
    assert run.metrics["watt/energy_kwh"] * J_PER_KWH == pytest.approx(run.last.energy.total_j, rel=0.03)
