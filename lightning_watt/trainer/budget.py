"""Stops a training before it passes its budget, and says early on when it is going to.

What is known of the energy is up to a reading old, so the stop is planned ahead, as a number of training batches: those that
still fit into what is left, with the validations that come until then and the one more that Lightning adds when it stops.
The plan is made anew after each reading, and a reading is asked for after 1, 2, 4, 8, ... batches of a fit. So a budget is
passed by one batch and what is used from one reading to the next, at most.

What a validation uses is a guess before the first one. So the first is watched, with readings inside of it, and if it uses
more than is left, it ends, as if its loaders held no more. A later one is kept back for by those before, and always whole.

Over several ranks the plan is rank zero's. All of them take it at the ends of epochs, after 1, 2, 4, 8, ... batches and when
it comes due, so that they stop after the same batch without speaking to each other in between.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from lightning_watt.accounts.events import Moment, Snapshot
from lightning_watt.accounts.forecast import batches_that_fit
from lightning_watt.accounts.ledger import NOTHING, Usage
from lightning_watt.run.session import Session
from lightning_watt.run.totals import Totals
from lightning_watt.trainer import facts
from lightning_watt.units import J_PER_KWH, joules, kwh, seconds
from lightning_watt.warn_once import WarnOnce

QUICK = 0.5
"""Batches that take less than this share of the time of those before are of another kind: the first ones compile, say."""


@dataclass(frozen=True)
class Spent:
    """What a run had used at one moment.

    Attributes:
        trained: training batches by then, by the Trainer's own count.
        total_j: joules of the run.
        batch_j: joules of one training batch; 0 while that is not known.
        batch_s: seconds of one.
        train_s: seconds of all of them.
        validation_batch_j: joules of one batch of a validation, or what stands for it before the first: a batch of the
            sanity check after its first one, which warms up, or else a training batch.
    """

    trained: int
    total_j: float
    batch_j: float
    batch_s: float
    train_s: float
    validation_batch_j: float

    @classmethod
    def of(cls, trained: int, by_stage: Mapping[str, Usage], warm_up: Usage = NOTHING) -> Spent:
        """Make it from what each stage used.

        Args:
            trained: training batches by then.
            by_stage: what each stage used.
            warm_up: what the first batch of the sanity check used.
        """
        train, check = by_stage.get("train", NOTHING), by_stage.get("sanity_check", NOTHING)
        checked = check.batches - warm_up.batches if warm_up.batches else 0
        stand_in = joules(check.total_uj - warm_up.total_uj) / checked if checked > 0 else 0.0
        return cls(
            trained=trained,
            total_j=joules(sum(usage.total_uj for usage in by_stage.values())),
            batch_j=_mean_j(train),
            batch_s=seconds(train.ns) / train.batches if train.batches else 0.0,
            train_s=seconds(train.ns),
            validation_batch_j=_mean_j(by_stage.get("validate", NOTHING)) or stand_in or _mean_j(train),
        )


def _mean_j(usage: Usage) -> float:
    return joules(usage.total_uj) / usage.batches if usage.batches else 0.0


class Budget:
    """The energy that a training may use.

    Args:
        budget_kwh: kWh, what earlier parts of the run used included.

    Attributes:
        stop_at: the number of training batches after which the training stops; None while that is not known.
    """

    def __init__(self, budget_kwh: float) -> None:
        self.budget_kwh = budget_kwh
        self._foretold = False
        self._warm_up = NOTHING
        self.begin()

    def begin(self) -> None:
        """A fit begins: nothing is planned, and nothing of it is known."""
        self.stop_at: int | None = None
        self._batches = 0
        self._is_used_up = False
        self._spent: Spent | None = None  # at the last moment that is settled; the reader's thread sets it
        self._planned_from: Spent | None = None
        self._waits = False  # for another one
        self._validated = 0  # batches of this validation
        self._is_known = False  # what one uses, by a whole one
        self._look_at = 1.0  # after which batch of the first one to have a moment settled
        self._looked: tuple[int, Totals] | None = None  # that batch and moment; the reader's thread sets it

    # -- the plan -----------------------------------------------------------------------------------------------------

    def plan(self, trainer: Any, spent: Spent) -> None:
        """Decide after how many training batches to stop, by what had been used after one."""
        self.stop_at = self._planned(trainer, spent, validated=-1)

    def planned_now(self, trainer: Any, totals: Totals) -> int | None:
        """The number of training batches to stop after, by the last known power, between two batches; None if not known."""
        return self._planned(trainer, self._by_now(trainer, totals), validated=0)

    def _planned(self, trainer: Any, spent: Spent, *, validated: int) -> int | None:
        """The same.

        Args:
            trainer: the Trainer.
            spent: what had been used at a moment, and what a batch to come uses.
            validated: -1 if the validation that may follow that moment's last batch is still to come, else 0.
        """
        schedule, trained = facts.schedule(trainer), spent.trained
        past = schedule.validations(trained + validated)

        def validations(more: int) -> int:
            return schedule.validations(trained + more - 1) - past + schedule.validates_at(trained + more)

        left_j = self.budget_kwh * J_PER_KWH - spent.total_j
        fit = batches_that_fit(left_j, spent.batch_j, schedule.validation * spent.validation_batch_j, validations)
        return None if fit is None else trained + fit

    def _by_now(self, trainer: Any, totals: Totals) -> Spent:
        return Spent.of(facts.batches_trained(trainer), totals.now().by_stage(), self._warm_up)

    # -- after every batch --------------------------------------------------------------------------------------------

    def end_batch(self, trainer: Any, session: Session | None, warn_once: WarnOnce) -> bool:
        """A training batch is over: keep to the plan.

        Args:
            trainer: the Trainer.
            session: the run; None if this process does not measure.
            warn_once: says that it stops.

        Returns:
            Whether the ranks are to take rank zero's plan now, if there are several.
        """
        self._batches += 1
        self._is_known, self._validated = self._is_known or self._validated > 0, 0
        doubles = self._batches & (self._batches - 1) == 0  # it is the first, second, fourth, eighth, ...
        if trainer.world_size > 1:
            return doubles or self.is_due(trainer)
        if session is not None:
            self._follow(trainer, session, warn_once, ask=doubles)
        return False

    def is_due(self, trainer: Any) -> bool:
        """Whether the training stops now, by the plan."""
        return self.stop_at is not None and facts.batches_trained(trainer) >= self.stop_at

    def _follow(self, trainer: Any, session: Session, warn_once: WarnOnce, *, ask: bool) -> None:
        """Plan by what was settled since the last batch, keep to the plan, and have one more moment settled."""
        spent = self._spent
        if spent is not None and spent is not self._planned_from and not self._is_used_up:
            self._planned_from, self._waits = spent, False
            self.plan(trainer, spent)
        was_due = self.is_due(trainer)
        self.mind(trainer, session, warn_once)
        ask = ask or was_due
        if not self._is_used_up and (ask or not self._waits):
            self._waits = True
            take = partial(self._take, facts.batches_trained(trainer))
            session.note(Moment(session.tally.batches, session.tally.samples, take), ask=ask)

    def mind(self, trainer: Any, session: Session | None, warn_once: WarnOnce) -> None:
        """Stop if the plan is due. A plan of this process's own is looked at once more before.

        Args:
            trainer: the Trainer.
            session: the run, if the plan is this process's own.
            warn_once: says that it stops.
        """
        if self._is_used_up:
            trainer.should_stop = True  # the Trainer may have to go on for a while
        elif self.is_due(trainer) and not (session is not None and self._goes_on(trainer, session)):
            self._is_used_up = True
            self._stop(trainer, warn_once)

    def _take(self, trained: int, totals: Totals) -> None:
        self._spent = Spent.of(trained, totals.by_stage(), self._warm_up)

    def _goes_on(self, trainer: Any, session: Session) -> bool:
        """Whether the batches since the last plan were so quick that more fit in, at the power of those before."""
        then, now = self._planned_from, self._by_now(trainer, session.totals())
        if then is None or now.trained <= then.trained:
            return False
        batch_s = (now.train_s - then.train_s) / (now.trained - then.trained)
        if batch_s >= QUICK * then.batch_s:
            return False
        quick = replace(now, batch_j=then.batch_j * batch_s / then.batch_s)
        if self._planned(trainer, quick, validated=-1) == now.trained:
            return False
        self.stop_at = now.trained + 1  # by then there may be a reading
        return True

    # -- after every batch of a validation ----------------------------------------------------------------------------

    def end_check_batch(self, trainer: Any, session: Session, warn_once: WarnOnce) -> None:
        """A batch of the sanity check or of a validation is over: learn what one uses.

        Args:
            trainer: the Trainer.
            session: the run.
            warn_once: says that a validation ends in the middle.
        """
        self._validated += 1
        if trainer.sanity_checking:
            if self._validated == 1:  # it warms up, so it does not show what a validation uses
                self._ask(session, self._take_warm_up)
            return
        if self._is_known or trainer.world_size > 1:  # ranks would have to speak to each other
            return
        self.stop_at = None  # that was planned by a guess of what this one uses
        if (looked := self._looked) is not None:
            self._looked = None
            self._look(trainer, *looked, warn_once)
        if self._validated >= self._look_at:
            self._look_at = math.inf  # until this one is settled
            self._ask(session, partial(self._take_look, self._validated))

    def _look(self, trainer: Any, validated: int, totals: Totals, warn_once: WarnOnce) -> None:
        """See what was left after so many batches of the first validation; end it if that was less than one."""
        by_stage = totals.by_stage()
        spent = Spent.of(facts.batches_trained(trainer), by_stage, self._warm_up)
        left_j, batch_j = self.budget_kwh * J_PER_KWH - spent.total_j, spent.validation_batch_j
        whole = sum(trainer.num_val_batches)
        if by_stage.get("validate", NOTHING).batches > validated:  # the run that is resumed has seen one
            self._is_known = True
        elif left_j > 0 and left_j >= batch_j:
            fit = left_j / batch_j - (self._validated - validated) if batch_j > 0 else math.inf
            self._look_at = self._validated + max(1, min(fit / 2, self._validated))
        elif (whole - self._validated) * batch_j > max(batch_j, totals.power_w * totals.interval_s):
            # To end it for less than a reading takes would cost its metrics for nothing.
            self._end_validation(trainer, warn_once, whole)

    def _ask(self, session: Session, take: Callable[[Totals], None]) -> None:
        session.note(Moment(session.tally.batches, session.tally.samples, take), ask=True)

    def _take_look(self, validated: int, totals: Totals) -> None:
        self._looked = (validated, totals)

    def _take_warm_up(self, totals: Totals) -> None:
        self._warm_up = totals.by_stage().get("sanity_check", NOTHING)

    def _end_validation(self, trainer: Any, warn_once: WarnOnce, whole: float) -> None:
        if facts.minimum(trainer) or not facts.end_validation(trainer):
            return
        self._is_used_up = trainer.should_stop = True
        of = f" of its {whole}" if math.isfinite(whole) else ""
        warn_once.warn(
            f"The budget of {self.budget_kwh:g} kWh is used up in the middle of the first validation: it ends after "
            f"{self._validated}{of} batches, what it logs is of these only, and the training ends with it. Raise the "
            "budget, or lower the Trainer's `limit_val_batches`.",
            "a validation ends",
        )

    # -- what is said -------------------------------------------------------------------------------------------------

    def foretell(self, trainer: Any, snapshot: Snapshot) -> None:
        """Print, once, that the schedule does not fit into the budget."""
        told = snapshot.forecast
        if self._foretold or told is None or kwh(told.joules - told.plus_minus_j) <= self.budget_kwh:
            return
        self._foretold = True
        minimum = facts.minimum(trainer)
        trainer.print(
            f"\nThe whole schedule is going to use {kwh(told.joules):.4g} ± {kwh(told.plus_minus_j):.2g} kWh, more than the "
            f"budget of {self.budget_kwh:g} kWh: the training stops before, after about "
            f"{self.budget_kwh / kwh(told.joules):.0%} of that energy"
            + (f", but not before the Trainer's {minimum}." if minimum else ".")
        )

    def _stop(self, trainer: Any, warn_once: WarnOnce) -> None:
        trainer.should_stop = True
        if not trainer.is_global_zero:
            return
        minimum = facts.minimum(trainer)
        if minimum:
            but, what = "", f"the Trainer's {minimum} makes it go on until then. Lower that to keep the budget"
        else:
            but, what = self._last_validation(trainer), "the training stops here"
        warn_once.warn(f"The budget of {self.budget_kwh:g} kWh is used up{but}: {what}.", "the budget is used up")

    def _last_validation(self, trainer: Any) -> str:
        """What is said of the validation that Lightning adds when it stops."""
        plan, spent = facts.schedule(trainer), self._planned_from
        if self._validated or not sum(trainer.num_val_batches) or not plan.validates_at(facts.batches_trained(trainer)):
            return ""  # none, or it has just been
        missing_j = 0.0
        if spent is not None:
            missing_j = plan.validation * spent.validation_batch_j - (self.budget_kwh * J_PER_KWH - spent.total_j)
        if missing_j <= 0:
            return ", but for one more validation"
        return f", and one more validation, which Lightning adds, needs about {kwh(missing_j):.2g} kWh more than is left"
