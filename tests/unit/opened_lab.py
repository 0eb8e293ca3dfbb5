"""A lab with NVML initialised, for tests that call the real pynvml."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pynvml
import pytest

from lightning_watt.testing import Board, Lab


@contextmanager
def opened(*boards: Board, age_s: float = 0.0, **arguments: Any) -> Iterator[tuple[Lab, list[Any]]]:
    """A lab that is `age_s` seconds old, with NVML initialised, and its handles."""
    lab = Lab(boards, age_s=age_s, **arguments)
    with lab.running():
        pynvml.nvmlInit()
        yield lab, [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(len(boards))]


def refused(code: int, call: Callable[..., Any], *arguments: Any) -> None:
    """Check that NVML answers with this return code."""
    with pytest.raises(pynvml.NVMLError) as caught:
        call(*arguments)
    assert caught.value.value == code
