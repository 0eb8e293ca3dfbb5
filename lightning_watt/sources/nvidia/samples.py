"""The driver's power samples of one board (`nvmlDeviceGetSamples`), on the host's steady clock.

Their stamps are microseconds of a clock that NVML does not name: "CPU timestamp" says nvml.h. Drivers were seen to stamp by
CLOCK_REALTIME, and by the time since boot (polarsignals/gpu-metrics-agent#36), which goes on while the machine sleeps
(CLOCK_BOOTTIME) or does not (CLOCK_MONOTONIC). So the clock is learned from a fresh sample: it is the one by which that
has just been taken.
"""

from __future__ import annotations

import ctypes
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import islice
from operator import itemgetter
from struct import Struct
from types import ModuleType
from typing import Any

from lightning_watt.sources.base import Clock, boot_ns
from lightning_watt.units import NS_PER_S, NS_PER_US, UJ_PER_J

UNLIKELY_W = 10_000.0
"""Published reports show samples of garbage above this; no board draws it."""
STEP_NS = NS_PER_S // 10
"""Two clocks drift apart by microseconds between two reads; by more than this, one was set, or the machine slept."""
FRESH_NS = 5 * NS_PER_S
"""A sample no older than this tells its clock: samples come several times a second."""
HISTORY_NS = NS_PER_S
"""What was sampled longer than this before the first look is nobody's business here."""

STAMP = itemgetter(0)
UNLIKELY_MW = 1000 * UNLIKELY_W
SAMPLE = Struct("=QI4x")
"""`nvmlSample_t` of nvml.h, whose value is a union of eight bytes."""
REALTIME, BOOTTIME, MONOTONIC = "realtime", "boottime", "monotonic"
"""The clocks by their POSIX names. Until a machine has slept, the last two are one, and are called `boottime`."""


class PowerSamples:
    """One board's samples, each handed out once.

    Args:
        nvml: pynvml, initialised.
        handle: the board.
        clock: the host's clocks.

    Attributes:
        clock_name: the clock of the stamps; empty as long as no sample has told.
        offered: whether the driver keeps samples of this board.
        strange: there were samples when it was opened, and their stamps fitted no clock.
    """

    def __init__(self, nvml: ModuleType, handle: Any, clock: Clock) -> None:
        self._nvml, self._handle = nvml, handle
        self._clocks: dict[str, Callable[[], int]] = {
            REALTIME: clock.unix_ns,
            BOOTTIME: lambda: boot_ns(clock),
            MONOTONIC: clock.now_ns,
        }
        self._now_ns = clock.now_ns
        self.clock_name = ""
        self._possible = list(self._clocks)
        self._offsets: dict[str, int] = {}
        self._last_us = 0
        self.offered, self.strange = True, False
        try:
            now_ns, offsets = self._look()
            stamped = self._newer()
            self._learn(stamped, now_ns, offsets)
            self.strange = bool(stamped) and not self.clock_name
        except nvml.NVMLError:
            self.offered = False

    def read(self) -> tuple[tuple[int, float], ...]:
        """The samples since the last call as `(t_ns of Clock.now_ns, watts)`, oldest first.

        Raises:
            NVMLError: the driver does not answer.
        """
        if not self.offered:
            return ()
        now_ns, offsets = self._look()
        self._follow(now_ns, offsets)
        stamped = self._newer()
        if self.clock_name and 2 * _past(stamped, _latest_us(now_ns + offsets[self.clock_name])) < len(stamped):
            # Most are of the future: it was taken from an old sample, by a clock that is a little behind the right one.
            self.clock_name, self._possible = "", list(self._clocks)
        if not self.clock_name:
            self._learn(stamped, now_ns, offsets)
        if not self.clock_name:
            return ()
        offset_ns = offsets[self.clock_name]
        # One of the future was stamped before the clock was set back, or by a driver that is confused.
        latest_us = _latest_us(now_ns + offset_ns)
        last_us = self._last_us
        found = [
            (us * NS_PER_US - offset_ns, mw / 1000) for us, mw in stamped if last_us < us <= latest_us and mw <= UNLIKELY_MW
        ]
        if found:
            self._last_us = (found[-1][0] + offset_ns) // NS_PER_US
        return tuple(found)

    def _look(self) -> tuple[int, dict[str, int]]:
        """Now, and how far each clock is ahead of the steady one."""
        now_ns = self._now_ns()
        return now_ns, {name: tell() - now_ns for name, tell in self._clocks.items()}

    def _newer(self) -> list[tuple[int, ...]]:
        """The driver's samples that are younger than the last, as `(stamp in µs, milliwatts)`; without those of no time."""
        try:
            _, raw = self._nvml.nvmlDeviceGetSamples(self._handle, self._nvml.NVML_TOTAL_POWER_SAMPLES, self._last_us)
        except self._nvml.NVMLError_NotFound:
            return []
        stamped = sorted(plain(raw))
        return stamped[bisect_right(stamped, 0, key=STAMP) :]

    def _learn(self, stamped: list[tuple[int, ...]], now_ns: int, offsets: dict[str, int]) -> None:
        """Take the clock by which the fewest samples are of the future and the newest is the freshest, if fresh by any."""
        new = [one for one in stamped if one[0] > self._last_us]
        fitting: dict[str, tuple[int, int]] = {}
        for name in self._possible:
            past = _past(new, _latest_us(now_ns + offsets[name]))
            age_ns = now_ns + offsets[name] - new[past - 1][0] * NS_PER_US if past else FRESH_NS + 1
            if age_ns <= FRESH_NS:
                fitting[name] = (len(new) - past, max(0, age_ns))
        if not fitting:
            return
        self.clock_name = name = min(fitting, key=lambda one: fitting[one])
        others = [other for other in self._possible if abs(offsets[other] - offsets[name]) <= STEP_NS]
        self._possible = others if len(others) > 1 else [name]
        self._offsets = offsets
        self._last_us = max(self._last_us, (now_ns + offsets[name] - HISTORY_NS) // NS_PER_US)

    def _follow(self, now_ns: int, offsets: dict[str, int]) -> None:
        """Where the clock of the stamps was set, or the machine slept, "younger than the last" moves with it."""
        before, self._offsets = self._offsets, offsets
        if not self.clock_name:
            return
        if any(abs(offsets[name] - offsets[self.clock_name]) > STEP_NS for name in self._possible):
            # The machine has slept: only now it can be told which of two clocks this is, from the next sample.
            self.clock_name, self._last_us = "", (now_ns + before[self.clock_name]) // NS_PER_US
            return
        step_ns = offsets[self.clock_name] - before[self.clock_name]
        if abs(step_ns) > STEP_NS:
            self._last_us += step_ns // NS_PER_US


def _latest_us(now_ns: int) -> int:
    """The latest stamp that is not of the future, by a clock that shows `now_ns`."""
    return (now_ns + STEP_NS) // NS_PER_US


def _past(stamped: Sequence[tuple[int, ...]], latest_us: int) -> int:
    """How many of these samples, oldest first, are not of the future."""
    return bisect_right(stamped, latest_us, key=STAMP)


def plain(raw: Sequence[Any]) -> list[tuple[int, ...]]:
    """Stamps and milliwatts, all at once: a look at a field of pynvml's structures runs Python code of its own."""
    whole = getattr(raw[0], "_b_base_", None) if raw else None
    if isinstance(whole, ctypes.Array) and ctypes.sizeof(raw[0]) == SAMPLE.size:
        return list(islice(SAMPLE.iter_unpack(bytes(whole)), len(raw)))
    return [(int(one.timeStamp), one.sampleValue.uiVal) for one in raw]


class Integral:
    """Power over time as energy: straight lines between samples.

    Attributes:
        start_ns, t_ns: the first and the last sample's time.
        uj: microjoules between them.
        handed_over: whether a reading has told the start.
    """

    def __init__(self) -> None:
        self.start_ns = 0
        self.t_ns = 0
        self.uj = 0
        self.handed_over = False
        self._watts = 0.0

    def add(self, samples: Sequence[tuple[int, float]]) -> None:
        """Go on over these samples, `(t_ns, watts)`; older ones than the last say nothing."""
        for t_ns, watts in samples:
            if not self.t_ns:
                self.start_ns = t_ns
            elif t_ns > self.t_ns:
                self.uj += round((t_ns - self.t_ns) / NS_PER_S * (watts + self._watts) / 2 * UJ_PER_J)
            if t_ns > self.t_ns:
                self.t_ns, self._watts = t_ns, watts
