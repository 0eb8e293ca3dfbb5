"""An estimate, if nothing can be measured: the CPU seconds that this process tree was busy, times watts a core.

It is always labelled `estimated`, never joins a measured total unasked, and is off by tens of percent: utilisation does not
know what an instruction costs, and the idle power of the machine, its memory and its disks are not in it.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Collection
from time import process_time, thread_time

from lightning_watt.host import busy_seconds, busy_seconds_of, living_children, load, trees_of
from lightning_watt.sources.base import Clock, Device, Failure, Reading, end_of
from lightning_watt.units import UJ_PER_J, nanoseconds

WATTS_PER_CORE = 3.76
"""Watts of one busy hardware thread. Source: Cloud Carbon Footprint, methodology, section "Compute", from SPECpower results:
averages at full load of 3.5 (AWS), 3.76 (Azure) and 4.26 W (GCP) a vCPU; this is the middle one."""
GAIN = 0.5
"""Utilisation models were off a plug meter by 20 to 37 % (data of raphischer/ai-energy-validation, recomputed); half is
what can be defended for an unknown CPU that is not asked for more than it has."""
TYPICAL_GAIN = 0.28
"""The middle of those 20 to 37 %."""
MOST_SHARE = 0.001
"""The share of a CPU that the looks at other processes may take, whatever their number: 400 children cost some 15 ms."""


def gain_under(load: float) -> float:
    """By which share of itself an estimate may be off.

    Where more wants to run than can, processes wait for one another: threads spin, caches are shared. The same work then
    takes more CPU seconds, up to as many times as the machine is asked for too much.

    Args:
        load: what wants to run over what can.

    Example:
        >>> gain_under(0.3), gain_under(1.0), gain_under(2.0)
        (0.5, 0.5, 0.75)
    """
    return 1 - (1 - GAIN) / max(1.0, load)


class EstimateSource:
    """Estimates the CPU's energy from busy time.

    This process's own time is read each time. Other processes are looked at as seldom as `MOST_SHARE` asks, and at the end;
    what they used since the look before is then charged at once.

    Args:
        watts_per_core: watts of one busy hardware thread; from your CPU's TDP divided by its threads, if you know it.
        processes: other processes whose work counts too: the run's ranks on this node, which `torchrun` and Slurm start
            beside this one and not below it.

    Raises:
        ValueError: `watts_per_core` is not above zero.
    """

    name = "estimate"
    due_s = 1.0

    def __init__(self, watts_per_core: float = WATTS_PER_CORE, processes: Collection[int] = ()) -> None:
        if not watts_per_core > 0:
            raise ValueError(f"watts_per_core is {watts_per_core}: give the watts of one busy thread, above zero.")
        self.watts_per_core = watts_per_core
        self._processes = processes
        self._busy: BusyTime | None = None
        self._opening: list[Reading | Failure] = []

    def open(self, clock: Clock) -> list[Device]:
        """Describe the estimated CPU."""
        self._busy = BusyTime(clock, self._processes)
        self._opening = [self._reading()]
        threads = os.cpu_count() or 1
        return [
            Device(
                label="cpu0",
                name=f"{platform.machine()}, {threads} threads",
                uuid="estimate",
                source="estimate",
                provenance="estimated",
                gain=(gain := gain_under(load())),
                typical_gain=TYPICAL_GAIN if gain == GAIN else 0.0,  # nobody measured machines that are asked for too much
                always_draws=False,
                # No ceiling: the time of a worker that began and ended between two looks is booked all at once, so a rise
                # that looks too fast is real and must not be refused.
                max_power_w=math.inf,
                note=f"Busy CPU seconds of this process tree times {self.watts_per_core} W; idle power is not in it.",
            )
        ]

    def read(self) -> list[Reading | Failure]:
        """Busy seconds so far, as energy; the first time also as it was at opening, which may have been a while ago."""
        opening, self._opening = self._opening, []
        return [*opening, self._reading()]

    def close(self) -> None:
        """Nothing is held."""

    def _reading(self) -> Reading:
        assert self._busy is not None, "open the source first"
        t_ns, busy_s = self._busy.read()
        return Reading("cpu0", t_ns, round(busy_s * self.watts_per_core * UJ_PER_J))


class BusyTime:
    """The busy CPU seconds of a job: of this process, those below it, and some others.

    Args:
        clock: the host's clock.
        processes: the other processes.

    Attributes:
        looked: the last reading looked at all processes; otherwise only this one's seconds are new in it.
    """

    def __init__(self, clock: Clock, processes: Collection[int] = ()) -> None:
        self._clock = clock
        self._beside = dict.fromkeys(processes, 0.0)
        self._most_s = self._others_s = 0.0
        self._look_ns = clock.now_ns()  # when the other processes are looked at again
        self.looked = False

    def read(self) -> tuple[int, float]:
        """When, and the busy seconds by then, which never fall."""
        self.looked = self._clock.now_ns() >= self._look_ns or end_of(self._clock) is not None
        if self.looked:
            t_ns, busy_s = self._look()
        else:
            t_ns, busy_s = self._clock.now_ns(), process_time() + self._others_s
        # A worker that ends between two reads moves to its parent's ended children; the sum must not fall meanwhile.
        self._most_s = max(self._most_s, busy_s)
        return t_ns, self._most_s

    def _look(self) -> tuple[int, float]:
        """Look at all processes: when, and their busy seconds by then."""
        began_s = thread_time()
        children = living_children()
        trees = trees_of(self._beside, children)
        # The search above can take seconds beside a busy training. The time of the reading is when the CPU times are read.
        t_ns, own_s = self._clock.now_ns(), process_time()
        busy_s = busy_seconds(children)
        for pid, tree in trees.items():  # a process that has ended keeps its last known value
            self._beside[pid] = max(self._beside[pid], busy_seconds_of(tree))
        busy_s += sum(self._beside.values())
        self._others_s = busy_s - own_s
        self._look_ns = self._clock.now_ns() + nanoseconds((thread_time() - began_s) / MOST_SHARE)
        return t_ns, busy_s
