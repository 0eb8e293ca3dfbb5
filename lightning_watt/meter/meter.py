"""The meter: reads the sources in one thread of its own, and answers how many joules were used between two moments.

Whoever measures only notes moments (`Mark`s) and goes on. The reader thread looks at the sources when they are due, lays
their readings on the devices' curves, and fills in every mark that the curves have passed. A driver that takes a second
holds up that thread and nobody else.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from time import monotonic
from types import TracebackType
from typing import Any

import numpy as np

from lightning_watt.errors import SourceUnavailable, WattError, log_safely, shown
from lightning_watt.host import keep, tell_of_forks
from lightning_watt.meter.latch import Latch
from lightning_watt.meter.marks import HostMarker, Mark, Marker
from lightning_watt.meter.reader import Reader
from lightning_watt.meter.timeline import Gap, Timeline
from lightning_watt.meter.window import Window
from lightning_watt.sources.base import HOST_CLOCK, Clock, Device, EnergySource, Failure, Reading
from lightning_watt.sources.discover import open_sources
from lightning_watt.sources.door import let_go, readings_of
from lightning_watt.sources.masks import GPU
from lightning_watt.tables import meter_html
from lightning_watt.units import UJ_PER_J, kwh, nanoseconds, seconds

MIN_READ_GAP_S = 0.1
"""Asked for or not, no source is read more often than this: some boards' counters under-read when polled fast."""
END_LIMIT_S = 5.0
"""How long the end of a measurement waits for a driver."""
LOOK_AGAIN_S = 0.05
"""Whoever waits for the reader looks this often whether it has missed being woken."""
STALE_S = 5.0
"""A device that has not moved for this long no longer holds up the others' accounts."""
MAX_GAPS = 1000

Listener = Callable[[Sequence[Mark[Any]]], None]


class EnergyMeter:
    """Measures energy, with or without Lightning.

    Args:
        gpus: `"visible"`: the boards that `CUDA_VISIBLE_DEVICES` leaves; `"all"`: every board; or NVML indices and UUIDs.
        sources: `"auto"`: those boards and the CPU's RAPL, or an estimate where there is neither; or your own sources.
        interval: seconds between two reads of the counters.
        marker: what a moment is: the host's clock by default; `marks.CudaMarker` for a GPU's own stream.
        clock: the host's clock, replaceable for tests.
        processes: other processes of the run on this host: an estimate counts their work, and on a board they are no
            strangers.
        required: a board that a list of `gpus` names and that is not there raises; otherwise `missing` tells of it, and the
            others are measured.

    Raises:
        ValueError: an interval that is not above zero.

    Example:
        >>> import time
        >>> from lightning_watt import EnergyMeter
        >>> from lightning_watt.sources.replay import ReplaySource
        >>> with EnergyMeter(sources=[ReplaySource({"gpu0": [(0, 0), (60, 6000.0)]})]) as meter:  # 100 W
        ...     with meter.window("work") as w:
        ...         time.sleep(0.1)
        >>> list(w.by_device)
        ['gpu0']
    """

    def __init__(
        self,
        gpus: str | Sequence[GPU] = "visible",
        sources: str | Sequence[EnergySource] = "auto",
        interval: float = 1.0,
        *,
        marker: Marker | None = None,
        clock: Clock = HOST_CLOCK,
        processes: Sequence[int] = (),
        required: bool = True,
    ) -> None:
        if not interval > 0:
            raise ValueError(f"interval is {interval}: give the seconds between two reads, above zero.")
        self._gpus = gpus
        self._sources = sources
        self._processes = tuple(processes)
        self._required = required
        self._interval = interval
        self._clock = clock
        self._marker = marker or HostMarker(clock)
        self._listener: Listener | None = None
        self._opened: list[tuple[EnergySource, list[Device]]] = []
        self._lines: list[Timeline] = []
        self._marks: deque[Mark[Any]] = deque()
        self._begin_anew()
        self._started_ns = 0
        self._failed: dict[str, str] = {}
        self._said: set[str] = set()
        self._is_open = False
        self._left_out: set[str] = set()
        self._by_label: dict[str, Timeline] = {}
        self._whole: Window | None = None
        self._without_end: list[Window] = []
        self.missing: list[SourceUnavailable] = []
        self.gaps: list[Gap] = []
        self.complaints: deque[str] = deque()
        tell_of_forks(self)

    def _begin_anew(self) -> None:
        """Everything that has to do with the reader's thread."""
        # All locks can be taken again by their own thread: a signal handler may ask in the middle of anything.
        self._lock = threading.RLock()
        self._settled = threading.Condition(threading.RLock())
        self._wake = Latch()
        self._stop = Latch()
        self._over = Latch()
        self._thread: Reader | None = None

    def forked(self) -> None:
        """In a child of the process that measures: this meter has stopped, and what it has not settled is not known."""
        if self._whole is None:  # it has never run
            return
        keep(dict(vars(self)))
        self._begin_anew()
        self._marks, self._marker = deque(), HostMarker(self._clock)
        self._opened, self._listener, self._is_open = [], None, False
        self._lines = [line.ended() for line in self._lines]
        self._by_label = {line.device.label: line for line in self._lines}

    # -- life ---------------------------------------------------------------------------------------------------------

    def open(self) -> tuple[Device, ...]:
        """Open the sources and do not read yet; `start` does both.

        Returns:
            The devices that would be read.

        Raises:
            WattError: as in `start`.
            ValueError: as in `start`.
        """
        if self._thread is not None:
            raise WattError("The meter runs already: stop it first, or make another.")
        self._opened, self.missing = open_sources(
            self._gpus, self._sources, self._clock, self._processes, required=self._required
        )
        if not self._opened:
            raise WattError(f"Nothing can be measured. {' '.join(str(reason) for reason in self.missing)}")
        self._lines = [Timeline(device) for _, devices in self._opened for device in devices]
        self._by_label = {line.device.label: line for line in self._lines}
        self._left_out = set()
        self._is_open = True
        return self.devices

    def leave_out(self, labels: Collection[str]) -> None:
        """Do not read these devices, which another process counts; to be called between `open` and `start`.

        A source that has none left is closed.
        """
        self._left_out = set(labels)
        self._lines = [line for line in self._lines if line.device.label not in self._left_out]
        self._by_label = {line.device.label: line for line in self._lines}
        kept = [(source, [d for d in devices if d.label not in self._left_out]) for source, devices in self._opened]
        for source, devices in kept:
            if not devices:
                self._close(source)
        self._opened = [(source, devices) for source, devices in kept if devices]

    def start(
        self,
        listener: Listener | None = None,
        *,
        abandoned: Callable[[], bool] | None = None,
        on_abandoned: Callable[[], None] | None = None,
    ) -> EnergyMeter:
        """Open the sources and begin to read.

        Args:
            listener: called in the reader's thread after every read, with the marks that have just been settled, in order.
                The last one is the meter's own, without payload: the time up to which everything is known now.
            abandoned: asked in the reader's thread after every read, whether whoever needs the numbers is gone without
                having stopped the meter. Then the reader takes its last reading, settles everything, closes the sources
                and ends by itself; `stop` may still be called, and has nothing left to do.
            on_abandoned: called once in the reader's thread when all that is done; a `stop` meanwhile waits for it.

        Raises:
            WattError: no source could be opened; says of each why, and the remedy.
            ValueError: `gpus` names a board that is not there.
        """
        if not self._is_open:
            self.open()
        self._is_open = False
        self._listener = listener
        self._failed.clear()
        self._marks.clear()
        self._stop, self._over = Latch(), Latch()
        self._started_ns = self._clock.now_ns()
        self._whole = Window("total", self, self.mark())
        self._without_end = [self._whole]
        # The thread is told by its own event, so that one which a driver held up past its end cannot wake into the next run.
        stop, over, opened = self._stop, self._over, self._opened
        self._thread = Reader(lambda: self._run(stop, over, opened, abandoned, on_abandoned), self._wake)
        self._thread.start()
        return self

    def stop(self, limit_s: float = END_LIMIT_S) -> bool:
        """Take the last reading and let go of the sources.

        Returns:
            False if a driver did not answer within `limit_s`; then what was not read is not in the sums.
        """
        thread, over = self._thread, self._over
        if thread is None or thread is threading.current_thread():  # it is over, or this is its last word
            return True
        self._end_whole(self.mark())
        self._stop.set()
        self._wake.set()
        # Not `join` alone, which a signal handler that stops the meter cannot do in the middle of itself.
        self._await(lambda: over.is_set() or self._thread is not thread, limit_s)
        if self._thread is not thread:
            return over.is_set()
        self._thread = None
        if over.is_set():
            thread.join(limit_s)
        else:
            self._stop = Latch()
            if self._listener is not None:  # batches and stages count, even where their energy is not known
                self._settle(everything=True, wait=False)
            self.complaints.append(
                f"The energy reader did not answer for {limit_s:g} s at the end, so the last readings are missing: "
                "the driver hangs; check `nvidia-smi` and the kernel log."
            )
            return False
        return True

    def _end_whole(self, end: Mark[Any]) -> None:
        """End the total, once: a signal handler may stop the meter in the middle of this, and comes first then."""
        with suppress(IndexError):
            self._without_end.pop().end = end

    def __enter__(self) -> EnergyMeter:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _repr_html_(self) -> str:
        """What a notebook shows of it: each device's energy from start to stop or, by its last known power, to now."""
        if self._whole is None:
            return meter_html([], 0.0, "EnergyMeter: nothing has been measured yet.")
        first, last = self._whole.start.energy_uj, self._whole.end.energy_uj if self._whole.end is not None else None
        until = self.energy_now_uj() if last is None else last
        used_j = [int(now) / UJ_PER_J - (0.0 if first is None else int(first[i]) / UJ_PER_J) for i, now in enumerate(until)]
        rows = [
            (line.device.label, joules, line.device.gain, line.device.source, line.device.name)
            for line, joules in zip(self._lines, used_j, strict=True)
            if line.started
        ]
        state = "so far" if self._whole.end is None else "in all"
        notes = [f"{sum(row[1] for row in rows):.4g} J in {self._whole.seconds:.4g} s {state}.", *self.complaints]
        return meter_html(rows, self._whole.seconds, " ".join(notes))

    # -- asking -------------------------------------------------------------------------------------------------------

    @property
    def devices(self) -> tuple[Device, ...]:
        """The devices that are read."""
        return tuple(line.device for line in self._lines)

    @property
    def answered(self) -> tuple[Device, ...]:
        """The devices that have been read at least once; of the others nothing is known, which is not zero."""
        return tuple(line.device for line in self._lines if line.started)

    @property
    def ticks_s(self) -> dict[str, float]:
        """Each device's counter update period in seconds, as far as it is known."""
        return {line.device.label: line.tick_s for line in self._lines}

    @property
    def interval_s(self) -> float:
        """Seconds between two reads, at most: what was asked for, or what a source bears where that is less."""
        return min([self._interval, *(source.due_s for source, _ in self._opened)])

    @property
    def frontier_ns(self) -> int:
        """The time up to which every answering device's energy is known."""
        return self._frontier_ns()

    @property
    def total(self) -> Window:
        """The window from start to stop (or to now)."""
        if self._whole is None:
            raise WattError("The meter was not started.")
        return self._whole

    @property
    def joules(self) -> float:
        """Joules from start to stop (or to now)."""
        return self.total.joules

    @property
    def kwh(self) -> float:
        """Kilowatt-hours from start to stop (or to now)."""
        return kwh(self.joules)

    def mark(self, payload: Any = None) -> Mark[Any]:
        """Note this moment. Costs about a microsecond, whatever the driver does."""
        return self._note(self._marker.mark(payload))

    def _note(self, mark: Mark[Any]) -> Mark[Any]:
        self._marks.append(mark)
        return mark

    def ask(self) -> None:
        """Ask for a reading soon."""
        self._wake.set()

    @contextmanager
    def window(self, name: str) -> Iterator[Window]:
        """Measure what happens inside; windows nest.

        The edges are host times. Work that a GPU still has queued at the edge is charged to what follows; synchronise the
        device first where that matters.
        """
        window = Window(name, self, self.mark())
        try:
            yield window
        finally:
            window.end = self.mark()

    def wait_for(self, mark: Mark[Any], limit_s: float = END_LIMIT_S) -> bool:
        """Wait until a mark is settled; False if that took longer than `limit_s` or the meter has stopped."""
        self.ask()
        self._await(lambda: mark.energy_uj is not None or self._thread is None, limit_s)
        return mark.energy_uj is not None

    def _await(self, done: Callable[[], bool], limit_s: float) -> None:
        until_s = monotonic() + limit_s
        with self._settled:
            while not done() and (left_s := until_s - monotonic()) > 0:
                # In pieces: the news may come while a signal handler runs between the question and the wait.
                self._settled.wait(min(left_s, LOOK_AGAIN_S))

    def now_ns(self) -> int:
        """The clock that marks and readings are on."""
        return self._clock.now_ns()

    def energy_now_uj(self) -> list[int]:
        """Each device's energy by now: what is known, and while the meter runs, from there on at the last known power."""
        now, runs = self._clock.now_ns(), self._thread is not None
        with self._lock:
            known = [int(line.energy_uj_at([now])[0]) for line in self._lines]
            ahead_s = [
                max(0.0, seconds(now - line.frontier_ns)) if runs and self._answers(line) else 0.0 for line in self._lines
            ]
        return [uj + int(s * line.power_w * UJ_PER_J) for uj, s, line in zip(known, ahead_s, self._lines, strict=True)]

    def power_now_w(self) -> list[float]:
        """Each device's last known power, watts."""
        return [line.power_w for line in self._lines]

    # -- the reader's thread ------------------------------------------------------------------------------------------

    def _run(
        self,
        stop: Latch,
        over: Latch,
        opened: Sequence[tuple[EnergySource, list[Device]]],
        abandoned: Callable[[], bool] | None,
        on_abandoned: Callable[[], None] | None,
    ) -> None:
        interval_s = self.interval_s
        by_itself = False
        try:
            while True:
                self._wake.clear()  # before looking at the flag, so that a stop in between still wakes the wait below
                stopping = stop.is_set()
                read_s = monotonic()
                try:
                    for source, devices in opened:
                        labels = [device.label for device in devices]
                        found = readings_of(source, labels, self._clock, self._started_ns)
                        if stop is not self._stop:
                            return  # the run is over, and did not wait for this driver
                        for reading in found:
                            self._take(reading, labels)
                    self._settle(everything=stopping)
                    if not stopping:
                        by_itself = self._is_told_to_end() or (abandoned is not None and abandoned())
                except BaseException as error:  # noqa: BLE001 - with this thread all measuring would end without a word
                    log_safely(logging.ERROR, "the reader failed", error)
                    sentence = f"A reading of the energy failed ({shown(error)}); the next is tried in its turn."
                    self._complain("reader", sentence)
                if stopping:
                    return
                if by_itself:
                    self._end_whole(
                        self._note(Mark(self._clock.now_ns(), None))
                    )  # by the host: this is not the GPU's thread
                    stop.set()
                    continue
                # From this read on, asked for or not: what was asked for must not put off the next.
                due_s = max(read_s + interval_s, monotonic())
                self._wake.wait(max(0.0, due_s - monotonic()))
                stop.wait(max(0.0, read_s + MIN_READ_GAP_S - monotonic()))
        finally:
            # A driver that answers only now must not take a source away from the run that has opened it since.
            held = [source for source, _ in self._opened] if opened is not self._opened else []
            for source, _ in opened:
                if not any(source is other for other in held):
                    self._close(source)
            if by_itself and stop is self._stop:
                self._leave(on_abandoned)
            over.set()
            with self._settled:
                self._settled.notify_all()

    @staticmethod
    def _is_told_to_end() -> bool:
        thread = threading.current_thread()
        return isinstance(thread, Reader) and thread.told

    def _leave(self, on_abandoned: Callable[[], None] | None) -> None:
        """Nobody has stopped this meter, and nobody will have to."""
        try:
            if on_abandoned is not None:
                on_abandoned()
        except BaseException as error:  # noqa: BLE001 - there is nobody to hear it
            log_safely(logging.ERROR, "the end of an abandoned measurement failed", error)
        self._thread = None

    def _close(self, source: EnergySource) -> None:
        if sentence := let_go(source):
            self._complain(f"close {source.name}", sentence)

    def _take(self, reading: Reading | Failure, labels: Collection[str]) -> None:
        if reading.label in self._left_out:
            return
        if reading.label not in labels:
            self._complain(
                f"unknown {reading.label}",
                f"A source read {reading.label}, which it had not announced when it was opened, so it is not counted. "
                "Report it to its author.",
            )
            return
        if isinstance(reading, Failure):
            self._failed.setdefault(reading.label, reading.why)
            self._complain(
                f"failed {reading.label}",
                f"{reading.label} could not be read, so its energy is missing from now on: {reading.why} {reading.remedy}",
            )
            return
        line = self._by_label[reading.label]
        with self._lock:
            gap = line.add(reading)
        self._failed.pop(reading.label, None)
        if gap is not None:
            if len(self.gaps) < MAX_GAPS:
                self.gaps.append(gap)
            self._complain(
                f"gap {gap.device}",
                f"{gap.device}: {gap.why}; {gap.joules:.4g} J were charged for {gap.seconds:.3g} s by its last known power, "
                "and are marked as uncertain. A driver reload or a reset of the board does this.",
            )
        if line.standing_still:
            self._complain(
                f"still {reading.label}",
                f"{reading.label}: its energy counter stands still, so its energy is missing from now on. "
                "Reload the driver, or check `nvidia-smi`.",
            )

    def _answers(self, line: Timeline) -> bool:
        return line.started and line.device.label not in self._failed and not line.standing_still

    def _frontier_ns(self) -> int:
        """The answering devices' common frontier; without any, the present, so that nothing waits for the lost."""
        answering = [line.frontier_ns for line in self._lines if self._answers(line)]
        now = self._clock.now_ns()
        if not answering:
            lost = all(line.started or line.device.label in self._failed for line in self._lines)
            return now if lost or now - self._started_ns > nanoseconds(STALE_S) else 0
        newest = max(answering)
        return min((t for t in answering if newest - t < nanoseconds(STALE_S)), default=newest)

    def _settle(self, *, everything: bool, wait: bool = True) -> None:
        """Fill in the marks that the curves have passed; at the end, all of them, for which it waits for the device."""
        frontier = self._frontier_ns()
        ready: list[Mark[Any]] = []
        while self._marks:
            resolved = self._marker.resolve(self._marks[0], wait=everything and wait)
            if not everything and (not resolved or self._marks[0].t_ns > frontier):
                break
            ready.append(self._marks.popleft())
        if frontier and not everything:
            ready.append(Mark(frontier, None))
        if ready:
            times = np.asarray([mark.t_ns for mark in ready], dtype=np.int64)
            energy = np.stack([line.energy_uj_at(times) for line in self._lines], axis=1)
            edge = np.stack([line.edge_uj_at(times) for line in self._lines], axis=1)
            with self._settled:
                for row, mark in enumerate(ready):
                    mark.edge_uj = edge[row]
                    mark.energy_uj = energy[row]
                self._settled.notify_all()
        if self._listener is not None:
            self._listener(ready)
        oldest = min(frontier, self._marks[0].t_ns) if self._marks else frontier
        with self._lock:
            for line in self._lines:
                line.forget_before(oldest)

    def _complain(self, about: str, sentence: str) -> None:
        """Once each: said by the main thread, at its next hook."""
        if about not in self._said:
            self._said.add(about)
            self.complaints.append(sentence)
