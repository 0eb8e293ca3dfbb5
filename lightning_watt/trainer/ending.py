"""The end of a run: settle, journal, last record, logs, table. It also finds out that a Trainer ended without calling us.

Each step has a guard of its own, so that a step that fails takes nothing from the others. What is kept comes first.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from time import monotonic
from typing import Any

from lightning_watt.distributed.nodes import end_together
from lightning_watt.meter.meter import EnergyMeter
from lightning_watt.record.record import Record
from lightning_watt.record.schema import Status
from lightning_watt.record.text.printed import PRINTED
from lightning_watt.run.session import Session
from lightning_watt.trainer import facts
from lightning_watt.trainer.accuracy import NO_ACCURACY, missing_accuracy, warn_of_missing_accuracy
from lightning_watt.trainer.loggers import log_record
from lightning_watt.trainer.measured_run import MeasuredRun, guarded

PATIENCE_S = 30.0
"""How long a Trainer that has failed is given to come to our `on_exception`: other callbacks may save checkpoints first."""

STOPS = ("SIGTERMException", "TrialPruned")
"""Exceptions that stop a training and are no fault: Lightning's, and Optuna's for a trial that it gives up."""


@guarded
def finish(run: MeasuredRun, trainer: Any, status: Status) -> None:
    """End a run whose Trainer called us.

    Args:
        run: the run; one that has ended already, or never began, is left as it is.
        trainer: its Trainer.
        status: how it ended.
    """
    run.trains, run.nested = False, 0
    run.monitors.end()
    run.tuners.end()
    if status != "completed" and run.nodes is not None:
        run.nodes.abort()
    run.restored = None  # of a checkpoint that a test or a prediction loaded, and no fit took
    session, meter = run.session, run.meter
    if session is None or meter is None:
        return
    run.state.status = status
    _end_session(run, session, meter)
    run.meter = None
    _note_end(run, session, meter, status)
    _end_together(run, status)
    _ask_cluster(run, status)
    writes = run.writer is not None
    record = _last_record(run)
    run.report_complaints(meter)  # of the last record
    _log_last(run, trainer, session, record)
    _print_last(run, trainer, record, run.state.files.where if writes and run.state.files is not None else "")


@guarded
def _end_session(run: MeasuredRun, session: Session, meter: EnergyMeter) -> None:
    try:
        session.end()
    finally:
        meter.stop()  # whatever has failed before it, the reader ends


@guarded
def _note_end(run: MeasuredRun, session: Session, meter: EnergyMeter, status: Status) -> None:
    if run.writer is not None:
        run.writer.journal(session.line(status))
    for snapshot in session.ready:
        run.state.note_forecast(snapshot.forecast)
    run.report_complaints(meter)
    why = meter.complaints.failed
    answered = {device.label for device in meter.answered}
    silent = (device.label for device in meter.devices if device.label not in answered)
    run.state.missing += [f"{label} was never read: {why.get(label, 'it did not answer.')}" for label in silent]
    if status == "completed" and run.has_trained:
        warn_of_missing_accuracy(run.state, run.settings.accuracy)


@guarded
def _end_together(run: MeasuredRun, status: Status) -> None:
    session, nodes = run.session, run.nodes
    if session is not None and nodes is not None and nodes.many:
        end_together(nodes, session, run.state, status, run.write_record)


@guarded
def _ask_cluster(run: MeasuredRun, status: Status) -> None:
    if run.leads and status == "completed":  # who was interrupted may have no time left
        run.state.ask_cluster()


def _last_record(run: MeasuredRun) -> Record | None:
    writer, run.writer = run.writer, None
    try:
        record = run.to_record()
        if writer is not None and record is not None:
            writer.record(record)
    except Exception as error:  # noqa: BLE001 - nothing of ours may stop a training
        run.state.warn_once.failed("the last record", error)
        return None
    else:
        return record
    finally:
        if writer is not None:
            writer.close()


@guarded
def _log_last(run: MeasuredRun, trainer: Any, session: Session, record: Record | None) -> None:
    warn_once = run.state.warn_once
    run.publisher.catch_up(trainer, session, run.state)
    run.publisher.log_end(trainer, session, run.state, run.log_point(trainer))
    if trainer.is_global_zero:
        if record is not None:
            log_record(trainer.loggers, record, facts.logger_step(trainer), warn_once)
        run.table.end(trainer, warn_once)


@guarded
def _print_last(run: MeasuredRun, trainer: Any, record: Record | None, where: str) -> None:
    if run.leads and record is not None:
        facts.stop_live_bar(trainer)
        note = missing_accuracy(run.state, run.settings.accuracy) if run.has_trained else ""
        notes = {NO_ACCURACY: note} if note else {}
        rich = facts.is_a(trainer.progress_bar_callback, "RichProgressBar")
        PRINTED.end_of_run(record, where, run.settings.summary, quiet(trainer), notes, with_rich=rich)


def status_after(exception: BaseException) -> Status:
    """How a training ended that this exception ended: stopped by somebody, or by a fault.

    Example:
        >>> status_after(KeyboardInterrupt()), status_after(ValueError("a loss of nan"))
        ('interrupted', 'failed')
    """
    if isinstance(exception, (KeyboardInterrupt, SystemExit)):
        return "interrupted"
    return "interrupted" if any(cls.__name__ in STOPS for cls in type(exception).__mro__) else "failed"


def end_leftover(run: MeasuredRun) -> None:
    """End a run whose Trainer never called us at its end, before the next one begins."""
    run.tuners.end()
    if run.meter is not None and run.session is not None:
        run.session.end()
        run.end_alone()
        run.meter = None


LIGHTNING_LOGS = ("lightning.pytorch", "lightning", "pytorch_lightning")
"""The loggers that a script sets to hear less of Lightning."""


def quiet(trainer: Any) -> int:
    """In how many ways the user has told Lightning to say less: what it draws is off; its information messages are.

    Example:
        >>> from types import SimpleNamespace
        >>> quiet(SimpleNamespace(progress_bar_callback=None, callbacks=[])) >= 1  # 2 if nothing is logged either
        True
    """
    draws = trainer.progress_bar_callback is not None and any(facts.is_a(one, "ModelSummary") for one in trainer.callbacks)
    # A level that nobody has set says nothing: Lightning sets INFO for its own package, and the other one's has none.
    levels = [logging.getLogger(name).level for name in LIGHTNING_LOGS]
    informs = max(*levels, logging.root.manager.disable + 1) <= logging.INFO
    return (not draws) + (not informs)


class Abandoned:
    """Asked after every reading; true once the Trainer is gone, or has ended and will not call us.

    A Trainer that ends calls the callbacks that it has at that moment. The learning-rate finder takes all of them out for
    its trial, so if that fails, nobody calls ours. A callback before ours whose `on_exception` raises keeps it from us too.

    Args:
        trainer: the Trainer, which is not kept alive.
        callback: ours.
        now_s: a clock that never steps, seconds.
    """

    def __init__(self, trainer: Any, callback: Any, now_s: Callable[[], float] = monotonic) -> None:
        self._trainer = weakref.ref(trainer)
        self._callback = weakref.ref(callback)
        self._now_s = now_s
        self._ended_s: float | None = None

    def __call__(self) -> bool:
        """Whether nobody will end the measurement."""
        trainer, callback = self._trainer(), self._callback()
        if trainer is None or callback is None:
            return True
        if trainer.state.status == "running":
            self._ended_s = None
            return False
        if self._ended_s is None:
            self._ended_s = self._now_s()
            return False  # it may be on its way to us
        is_there = any(other is callback for other in trainer.callbacks)
        return not is_there or self._now_s() - self._ended_s > PATIENCE_S
