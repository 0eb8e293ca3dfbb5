"""Other callbacks that we must know of: those that decide by a tag of ours, and Lightning's tuners.

While a tag that is monitored has no value, that never ends the training.
ModelCheckpoint and EarlyStopping raise if the metric that they monitor is missing. A tag of ours may be missing: SAM before
there is an accuracy, or below one unit; every tag if nothing can be measured. So each tag that is monitored is always there,
as NaN until it has a value. ModelCheckpoint ranks NaN as the worst value. EarlyStopping would stop at it, so meanwhile it is
kept from counting: by its own public attributes, which it gets back with the first value.

A tuner (the learning-rate or the batch-size finder, as a callback or through `Tuner`) takes all callbacks out while it
tries, so no hook of ours is called there. Its own method is met instead, for as long as the run lasts.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Any

from lightning_watt.accounts.ledger import TUNE, Account
from lightning_watt.run.session import Session
from lightning_watt.sam.score import Scoring
from lightning_watt.trainer import facts
from lightning_watt.trainer.tags import PLACE_TAGS, TAGS
from lightning_watt.warn_once import WarnOnce

OURS = ("watt/", "watt_vs_energy/")
"""What the names of our tags begin with."""
TUNERS = {"LearningRateFinder": "lr_find", "BatchSizeFinder": "scale_batch_size"}
"""Lightning's tuners, and the method of each that tries; users' subclasses call it too, at an epoch's start say."""


def place(trainer: Any, ours: Any) -> None:
    """Move our callback before the first one that monitors a tag of ours, and nowhere if none comes before it.

    The values of a validation are given in `on_validation_end`, where Lightning calls the callbacks in their order; one that
    stood before us would see those of the validation before.
    """
    before = next((at for at, other in enumerate(trainer.callbacks) if _monitored(other)), len(trainer.callbacks))
    here = next((at for at, other in enumerate(trainer.callbacks) if other is ours), 0)
    if before < here:
        others = [other for other in trainer.callbacks if other is not ours]
        trainer.callbacks = [*others[:before], ours, *others[before:]]


class Monitors:
    """The callbacks of one Trainer that monitor tags of ours."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Any, int, bool]] = {}  # what EarlyStopping is to get back: the callback, count, check

    def begin(self, trainer: Any, warn_once: WarnOnce, scoring: Scoring, *, used_j: float, measures: bool) -> None:
        """Say before the first batch what is known to be missing, and let nothing end by it.

        Args:
            trainer: the Trainer.
            warn_once: says it.
            scoring: how energy becomes a score.
            used_j: what the run has used so far, joules.
            measures: whether anything is measured.
        """
        for other, tag in _monitoring(trainer):
            if not _is_a_tag(tag):
                near = difflib.get_close_matches(tag, TAGS, 1) or ["watt/sam_shifted"]
                _say(warn_once, other, tag, f"there is no such tag. Did you mean {near[0]!r}?")
            elif not measures:
                _say(warn_once, other, tag, "nothing can be measured here, as another warning says.")
            elif tag == "watt/sam" and scoring.sam(1.0, used_j)[0] is None:
                _say(
                    warn_once,
                    other,
                    tag,
                    f"SAM is undefined until the run has used more than 1 {scoring.unit}. "
                    "Monitor 'watt/sam_shifted', which is defined for every energy, or give a smaller sam_unit.",
                )
        self.fill(trainer)

    def fill(self, trainer: Any, warn_once: WarnOnce | None = None) -> None:
        """See that every monitored tag is there; every rank calls this at the same moments.

        Args:
            trainer: the Trainer.
            warn_once: warns of tags that still have no value; None if it is too early for that.
        """
        for other, tag in _monitoring(trainer):
            value = facts.computed_metrics(trainer).get(tag)
            if value is not None and not math.isnan(float(value)):
                self._release(other)
                continue
            facts.give_metrics(trainer, {tag: math.nan})
            self._hold(other)
            if warn_once is not None:
                _say(warn_once, other, tag, "it has no value yet; for SAM, was an accuracy logged?")

    @staticmethod
    def decide(trainer: Any) -> bool:
        """Whether a callback decides by a tag of ours."""
        return bool(_monitoring(trainer))

    def end(self) -> None:
        """Give back what was kept."""
        for other, _, _ in list(self._kept.values()):
            self._release(other)

    def _hold(self, other: Any) -> None:
        """Keep EarlyStopping from counting a turn without a value."""
        if not (hasattr(other, "wait_count") and hasattr(other, "check_finite")):
            return
        count = self._kept.setdefault(id(other), (other, other.wait_count, other.check_finite))[1]
        # It adds one at its next look, and stops when that reaches its patience, which may be zero.
        other.wait_count, other.check_finite = min(count, 0) - 2, False

    def _release(self, other: Any) -> None:
        if id(other) in self._kept:
            _, other.wait_count, other.check_finite = self._kept.pop(id(other))


class Tuners:
    """The tuners of one Trainer."""

    def __init__(self) -> None:
        self._met: list[tuple[Any, str]] = []

    def begin(self, callbacks: Iterable[Any], session: Session, warn_once: WarnOnce) -> None:
        """Charge what they use from now on to the stage `tune`."""
        for tuner in callbacks:
            for name, method in TUNERS.items():
                if facts.is_a(tuner, name) and hasattr(tuner, method) and method not in vars(tuner):
                    setattr(tuner, method, _Trial(tuner, method, session, warn_once))
                    self._met.append((tuner, method))

    def end(self) -> None:
        """Leave them as they were."""
        while self._met:
            tuner, method = self._met.pop()
            vars(tuner).pop(method, None)


class _Trial:
    """A tuner's own method, whose energy is a stage of its own. A copy of the tuner, or a pickle, has the method itself."""

    def __init__(self, tuner: Any, method: str, session: Session, warn_once: WarnOnce) -> None:
        self._tuner, self._method, self._session, self._warn_once = tuner, method, session, warn_once
        self._run = getattr(tuner, method)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        left = self._session.account
        self._switch(left._replace(stage=TUNE))
        try:
            return self._run(*args, **kwargs)
        finally:
            self._switch(left)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self._tuner, self._method)

    def _switch(self, account: Account) -> None:
        try:
            self._session.switch(account)
        except Exception as error:  # noqa: BLE001 - nothing of ours may stop a training
            self._warn_once.failed("tune", error)


def _monitored(other: Any) -> str:
    """The tag of ours that a callback monitors; empty if it monitors none."""
    tag = getattr(other, "monitor", None)
    return tag if isinstance(tag, str) and tag.startswith(OURS) else ""


def _monitoring(trainer: Any) -> list[tuple[Any, str]]:
    schedulers = getattr(trainer, "lr_scheduler_configs", None) or []
    return [(other, tag) for other in (*trainer.callbacks, *schedulers) if (tag := _monitored(other))]


def _is_a_tag(tag: str) -> bool:
    parts = tag.split("/")
    return tag in TAGS or (len(parts) == 3 and parts[-1] in PLACE_TAGS)


def _say(warn_once: WarnOnce, other: Any, tag: str, why: str) -> None:
    if hasattr(other, "wait_count"):
        then = "an epoch without a value does not count"
    elif hasattr(other, "best_k_models"):
        then = "a checkpoint without a value ranks as the worst"
    else:
        then = "it finds NaN, which is no improvement"
    name = type(other).__name__
    warn_once.warn(
        f"{name} monitors {tag!r}: {why} Until it has one, {then}, and the training goes on.", f"monitor {tag} {name}"
    )
