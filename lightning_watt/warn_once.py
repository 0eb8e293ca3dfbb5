"""Warns of each thing once, and never raises. If warnings are errors, or a warning hook fails, it logs the sentence."""

from __future__ import annotations

import logging
import warnings

from lightning_watt.errors import WattWarning, log_safely, shown


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
