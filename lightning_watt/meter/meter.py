"""The meter: reads the sources in one thread of its own, and answers how many joules were used between two moments.

The caller only notes moments (`Mark`s) and goes on. The thread (`reader.py`) reads the sources when they are due, lays their
readings on the devices' timelines, and fills in every mark that the timelines have passed. A driver that takes a second
holds up that thread and nobody else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from types import TracebackType
from typing import Any

from lightning_watt.errors import SourceUnavailable, WattError
from lightning_watt.host import keep, rank_here, tell_of_forks
from lightning_watt.meter.curves import Complaints
from lightning_watt.meter.latch import EndingClock
from lightning_watt.meter.marks import HostMarker, Mark, Marker, Waiting
from lightning_watt.meter.reader import END_LIMIT_S, Listener, Measurement
from lightning_watt.meter.window import Window
from lightning_watt.settings import check
from lightning_watt.sources.base import HOST_CLOCK, Clock, Device, EnergySource, Gap
from lightning_watt.sources.discover import open_sources
from lightning_watt.sources.masks import GPU
from lightning_watt.tables import meter_html
from lightning_watt.units import UJ_PER_J, human_energy, kwh
from lightning_watt.warn_once import OF_THE_PROCESS


class EnergyMeter:
    """Measures energy, with or without Lightning.

    Args:
        gpus: `"visible"`, or `"auto"`: the boards that `CUDA_VISIBLE_DEVICES` leaves; `"all"`: every board, whatever the
            mask; or NVML indices and UUIDs.
        sources: `"auto"`: those boards and the CPU's RAPL, or an estimate if there is neither; `"cpu-share"`: the same, and
            of the CPU this job's share by processor time, an estimate; or your own sources.
        interval: seconds between two reads of the counters.
        marker: what a moment is: the host's clock by default; `marks.CudaMarker` for a GPU's own stream.
        clock: the host's clock, replaceable for tests.
        processes: other processes of the run on this host: an estimate counts their work, and on a board they are no
            strangers.
        required: a board that a list of `gpus` names and that is not there raises; otherwise `missing` says so, and the
            others are measured.

    Raises:
        ValueError: a value of `gpus`, `sources` or `interval` that means nothing, in a sentence.

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
        check(gpus=gpus, sources=sources, interval=interval)
        self._gpus = gpus
        self._sources = sources
        self._processes = tuple(processes)
        self._required = required
        self._clock = clock
        self._marker = marker or HostMarker(clock)
        self.missing: list[SourceUnavailable] = []
        self.gaps: list[Gap] = []
        self.complaints = Complaints()
        self.has_started = False
        self._is_open = False
        self._new_run = partial(Measurement, interval_s=interval, complaints=self.complaints, gaps=self.gaps)
        self._run: Measurement = self._new_run([], marker=self._marker, clock=EndingClock(clock))
        # The two halves of `mark`: what makes one, and where they wait; for one who notes thousands between start and stop.
        self.noting: tuple[Marker, Waiting] = self._run.noting()
        tell_of_forks(self)

    def forked(self) -> None:
        """In a child of the process that measures: this meter has stopped, and what it has not settled is not known."""
        if self._run.total is None:  # it has not run, or has only opened its sources
            return
        keep(dict(vars(self)))
        self._marker = HostMarker(self._clock)
        self._is_open = False
        self._run.forked()

    # -- life ---------------------------------------------------------------------------------------------------------

    def open(self) -> tuple[Device, ...]:
        """Open the sources and do not read yet; `start` does both.

        Returns:
            The devices that would be read.

        Raises:
            WattError: as in `start`.
            ValueError: as in `start`.
        """
        if self._run.runs:
            raise WattError("The meter runs already: stop it first, or make another.")
        clock = EndingClock(self._clock)
        opened, self.missing = open_sources(self._gpus, self._sources, clock, self._processes, required=self._required)
        if not opened:
            raise WattError(f"Nothing can be measured. {' '.join(str(reason) for reason in self.missing)}")
        self._run = self._new_run(opened, marker=self._marker, clock=clock)
        self._is_open = True
        return self.devices

    def leave_out(self, labels: Collection[str]) -> None:
        """Do not read these devices, which another process counts; call it between `open` and `start`.

        A source that has none left is closed.
        """
        self._run.leave_out(labels)

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
            abandoned: asked in the reader's thread after every read: has the owner of the numbers gone without stopping
                the meter? If so, the reader takes its last reading, settles everything, closes the sources and ends; `stop`
                may still be called, and has nothing left to do.
            on_abandoned: called once in the reader's thread when all that is done; a `stop` in the meantime waits for it.

        Raises:
            WattError: no source could be opened; says of each why, and the remedy.
            ValueError: `gpus` names a board that is not there.
        """
        if not self._is_open:
            self.open()
            if not self._processes and isinstance(self._sources, str):
                _warn_of_other_ranks(self.devices, boards_too=isinstance(self._gpus, str))
        self._is_open = False
        self.has_started = True
        self._run.start(listener, abandoned, on_abandoned)
        self.noting = self._run.noting()
        return self

    def stop(self, limit_s: float = END_LIMIT_S) -> bool:
        """Take the last reading and close the sources.

        Returns:
            False if a driver did not answer within `limit_s`; then what was not read is not in the sums.
        """
        return self._run.stop(limit_s)

    def __enter__(self) -> EnergyMeter:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def __repr__(self) -> str:
        run = self._run
        if run.total is None:
            return "EnergyMeter(nothing has been measured yet)"
        labels = ", ".join(device.label for device in run.devices)
        state = "so far" if run.total.end_mark is None else "in all"
        return f"EnergyMeter({labels}: {human_energy(sum(_used_j(run)))} {state})"

    def _repr_html_(self) -> str:
        """What a notebook shows of it: each device's energy from start to stop or, by its last known power, to now."""
        run = self._run
        if run.total is None:
            return meter_html([], 0.0, "EnergyMeter: nothing has been measured yet.")
        rows = [
            (line.device.label, joules, line.device.gain, line.device.source, line.device.name)
            for line, joules in zip(run.curves.timelines, _used_j(run), strict=True)
            if line.started
        ]
        state = "so far" if run.total.end_mark is None else "in all"
        notes = [f"{sum(row[1] for row in rows):.4g} J in {run.total.seconds:.4g} s {state}.", *self.complaints]
        return meter_html(rows, run.total.seconds, " ".join(notes))

    # -- asking -------------------------------------------------------------------------------------------------------

    @property
    def devices(self) -> tuple[Device, ...]:
        """The devices that are read."""
        return self._run.devices

    @property
    def answered(self) -> tuple[Device, ...]:
        """The devices that have been read at least once; of the others nothing is known, which is not zero."""
        return self._run.answered

    @property
    def ticks_s(self) -> dict[str, float]:
        """Each device's counter update period in seconds, as far as it is known."""
        return {line.device.label: line.tick_s for line in self._run.curves.timelines}

    @property
    def interval_s(self) -> float:
        """Seconds between two reads, at most: the interval of the constructor, or less if a source needs that."""
        return self._run.interval_s

    @property
    def frontier_ns(self) -> int:
        """The time up to which every answering device's energy is known."""
        return self._run.frontier_ns

    @property
    def total(self) -> Window:
        """The window from start to stop (or to now).

        Raises:
            WattError: the meter was not started.
        """
        if self._run.total is None:
            raise WattError("The meter was never started: use it in a `with` statement, or call its `start()` first.")
        return self._run.total

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
        return self._run.mark(payload)

    def ask(self, *, seldom: bool = False) -> None:
        """Ask for a reading soon; where many moments would like one, only at the first hundred, then once an interval."""
        if not seldom or self._run.is_worth_asking():
            self._run.ask()

    def window(self, name: str) -> Window:
        """A window, for a `with` statement or to `begin` and `end` by hand; windows nest."""
        return Window(name, self)

    def wait_for(self, mark: Mark[Any], limit_s: float = END_LIMIT_S) -> bool:
        """Wait until a mark is settled; False if that took longer than `limit_s` or the meter has stopped."""
        return self._run.wait_for(mark, limit_s)

    def energy_now_uj(self) -> list[int]:
        """Each device's energy by now: what is known, and while the meter runs, from there on at the last known power."""
        return self._run.energy_now_uj()

    def power_now_w(self) -> list[float]:
        """Each device's last known power, watts."""
        return [line.power_w for line in self._run.curves.timelines]

    def now_ns(self) -> int:
        """The clock that marks and readings are on."""
        return self._clock.now_ns()


def _used_j(run: Measurement) -> list[float]:
    """Joules of each device from start to stop or, by its last known power, to now. Waits for no driver."""
    if run.total is None:
        return [0.0] * len(run.devices)
    first, end = run.total.start_mark.energy_uj, run.total.end_mark
    until = run.energy_now_uj() if end is None or end.energy_uj is None else end.energy_uj
    return [(int(now) - (0 if first is None else int(first[i]))) / UJ_PER_J for i, now in enumerate(until)]


def _warn_of_other_ranks(devices: Sequence[Device], *, boards_too: bool) -> None:
    """Say once in a process that a meter in each rank counts the machine's devices once more.

    Args:
        devices: what a meter reads.
        boards_too: its boards were not chosen for this rank.
    """
    here = rank_here()
    if here is None or here.local == 0:
        return
    shared = [one.label for one in devices if one.source == "rapl" or (boards_too and one.provenance == "measured")]
    if shared:
        OF_THE_PROCESS.warn(
            f"This is local rank {here.local} of {here.world} processes, and its EnergyMeter reads {', '.join(shared)}. "
            "If the other ranks of this machine have a meter too, each of them counts these devices again. Measure in "
            "one rank of each machine (LOCAL_RANK 0), or give each rank its own board: "
            "EnergyMeter(sources=[NvmlSource([index])]).",
            "ranks",
        )
