"""What a callback holds while a run lasts, and the steps of its hooks: they note marks, and publish what was settled.

The hooks drive it in the trainer's thread. Only `write` and `end_alone` run in the meter's thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import count
from time import monotonic
from typing import Any

from lightning_watt.accounts.events import BatchEnd, LogPoint, Moment
from lightning_watt.accounts.ledger import Account
from lightning_watt.distributed.nodes import Nodes, meet_readers
from lightning_watt.host import keep, tell_of_forks
from lightning_watt.meter.meter import EnergyMeter
from lightning_watt.meter.reader import MIN_READ_GAP_S, SPREAD
from lightning_watt.record.lines import JournalLine
from lightning_watt.record.record import Record
from lightning_watt.record.schema import BatchRow
from lightning_watt.record.writer import RunWriter, Turn
from lightning_watt.run.resume import go_on, saved_line
from lightning_watt.run.samples import Counting
from lightning_watt.run.session import Session
from lightning_watt.run.state import RunState
from lightning_watt.run.tally import Tally
from lightning_watt.settings import Settings
from lightning_watt.trainer import facts
from lightning_watt.trainer.accuracy import look_for_accuracy
from lightning_watt.trainer.hparams import HParamsTable
from lightning_watt.trainer.monitors import Monitors, Tuners
from lightning_watt.trainer.publisher import Publisher
from lightning_watt.warn_once import never_raise

CHECKS = ("validate", "sanity_check")
FABRIC = "fabric"
"""The key of the sentence that Fabric's callbacks are not measured."""


def _report(run: MeasuredRun, step: str, _: tuple[Any, ...], error: Exception) -> None:
    if FABRIC not in run.state.warn_once.said:  # what is given there is no Trainer
        run.state.warn_once.failed(step, error)


guarded = never_raise(_report)
"""A step of a `MeasuredRun` that cannot stop a training."""

FIRST_LINES = 10_000
"""So many lines of the journal are written at each reading; later ones once an interval, or it would become huge."""
RECORD_SHARE = 0.01
"""The share of the time that the record's writing may take; it grows with the number of epochs, and waits the longer."""


class MeasuredRun:
    """One run of one callback: all its parts, and the steps that the hooks take.

    Args:
        settings: the callback's.

    Attributes:
        settings: what is measured and how.
        state: what is known of the run beside its energy.
        session: its accounts; None until sources were opened.
        meter: reads the sources; None unless this process measures now.
        writer: writes the files; None if none are written.
        nodes: the ranks, if there are several.
        publisher: gives the numbers to the Trainer.
        table: TensorBoard's table of hyperparameters.
        monitors: the other callbacks that monitor our tags.
        tuners: Lightning's tuners among them.
        every: training batches between two log rows.
        replicas: processes that train on data of their own.
        counting: counts the batches and their samples.
        trains: whether the Trainer is inside of its fit.
        has_trained: whether a training batch has ended here.
        nested: runs of the same Trainer inside of its fit.
        is_set_up: whether every callback was set up; files are written from then on.
        writes_from_s: or from this moment on (`monotonic`).
        restored: the state of a checkpoint, until the training starts.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.forget()
        tell_of_forks(self)

    def forget(self) -> None:
        """Begin anew: the state of a run that has not begun holds no device, file or thread."""
        self.state = RunState()
        self.session: Session | None = None
        self.meter: EnergyMeter | None = None
        self.writer: RunWriter | None = None
        self.nodes: Nodes | None = None
        self.publisher = Publisher(self.settings.scoring, self.settings.budget_kwh)
        self.table = HParamsTable()
        self.monitors, self.tuners = Monitors(), Tuners()
        self.every = 1
        self.replicas = 1
        self.counting = Counting(facts.sample_count, self.state.warn_once)
        self.trains = self.has_trained = False
        self.nested = 0
        self.is_set_up, self.writes_from_s = False, 0.0
        self.restored: dict[str, Any] | None = None
        self._saves, self._saved = count(1), deque[JournalLine]()  # checkpoints; their lines, which wait to be written
        self._epoch_open = False
        self._recorded = self._is_old = self._row_waits = False
        self._record_turn = Turn(RECORD_SHARE)
        self._lines, self._line_due_s = 0, 0.0
        self._given: tuple[Any, ...] = ()  # what the values were given for
        self._point: LogPoint | None = None  # of the row that was noted just before them

    def forked(self) -> None:
        """In a child of the process that trains: the run, its files and its threads are the parent's."""
        keep(dict(vars(self)))
        self.forget()

    # -- what is known ------------------------------------------------------------------------------------------------

    @property
    def leads(self) -> bool:
        """Whether this process keeps the run's record."""
        return self.nodes is None or self.nodes.leads

    def to_record(self) -> Record | None:
        """The record so far; None before anything was measured."""
        return None if self.session is None else self.state.to_record(self.session, self.settings.scoring)

    def state_dict(self) -> dict[str, Any]:
        """The energy so far and what was inherited, in plain values that load without running code."""
        # Not before the run has begun: the tuners save then and restore while all callbacks are out, and Lightning warns of
        # every callback that had a state.
        state, session = self.state, self.session
        if session is None or not self.is_set_up:
            return {}
        metric, number = state.metric, next(self._saves)
        accounts = session.state_dict() | {"saved": number}
        # What is a guess in them yet stands in the journal once it is settled.
        session.note(
            Moment(session.tally.batches, session.tally.samples, lambda now: self._saved.append(saved_line(now, number)))
        )
        return {
            "session": accounts,
            "inherited": state.inherited_to_save(),
            "accuracy": {"metric": metric.metric, "last": metric.last, "best": metric.best},
            "directory": state.remote or (str(state.directory.absolute()) if state.directory is not None else ""),
        }

    def take_restored(self, trainer: Any) -> None:
        """Add what the run had used before the checkpoint that it resumes from."""
        restored, self.restored = self.restored, None
        if restored is not None and self.session is not None:
            go_on(self.session, self.state, restored, trainer.ckpt_path, adds=self.leads)
            self._recorded = False  # so that the record soon says which run this one goes on with

    # -- the hooks note where the training is -------------------------------------------------------------------------

    def enter(self, stage: str, trainer: Any) -> None:
        """The Trainer enters a stage or an epoch."""
        self.is_set_up = True
        if self.session is not None:
            self.session.switch(Account(stage, int(trainer.current_epoch)))

    @guarded
    def start_training(self, trainer: Any) -> None:
        """The training begins: the first moment at which the whole schedule and all callbacks are known."""
        self.trains = True
        if self.publisher.budget is not None:
            self.publisher.budget.begin()
        self.take_restored(trainer)  # of strategies that restore only after `on_fit_start`
        self.enter("train", trainer)
        here = bool(self.meter.devices) if self.meter is not None else not trainer.is_global_zero
        measures = here or (self.nodes is not None and self.nodes.many)
        used_j = self.session.energy_j if self.session is not None else 0.0
        self.monitors.begin(trainer, self.state.warn_once, self.settings.scoring, used_j=used_j, measures=measures)

    def end_epoch(self, trainer: Any, stage: str, then: str) -> None:
        """An epoch of a stage is over, and the Trainer goes on to the next account."""
        # Two steps: whatever fails in the first, every rank comes to the second, in which they exchange values.
        self._close_epoch(trainer, stage, then)
        self.publish(trainer)

    @guarded
    def _close_epoch(self, trainer: Any, stage: str, then: str) -> None:
        session = self.session
        if session is None:
            return
        if stage != "predict":
            look_for_accuracy(self.state, facts.computed_metrics(trainer), self.settings.accuracy, stage)
        if stage == "train":
            self._epoch_open = True  # Lightning computes its metrics only after this hook
        elif self._is_row_wanted(trainer):
            self._point = self.log_point(trainer)
            session.note(self._point)
        session.end_epoch(self.state.metric.last, facts.logger_step(trainer))
        if then != stage:
            self.enter(then, trainer)
        if session.news or (self.meter is not None and self.meter.complaints):
            self._catch_up(trainer, gives=False)

    def close_train_epoch(self, trainer: Any) -> None:
        """Take the training epoch's own metrics, which Lightning has computed by now, after the module's own hook."""
        before = self.state.metric.last
        look_for_accuracy(self.state, facts.computed_metrics(trainer), self.settings.accuracy, "train")
        session, was_open = self.session, self._epoch_open
        self._epoch_open = False
        if session is None or not was_open:
            return
        if self._is_row_wanted(trainer):
            session.note(self.log_point(trainer))
        if self.state.metric.last != before:
            session.end_epoch(self.state.metric.last, facts.logger_step(trainer))

    def end_batch(self, trainer: Any, batch: Any, batch_idx: int, *, trains: bool = False) -> None:
        """A batch is over that is not only to be counted: of a training, log after every so many, and mind the budget."""
        session = self.session
        if session is None and not facts.is_a(trainer, "Trainer"):
            raise TypeError(f"{type(trainer).__name__} is no Trainer")
        try:
            if session is not None:
                tally, each = session.tally, self.settings.batches
                self.counting.count(session, trainer, batch, self.replicas)
                tally.crowd = session.crowd if each else None
                if each:
                    session.note(BatchEnd(session.account, batch_idx, tally.batches, tally.samples))
                if self.publisher.budget is not None:
                    tally.is_plain = False
                    if session.account.stage in CHECKS and trainer.state.fn == "fit":
                        self.publisher.budget.end_check_batch(trainer, session, self.state.warn_once)
                if session.news:
                    self._catch_up(trainer)
                if trains and self._is_row_due(tally) and self._is_row_wanted(trainer):
                    metrics = facts.computed_metrics(trainer)
                    look_for_accuracy(self.state, metrics, self.settings.accuracy, "train", may_wait=False)
                    session.note(self.log_point(trainer))
        finally:
            budget = self.publisher.budget if trains else None
            if budget is not None and budget.end_batch(trainer, session, self.state.warn_once):
                self.publish(trainer)

    def _is_row_due(self, tally: Tally) -> bool:
        self.has_trained = True
        tally.until_row = min(tally.until_row or self.every, self.every) - 1
        if tally.until_row:
            return False
        tally.until_row = self.every
        return True

    # -- the trainer's thread takes what was settled ------------------------------------------------------------------

    def log_point(self, trainer: Any) -> LogPoint:
        """Where a log row of now stands."""
        session = self.session
        assert session is not None
        fitting = trainer.state.fn == "fit"
        left_s = facts.seconds_left(trainer) if fitting else None
        return LogPoint(
            step=facts.logger_step(trainer),
            epoch=int(trainer.current_epoch),
            accuracy=self.state.metric.last,
            batches=session.tally.batches,
            samples=session.tally.samples,
            ahead=facts.batches_ahead(trainer, left_s) if fitting else None,
            trained=facts.batches_trained(trainer) if fitting else 0,
            per_batch=not (fitting and session.account.stage == "validate"),
            left_s=left_s,
        )

    def _is_row_wanted(self, trainer: Any) -> bool:
        """Whether a row that is due is noted; where no logger keeps it, only the first after each reading is."""
        waits, self._row_waits = self._row_waits, True
        return not waits or bool(trainer.loggers) or self.nodes is not None or self.publisher.budget is not None

    def _catch_up(self, trainer: Any, *, gives: bool = True) -> None:
        self._row_waits = False
        if self.session is not None and self.meter is not None:
            self.report_complaints(self.meter)
            self.publisher.catch_up(trainer, self.session, self.state, gives=gives)

    def report_complaints(self, meter: EnergyMeter) -> None:
        """Warn of what the meter's thread has found."""
        while meter.complaints:
            self.state.warn_once.warn(meter.complaints.popleft())

    def publish(self, trainer: Any) -> None:
        """Bring the nodes together, and give every rank the values of this moment."""
        self._meet()
        self._give_values(trainer, self.session if self.meter is not None else None)

    @guarded
    def _meet(self) -> None:
        if self.nodes is not None and self.nodes.many:
            meet_readers(self.nodes, self.session, self.state, measures=self.meter is not None)

    @guarded
    def _give_values(self, trainer: Any, session: Session | None) -> None:
        # At the end of a training epoch that has just validated, the values are those of that validation.
        given = (session.tally.batches, self.state.metric.last) if session is not None else ()
        is_new = given != self._given or self.nodes is not None or self.publisher.budget is not None
        self._given, point, self._point = given, self._point, None
        is_monitored = self.monitors.decide(trainer)
        needed = is_monitored or self.nodes is not None or self.publisher.budget is not None
        if is_new and self.publisher.are_values_due(needed=needed):
            with self.publisher.values_turn:
                self.publisher.publish(trainer, session, self.state, lambda: point or self.log_point(trainer), self.nodes)
        if is_monitored:
            self.monitors.fill(trainer, self.state.warn_once)

    # -- the meter's thread -------------------------------------------------------------------------------------------

    def write(self, rows: Sequence[BatchRow], epoch_over: bool) -> None:
        """Write what was settled: a line of the journal, the batches' rows, and after an epoch the record."""
        session, writer = self.session, self.writer
        lines, self._saved = self._saved, deque()
        if session is None or writer is None:
            return
        if not self.is_set_up and monotonic() < self.writes_from_s:
            return
        for line in lines:
            writer.journal(line)
        if self._lines < FIRST_LINES or monotonic() >= self._line_due_s:
            # Readings that were asked for come in between. In a long run a line an interval is enough.
            self._lines += 1
            self._line_due_s = monotonic() + max(0.0, (1 - SPREAD) * self.state.interval_s - MIN_READ_GAP_S)
            writer.journal(session.line())
        writer.batches(rows)
        self._is_old = self._is_old or epoch_over
        if not self._recorded or (self._is_old and self._record_turn.is_due()):
            self._recorded, self._is_old = True, False
            with self._record_turn:
                self.write_record()

    def write_record(self) -> None:
        """Write the record as it stands."""
        record = self.to_record() if self.writer is not None else None
        if self.writer is not None and record is not None:
            self.writer.record(record)

    def end_alone(self) -> None:
        """End a run of a Trainer that has ended and did not call us: keep what is known, as of a training that failed."""
        session, writer, self.writer = self.session, self.writer, None
        self.state.status = "failed"
        if session is None or writer is None:
            return
        try:
            writer.journal(session.line("failed"))
            writer.record(self.state.to_record(session, self.settings.scoring))
        finally:
            writer.close()
