"""Hands what was settled to the trainer: loggers, `callback_metrics`, the progress bar, and the stop at a used-up budget.

All of it runs in the trainer's thread, because loggers and metrics belong to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from lightning_watt.events import LogPoint, Snapshot
from lightning_watt.forecast import passes
from lightning_watt.loggers import log_histogram, log_record, log_snapshot
from lightning_watt.run_state import RunState
from lightning_watt.session import Session
from lightning_watt.tags import Scoring, tags
from lightning_watt.trainer_facts import logger_step
from lightning_watt.units import J_PER_KWH, kwh, wh


class Outlet:
    """Where a run's numbers leave for the trainer.

    Args:
        scoring: how energy becomes a score.
        budget_kwh: the energy that the training may use, kWh; None for no limit.
    """

    def __init__(self, scoring: Scoring, budget_kwh: float | None) -> None:
        self._scoring = scoring
        self._budget_kwh = budget_kwh
        self._over_budget = False
        self._introduced = False

    def catch_up(self, trainer: Any, session: Session, run: RunState) -> None:
        """Log what has been settled since the last look."""
        session.news = False
        last: Snapshot | None = None
        if session.devices and not self._introduced:
            self._introduced = True
            if run.status == "running" and trainer.is_global_zero:
                # So that a run that is still going can be told from an estimate, by whoever has only the event files.
                log_record(trainer.loggers, run.to_record(session, self._scoring), logger_step(trainer), run.voice)
        while session.ready:
            last = session.ready.popleft()
            if trainer.is_global_zero:
                log_snapshot(trainer.loggers, last, self._scoring, run.voice)
        while session.histograms:
            step, values = session.histograms.popleft()
            if trainer.is_global_zero:
                log_histogram(trainer.loggers, values, step, run.voice)
        if last is not None:
            run.forecast_kwh = kwh(last.forecast.joules) if last.forecast else None
            trainer.callback_metrics.update(_tensors(tags(last, self._scoring)))
            self._mind_budget(trainer, session, run, last)
        trainer.progress_bar_metrics.update({"W": _short(session.power_w), "Wh": _short(wh(session.energy_j))})

    def publish(self, trainer: Any, session: Session | None, run: RunState, point: Callable[[Any], LogPoint]) -> None:
        """Give every rank the values of this moment, for ModelCheckpoint and EarlyStopping, which follow this hook.

        Args:
            trainer: the Trainer.
            session: the run, where this process measures.
            run: what is known of it.
            point: makes the log point of this moment.
        """
        values: dict[str, float] = {}
        try:
            if session is not None and session.devices:
                values = tags(session.now(point(trainer)), self._scoring)
        except Exception as error:  # noqa: BLE001 - the other ranks wait below
            run.voice.failed("the values of this moment", error)
        if trainer.world_size > 1:
            values, self._over_budget = trainer.strategy.broadcast((values, self._over_budget), src=0)
            trainer.should_stop = trainer.should_stop or self._over_budget
        trainer.callback_metrics.update(_tensors(values))

    def _mind_budget(self, trainer: Any, session: Session, run: RunState, snapshot: Snapshot) -> None:
        if self._budget_kwh is None or trainer.state.fn != "fit":
            return
        rate = session.rates.get("train")
        if passes(self._budget_kwh * J_PER_KWH, snapshot.total_j, rate.mean if rate and rate.batches else 0.0):
            self._over_budget = True
            run.voice.warn(f"The budget of {self._budget_kwh:g} kWh is used up: the training stops here.")
            if trainer.world_size == 1:  # several ranks stop together, at the epoch's end
                trainer.should_stop = True


def _tensors(values: dict[str, float]) -> dict[str, torch.Tensor]:
    return {tag: torch.tensor(value, dtype=torch.float64) for tag, value in values.items()}


def _short(value: float) -> float:
    """A number as short as a progress bar wants it: four digits."""
    return float(f"{value:.4g}")
