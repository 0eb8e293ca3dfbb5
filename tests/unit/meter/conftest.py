"""No test of the meter leaves a reader's thread behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.meter.made import readers


@pytest.fixture(autouse=True)
def no_reader_is_left() -> Iterator[None]:
    yield
    for thread in readers():
        thread.join(10)
    assert readers() == []
