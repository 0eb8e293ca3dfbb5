"""Hands what was settled to every logger of a Trainer; a logger that raises is reported once, and the others go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import torch

from lightning_watt.accounts.events import Snapshot
from lightning_watt.record.record import Record
from lightning_watt.record.writer import to_json
from lightning_watt.sam.score import Scoring
from lightning_watt.trainer.facts import is_a
from lightning_watt.trainer.tags import tags, tags_over_energy
from lightning_watt.units import energy_in, unit_that_fits
from lightning_watt.warn_once import WarnOnce

MOST_EPOCHS = 100
"""The newest epochs that stand in TensorBoard's record; all are in the file."""
OVER_ENERGY_AXIS = "watt_vs_energy/joules"
"""What stands beside the tags over energy, for loggers whose metrics share one axis of steps."""
_with_axis: WeakSet[Any] = WeakSet()


def log_snapshot(loggers: list[Any], snapshot: Snapshot, scoring: Scoring, warn_once: WarnOnce) -> None:
    """Log a snapshot's tags at its step, and those over energy with their joules.

    In TensorBoard each tag has an axis of its own, so there the joules are the step. Other loggers have one step for all
    metrics: a step that is joules would stand among the training's own.
    """
    if not loggers:
        return
    values = {**tags(snapshot, scoring), "epoch": snapshot.point.epoch}
    over_energy = tags_over_energy(snapshot, scoring)
    for logger in loggers:
        try:
            if not over_energy:
                logger.log_metrics(metrics=values, step=snapshot.point.step)
            elif is_a(logger, "TensorBoardLogger"):
                logger.log_metrics(metrics=values, step=snapshot.point.step)
                logger.log_metrics(metrics=over_energy, step=round(snapshot.total_j))
            else:
                if is_a(logger, "WandbLogger"):
                    _give_axis(logger, list(over_energy))
                row = values | over_energy | {OVER_ENERGY_AXIS: snapshot.total_j}
                logger.log_metrics(metrics=row, step=snapshot.point.step)
        except Exception as error:  # noqa: BLE001 - whatever a logger raises, the training goes on
            _tell(logger, error, warn_once)


def save(loggers: list[Any], warn_once: WarnOnce) -> None:
    """Let every logger write out what it was given; to be called once for many rows, because it waits for the disk."""
    for logger in loggers:
        try:
            logger.save()
        except Exception as error:  # noqa: BLE001 - as above
            _tell(logger, error, warn_once)


def _give_axis(logger: Any, tags: list[str]) -> None:
    """Let W&B draw these over joules. A step of joules would change `trainer/global_step`, the axis of all metrics."""
    run = logger.experiment
    if run not in _with_axis:
        prefix = f"{logger._prefix}{logger.LOGGER_JOIN_CHAR}" if getattr(logger, "_prefix", "") else ""
        run.define_metric(prefix + OVER_ENERGY_AXIS, hidden=True)
        for tag in tags:
            run.define_metric(prefix + tag, step_metric=prefix + OVER_ENERGY_AXIS)
        _with_axis.add(run)


def log_record(loggers: list[Any], record: Record, step: int, warn_once: WarnOnce) -> None:
    """Give TensorBoard the record, for readers who have only event files, and W&B's summary and MLflow's tags its gist."""
    gist = about(record)
    _each(loggers, "WandbLogger", warn_once, lambda logger: logger.experiment.summary.update(gist))
    _each(loggers, "MLFlowLogger", warn_once, lambda logger: _tag(logger, gist))
    text = f"```json\n{to_json(record, MOST_EPOCHS).decode()}\n```"
    each_tensorboard(loggers, warn_once, lambda logger: logger.experiment.add_text("watt/record", text, global_step=step))


def about(record: Record) -> dict[str, str]:
    """What must stand beside a run's energy wherever it is quoted: its ± and where it comes from."""
    energy = record.energy
    if energy.total_j is None:
        return {"watt/provenance": "nothing was measured"}
    return {
        "watt/energy": energy_in(unit_that_fits(energy.total_j), energy.total_j, energy.uncertainty_j or 0.0),
        "watt/provenance": str(energy.provenance),
        "watt/devices": ", ".join(f"{label}: {one.name} ({one.source})" for label, one in energy.by_device.items()),
    }


def _tag(logger: Any, gist: dict[str, str]) -> None:
    for name, text in gist.items():
        logger.experiment.set_tag(logger.run_id, name, text)


def log_histogram(loggers: list[Any], values: list[float], step: int, warn_once: WarnOnce) -> None:
    """Give TensorBoard the spread of an epoch's batches, joules each."""
    each_tensorboard(
        loggers, warn_once, lambda logger: logger.experiment.add_histogram("watt/batch_joules", torch.tensor(values), step)
    )


def each_tensorboard(loggers: list[Any], warn_once: WarnOnce, write: Callable[[Any], None]) -> None:
    """Write to each TensorBoard logger what other loggers have no place for."""
    _each(loggers, "TensorBoardLogger", warn_once, write)


def _each(loggers: list[Any], name: str, warn_once: WarnOnce, write: Callable[[Any], None]) -> None:
    for logger in loggers:
        if is_a(logger, name):
            try:
                write(logger)
            except Exception as error:  # noqa: BLE001 - as above
                _tell(logger, error, warn_once)


def _tell(logger: Any, error: Exception, warn_once: WarnOnce) -> None:
    name = type(logger).__name__
    warn_once.warn(f"{name} does not take the energy ({error!r}); the other loggers do.", f"logger {name}")
