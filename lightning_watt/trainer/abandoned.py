"""Whether a Trainer has ended without a word to the callback, so that the reader does not outlive it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from time import monotonic
from typing import Any

PATIENCE_S = 30.0
"""How long a Trainer that has failed is given to come to our `on_exception`: other callbacks may save checkpoints first."""


class Abandoned:
    """Asked after every reading; true once the Trainer is gone, or has ended and will not tell us.

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
