"""The thread in which a meter reads its sources."""

from __future__ import annotations

import threading
from collections.abc import Callable

from lightning_watt.meter.latch import Latch

STOP_LIMIT_S = 5.0
"""How long `stop` waits for a driver."""


class Reader(threading.Thread):
    """A daemon thread that anybody may end.

    Whoever looks for threads that were left running, a test suite for instance, calls `stop` on those that have one, as
    tqdm's monitor has its `exit`. Then this one ends as if whoever started the meter were gone.

    Args:
        work: what it does; it looks at `told` after every reading.
        wake: what it waits on between two readings.

    Attributes:
        told: somebody has called `stop`.
    """

    def __init__(self, work: Callable[[], None], wake: Latch) -> None:
        super().__init__(target=work, name="lightning_watt reader", daemon=True)
        self.told = False
        self._wake = wake

    def stop(self) -> None:
        """Take the last reading, settle, and end."""
        self.told = True
        self._wake.set()
        self.join(STOP_LIMIT_S)
