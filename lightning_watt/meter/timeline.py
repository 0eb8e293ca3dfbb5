"""One device's rising energy curve: what it had used at any time between its readings, and how sure that is.

Pure: no clock, no file, no driver. The counter's readings are the curve's fixed points. Between two of them the energy is
laid out in the shape of the driver's own power samples as far as these foretold the counter (`evidence.py`), scaled so that
it ends exactly at the next reading; without samples it is a straight line. What a counter says that goes backwards, or rises
faster than the device can draw, `counter.py` knows.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from lightning_watt.meter.agreement import Agreement
from lightning_watt.meter.counter import MOST_GAPS, Counter, Step
from lightning_watt.meter.evidence import BELIEVED, Blind, Evidence, Stretch, Timing, edge_j
from lightning_watt.meter.shape import Folded, Laid, between, lay_out, spread_j2, steps, unfold
from lightning_watt.sources.base import UNREAD, Device, Gap, Reading
from lightning_watt.units import NS_PER_S, UJ_PER_J, nanoseconds

DEFAULT_TICK_S = 0.1
"""Observed update periods of NVML's counter reach from 20 to 100 ms; until a counter was watched, the longest is assumed."""
TICK_DIGITS = 3
"""A device says its period to a millisecond: what is seen of it changes with each reading, and that is sent to others."""
READ_NS = 1_000_000
"""A reading's own time is good to this."""
LATE_S = 0.25  # a first reading that is later leaves a gap; the thread of a busy machine may be somewhat late
STANDSTILL_S = 3.0
"""A counter that should move and has not for this long counts as standing still."""
STILL_TICKS = 3
"""So many times the period of a counter that is known to be slow."""
LEAST_W, MOST_W = 1e-6, 1e9
"""Power samples below the one are zero, and above the other none, whatever the device."""
HOLE_S, HOLE_SAMPLES = 0.5, 5
"""Where samples alone tell the energy, a longer time without one, and longer than so many samples, is a hole."""
SILENT = "there were no power samples"
ASLEEP_W = 0.5
"""A board that shows no more than this is asleep, and its counter rests with it."""
SELDOM_S = 0.15
"""Power samples further apart than this leave too much between them."""
MAX_SAMPLES = 10_000
"""Samples kept while a counter does not move: some minutes of them."""


class Timeline:
    """One device's energy over time.

    Attributes:
        began_ns: when the run began; None if that does not matter. What was used before a later first reading is charged by
            the power nearest to it, all of it uncertain.
        peak_w: the highest power that was seen, by a sample or between two readings, watts.

    Example:
        >>> from lightning_watt.sources.base import Device, Gap, Reading
        >>> line = Timeline(Device("gpu0", "a board", "GPU-0", "nvml-counter"))
        >>> _ = line.add(Reading("gpu0", 0, 5_000_000)), line.add(Reading("gpu0", 1_000_000_000, 105_000_000))
        >>> int(line.energy_uj_at([250_000_000])[0])  # a quarter of 100 J, in microjoules
        25000000
    """

    def __init__(self, device: Device) -> None:
        self._opened = self.device = device
        self.tick_s = device.tick_s or (DEFAULT_TICK_S if device.always_draws else 0.0)
        # How old a reading may be: one tick, until the readings are taken at the ticks.
        self._timing = Timing(self.tick_s)
        self.standing_still = False
        self.began_ns: int | None = None
        self._unread: tuple[int, int, int] | None = None  # from, to, and the microjoules between
        self._is_watched = device.tick_s > 0
        self._counter = Counter(device.label, device.max_power_w)
        self._t: list[int] = []
        self._e: list[int] = []
        self._samples: list[tuple[int, float]] = []
        self._power_w = self.peak_w = 0.0
        self._evidence, self._agreement = Evidence(), Agreement()
        self._stretches: list[Stretch] = []
        self._spacing_s = 0.0
        self._is_their_sum = True
        self._blind = Blind()
        self._holes: list[Gap] = []
        # At each knot: the number of the stretch, and the share of what is uncertain in it that lies before.
        self._unsure: list[float] = []
        self._folded: dict[int, Folded] = {}  # by their starts, the stretches of which only the ends are knots yet

    @property
    def started(self) -> bool:
        """Whether there was a reading."""
        return bool(self._t)

    def is_late(self, by_s: float = LATE_S) -> bool:
        """Whether there was one reading so far, and it came so long after the run had begun that nothing is known yet."""
        late_ns = self._t[0] - self.began_ns if self._t and self.began_ns is not None else 0
        return late_ns > nanoseconds(by_s) and not self._stretches

    @property
    def frontier_ns(self) -> int:
        """The time up to which the energy is known."""
        if self.is_late():
            return self.began_ns or 0
        return self._t[-1] if self._t else 0

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """What the counter has lost, as far as it has not come back."""
        return (*self._counter.gaps, *self._holes)

    @property
    def power_w(self) -> float:
        """The last known power, watts."""
        return self._power_w

    @property
    def doubt(self) -> str:
        """Why the counter is doubted, in a sentence without its device; empty as long as it is not."""
        return self._agreement.doubt

    @property
    def worth_a_glance(self) -> bool:
        """Whether the samples do not tell what is between two readings, so that these should be closer, if that may be."""
        if not (self._is_watched and self._agreement.may_be_read_often):
            return False
        return self._evidence.is_short or not 0 < self._spacing_s < SELDOM_S

    def add(self, reading: Reading) -> Step | None:
        """Take one reading; readings older than the frontier say nothing new and are dropped.

        Returns:
            What it came to: the gap that it revealed, for one. None if it says nothing.
        """
        if reading.tick_s is not None:
            self.tick_s, self._is_watched = reading.tick_s, True
        if reading.samples_clock and reading.samples_clock != self.device.samples_clock:
            self._learn(self._opened.but(samples_clock=reading.samples_clock))
        elif round(self.tick_s, TICK_DIGITS) != self.device.tick_s:
            self._learn(self._opened)
        # Garbage ends here: what nothing draws has no say, and so little that a sum of it has no digits left is nothing.
        most_w = min(self.device.max_power_w, MOST_W)
        lag_ns = nanoseconds(self._evidence.lag_s)
        self._samples.extend((t_ns - lag_ns, w if w > LEAST_W else 0.0) for t_ns, w in reading.power if 0 <= w <= most_w)
        del self._samples[:-MAX_SAMPLES]
        if not self._t:
            self._t, self._e, self._unsure = [reading.t_ns], [0], [0.0]
            self._counter.begin(reading.t_ns, reading.energy_uj)
            return None
        if reading.tick_s is not None:
            reading = self._timed(reading)
        start, seconds = self._t[-1], (reading.t_ns - self._t[-1]) / NS_PER_S
        if seconds <= 0:
            return None
        if self.device.always_draws and not self._counter.moves(reading.energy_uj) and not self._is_asleep():
            self.standing_still = seconds > max(STANDSTILL_S, STILL_TICKS * self._opened.tick_s)
            if not self._is_watched and not self.standing_still:
                # Nobody saw it tick, and it has not for this long: it is at least so slow, and its readings so old.
                self.tick_s = self._timing.blur_s = max(self.tick_s, seconds)
            return None
        self.standing_still = False
        # One tick more than the time between: a reading that is not aligned may hold one tick too many.
        step = self._counter.take(reading.t_ns, reading.energy_uj, self.tick_s, lambda: self._bridge_uj(start, reading.t_ns))
        if step.gap is not None or step.returned:
            self._evidence.interrupt()
        times, watts = between(self._samples, start, reading.t_ns)
        self._power_w, hole = step.power_w, self._hole(times, watts)
        if step.gap is None:
            self.peak_w = max(self.peak_w, step.power_w, float(watts.max()))
        holes = [self._begin_late(start)] if self.is_late(READ_NS / NS_PER_S) else []
        is_whole = hole is None and step.gap is None and not step.returned and bool(self._samples)
        is_whole = is_whole and reading.t_ns - self._samples[-1][0] < nanoseconds(HOLE_S)
        self._extend(times, watts, step.charge_uj, is_whole=is_whole)
        if hole is not None and self._is_their_sum and step.gap is None:
            holes.append(hole)
        told = [gap for gap in holes if gap is not None]
        self._holes = [*self._holes, *told][-MOST_GAPS:]
        return step._replace(gap=step.gap or told[0]) if told else step

    def energy_uj_at(self, t_ns: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Microjoules used since the first reading, at each of the given times; flat outside of what is known."""
        times = np.asarray(t_ns, dtype=np.int64)
        if not self._t:
            return np.zeros(times.shape, dtype=np.int64)
        unfold(self._folded, times, self._t, self._e, self._unsure)
        t0, e0 = self._t[0], self._e[0]
        # Relative to the oldest knot, so that float64 is exact to far below a microjoule.
        t = np.asarray(self._t, dtype=np.int64) - t0
        e = np.asarray(self._e, dtype=np.int64) - e0
        return np.rint(np.interp(times - t0, t, e)).astype(np.int64) + e0

    def energy_now_uj(self, now_ns: int, *, goes_on: bool) -> int:
        """Microjoules used by now: beyond the frontier at the last known power, or flat if it does not go on."""
        if now_ns < self.frontier_ns:
            return int(self.energy_uj_at([now_ns])[0])
        ahead_s = (now_ns - self._t[-1]) / NS_PER_S if goes_on else 0.0
        return (self._e[-1] if self._e else 0) + int(ahead_s * self._power_w * UJ_PER_J)

    def edge_uj_at(self, t_ns: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float64]:
        """Microjoules by which the energy at each of the given times may be off.

        The curve is known where it was read. Elsewhere it is as uncertain as the tests of the samples say, and a swing
        between two samples shows nowhere. A reading that was not taken at a tick may be one tick old.
        """
        times = np.asarray(t_ns, dtype=np.int64)
        if not self._stretches:
            return np.zeros(times.shape)
        unfold(self._folded, times, self._t, self._e, self._unsure)
        t = np.asarray(self._t, dtype=np.int64)
        unsure = np.interp(times - t[0], t - t[0], self._unsure)
        edge, power_w = edge_j(self._stretches, times, unsure - np.floor(unsure))
        edges: NDArray[np.float64] = (edge + power_w * (READ_NS / NS_PER_S + self._timing.blur_s)) * UJ_PER_J
        if self._unread is None:
            return edges
        start_ns, end_ns, unread_uj = self._unread
        return edges + unread_uj * np.clip((end_ns - times) / (end_ns - start_ns), 0, 1)

    def ahead_uj_at(self, t_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Microjoules from the last reading to each of the given times, at most for one tick, by the last known power.

        All of it is uncertain.
        """
        if not self._t:
            return np.zeros(t_ns.shape, dtype=np.int64)
        newer = [watts for at_ns, watts in self._samples if at_ns > self._t[-1] and 0 <= watts <= self.device.max_power_w]
        power_w = sum(newer) / len(newer) if newer else self._power_w or (self._samples[-1][1] if self._samples else 0.0)
        beyond_ns = np.clip(t_ns - self._t[-1], 0, nanoseconds(self.tick_s))
        ahead: NDArray[np.int64] = np.rint(beyond_ns * (power_w * UJ_PER_J / NS_PER_S)).astype(np.int64)
        return ahead

    def forget_before(self, t_ns: int) -> None:
        """Drop what nobody will ask for again; the knot at or before `t_ns`, and one tick more, stay."""
        cut = bisect_right(self._t, t_ns - nanoseconds(self.tick_s)) - 1
        if cut > 0:
            del self._t[:cut], self._e[:cut], self._unsure[:cut]
            old = sum(one.end_ns < self._t[0] for one in self._stretches)
            del self._stretches[: max(0, old - 1)]
            self._folded = {start_ns: one for start_ns, one in self._folded.items() if start_ns >= self._t[0]}

    def ended(self) -> Timeline:
        """A curve that ends at the present point of this one, even if a thread that is gone was changing this one."""
        other = Timeline(self.device)
        other._t, other._e, other._counter = self._t[-1:], self._e[-1:], self._counter
        other._unsure = [0.0]
        return other

    def _timed(self, reading: Reading) -> Reading:
        """A reading at the time when its tick was: where looks lie apart, the samples tell that too."""
        start, rise_j = self._t[-1], self._counter.rise_uj(reading.energy_uj) / UJ_PER_J
        is_apart = self._timing.looked(reading.blur_s)
        if not is_apart or rise_j <= 0 or reading.t_ns <= start or self._evidence.trust < BELIEVED:
            return reading
        times, watts = between(self._samples, start, reading.t_ns)
        t_s = (times - start) / NS_PER_S
        late_s = self._timing.late_s(t_s, watts * self._evidence.ratio, rise_j, self._spacing_s or self.tick_s)
        return replace(reading, t_ns=reading.t_ns + nanoseconds(late_s))

    def _begin_late(self, first_ns: int) -> Gap | None:
        """Charge what was used before the first reading; a gap, if that was long."""
        assert self.began_ns is not None
        unread_uj = self._bridge_uj(self.began_ns, first_ns)
        self._t, self._e, self._unsure = [self.began_ns, first_ns], [0, unread_uj], [0.0, 0.0]
        self._unread = self.began_ns, first_ns, unread_uj
        seconds = (first_ns - self.began_ns) / NS_PER_S
        long = seconds > LATE_S
        return Gap(device=self.device.label, seconds=seconds, joules=unread_uj / UJ_PER_J, why=UNREAD) if long else None

    def _learn(self, opened: Device) -> None:
        """The device, as it is known now."""
        self._opened = opened
        self.device = self._agreement.told_of(opened).but(tick_s=round(self.tick_s, TICK_DIGITS))

    def _hole(self, times: NDArray[np.int64], watts: NDArray[np.float64]) -> Gap | None:
        """The longest time without a sample, if it is much longer than the others: what is charged for it is a guess."""
        apart_ns = steps(times)
        longest = int(apart_ns.argmax())
        seconds = int(apart_ns[longest]) / NS_PER_S
        if seconds <= max(HOLE_S, HOLE_SAMPLES * self._spacing_s):
            return None
        # What lies before the run is not the run's own.
        seconds = min(seconds, (int(times[longest + 1]) - (self.began_ns or 0)) / NS_PER_S)
        joules = seconds * float(watts[longest] + watts[longest + 1]) / 2
        return Gap(device=self.device.label, seconds=seconds, joules=joules, why=SILENT) if joules > 0 else None

    def _is_asleep(self) -> bool:
        """Whether the device has shown its power since the last reading, and that it draws none."""
        newer = [watts for t_ns, watts in self._samples if t_ns > self._t[-1]]
        return bool(newer) and max(newer) <= ASLEEP_W

    def _extend(self, times: NDArray[np.int64], watts: NDArray[np.float64], rise_uj: int, *, is_whole: bool) -> None:
        """Charge `rise_uj` over `times`; compare it with the samples if nothing was lost."""
        t0, t_ns = self._t[-1], int(times[-1])
        lay = self._laid_out((times - t0) / NS_PER_S, watts, rise_uj / UJ_PER_J, t0, is_whole=is_whole)
        if len(times) > 2:
            self._folded[t0] = Folded(times[1:-1], t_ns, rise_uj, lay)
        self._e.append(self._e[-1] + rise_uj)
        self._unsure.append(round(self._unsure[-1]) + 1.0)
        self._t.append(t_ns)
        # The last sample before the frontier is where the next segment's shape begins.
        older = [s for s in self._samples if s[0] <= t_ns]
        self._samples = older[-1:] + [s for s in self._samples if s[0] > t_ns]

    def _laid_out(
        self, t_s: NDArray[np.float64], watts: NDArray[np.float64], joules: float, start_ns: int, *, is_whole: bool
    ) -> Callable[[], Laid]:
        """What lays out the samples' shape as far as the counter confirms it; notes what is known of this stretch."""
        seconds, dt, dw = float(t_s[-1]), steps(t_s), steps(watts)
        told_j = float(dt @ (watts[1:] + watts[:-1])) / 2
        if len(t_s) > 3:
            spacing_s = seconds / (len(t_s) - 2)
            self._spacing_s = self._spacing_s + 0.1 * (spacing_s - self._spacing_s) if self._spacing_s else spacing_s
        spacing_s = (self._spacing_s if told_j > 0 else 0.0) or self.tick_s or seconds
        power_w, here = joules / seconds, joules / told_j if told_j > 0 else 1.0
        spread = float(spread_j2(t_s, watts * here, power_w, spacing_s).sum())
        # A counter that says to the microjoule what the samples do is their own sum, and tests nothing.
        self._is_their_sum &= abs(joules - told_j) <= len(t_s) / UJ_PER_J + 1e-9 * told_j
        if not self._is_their_sum:
            change_w = float(watts[-1] - watts[0]) if is_whole and len(t_s) > 2 else 0.0
            self._evidence.take(seconds, joules, told_j, spread, change_w)
            if self._agreement.take(seconds, joules, told_j if is_whole else 0.0, often=self.worth_a_glance):
                self._learn(self._opened)
        fine_w = math.sqrt(float(dw[1:-1] @ dw[1:-1]) / (len(dw) - 2)) if len(dw) > 2 else 0.0
        trust = self._evidence.trust
        self._stretches.append(
            Stretch(
                start_ns=start_ns,
                end_ns=start_ns + round(seconds * NS_PER_S),
                power_w=power_w,
                missed_j=self._evidence.missed_j(seconds, power_w, spread),
                fine_j=fine_w * spacing_s * here,
                spacing_s=spacing_s,
                trust=trust if told_j > 0 else 0.0,
                blind_j=self._blind.take(t_s, watts, spacing_s) if self._is_their_sum else 0.0,
            )
        )
        ratio = self._evidence.ratio
        return partial(lay_out, t_s, watts, joules, trust=trust, ratio=ratio, dense_s=self.tick_s / 2, spacing_s=spacing_s)

    def _bridge_uj(self, start_ns: int, end_ns: int) -> int:
        """Energy of a lost time: by the power samples in it, or else by the last known power."""
        times, watts = between(self._samples, start_ns, end_ns)
        if len(times) > 2:
            return int(np.sum(steps(times) * (watts[1:] + watts[:-1]) / 2) / NS_PER_S * UJ_PER_J)
        return int(self._power_w * (end_ns - start_ns) / NS_PER_S * UJ_PER_J)
