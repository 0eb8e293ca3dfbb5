"""Reads a slow counter at its ticks, where its value is exact.

A counter that is updated every 100 ms is, at any moment, up to 100 ms old. At 300 W that is 30 J at either end of a window,
and it makes a one-second share of the energy 10 % uncertain. So the update period is watched once, and from then on each
read waits for the next tick (a few quick looks around the moment when it is expected): the value then stands for a time
known to a millisecond. This costs about five calls a second instead of one, all in the reader's thread.

What was found is remembered in this process by the board, so that the next run need not watch again, for as long as the
period is known well enough to say where the ticks are. Where a measurement ends, nobody waits for a tick that comes later
than its clock allows (`end_of`): the counter then shows its value at the last tick, whose time is known.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple, TypeVar

from lightning_watt.sources.base import HOST_CLOCK, Clock, end_of
from lightning_watt.units import NS_PER_S

POLL_NS = 1_000_000
MARGIN_NS = 1_500_000
"""How far around its expected time a tick is looked for; the expectation is good to a fraction of this."""
SHARP_NS = 2_500_000
"""A tick that was seen to lie within this time is sharp; a busy interpreter wakes a thread up later than that."""
WATCH_NS = 600_000_000
"""How long the counter is watched at first; one that shows no two sharp ticks meanwhile is read as it is."""
FAST_NS = 5_000_000
"""Below this period a read is as good as a tick."""
MISSES = 3
LONGEST_NS = 100_000_000
"""The longest period that was observed (`meter/timeline.py`); where the end comes before a second tick, it is assumed."""
MOST_UJ_PER_NS = 10
"""10 kW, more than a board draws: a counter that rose faster since it was last seen is another one, or was reset."""


Result = TypeVar("Result")
Looks = Generator[int, None, Result]
"""Yields the times (ns) at which it wants to look again, and returns what it found."""


def run_together(looks: Sequence[Looks[Result]], clock: Clock) -> list[Result]:
    """Run several `Looks` at once, each at its own times, so that eight boards take no longer than one.

    Returns:
        Their results, in order. What one of them raises passes through.
    """
    results: dict[int, Result] = {}
    waiting = [(clock.now_ns(), i) for i in range(len(looks))]
    while waiting:
        due_ns, i = heapq.heappop(waiting)
        ahead_ns = due_ns - clock.now_ns()
        if ahead_ns > 0:
            clock.sleep(ahead_ns / NS_PER_S)
        try:
            heapq.heappush(waiting, (next(looks[i]), i))
        except StopIteration as done:
            results[i] = done.value
    return [results[i] for i in range(len(looks))]


class KnownTicks(NamedTuple):
    """What is known of a board's ticks: the period, the first and the last one that were seen, the counter at the last."""

    period_ns: float
    anchor_ns: int
    tick_ns: int
    value: int

    def holds(self, t_ns: int, value: int) -> bool:
        """Whether it tells where the ticks are now, and which one the counter shows.

        Args:
            t_ns: now.
            value: what the counter shows.
        """
        passed_ns, rise = t_ns - self.tick_ns, value - self.value
        drift_ns = SHARP_NS * passed_ns / max(1, self.tick_ns - self.anchor_ns)
        to_edge_ns = abs(passed_ns - round(passed_ns / self.period_ns) * self.period_ns)
        is_the_same = 0 <= rise <= MOST_UJ_PER_NS * (passed_ns + self.period_ns)
        return is_the_same and drift_ns <= MARGIN_NS < to_edge_ns


_known: dict[str, KnownTicks] = {}


class TickReader:
    """Reads one counter at its ticks.

    Args:
        read: returns the counter; may raise, which passes through.
        clock: the host's clock.
        board: whose counter it is, so that its ticks can be remembered; empty if nobody knows.

    Example:
        >>> from lightning_watt.sources.base import HOST_CLOCK
        >>> reader = TickReader(lambda: HOST_CLOCK.now_ns() // 20_000_000, HOST_CLOCK)  # ticks every 20 ms
        >>> first, *_ = reader.read()
        >>> round(reader.period_s, 2)
        0.02
    """

    def __init__(self, read: Callable[[], int], clock: Clock, board: str = "") -> None:
        self._read = read
        self._clock = clock
        # A test's own clock tells another time in each test.
        self._board = board if getattr(clock, "clock", clock) is HOST_CLOCK else ""
        self._opened = (clock.now_ns(), read())
        self._anchor_ns = 0
        self._tick_ns = 0
        self._period_ns = 0.0
        self._misses = 0
        self._watched = False
        known = _known.get(self._board)
        if known is not None and known.holds(*self._opened):
            self._period_ns, self._anchor_ns, self._tick_ns, _ = known

    @property
    def period_s(self) -> float | None:
        """The counter's update period in seconds; None before it was watched, or if it has none."""
        return self._period_ns / NS_PER_S if self._period_ns else None

    def read(self) -> list[tuple[int, int]]:
        """The counter as `[(t_ns, value), ...]`, oldest first; each value stands for its time."""
        return run_together([self.looks()], self._clock)[0]

    def looks(self) -> Looks[list[tuple[int, int]]]:
        """The same as a generator, which yields the time of its next look; many counters can then be waited for at once."""
        if not self._watched:
            self._watched = True
            if not self._period_ns:
                return (yield from self._watch())
            opening = (self._tick_before(self._opened[0]), self._opened[1])
            return [opening, *[found for found in (yield from self._next_tick()) if found[0] > opening[0]]]
        if not self._period_ns or self._misses >= MISSES:
            value = self._read()
            return [(self._clock.now_ns(), value)]
        return (yield from self._next_tick())

    def _watch(self) -> Looks[list[tuple[int, int]]]:
        """Find the ticks' period and phase, and so the time that the opening value stands for."""
        opened_ns, opened = self._opened
        until = self._clock.now_ns() + WATCH_NS
        seen: list[Tick] = []
        before = shown = self._read()
        while not self._locked(seen):
            tick = yield from self._wait_for_change(before, until)
            if tick is None:
                break
            seen.append(tick)
            before = tick.value
        readings = [(tick.middle_ns, tick.value) for tick in seen if tick.sharp]
        if not self._period_ns or self._period_ns < FAST_NS:
            # No tick worth waiting for, or a machine too busy to see it: the counter is read as it is.
            self._period_ns = 0.0
            cut_short = end_of(self._clock) is not None and bool(readings)
            return [(min(opened_ns, readings[0][0] - LONGEST_NS), opened) if cut_short else self._opened, *readings]
        self._remember(before)
        period = self._period_ns
        # Close to a tick, the clock does not show on which side of it the counter was opened. A change of the value does.
        ticks = 1 + next(i for i, tick in enumerate(seen) if tick.sharp)
        if shown != opened:
            ticks = max(ticks + 1, math.ceil((self._anchor_ns - opened_ns) / period))
        opening = (min(opened_ns, self._anchor_ns - int(ticks * period)), opened)
        return [opening, *readings] if opening[0] < readings[0][0] else readings

    def _locked(self, seen: list[Tick]) -> bool:
        """Take the period from the ticks seen so far; True once ticks can be counted over a second by it."""
        sharp = [i for i, tick in enumerate(seen) if tick.sharp]
        if len(sharp) < 2:
            return False
        first, last = seen[sharp[0]], seen[sharp[-1]]
        span = last.middle_ns - first.middle_ns
        # No tick is missed while looking every millisecond, so those in between count, sharp or not.
        self._anchor_ns, self._tick_ns = first.middle_ns, last.middle_ns
        self._period_ns = span / (sharp[-1] - sharp[0])
        # Two edges, each good to half a sharp tick, over `span`: over a second that may not grow to a third of a period.
        return span * self._period_ns >= 3 * SHARP_NS * NS_PER_S / 2 or self._period_ns < FAST_NS

    def _next_tick(self) -> Looks[list[tuple[int, int]]]:
        """The next tick and the one or two before it, which bracket the moment that the read was asked for."""
        asked = self._read()
        due = self._next_due_ns()
        for attempt, margin in enumerate((MARGIN_NS, 4 * MARGIN_NS, int(self._period_ns))):  # noqa: B007 - read below
            if self._is_over_by(due + margin):
                return (yield from self._last_look())
            yield due - margin
            if self._is_over_by(due + margin):
                return (yield from self._last_look())
            before = self._read()
            tick = yield from self._wait_for_change(before, due + margin)
            if tick is not None:
                break
            due = self._next_due_ns()  # it was not at the expected time: look around the next one, and wider
        else:
            if end_of(self._clock) is not None:
                return (yield from self._last_look())
            self._misses += 1
            return [(self._clock.now_ns(), before)]
        self._misses = 0
        held_up = tick.late_ns - tick.early_ns > self._period_ns
        # The last tick that was due by the second look, as far as what was seen allows it: a thread that was woken late, or
        # held up by the driver, still knows when the tick was.
        whole = (tick.late_ns + SHARP_NS - self._tick_ns) // self._period_ns
        expected = self._tick_ns + int(whole * self._period_ns)
        self._tick_ns = min(max(expected, tick.early_ns), tick.late_ns)
        if tick.sharp:
            # The period grows exact with the distance to the first tick; one missed or doubled tick must not bend it.
            period = (self._tick_ns - self._anchor_ns) / max(1, round((self._tick_ns - self._anchor_ns) / self._period_ns))
            if abs(period - self._period_ns) < 0.05 * self._period_ns:
                self._period_ns = period
                self._remember(tick.value)
        if held_up:
            return [(self._tick_ns, tick.value)]  # and nobody knows how many ticks ago it showed what it did before
        readings = [(self._tick_ns - int(self._period_ns), before), (self._tick_ns, tick.value)]
        if asked != before and attempt == 0:
            # It was asked so shortly before a tick that this one was let pass.
            readings.insert(0, (self._tick_ns - int(2 * self._period_ns), asked))
        return readings

    def _last_look(self) -> Looks[list[tuple[int, int]]]:
        """The counter as it is, which is what it was at the last tick."""
        now = self._clock.now_ns()
        nearest = self._tick_ns + int(round((now - self._tick_ns) / self._period_ns) * self._period_ns)
        if abs(now - nearest) <= MARGIN_NS:
            yield nearest + MARGIN_NS  # only then it is clear which tick it shows
        value = self._read()
        return [(self._tick_before(self._clock.now_ns()), value)]

    def _tick_before(self, t_ns: int) -> int:
        return self._tick_ns + int((t_ns - self._tick_ns) // self._period_ns * self._period_ns)

    def _is_over_by(self, t_ns: int) -> bool:
        end = end_of(self._clock)
        return end is not None and t_ns > end

    def _remember(self, value: int) -> None:
        if self._board:
            _known[self._board] = KnownTicks(self._period_ns, self._anchor_ns, self._tick_ns, value)

    def _next_due_ns(self) -> int:
        """When the next tick is expected that can still be waited for."""
        ahead = (self._clock.now_ns() - self._tick_ns + MARGIN_NS) // self._period_ns + 1
        return self._tick_ns + int(ahead * self._period_ns)

    def _wait_for_change(self, before: int, until_ns: int) -> Looks[Tick | None]:
        """Look every millisecond until the counter moves; its tick lies between the last two looks."""
        looked = self._clock.now_ns()
        while looked < until_ns and not self._is_over_by(looked):
            yield looked + POLL_NS
            value = self._read()
            now = self._clock.now_ns()
            if value != before:
                return Tick(looked, now, value)
            looked = now
        return None


class Tick(NamedTuple):
    """A tick, somewhere between two looks at the counter.

    Attributes:
        early_ns: after the last look that saw the old value (CLOCK_MONOTONIC).
        late_ns: after the first that saw the new one.
        value: the new value.
    """

    early_ns: int
    late_ns: int
    value: int

    @property
    def middle_ns(self) -> int:
        """The best guess of when it was."""
        return (self.early_ns + self.late_ns) // 2

    @property
    def sharp(self) -> bool:
        """Whether the two looks lie close together."""
        return self.late_ns - self.early_ns <= SHARP_NS
