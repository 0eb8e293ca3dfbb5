"""Hands what was settled to the trainer: loggers, `callback_metrics`, the progress bar, and the stop at a used-up budget.

All of it runs in the trainer's thread, because loggers and metrics belong to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning_watt.accounts.events import LogPoint, Snapshot
from lightning_watt.distributed.nodes import Nodes, Values
from lightning_watt.record.writer import Turn
from lightning_watt.run.session import Session
from lightning_watt.run.state import RunState
from lightning_watt.sam.score import Scoring
from lightning_watt.trainer import facts
from lightning_watt.trainer.budget import Budget
from lightning_watt.trainer.loggers import log_histogram, log_record, log_snapshot, save
from lightning_watt.trainer.tags import tags
from lightning_watt.units import Shown, digits, human_energy

FIRST_VALUES, VALUES_SHARE = 10, 0.001
"""The values of the moment are given at the first so many ends of epochs, and later so that it takes no more than this share
of the time; always if somebody needs them: a callback that decides by one, a budget, other ranks."""


class Publisher:
    """Gives a run's numbers to the trainer.

    Args:
        scoring: how energy becomes a score.
        budget_kwh: the energy that the training may use, kWh; None for no limit.

    Attributes:
        budget: what minds it.
        values_turn: when the values of the moment are given again.
    """

    def __init__(self, scoring: Scoring, budget_kwh: float | None) -> None:
        self._scoring = scoring
        self.budget = Budget(budget_kwh) if budget_kwh is not None else None
        self.values_turn = Turn(VALUES_SHARE)
        self._values = 0  # ends of epochs at which nobody needed them
        self._introduced = False

    def are_values_due(self, *, needed: bool) -> bool:
        """Whether the values of this moment are given; always if they are needed."""
        self._values += not needed
        return needed or self._values <= FIRST_VALUES or self.values_turn.is_due()

    def catch_up(self, trainer: Any, session: Session, run: RunState, *, gives: bool = True) -> None:
        """Log what has been settled since the last look.

        Args:
            trainer: the Trainer.
            session: the run.
            run: what is known of it.
            gives: put the values among the Trainer's metrics; not where newer ones follow at once.
        """
        session.news, session.logs_rows = False, bool(trainer.loggers)
        run.budget_kwh = self.budget.budget_kwh if self.budget is not None else None
        last: Snapshot | None = None
        if session.devices and not self._introduced:
            self._introduced = True
            if run.status == "running" and trainer.is_global_zero:
                # So that a reader who has only the event files knows, while the run goes on, whether it is measured.
                log_record(trainer.loggers, run.to_record(session, self._scoring), facts.logger_step(trainer), run.warn_once)
        while session.ready:
            last = session.ready.popleft()
            if trainer.is_global_zero:
                log_snapshot(trainer.loggers, last, self._scoring, run.warn_once)
        if last is not None and trainer.is_global_zero:
            save(trainer.loggers, run.warn_once)
        while session.histograms:
            step, values = session.histograms.popleft()
            if trainer.is_global_zero:
                log_histogram(trainer.loggers, values, step, run.warn_once)
        if last is not None and trainer.is_global_zero:
            run.note_forecast(last.forecast)
            if self.budget is not None:
                self.budget.foretell(trainer, last)
            if gives and trainer.world_size == 1:  # several ranks take their values together, at the ends of epochs
                facts.give_metrics(trainer, tags(last, self._scoring))
        if trainer.progress_bar_callback is not None:
            facts.show_in_bar(trainer, for_bar(session.power_w, session.energy_j))

    def log_end(self, trainer: Any, session: Session, run: RunState, point: LogPoint) -> None:
        """Log the total of a run that has ended: the last row is what its record says.

        Args:
            trainer: the Trainer.
            session: the run, its last reading and the other nodes' last reports included.
            run: what is known of it.
            point: where the row stands.
        """
        if not session.devices:
            return
        last = session.now(point)
        if trainer.is_global_zero:
            log_snapshot(trainer.loggers, last, self._scoring, run.warn_once)
            save(trainer.loggers, run.warn_once)
        if trainer.world_size == 1:  # several ranks take the same values, at the ends of epochs
            facts.give_metrics(trainer, tags(last, self._scoring))

    def set_budget(self, budget_kwh: float | None) -> None:
        """Take the budget of this run: over several ranks it is rank zero's on all of them."""
        if budget_kwh != (self.budget.budget_kwh if self.budget is not None else None):
            self.budget = Budget(budget_kwh) if budget_kwh is not None else None

    def publish(
        self,
        trainer: Any,
        session: Session | None,
        run: RunState,
        point: Callable[[], LogPoint],
        nodes: Nodes | None = None,
    ) -> None:
        """Give every rank the values of this moment, for ModelCheckpoint and EarlyStopping, which follow this hook.

        Args:
            trainer: the Trainer.
            session: the run; None if this process does not measure.
            run: what is known of it.
            point: makes the log point of this moment.
            nodes: the ranks; None if there is one.
        """
        budget, alone = self.budget, trainer.world_size == 1
        values = Values(stop_at=budget.stop_at if budget is not None else None)
        try:
            if session is not None and (session.devices or session.others.nodes.reports):
                now = session.now(point())
                values.tags = tags(now, self._scoring)
                # Alone, what was settled after a batch shows better than the last known power where to stop.
                is_planned = alone and budget is not None and budget.stop_at is not None
                plans = not is_planned or facts.validates_by_time(trainer)
                if budget is not None and plans and (nodes is None or nodes.shares_values):
                    values.stop_at = budget.planned_now(trainer, session.totals())
        except Exception as error:  # noqa: BLE001 - the other ranks wait below
            run.warn_once.failed("the values of this moment", error)
        if nodes is not None:
            # Without common values each rank keeps to the last plan that all of them had, and to what it knows itself.
            values = nodes.share_values(values) or Values(values.tags, budget.stop_at if budget is not None else None)
        if budget is not None and trainer.state.fn == "fit":
            budget.stop_at = values.stop_at
            budget.mind(trainer, session if alone else None, run.warn_once)
        facts.give_metrics(trainer, values.tags)


def for_bar(power_w: float, energy_j: float) -> dict[str, Shown]:
    """What a progress bar shows: the power now and the energy so far, as far as they are known.

    It is a number all the same, because a bar of the user's own may reckon with what it finds.

    Example:
        >>> str(for_bar(42.345, 12.3456)["watt"])
        '42.3 W, 12.3 J'
    """
    known = [f"{digits(power_w, 3)} W"] if power_w > 0 else []
    known += [human_energy(energy_j, 3)] if energy_j > 0 else []
    return {"watt": Shown(power_w, ", ".join(known))} if known else {}
