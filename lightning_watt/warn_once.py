"""Warns of each thing once, never raises, and makes steps that do not. What may not be given as a warning is logged."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable
from typing import Any, TypeVar, cast

from lightning_watt.errors import WattWarning, log_safely, shown

Step = TypeVar("Step", bound=Callable[..., None])


class WarnOnce:
    """The warnings that were given to the user.

    Attributes:
        said: the sentences, by what they were about.
    """

    def __init__(self) -> None:
        self.said: dict[str, str] = {}

    def warn(self, sentence: str, about: str | None = None) -> None:
        """Warn, once.

        Args:
            sentence: what happened, why, what to do.
            about: of sentences about the same thing only the first is given; by default the sentence itself.
        """
        key = about or sentence
        if key in self.said:
            return
        self.said[key] = sentence
        try:
            warnings.warn(sentence, WattWarning, stacklevel=3)
        except KeyboardInterrupt:
            raise
        except WattWarning:
            log_safely(logging.WARNING, sentence)
        except BaseException as error:  # noqa: BLE001 - a filter or a `showwarning` of the user's may raise anything
            log_safely(logging.WARNING, sentence, error)

    def failed(self, what: str, error: BaseException) -> None:
        """Something of ours failed inside a training: the stack goes to the log, a sentence to the user."""
        if what not in self.said:
            log_safely(logging.ERROR, f"{what} failed", error)
        self.warn(f"{what} failed ({shown(error)}); the training goes on. Please report it.", what)


OF_THE_PROCESS = WarnOnce()
"""For what is to be said once, whatever the number of runs and meters."""


def never_raise(report: Callable[[Any, str, tuple[Any, ...], Exception], None]) -> Callable[[Step], Step]:
    """Make a decorator: a step of ours that fails is reported once, and the training goes on.

    Args:
        report: reports it; it is given the step's owner, the step's name, its other arguments, and the error.
    """

    def decorate(step: Step) -> Step:
        @functools.wraps(step)
        def guarded(owner: Any, *args: Any, **kwargs: Any) -> None:
            try:
                step(owner, *args, **kwargs)
            except Exception as error:  # noqa: BLE001 - this is the place that nothing may pass
                report(owner, step.__name__, args, error)

        return cast(Step, guarded)

    return decorate
