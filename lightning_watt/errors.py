"""What can go wrong, each with what happened, why, and what to do."""

from __future__ import annotations

import logging

log = logging.getLogger("lightning_watt")

MOST_SHOWN = 400
"""Characters of somebody else's value that go into a sentence."""


class WattError(Exception):
    """Base of everything that this package raises on purpose, besides `ValueError` for a wrong argument."""


class ArgumentError(WattError, ValueError):
    """An argument means nothing on this machine: the one thing that may raise out of a callback's `setup`."""


class SourceUnavailable(WattError):  # noqa: N818 - it is a finding more often than a fault
    """A source of energy readings cannot be used on this machine.

    Args:
        source: the source's name, such as `"nvml"`.
        why: what was tried and what came back.
        remedy: what to do about it.
        device: the one device that it is about, as it was asked for; empty if it is the whole source.
    """

    def __init__(self, source: str, why: str, remedy: str, device: str = "") -> None:
        super().__init__(f"{source}: {why} {remedy}")
        self.source = source
        self.why = why
        self.remedy = remedy
        self.device = device


class RecordError(WattError):
    """A run record or checkpoint cannot be read."""


class WattWarning(UserWarning):
    """Something could not be measured or written; the training goes on."""


def shown(value: object) -> str:
    """A value or an error for a sentence: short, and safe even if its own `repr` raises.

    Example:
        >>> shown(ZeroDivisionError("oops"))
        "ZeroDivisionError('oops')"
    """
    try:
        text = repr(value)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - it is somebody else's `__repr__`, and only words are wanted
        return f"<{type(value).__name__} that cannot be shown>"
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def log_safely(level: int, sentence: str, error: BaseException | None = None) -> None:
    """Log; a handler, a filter or a stream of the user's that raises is nobody's business but its own."""
    try:
        log.log(level, "%s", sentence, exc_info=error)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - there is nothing left to say it with
        return
