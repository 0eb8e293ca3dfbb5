"""Marks: moments that a hook notes and goes on; the meter fills in their energy when the curves have passed them.

Noting a mark is one clock read and one append. Nothing here asks a driver, and nothing waits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Payload = TypeVar("Payload")


@dataclass(eq=False)
class Mark(Generic[Payload]):
    """A moment, and the energy that each device had used by then.

    Attributes:
        t_ns: the moment, on the host's steady clock.
        payload: what the one who noted it wants to know it by.
        energy_uj: microjoules since the meter began, one value a device in the meter's order; None until settled.
        edge_uj: how far off each may be because the moment lies between two known points, microjoules.
    """

    t_ns: int
    payload: Payload
    energy_uj: NDArray[np.int64] | None = field(default=None, repr=False)
    edge_uj: NDArray[np.float64] | None = field(default=None, repr=False)
