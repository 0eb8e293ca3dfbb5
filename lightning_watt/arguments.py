"""Checks of arguments, in a sentence what is wrong and what to give instead; and the environment variable's words."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

VARIABLE = "LIGHTNING_WATT"
"""The environment variable that measures a script which does not know of it."""
ON = ("1", "true", "yes", "on")
OFF = ("", "0", "false", "no", "off")


def check_choice(
    name: str, value: Any, words: tuple[str, ...], what: str, fits: Callable[[Any], bool], *, empty: bool = False
) -> None:
    """One of some words, or a list whose every entry fits.

    Args:
        name: the argument's name.
        value: what was given.
        words: the words that are allowed.
        what: what the list's entries are.
        fits: whether an entry is one.
        empty: an empty list is allowed.

    Raises:
        ValueError: it is neither.

    Example:
        >>> check_choice("gpus", "al", ("auto", "all"), "indices", lambda entry: isinstance(entry, int))
        Traceback (most recent call last):
        ValueError: gpus is 'al': give 'auto' or 'all', or a list of indices.
    """
    is_word = isinstance(value, str) and value in words
    is_list = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    if is_word or (is_list and (value or empty) and all(fits(entry) for entry in value)):
        return
    raise ValueError(f"{name} is {value!r}: give {' or '.join(map(repr, words))}, or a list of {what}.")


def check_word(name: str, value: Any, words: tuple[str, ...]) -> None:
    """One of some words.

    Raises:
        ValueError: it is none of them.

    Example:
        >>> check_word("summary", "tabel", ("auto", "table"))
        Traceback (most recent call last):
        ValueError: summary is 'tabel': give 'auto' or 'table'.
    """
    if not isinstance(value, str) or value not in words:
        raise ValueError(f"{name} is {value!r}: give {' or '.join(map(repr, words))}.")


def check_switch(name: str, value: Any) -> None:
    """True or False.

    Raises:
        ValueError: it is neither.
    """
    if value is not True and value is not False:
        raise ValueError(f"{name} is {value!r}: give True or False.")


def check_number(
    name: str,
    value: Any,
    what: str,
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    optional: bool = False,
) -> None:
    """A finite number within a limit.

    Args:
        name: the argument's name.
        value: what was given.
        what: what the number means, with its unit.
        above: it must be greater than this.
        at_least: it must not be less than this.
        optional: None is allowed.

    Raises:
        ValueError: it is not.

    Example:
        >>> check_number("interval", -1, "seconds between two reads", above=0.0)
        Traceback (most recent call last):
        ValueError: interval is -1: give seconds between two reads, above 0.
    """
    if value is None and optional:
        return
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value <= above or value < at_least:
        limit = f"above {above:g}" if above > -math.inf else f"{at_least:g} or more"
        raise ValueError(f"{name} is {value!r}: give {what}, {limit}.")


def check_count(name: str, value: Any, what: str) -> None:
    """A whole number above zero, or None.

    Raises:
        ValueError: it is neither.
    """
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value <= 0):
        raise ValueError(f"{name} is {value!r}: give {what}, a whole number above 0, or None.")
