"""The reader: one measurement from start to stop, the thread that reads its sources, and the locks between threads.

A `Measurement` belongs to one run of a meter. If a driver holds its thread up past the end, the thread still has only this
object in its hands, so it cannot change the meter's next run.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from random import Random
from time import monotonic
from typing import Any

from lightning_watt.errors import log_safely, shown
from lightning_watt.host import keep, tell_of_forks
from lightning_watt.meter.curves import Complaints, Curves
from lightning_watt.meter.latch import EndingClock, Latch
from lightning_watt.meter.marks import HostMarker, Mark, Marker, Waiting, oldest
from lightning_watt.meter.window import Window
from lightning_watt.sources.base import Device, EnergySource, Gap
from lightning_watt.sources.door import glance_at, let_go, readings_of

MIN_READ_GAP_S = 0.1
"""No source is read more often than this, even if a caller asks: the counters of some boards under-read when polled fast."""
GLANCE_S = 0.22
"""Between two glances, at most, at a counter of which once a second is too seldom."""
SPREAD = 0.2
"""By chance reads, and glances, come up to this share sooner: of a load in step with them one side would show."""
AT_ONCE_S = 1e-6
END_LIMIT_S = 5.0
"""How long the end of a measurement waits for a driver."""
PATIENCE = 0.05
"""The end waits for a counter's next tick if that is due within this share of the time that was measured, or within
`LEAST_PATIENCE_NS`; otherwise its last power stands for the part of a tick that is left."""
LEAST_PATIENCE_NS = 5_000_000
FIRST_ASKS = 100
"""So many moments that would like a reading get one soon: short stages may come one after the other for days."""
LOOK_AGAIN_S = 0.05
"""A caller that waits for the reader looks this often whether it has missed being woken."""

Listener = Callable[[Sequence[Mark[Any]]], None]
Opened = list[tuple[EnergySource, list[Device]]]


class Reader(threading.Thread):
    """A daemon thread that anybody may end.

    A program that looks for threads that were left running (a test suite, for instance) calls `stop` on those that have one.
    Then this thread ends as if the owner of the meter were gone.
    """

    def __init__(self, work: Callable[[], None], wake: Latch) -> None:
        super().__init__(target=work, name="lightning_watt reader", daemon=True)
        self.asked_to_end = False
        self._wake = wake

    def stop(self) -> None:
        """Take the last reading, settle, and end."""
        self.asked_to_end = True
        self._wake.set()
        self.join(END_LIMIT_S)


class Measurement:
    """One run of a meter, from start to stop.

    Args:
        opened: the opened sources, each with its devices.
        interval_s: seconds between two reads, at most; less if a source needs that.
        marker: makes the marks.
        clock: the clock that its sources were opened with.
        complaints, gaps: the meter's, which stay over several runs.

    Attributes:
        curves: what it has read.
        total: the window from start to stop; None before the start.
    """

    has_started = True  # before its total begins, nobody has it

    def __init__(
        self,
        opened: Opened,
        interval_s: float,
        marker: Marker,
        clock: EndingClock,
        complaints: Complaints,
        gaps: list[Gap],
    ) -> None:
        self._opened = opened
        self.interval_s = min([interval_s, *(source.due_s for source, _ in opened)])
        self._chance = Random(0)  # its own, so that a program's random numbers stay what they are
        self._marker, self._clock = marker, clock
        self.curves = Curves([device for _, devices in opened for device in devices], complaints, gaps)
        self.complaints = complaints
        self.total: Window | None = None
        self._without_end: list[Window] = []
        self._marks: Waiting = deque()
        self._listener: Listener | None = None
        self._given_up = False
        self._asks, self._ask_due_s = 0, 0.0
        self._new_locks()
        tell_of_forks(self)

    def _new_locks(self) -> None:
        # A thread can take each of these locks again: a signal handler may ask in the middle of anything.
        self._lock = threading.RLock()
        self._settled = threading.Condition(threading.RLock())
        self._wake, self._stop, self._over = (self._clock.latch() for _ in range(3))
        self._thread: Reader | None = None
        self._pid = os.getpid()

    def forked(self) -> None:
        """In a child of the measuring process: this run has stopped, and what it has not settled is not known."""
        if self.total is None or self._pid == os.getpid():  # it has never run, or has heard of this fork already
            return
        keep(dict(vars(self)))
        self._new_locks()
        self._marks, self._marker = deque(), HostMarker(self._clock)
        self._opened, self._listener = [], None
        self.curves.forked()

    # -- the other threads ----------------------------------------------------------------------------------------------

    @property
    def runs(self) -> bool:
        """Whether it has started and not stopped."""
        return self._thread is not None

    @property
    def devices(self) -> tuple[Device, ...]:
        """The devices that are read."""
        return tuple(line.device for line in self.curves.timelines)

    @property
    def answered(self) -> tuple[Device, ...]:
        """The devices that have been read at least once."""
        return tuple(line.device for line in self.curves.timelines if line.started and not line.is_late())

    def leave_out(self, labels: Collection[str]) -> None:
        """Do not read these devices. A source that has none left is closed."""
        self.curves.leave_out(labels)
        kept = [(source, [d for d in devices if d.label not in labels]) for source, devices in self._opened]
        for source, devices in kept:
            if not devices:
                self._close(source)
        self._opened = [(source, devices) for source, devices in kept if devices]

    def start(
        self,
        listener: Listener | None,
        abandoned: Callable[[], bool] | None,
        on_abandoned: Callable[[], None] | None,
    ) -> None:
        """Begin to read."""
        self._listener = listener
        self._marks.clear()
        self.curves.begin(self._clock.now_ns())
        self.total = Window("total", self).begin()
        self._without_end = [self.total]
        thread = Reader(lambda: self._run(abandoned, on_abandoned), self._wake)
        self._thread = thread
        thread.start()

    def stop(self, limit_s: float) -> bool:
        """Take the last reading and close the sources; False if a driver did not answer within `limit_s`."""
        thread, over = self._thread, self._over
        if thread is None or thread is threading.current_thread():  # it is over, or its own thread is ending it
            return True
        self._end_total(self.mark())
        passed_ns = self._clock.now_ns() - self.curves.started_ns
        self._clock.end_by(self._clock.now_ns() + max(LEAST_PATIENCE_NS, int(PATIENCE * passed_ns)))
        self._stop.set()
        self._wake.set()
        # Not `join` alone: a signal handler that stops the meter cannot do that in the middle of itself.
        self._wait_until(lambda: over.is_set() or self._thread is not thread, limit_s)
        if self._thread is not thread:
            return over.is_set()
        self._thread = None
        if over.is_set():
            thread.join(limit_s)
            return True
        self._given_up = True
        if self._listener is not None:  # batches and stages count, even if their energy is not known
            self._settle(everything=True, wait=False)
        self.complaints.append(
            f"The energy reader did not answer for {limit_s:g} s at the end, so the last readings are missing: "
            "the driver hangs; check `nvidia-smi` and the kernel log."
        )
        return False

    def _end_total(self, end: Mark[Any]) -> None:
        """End the total, once: if a signal handler stops the meter in the middle of this, the handler's end counts."""
        with suppress(IndexError):
            self._without_end.pop().end_mark = end

    def mark(self, payload: Any = None) -> Mark[Any]:
        """Note this moment."""
        mark = self._marker.mark(payload)
        self._marks.append(mark)
        return mark

    def noting(self) -> tuple[Marker, Waiting]:
        """The two halves of `mark`: what makes one, and where they wait."""
        return self._marker, self._marks

    def ask(self) -> None:
        """Ask for a reading soon."""
        self._wake.set()

    def is_worth_asking(self) -> bool:
        """Whether one more moment that would like a reading gets it."""
        self._asks += 1
        if self._asks > FIRST_ASKS and monotonic() < self._ask_due_s:
            return False
        self._ask_due_s = monotonic() + self.interval_s
        return True

    def wait_for(self, mark: Mark[Any], limit_s: float = END_LIMIT_S) -> bool:
        """Wait until a mark is settled; False if that took longer than `limit_s` or the run has stopped."""
        self.ask()
        self._wait_until(lambda: mark.energy_uj is not None or self._thread is None, limit_s)
        return mark.energy_uj is not None

    def _wait_until(self, done: Callable[[], bool], limit_s: float) -> None:
        until_s = monotonic() + limit_s
        with self._settled:
            while not done() and (left_s := until_s - monotonic()) > 0:
                # In pieces: the news may come while a signal handler runs between the question and the wait.
                self._settled.wait(min(left_s, LOOK_AGAIN_S))

    def energy_now_uj(self) -> list[int]:
        """Microjoules of each device by now: what is known and, during the run, from there on at the last known power."""
        with self._lock:
            return self.curves.energy_now_uj(self._clock.now_ns(), runs=self._thread is not None)

    @property
    def frontier_ns(self) -> int:
        """The time up to which every answering device's energy is known."""
        return self.curves.frontier_ns(self._clock.now_ns())

    # -- the reader's thread --------------------------------------------------------------------------------------------

    def _run(self, abandoned: Callable[[], bool] | None, on_abandoned: Callable[[], None] | None) -> None:
        opened, leaves, thread = self._opened, False, threading.current_thread()
        steady_s = self._clock.steady_s
        due_s = steady_s()
        try:
            while True:
                self._wake.clear()  # before looking at the flag, so that a stop in between still wakes the wait below
                stopping = self._stop.is_set()
                read_s = steady_s()
                try:
                    for source, devices in opened:
                        labels = [device.label for device in devices]
                        found = readings_of(source, labels, self._clock, self.curves.started_ns)
                        if self._given_up:
                            return  # the run is over, and did not wait for this driver
                        for reading in found:
                            self.curves.take(reading, labels, self._lock)
                    if stopping and self.total is not None and self.total.end_mark is not None:
                        self.curves.end(self.total.end_mark.t_ns)
                    self._settle(everything=stopping)
                    if not stopping:
                        leaves = isinstance(thread, Reader) and thread.asked_to_end
                        leaves = leaves or (abandoned is not None and abandoned())
                except BaseException as error:  # noqa: BLE001 - with this thread all measuring would end without a word
                    log_safely(logging.ERROR, "the reader failed", error)
                    sentence = f"A reading of the energy failed ({shown(error)}); the next is tried in its turn."
                    self.complaints.once("reader", sentence)
                if stopping:
                    return
                if leaves:
                    # The host's time, because this thread is not the one that uses the GPU.
                    self._marks.append(end := Mark(self._clock.now_ns(), None))
                    self._end_total(end)
                    self._stop.set()
                    continue
                if read_s >= due_s - AT_ONCE_S:  # a reading that was asked for does not put off the next that is due
                    due_s = read_s + self._up_to(self.interval_s)
                self._rest(opened, due_s)
                self._stop.wait(max(0.0, read_s + MIN_READ_GAP_S - steady_s()))
        finally:
            self._finish(opened, on_abandoned if leaves else None, leaves=leaves)

    def _rest(self, opened: Opened, due_s: float) -> None:
        """Wait until the next read is due or asked for; meanwhile glance at the devices of which more has to be known."""
        steady_s = self._clock.steady_s
        while not self._wake.is_set() and (left_s := due_s - steady_s()) > AT_ONCE_S:
            labels, glance_s = self.curves.worth_a_glance(), self._up_to(GLANCE_S)
            glances = bool(labels) and left_s > glance_s + MIN_READ_GAP_S / 2
            if not self._wake.wait(glance_s if glances else left_s) and glances:
                for source, _ in opened:
                    glance_at(source, labels)

    def _up_to(self, seconds: float) -> float:
        return seconds * self._chance.uniform(1 - SPREAD, 1)

    def _finish(self, opened: Opened, on_abandoned: Callable[[], None] | None, *, leaves: bool) -> None:
        for source, _ in opened:
            self._close(source)
        if leaves and not self._given_up:
            try:
                if on_abandoned is not None:
                    on_abandoned()
            except BaseException as error:  # noqa: BLE001 - there is nobody to hear it
                log_safely(logging.ERROR, "the end of an abandoned measurement failed", error)
            self._thread = None
        self._over.set()
        with self._settled:
            self._settled.notify_all()

    def _close(self, source: EnergySource) -> None:
        if sentence := let_go(source):
            self.complaints.once(f"close {source.name}", sentence)

    def _settle(self, *, everything: bool, wait: bool = True) -> None:
        """Fill in the marks that the curves have passed; at the end, all of them, for which it waits for the device."""
        frontier = self.frontier_ns
        ready: list[Mark[Any]] = []
        while self._marks:
            mark = oldest(self._marks)
            resolved = self._marker.resolve(mark, wait=everything and wait)
            if not everything and (not resolved or mark.t_ns > frontier):
                break
            ready.append(mark)
            self._marks.popleft()
        if frontier and not everything:
            ready.append(Mark(frontier, None))
        if ready:
            with self._lock:  # what is asked for is laid out only now
                energy, edge = self.curves.energies(ready, goes_on=everything and wait)
            lost, peak_w = self.curves.gaps_uj(ready), sum(line.peak_w for line in self.curves.timelines)
            with self._settled:
                for row, mark in enumerate(ready):
                    mark.edge_uj, mark.gap_uj, mark.peak_w = edge[row], float(lost[row]), peak_w
                    mark.energy_uj = energy[row]
                self._settled.notify_all()
        if self._listener is not None:
            self._listener(ready)
        needed_ns = min(frontier, oldest(self._marks).t_ns) if self._marks else frontier
        with self._lock:
            for line in self.curves.timelines:
                line.forget_before(needed_ns)
