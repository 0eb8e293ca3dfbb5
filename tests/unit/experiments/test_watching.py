"""A change of a value lies between two looks; on a busy machine those may lie far apart."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from experiments.bench.gpu_evidence import watching

MS = 1_000_000


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What is seen and when (value, ms): a list that the test fills, and that the watcher reads."""
    seen: list[tuple[int, int]] = []
    at: Iterator[tuple[int, int]] = iter(())
    now = 0

    def read() -> int:
        nonlocal at, now
        if now == 0:
            at = iter(seen)
        value, ms = next(at)
        now = ms * MS
        return value

    monkeypatch.setattr(watching, "time", SimpleNamespace(monotonic_ns=lambda: now, sleep=lambda seconds: None))
    monkeypatch.setattr(watching, "read", read, raising=False)
    return seen


def test_a_change_between_looks_far_apart_is_not_used(looks):
    looks += [(0, 1), (0, 2), (1, 30), (1, 31), (2, 32), (2, 600)]  # the machine did something else for 28 ms
    assert watching.next_tick(watching.read) == watching.Tick(31 * MS, 32 * MS, 2)


def test_without_a_sharp_one_it_is_the_sharpest(looks):
    looks += [(0, 1), (1, 40), (2, 60), (3, 90), (3, 600)]
    assert watching.next_tick(watching.read) == watching.Tick(40 * MS, 60 * MS, 2)


def test_a_value_that_stands_still_has_none(looks):
    looks += [(0, 1), (0, 300), (0, 600)]
    assert watching.next_tick(watching.read) is None


def test_every_change_is_watched(looks):
    looks += [(0, 1), (0, 2), (5, 3), (7, 5), (7, 100)]
    ticks, count = watching.watch(watching.read, 0.05, 0.001)
    assert ticks == [watching.Tick(2 * MS, 3 * MS, 5), watching.Tick(3 * MS, 5 * MS, 7)]
    assert count == len(looks)
