"""A window: the energy between two marks, with its uncertainty in its two parts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lightning_watt.errors import WattError
from lightning_watt.meter.marks import Mark
from lightning_watt.units import UJ_PER_J, kwh, seconds

if TYPE_CHECKING:
    from lightning_watt.meter.meter import EnergyMeter


class Window:
    """The energy between two moments.

    Reading a number waits until the counters have passed the window's end, which takes about as long as one update of the
    counter; leaving the window does not wait.

    Attributes:
        name: what it was called.
        start: its first edge.
        end: its last edge; None while it is open, and then its numbers are those up to now.
    """

    def __init__(self, name: str, meter: EnergyMeter, start: Mark[Any]) -> None:
        self.name = name
        self.start = start
        self.end: Mark[Any] | None = None
        self._meter = meter

    @property
    def seconds(self) -> float:
        """How long it is."""
        return seconds((self.end or self._meter.mark()).t_ns - self.start.t_ns)

    @property
    def by_device(self) -> dict[str, float]:
        """Joules by device label; a device that was never read is not in it, because nothing is known of it."""
        used, _ = self._settled()
        known = self._meter.answered
        return {
            device.label: int(uj) / UJ_PER_J for device, uj in zip(self._meter.devices, used, strict=True) if device in known
        }

    @property
    def joules(self) -> float:
        """Joules over all devices."""
        used, _ = self._settled()
        return int(used.sum()) / UJ_PER_J

    @property
    def kwh(self) -> float:
        """Kilowatt-hours over all devices."""
        return kwh(self.joules)

    @property
    def boundary_j(self) -> float:
        """Joules that may lie on the wrong side of the edges; both edges and all devices in squares, at most all of them."""
        used_uj, edge_uj = self._settled()
        return min(math.sqrt(float((edge_uj**2).sum())), float(used_uj.sum())) / UJ_PER_J

    @property
    def gain_j(self) -> float:
        """Joules by which the devices' scales may be off; the same share in every window, so averaging does not help."""
        gains = {device.label: device.gain for device in self._meter.devices}
        return sum(gains[label] * joules for label, joules in self.by_device.items())

    @property
    def uncertainty_j(self) -> float:
        """Boundary and gain together, joules."""
        return math.hypot(self.boundary_j, self.gain_j)

    def __repr__(self) -> str:
        settled = self.end is not None and self.end.energy_uj is not None and self._meter.answered
        return f"Window({self.name!r}, {f'{self.joules:.4g} J' if settled else 'open'}, {self.seconds:.4g} s)"

    def _settled(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Microjoules used by each device, and both edges' uncertainties; waits for the counters to pass the end."""
        last = self.end or self._meter.mark()
        for mark in (self.start, last):
            if mark.energy_uj is None and not self._meter.wait_for(mark):
                raise WattError(
                    f"The energy of window {self.name!r} is not known: the counters did not pass its edge. "
                    "Was it read after the meter had stopped, or does the driver hang?"
                )
        if not self._meter.answered:
            why = " ".join(self._meter.complaints)
            raise WattError(f"The energy of window {self.name!r} is not known: no device has been read. {why}")
        first_uj, last_uj = self.start.energy_uj, last.energy_uj
        first_edge, last_edge = self.start.edge_uj, last.edge_uj
        assert first_uj is not None
        assert last_uj is not None
        assert first_edge is not None
        assert last_edge is not None
        return last_uj - first_uj, np.concatenate([first_edge, last_edge])
