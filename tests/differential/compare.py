"""Where two traces differ, in sentences for the reader of a failed test."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from tests.differential.trace import Trace

LONG = 400


def differences(without: Trace, having: Trace) -> list[str]:
    """The first event that differs, and everything that was left and differs; empty where there is nothing."""
    found = []
    for number, (one, other) in enumerate(zip_longest(without.events, having.events)):
        if one != other:
            before = without.events[number - 1]["what"] if number else "the beginning"
            where = f"event {number} of {len(without.events)} and {len(having.events)}, after {before}"
            if one is None or other is None or one["what"] != other["what"]:
                found.append(f"{where}: {_what(one)} without, {_what(other)} with it")
            else:
                found += [f"{where}, {one['what']}: {key} {told}" for key, told in _apart(one, other)]
            break
    return found + [f"at the end: {key} {told}" for key, told in _apart(without.end, having.end)]


def _what(event: dict[str, Any] | None) -> str:
    return f"{event['what']} {event['told']}"[:LONG] if event is not None else "nothing"


def _apart(one: dict[str, Any], other: dict[str, Any]) -> list[tuple[str, str]]:
    keys = [*one, *(key for key in other if key not in one)]
    missing = "is missing"
    apart = [
        (key, *_narrow(one.get(key, missing), other.get(key, missing))) for key in keys if one.get(key) != other.get(key)
    ]
    return [(key, f"is {str(a)[:LONG]} without, {str(b)[:LONG]} with it") for key, a, b in apart]


def _narrow(one: Any, other: Any) -> tuple[Any, Any]:
    """The part of two nested values that differs, so that it can be read."""
    while isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
        apart = [(a, b) for a, b in zip(one, other, strict=True) if a != b]
        if len(apart) != 1:
            return tuple(a for a, _ in apart), tuple(b for _, b in apart)
        one, other = apart[0]
    if isinstance(one, tuple) and isinstance(other, tuple):
        first = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
        return (f"from {first} on", *one[first:]), (f"from {first} on", *other[first:])
    return one, other
