"""Says each thing once, and never raises: where warnings are errors, it is logged instead."""

from __future__ import annotations

import logging
import warnings

from lightning_watt.errors import WattWarning

log = logging.getLogger("lightning_watt")


class Voice:
    """What was said to the user.

    Attributes:
        said: the sentences, by what they were about.
    """

    def __init__(self) -> None:
        self.said: dict[str, str] = {}

    def warn(self, sentence: str, about: str | None = None) -> None:
        """Warn, once.

        Args:
            sentence: what happened, why, what to do.
            about: sentences about the same are said once; by default the sentence itself.
        """
        key = about or sentence
        if key in self.said:
            return
        self.said[key] = sentence
        try:
            warnings.warn(sentence, WattWarning, stacklevel=3)
        except WattWarning:
            log.warning(sentence)

    def failed(self, what: str, error: Exception) -> None:
        """Something of ours failed inside a training: the stack goes to the log, a sentence to the user."""
        if what not in self.said:
            log.error("%s failed", what, exc_info=error)
        self.warn(f"{what} failed ({error!r}); the training goes on. Please report it.", what)
