"""Plays readings back: for your tests, for a look at a recorded run, and for this package's own tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from lightning_watt.sources.base import Clock, Device, Failure, Provenance, Reading
from lightning_watt.units import UJ_PER_J, nanoseconds


class ReplaySource:
    """Hands out given readings when their time has come.

    Args:
        readings: for each device label, `(seconds, joules)` pairs: seconds since the source was opened, and the counter's
            value; rising in time. The first pair stands for the counter as it was found.
        provenance: what the readings are to be taken for.
        gain: the devices' relative error of scale.

    Raises:
        ValueError: no readings, or times that do not rise.

    Example:
        >>> source = ReplaySource({"gpu0": [(0.0, 0.0), (10.0, 2500.0)]})  # 250 W for ten seconds
        >>> from lightning_watt.sources.base import HOST_CLOCK
        >>> [device.label for device in source.open(HOST_CLOCK)]
        ['gpu0']
    """

    name = "replay"
    due_s = 1.0

    def __init__(
        self,
        readings: Mapping[str, Sequence[tuple[float, float]]],
        *,
        provenance: Provenance = "measured",
        gain: float = 0.05,
    ) -> None:
        for label, pairs in readings.items():
            if not pairs or any(b[0] <= a[0] for a, b in pairwise(pairs)):
                raise ValueError(f"replay: the readings of {label} need at least one pair, and times that rise.")
        if not readings:
            raise ValueError("replay: no readings were given.")
        self.readings = {label: list(pairs) for label, pairs in readings.items()}
        self.provenance: Provenance = provenance
        self.gain = gain
        self._clock: Clock | None = None
        self._start_ns = 0
        self._next: dict[str, int] = {}

    def open(self, clock: Clock) -> list[Device]:
        """Start the playback."""
        self._clock = clock
        self._start_ns = clock.now_ns()
        self._next = dict.fromkeys(self.readings, 0)
        return [
            Device(
                label=label,
                name=f"replay of {label}",
                uuid=f"replay-{label}",
                source=self.name,
                provenance=self.provenance,
                gain=self.gain,
                always_draws=False,
            )
            for label in self.readings
        ]

    def read(self) -> list[Reading | Failure]:
        """The readings whose time has come; the counter keeps its last value if there is no newer one."""
        assert self._clock is not None, "open the source first"
        now = self._clock.now_ns()
        found: list[Reading | Failure] = []
        for label, pairs in self.readings.items():
            while self._next[label] < len(pairs):
                at_s, joules = pairs[self._next[label]]
                t_ns = self._start_ns + nanoseconds(at_s)
                if t_ns > now:
                    break
                found.append(Reading(label, t_ns, round(joules * UJ_PER_J)))
                self._next[label] += 1
            if self._next[label] == len(pairs):
                found.append(Reading(label, now, round(pairs[-1][1] * UJ_PER_J)))
        return found

    def close(self) -> None:
        """Nothing is held."""
