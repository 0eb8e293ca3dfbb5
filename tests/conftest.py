"""Which test files wait to be seen green, again and again, on a quiet machine: they run with `pytest -m unsettled`."""

from __future__ import annotations

import pytest

UNSETTLED = ("test_ddp", "test_experiments", "test_experiments_configs", "test_faults", "test_lab_truth")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem in UNSETTLED:
            item.add_marker(pytest.mark.unsettled)
