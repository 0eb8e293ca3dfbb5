"""Stops a training before it passes its budget, and says early on when it is going to.

What is known of the energy is up to a reading old, so the stop is planned ahead, as a number of training batches: those that
still fit into what is left, with one more validation kept back, because Lightning validates once more when it stops. The
comparison at each batch is one of two whole numbers. Over several ranks the plan is rank zero's, made at the ends of epochs
and given to all of them, so that they stop after the same batch without speaking to each other in between.
"""

from __future__ import annotations

from typing import Any

from lightning_watt.run.events import Snapshot
from lightning_watt.run.forecast import Rate, batches_that_fit
from lightning_watt.trainer import facts
from lightning_watt.units import J_PER_KWH, kwh
from lightning_watt.warn_once import WarnOnce


class Budget:
    """The energy that a training may use.

    Args:
        budget_kwh: kWh, what earlier parts of the run used included.

    Attributes:
        stop_at: the number of training batches after which the training stops; None while that is not known.
    """

    def __init__(self, budget_kwh: float) -> None:
        self.budget_kwh = budget_kwh
        self.stop_at: int | None = None
        self._foretold = False

    def plan(self, trainer: Any, snapshot: Snapshot, rates: dict[str, Rate]) -> None:
        """Decide after how many training batches to stop, by what is known now."""
        self.stop_at = self.planned(trainer, snapshot, rates)

    def planned(self, trainer: Any, snapshot: Snapshot, rates: dict[str, Rate]) -> int | None:
        """The number of training batches to stop after, by what is known now; None while that is not known."""
        unseen = Rate()
        train, validate = rates.get("train", unseen), rates.get("validate", unseen)
        left_j = self.budget_kwh * J_PER_KWH - snapshot.total_j
        if left_j > 0 and validate.batches:
            left_j -= facts.batches_of_a_validation(trainer) * validate.mean
        fit = batches_that_fit(left_j, train.mean if train.batches else 0.0)
        return None if fit is None else snapshot.point.trained + fit

    def mind(self, trainer: Any, warn_once: WarnOnce) -> None:
        """Stop if one more batch would pass the budget; every rank asks, after every training batch."""
        if self.stop_at is not None and facts.batches_trained(trainer) >= self.stop_at:
            self._stop(trainer, warn_once)

    def foretell(self, trainer: Any, snapshot: Snapshot, warn_once: WarnOnce) -> None:
        """Print, once, that the schedule does not fit into the budget."""
        told = snapshot.forecast
        if self._foretold or told is None or kwh(told.joules - told.plus_minus_j) <= self.budget_kwh:
            return
        self._foretold = True
        trainer.print(
            f"\nThe whole schedule is going to use {kwh(told.joules):.4g} ± {kwh(told.plus_minus_j):.2g} kWh, more than the "
            f"budget of {self.budget_kwh:g} kWh: the training stops before, after about "
            f"{self.budget_kwh / kwh(told.joules):.0%} of that energy."
        )

    def _stop(self, trainer: Any, warn_once: WarnOnce) -> None:
        trainer.should_stop = True
        if trainer.is_global_zero:
            warn_once.warn(f"The budget of {self.budget_kwh:g} kWh is used up: the training stops here.")
