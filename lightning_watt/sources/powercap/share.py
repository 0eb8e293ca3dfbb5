"""A job's share of what a counter of the whole machine measures, by processor time."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from lightning_watt.host import machine_busy_seconds
from lightning_watt.sources.base import Clock, end_of
from lightning_watt.sources.estimate import BusyTime

LEAST_BUSY_S = 0.5
"""The kernel counts the machine's busy time in steps of 10 ms a hardware thread; over this much, that is some percent."""
LONGEST_NS = 4_000_000_000
"""A machine that has nothing to do is not waited for any longer."""


class ProcessorShare:
    """Splits counters between this job and everything else that the machine does.

    Energy since the last split is this job's by the busy seconds of its processes over those of all processes, idle power
    included. It is split when the machine was busy for a while, and at the end of the measurement.

    Args:
        clock: the host's clock.
        processes: other processes of this job, such as its other ranks; those below this one are found.
    """

    def __init__(self, clock: Clock, processes: Collection[int] = ()) -> None:
        self._clock = clock
        self._own = BusyTime(clock, processes)
        _, self._own_s = self._own.read()
        self._machine_s = machine_busy_seconds()
        self._split_ns = clock.now_ns()
        self._whole_uj: dict[str, int] = {}
        self._mine_uj: dict[str, int] = {}

    def of(self, whole: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
        """This job's part of counters that begin at 0, `{label: (t_ns, microjoules)}`; none if it is too early to tell."""
        t_ns, own_s = self._own.read()
        machine_s = machine_busy_seconds()
        mine_s, all_s = own_s - self._own_s, machine_s - self._machine_s
        is_enough = all_s >= LEAST_BUSY_S or t_ns - self._split_ns >= LONGEST_NS
        if end_of(self._clock) is None and not (self._own.looked and is_enough):
            return {}
        share = mine_s / max(all_s, mine_s) if mine_s > 0 else 0.0
        self._own_s, self._machine_s, self._split_ns = own_s, machine_s, t_ns
        parts = {}
        for label, (at_ns, uj) in whole.items():
            rise_uj = uj - self._whole_uj.get(label, 0)
            self._whole_uj[label] = uj
            # A fall is passed on as it is: who reads it knows what to do with it.
            mine_uj = self._mine_uj.get(label, 0) + (round(rise_uj * share) if rise_uj > 0 else rise_uj)
            self._mine_uj[label] = mine_uj
            parts[label] = at_ns, mine_uj
        return parts
