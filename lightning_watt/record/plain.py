"""Makes whatever a user's own objects say about themselves into values that the record's file can hold."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

MAX_DEPTH = 20
"""How deep a value that a module says about itself is followed."""
MAX_VALUES = 10_000
"""How many values of it are taken."""


class Plain:
    """Makes a value of the user's own one that the record can hold, whatever it is. Nothing in it can raise.

    A loop ends at a depth that nobody reads, and what branches without end at a number of values that nobody reads.
    """

    def __init__(self) -> None:
        self._left = MAX_VALUES

    def of(self, value: Any, depth: int = 0) -> Any:
        """The value, with everything in it."""
        self._left -= 1
        if value is None or type(value) in (bool, int, float):
            return value
        try:
            is_map, is_list = isinstance(value, Mapping), isinstance(value, (list, tuple, set, frozenset))
            if (is_map or is_list) and (depth == MAX_DEPTH or self._left <= 0):
                return "..."
            if is_map:
                return {_text(key): self.of(inner, depth + 1) for key, inner in self._first(value.items())}
            if is_list:
                return [self.of(inner, depth + 1) for inner in self._first(value)]
            if isinstance(value, numbers.Integral):
                return int(value)
            if isinstance(value, numbers.Real):
                return float(value)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a type of the user's own may raise anything
            return _failed(value, error)
        return _text(value)

    def _first(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            if self._left <= 0:
                return
            yield value


def _text(value: Any) -> str:
    try:
        text = str(value)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a `repr` of the user's own may raise anything
        text = _failed(value, error)
    return text.encode("utf-8", "replace").decode("utf-8")


def _failed(value: Any, error: BaseException) -> str:
    return f"<{type(value).__name__}: {type(error).__name__} when it was asked for its text>"


def encodable(value: Any) -> Any:
    """A value in which each character that no file can hold is a question mark."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {encodable(key): encodable(inner) for key, inner in value.items()}
    return [encodable(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def plain(value: Any) -> int | float | str:
    """A value of a type that JSON lacks, as a number if it is one (NumPy's, for example), else as text."""
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    return str(value)
