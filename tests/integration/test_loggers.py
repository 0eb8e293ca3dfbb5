"""What reaches each kind of logger, read back from the files that it wrote."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_watt import read_record
from lightning_watt.record import Record, record_from_json
from lightning_watt.record.writer import to_json
from lightning_watt.trainer.loggers import about
from lightning_watt.units import J_PER_KWH, digits
from tests.integration.tiny import QUIET, ROOT, Steady, columns, loader, module, trainer, watt
from tests.integration.wandb_file import read_wandb

pytestmark = [pytest.mark.filterwarnings(entry) for entry in QUIET]
STEP_S = 0.03
ENERGY = {"watt/energy_kwh", "watt/train/energy_kwh", "watt/validate/energy_kwh", "watt/uncertainty_kwh"}
SCORES = {"watt/accuracy", "watt/sam_shifted", "watt_vs_energy/accuracy", "watt_vs_energy/sam_shifted"}
RATES = {"watt/power_w", "watt/gpu0/power_w", "watt/joules_per_batch", "watt/joules_per_sample"}
WANTED = ENERGY | SCORES | RATES


def fit(pl, directory: Path, loggers: Any, batches: int = 8, callback: Any = None, **options: Any) -> Any:
    """A fit of a second on 100 W."""
    callback = callback or watt(gpus="auto", sources=[Steady()])
    trained = trainer(pl, directory, callback, logger=loggers, **options)
    trained.fit(module(pl, step_s=STEP_S), loader(batches), loader(3))
    return trained


def events(directory: str | Path) -> EventAccumulator:
    return EventAccumulator(str(directory), size_guidance={"scalars": 0, "tensors": 0}).Reload()


def record_of(trained: Any) -> Record:
    return read_record(trained.log_dir)


def test_tensorboard(pl, tmp_path):
    trained = fit(pl, tmp_path, pl.loggers.TensorBoardLogger(tmp_path))
    found = events(trained.log_dir)
    assert sorted(WANTED - set(found.Tags()["scalars"])) == []
    for event in found.Scalars("watt/power_w"):
        assert event.value == pytest.approx(100.0, rel=0.02)
    last_j = found.Scalars("watt/energy_kwh")[-1].value * J_PER_KWH
    assert last_j == pytest.approx(record_of(trained).energy.total_j, rel=1e-6)
    # Our curves stand beside Lightning's own: the same steps.
    steps = {event.step for event in found.Scalars("watt/energy_kwh")}
    assert {event.step for event in found.Scalars("train_loss")} <= steps


def test_tensorboard_keeps_the_record(ptl, tmp_path):
    trained = fit(ptl, tmp_path, ptl.loggers.TensorBoardLogger(tmp_path))
    rows = [row.tensor_proto.string_val[0].decode() for row in events(trained.log_dir).Tensors("watt/record/text_summary")]
    bodies = [row.removeprefix("```json\n").removesuffix("\n```") for row in rows]
    # The first says where the numbers come from while the run goes on, the last is the run record.
    first, last = (record_from_json(body.encode(), "watt/record") for body in bodies)
    assert (first.status, first.energy.provenance, list(first.energy.by_device)) == ("running", "measured", ["gpu0"])
    assert bodies[1] == to_json(record_of(trained)).decode()
    assert last.status == "completed"


def test_csv(ptl, tmp_path):
    trained = fit(ptl, tmp_path, ptl.loggers.CSVLogger(tmp_path))
    found = columns(trained.log_dir)
    assert sorted(WANTED - set(found)) == []
    kwh = [value for _, value in found["watt/energy_kwh"]]
    assert kwh == sorted(kwh)
    assert {step for step, _ in found["train_loss"]} <= {step for step, _ in found["watt/energy_kwh"]}
    assert all(not math.isnan(value) for values in found.values() for _, value in values)
    # One axis of steps for all: the training's. Joules are a column beside what is over them.
    assert max(step for values in found.values() for step, _ in values) == 2 * 8
    assert [step for step, _ in found["watt_vs_energy/joules"]] == [step for step, _ in found["watt_vs_energy/accuracy"]]
    assert len(found["epoch"]) == len(found["step"])


def test_the_last_row_of_each_logger_is_the_records_total(ptl, tmp_path):
    """Also what the run used after its last epoch, of which no epoch's hook knows."""

    class Slow(ptl.Callback):
        def on_train_end(self, trainer, pl_module):
            time.sleep(0.2)  # 20 J

    loggers = [ptl.loggers.CSVLogger(tmp_path, name="csv"), ptl.loggers.TensorBoardLogger(tmp_path, name="board")]
    trained = trainer(ptl, tmp_path, watt(gpus="auto", sources=[Steady()]), Slow(), logger=loggers, max_epochs=1)
    trained.fit(module(ptl, step_s=STEP_S), loader(8), loader(3))
    energy = record_of(trained).energy
    rows, board = columns(loggers[0].log_dir), events(loggers[1].log_dir)
    step, last_kwh = rows["watt/energy_kwh"][-1]
    assert energy.by_stage["other"].joules > 20
    assert (step, last_kwh) == (8, pytest.approx(energy.total_kwh, rel=1e-9))
    assert rows["watt_vs_energy/joules"][-1] == (8, pytest.approx(energy.total_j, rel=1e-9))
    last = board.Scalars("watt/energy_kwh")[-1]
    assert (last.step, last.value) == (8, pytest.approx(energy.total_kwh, rel=1e-6))
    assert board.Scalars("watt_vs_energy/accuracy")[-1].step == round(energy.total_j)
    assert float(trained.callback_metrics["watt/energy_kwh"]) == pytest.approx(energy.total_kwh, rel=1e-9)


def test_two_loggers_get_the_same(ptl, tmp_path):
    loggers = [ptl.loggers.CSVLogger(tmp_path, name="csv"), ptl.loggers.TensorBoardLogger(tmp_path, name="board")]
    trained = fit(ptl, tmp_path, loggers)
    one, other = columns(loggers[0].log_dir), events(loggers[1].log_dir)
    for tag in sorted(WANTED):
        if tag.startswith("watt/"):
            theirs = other.Scalars(tag)
            assert [step for step, _ in one[tag]] == [event.step for event in theirs]
            assert [value for _, value in one[tag]] == pytest.approx([event.value for event in theirs], rel=1e-5)
    over_energy = other.Scalars("watt_vs_energy/accuracy")
    assert [round(joules) for _, joules in one["watt_vs_energy/joules"]] == [event.step for event in over_energy]
    assert [value for _, value in one["watt_vs_energy/accuracy"]] == pytest.approx([event.value for event in over_energy])
    assert Path(loggers[0].log_dir) == Path(trained.log_dir)  # the record stands with the first logger
    assert record_of(trained).status == "completed"
    assert not (Path(loggers[1].log_dir) / "watt.json").exists()


def test_without_a_logger_the_record_is_in_the_root_directory(ptl, tmp_path):
    trained = fit(ptl, tmp_path, False)
    assert read_record(tmp_path).energy.total_j > 0
    assert "watt/energy_kwh" in trained.callback_metrics


class FlatTyreError(Exception):
    """What a logger of somebody's raises."""


def angry_logger(pl, method: str) -> Any:
    """A real logger of this package, one of whose methods raises."""

    class AngryLogger(pl.loggers.CSVLogger):
        pass

    own = getattr(AngryLogger, method)

    def angry(self, *args, **kwargs):
        metrics = args[0] if args else kwargs.get("metrics", {})
        if method == "save" or any(name.startswith("watt") for name in metrics):
            raise FlatTyreError
        return own(self, *args, **kwargs)

    setattr(AngryLogger, method, angry)
    return AngryLogger


def test_a_logger_that_raises_is_told_once_and_the_others_go_on(ptl, tmp_path, words):
    angry = angry_logger(ptl, "log_metrics")(tmp_path, name="angry")
    good = ptl.loggers.TensorBoardLogger(tmp_path, name="good")
    trained = fit(ptl, tmp_path, [angry, good])
    sentence = words.take("does not take the energy")
    assert sentence.startswith("AngryLogger")
    assert "FlatTyreError" in sentence
    assert sorted(WANTED - set(events(good.log_dir).Tags()["scalars"])) == []
    assert "train_loss" in columns(angry.log_dir)  # the training's own metrics are as they were
    assert trained.state.finished
    assert record_of(trained).warnings == [sentence]


def test_power_is_logged_even_with_one_log_point_an_epoch(ptl, tmp_path):
    """The default of 50 steps between two log points, and epochs that are shorter."""
    trained = fit(ptl, tmp_path, ptl.loggers.CSVLogger(tmp_path), batches=4, log_every_n_steps=50)
    found = columns(trained.log_dir)
    assert sorted(RATES - set(found)) == []
    assert [value for _, value in found["watt/power_w"]] == pytest.approx([100.0] * len(found["watt/power_w"]), rel=0.02)


@pytest.mark.parametrize(("ours", "theirs", "points"), [(4, 1, 4), (None, 8, 2), (None, 1, 16), (1, 50, 16)])
def test_log_every_n_steps_is_ours_or_the_trainers(ptl, tmp_path, ours, theirs, points):
    callback = watt(gpus="auto", sources=[Steady()], log_every_n_steps=ours)
    trained = trainer(
        ptl, tmp_path, callback, logger=ptl.loggers.CSVLogger(tmp_path), log_every_n_steps=theirs, limit_val_batches=0
    )
    trained.fit(module(ptl, step_s=0.002), loader(8))
    steps = [step for step, _ in columns(trained.log_dir)["watt/energy_kwh"]]
    # Beside those every n steps there is one at each of the two epochs' ends, and one at the run's.
    assert len(steps) == points + 2 + 1


def test_log_points_that_settle_after_the_end_are_logged_too(ptl, tmp_path):
    """What a run used in its last moments is known only when its last reading is in, after the last epoch's hook."""
    callback = watt(gpus="auto", sources=[Steady()], interval=60.0)
    trained = fit(ptl, tmp_path, ptl.loggers.CSVLogger(tmp_path), callback=callback)
    found = columns(trained.log_dir)
    # Eight steps an epoch, the end of its validation and its own, and the end of the run.
    assert len(found["watt/energy_kwh"]) == 2 * (8 + 1 + 1) + 1
    assert found["watt/energy_kwh"][-1][1] * J_PER_KWH == pytest.approx(record_of(trained).energy.total_j, rel=1e-9)


# ---- W&B and MLflow ----


def test_wandb_offline(tmp_path):
    """In a process without a network, which makes no attempt to reach one, and leaves no process behind."""
    if os.geteuid() != 0:
        pytest.skip("a process is cut off from the network by root alone: run as root to have this test")
    options = {
        "directory": str(tmp_path),
        "logger": ["WandbLogger", {"save_dir": str(tmp_path), "offline": True, "project": "energy", "id": "one"}],
        "steady": 100.0,
        "watt": {"interval": 0.1},
        "module": {"step_s": STEP_S},
        "batches": [8, 3],
    }
    command = [sys.executable, "-m", "tests.integration.cut_off", sys.executable, "-m", "tests.integration.child"]
    # Warnings of wandb's own dependencies are theirs. What is left behind would hold the pipe open past the limit.
    done = subprocess.run(
        [*command, json.dumps(options)], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-5000:]
    *_, control, attempts = done.stdout.splitlines()
    assert (control, attempts) == ("1", "0")
    assert not [p.cmdline() for p in psutil.process_iter() if any(str(tmp_path) in part for part in _command_line(p))]

    record = read_record(tmp_path / "energy" / "one")  # where Lightning keeps this run's checkpoints
    run = read_wandb(tmp_path / "wandb")
    rows = [row for row in run.rows if "watt/energy_kwh" in row]
    assert sorted(WANTED - {key for row in rows for key in row}) == []
    # Lightning's own axis is what it is without us.
    steps = [row["trainer/global_step"] for row in run.rows]
    assert max(steps) == 2 * 8
    assert [row["trainer/global_step"] for row in rows] == sorted(row["trainer/global_step"] for row in rows)
    assert {row["trainer/global_step"] for row in run.rows if "train_loss" in row} <= {
        row["trainer/global_step"] for row in rows
    }
    # Over energy: an axis of its own, in joules, that rises to the total.
    for tag in ("watt_vs_energy/accuracy", "watt_vs_energy/sam_shifted"):
        assert run.axes[tag] == "watt_vs_energy/joules"
        over = [(row["watt_vs_energy/joules"], row[tag]) for row in rows if tag in row]
        assert over == sorted(over, key=lambda pair: pair[0])
        assert over[-1][0] == pytest.approx(rows[-1]["watt/energy_kwh"] * J_PER_KWH)
    assert rows[-1]["watt/energy_kwh"] * J_PER_KWH == pytest.approx(record.energy.total_j, rel=1e-9)
    power = [row["watt/power_w"] for row in rows if "watt/power_w" in row]
    assert power == pytest.approx([100.0] * len(power), rel=0.02)
    assert {name: run.summary[name] for name in about(record)} == about(record)


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.fixture
def _file_store(monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow keeps it, and asks for this since 3.17
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.mark.usefixtures("_file_store")
def test_mlflow_in_a_local_file_store(ptl, tmp_path):
    logger = ptl.loggers.MLFlowLogger("energy", tracking_uri=f"file:{tmp_path}/mlruns")
    fit(ptl, tmp_path, logger)
    run = tmp_path / "mlruns" / logger.experiment_id / logger.run_id
    found = {tag: mlflow_points(run / "metrics" / tag) for tag in sorted(WANTED)}
    record = read_record(run)  # each run has its own
    assert found["watt/energy_kwh"][-1][1] * J_PER_KWH == pytest.approx(record.energy.total_j, rel=1e-9)
    assert {step for step, _ in mlflow_points(run / "metrics" / "train_loss")} <= {
        step for step, _ in found["watt/energy_kwh"]
    }
    # Joules are a metric beside those over them.
    over_joules = mlflow_points(run / "metrics" / "watt_vs_energy/joules")
    assert [step for step, _ in over_joules] == [step for step, _ in found["watt_vs_energy/accuracy"]]
    assert over_joules[-1][1] == pytest.approx(record.energy.total_j)


@pytest.mark.usefixtures("_file_store")
def test_mlflow_in_its_sqlite_store(ptl, tmp_path):
    """The store that MLflow takes by default; the gist of the record is in its tags."""
    pytest.importorskip("sqlalchemy", reason="needs SQLAlchemy and Alembic: pip install sqlalchemy alembic")
    from mlflow import MlflowClient

    logger = ptl.loggers.MLFlowLogger("energy", tracking_uri=f"sqlite:///{tmp_path}/mlflow.db", save_dir=str(tmp_path))
    trained = fit(ptl, tmp_path, logger)
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    run, [file] = client.get_run(logger.run_id), tmp_path.rglob("watt.json")
    record = read_record(file)
    assert set(run.data.metrics) >= WANTED
    assert run.data.metrics["watt/energy_kwh"] * J_PER_KWH == pytest.approx(record.energy.total_j, rel=1e-9)
    points = client.get_metric_history(logger.run_id, "watt/energy_kwh")
    assert {point.step for point in client.get_metric_history(logger.run_id, "train_loss")} <= {p.step for p in points}
    assert {name: run.data.tags[name] for name in about(record)} == about(record)
    assert about(record) == {
        "watt/energy": f"{digits(record.energy.total_j)} ± {digits(record.energy.uncertainty_j, 2)} J",
        "watt/provenance": "measured",
        "watt/devices": "gpu0: a steady device (steady)",
    }
    assert trained.state.finished


def mlflow_points(file: Path) -> list[tuple[int, float]]:
    """A metric's file as (step, value)."""
    return [(int(step), float(value)) for _, value, step in (line.split() for line in file.read_text().splitlines())]


@pytest.mark.usefixtures("_file_store")
def test_a_second_run_of_a_shared_directory_does_not_replace_the_first_ones_record(ptl, tmp_path):
    for _ in range(2):
        fit(ptl, tmp_path, ptl.loggers.MLFlowLogger("energy", tracking_uri=f"file:{tmp_path}/mlruns"), max_epochs=1)
    first, second = (read_record(path) for path in tmp_path.rglob("watt.json"))
    assert first.session != second.session
    assert first.energy.by_stage["train"].batches == second.energy.by_stage["train"].batches == 8
