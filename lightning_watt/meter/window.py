"""A window: the energy between two marks, with its uncertainty in its two parts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lightning_watt.errors import WattError
from lightning_watt.meter.marks import Mark
from lightning_watt.sources.base import Device
from lightning_watt.units import UJ_PER_J, human_energy, kwh, seconds

MOST = 1.7
"""A short window may have used so many times what the mean power comes to, whatever was seen of it."""


def beyond_uj(edges_uj: float, used_uj: float, likely_uj: float, most_uj: float) -> float:
    """What may lie on the wrong side of a short time's edges.

    Args:
        edges_uj: by how much its two edges may be off together.
        used_uj: what it seems to have used.
        likely_uj: what the mean power until then comes to: if it seems to have used less, that may have been missed.
        most_uj: what the highest power until then comes to; a short burst of it may have been missed, too.

    Example:
        >>> beyond_uj(50.0, 0.0, 10.0, 20.0), beyond_uj(50.0, 30.0, 10.0, 20.0), beyond_uj(5.0, 0.0, 10.0, 20.0)
        (20.0, 30.0, 5.0)
    """
    return min(edges_uj, max(used_uj, MOST * likely_uj, most_uj - used_uj))


class Measures(Protocol):
    """What a window needs of the meter."""

    has_started: bool
    """Whether it reads its devices, or has read them."""

    @property
    def devices(self) -> tuple[Device, ...]:
        """The devices that are read."""

    @property
    def answered(self) -> tuple[Device, ...]:
        """The devices that have been read at least once."""

    @property
    def complaints(self) -> Iterable[str]:
        """What went wrong."""

    @property
    def total(self) -> Window | None:
        """The whole measurement, if it has begun."""

    def mark(self) -> Mark[Any]:
        """Note this moment."""

    def wait_for(self, mark: Mark[Any]) -> bool:
        """Wait until the mark's energy is known; False if it will not be."""


class Window:
    """The energy between two moments.

    Use it as a context manager, or call `begin` and `end`. If you read a number, you wait until the counters have passed the
    window's end, which takes about as long as one update of the counter. Leaving the window does not wait.

    The edges are host times. Work that a GPU still has queued at an edge is charged to what follows: synchronise the device
    first if that matters.

    Attributes:
        name: what the caller named it.
        end_mark: its end; None until the window has ended, and until then its numbers are those up to now.
    """

    def __init__(self, name: str, meter: Measures) -> None:
        self.name = name
        self.end_mark: Mark[Any] | None = None
        self._start_mark: Mark[Any] | None = None
        self._meter = meter

    def begin(self) -> Window:
        """Begin to measure.

        Raises:
            WattError: the window has begun already, or its meter was never started.
        """
        if self._start_mark is not None:
            raise WattError(f"Window {self.name!r} has begun already. Make a new one with `meter.window(...)`.")
        if not self._meter.has_started:
            raise WattError(
                f"Window {self.name!r} cannot begin: its meter was never started. Use the meter in a `with` statement, "
                "`with EnergyMeter() as meter:`, or call its `start()` first."
            )
        self._start_mark = self._meter.mark()
        return self

    def end(self) -> None:
        """End the window; the numbers stay.

        Raises:
            WattError: the window has not begun, or it has ended already.
        """
        _ = self.start_mark
        if self.end_mark is not None:
            raise WattError(f"Window {self.name!r} has ended already. Make a new one with `meter.window(...)`.")
        self.end_mark = self._meter.mark()

    def __enter__(self) -> Window:
        return self.begin()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.end_mark is None:
            self.end()

    @property
    def start_mark(self) -> Mark[Any]:
        """Its beginning.

        Raises:
            WattError: the window has not begun.
        """
        if self._start_mark is None:
            raise WattError(
                f"Window {self.name!r} has not begun. Call its `begin()` first, or use it in a `with` statement."
            )
        return self._start_mark

    @property
    def seconds(self) -> float:
        """How long it is."""
        start = self.start_mark
        return seconds((self.end_mark or self._meter.mark()).t_ns - start.t_ns)

    @property
    def by_device(self) -> dict[str, float]:
        """Joules by device label; a device that was never read is not in it, because nothing is known of it."""
        used, *_ = self._settled()
        known = {device.label for device in self._meter.answered}
        labels = [device.label for device in self._meter.devices]
        return {label: int(uj) / UJ_PER_J for label, uj in zip(labels, used, strict=True) if label in known}

    @property
    def joules(self) -> float:
        """Joules over all devices."""
        used, *_ = self._settled()
        return int(used.sum()) / UJ_PER_J

    @property
    def kwh(self) -> float:
        """Kilowatt-hours over all devices."""
        return kwh(self.joules)

    @property
    def boundary_j(self) -> float:
        """Joules that may lie on the wrong side of the edges, both edges and all devices in squares; and all gaps between.

        An edge's are at most what was used: or, in a window that seems to have used less than others, what may have been
        missed in it.
        """
        used_uj, edge_uj, lost_uj = self._settled()
        edges_uj = beyond_uj(
            math.sqrt(float((edge_uj**2).sum())),
            float(used_uj.sum()),
            self._likely_uj(),
            self.seconds * (self.end_mark.peak_w if self.end_mark else 0.0) * UJ_PER_J,
        )
        return (edges_uj + lost_uj) / UJ_PER_J

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
        if self._start_mark is None:
            return f"Window({self.name!r}, not begun)"
        settled = self.end_mark is not None and self.end_mark.energy_uj is not None and self._meter.answered
        return f"Window({self.name!r}, {human_energy(self.joules) if settled else 'open'}, {self.seconds:.4g} s)"

    def _likely_uj(self) -> float:
        """What the devices would have used in the window's time at their mean power until its end."""
        start, end, total = self.start_mark, self.end_mark, self._meter.total
        if end is None or end.energy_uj is None or total is None or end.t_ns <= total.start_mark.t_ns:
            return 0.0
        share = (end.t_ns - start.t_ns) / (end.t_ns - total.start_mark.t_ns)
        # The first reading may be of a time before: a board's power samples are.
        began_uj = total.start_mark.energy_uj
        return share * float((end.energy_uj - (0 if began_uj is None else began_uj)).sum())

    def _settled(self) -> tuple[NDArray[np.int64], NDArray[np.float64], float]:
        """Microjoules used by each device, of both edges, and of gaps; waits until the counters have passed the end."""
        first = self.start_mark
        last = self.end_mark or self._meter.mark()
        for mark in (first, last):
            if mark.energy_uj is None and not self._meter.wait_for(mark):
                raise WattError(
                    f"The energy of window {self.name!r} is not known: the counters did not pass its edge. "
                    "Was it read after the meter had stopped, or does the driver hang?"
                )
        if not self._meter.answered:
            why = " ".join(self._meter.complaints)
            raise WattError(f"The energy of window {self.name!r} is not known: no device has been read. {why}")
        assert first.energy_uj is not None
        assert last.energy_uj is not None
        assert first.edge_uj is not None
        assert last.edge_uj is not None
        lost_uj = max(0.0, last.gap_uj - first.gap_uj)  # a gap goes when its counter returns
        return last.energy_uj - first.energy_uj, np.concatenate([first.edge_uj, last.edge_uj]), lost_uj
