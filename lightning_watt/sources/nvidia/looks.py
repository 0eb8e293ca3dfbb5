"""Looks at a counter that moves at ticks: what a look and a tick tell, and several counters that are waited for at once."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple, TypeVar

from lightning_watt.sources.base import Clock, end_of
from lightning_watt.units import NS_PER_S

POLL_NS = 1_000_000
MARGIN_NS = 1_500_000
"""How far around its expected time a tick is looked for, beside the time of a call; the expectation is good to a fraction of
this. A thread that sleeps is woken up this much late at most, unless the interpreter is busy."""
SHARP_NS = POLL_NS + MARGIN_NS
"""A tick that was seen to lie within this time, and that of the calls, is sharp."""
AVERAGED = 0.5
"""What is left of a random error if each new tick counts a quarter beside where it was expected (`ticks.WEIGHT`)."""
CALLS = 9
"""A call takes what the middle one of so many took."""
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


def gap_ns(call_ns: int) -> int:
    """Between two looks: never more than half of the time is spent in calls, which hold up others in the driver."""
    return max(POLL_NS, call_ns)


def sharp_ns(call_ns: int) -> int:
    """Within which time two looks see a sharp tick: the gap between them, a late waking, and both calls."""
    return gap_ns(call_ns) + MARGIN_NS + 2 * call_ns


def blur_s(call_ns: int) -> float:
    """By how much a tick that is seen again and again may be off because calls take so long, seconds.

    Nobody knows when in a call the value is taken: half of it stays. What else lies between two looks is another each time.
    """
    between_ns = sharp_ns(call_ns) - SHARP_NS - call_ns
    return (call_ns + AVERAGED * between_ns) / 2 / NS_PER_S


class Turn:
    """Lets one of several readers watch again at a time: looks at several slow boards would lie too far apart."""

    def __init__(self) -> None:
        self.taken = False


class Look(NamedTuple):
    """One call: the value was taken somewhere between its begin and its end (CLOCK_MONOTONIC)."""

    begin_ns: int
    end_ns: int
    value: int

    @property
    def middle_ns(self) -> int:
        """The best guess of when."""
        return (self.begin_ns + self.end_ns) // 2


class Tick(NamedTuple):
    """A tick, somewhere between two looks at the counter.

    Attributes:
        early_ns: before the last look that saw the old value (CLOCK_MONOTONIC).
        late_ns: after the first that saw the new one.
        value: the new value.
        limit_ns: how close together these two have to lie.
    """

    early_ns: int
    late_ns: int
    value: int
    limit_ns: int = SHARP_NS

    @property
    def middle_ns(self) -> int:
        """The best guess of when it was."""
        return (self.early_ns + self.late_ns) // 2

    @property
    def sharp(self) -> bool:
        """Whether the two looks lie close together."""
        return self.late_ns - self.early_ns <= self.limit_ns


class Looker:
    """Looks at one counter, and watches how long that takes.

    Args:
        read: returns the counter; may raise, which passes through.
        clock: the host's clock.
    """

    def __init__(self, read: Callable[[], int], clock: Clock) -> None:
        self._read, self._clock = read, clock
        self._calls: deque[int] = deque(maxlen=CALLS)
        self._call_ns: int | None = None  # not worked out since the last look; it is asked for several times after each

    @property
    def call_ns(self) -> int:
        """How long a look takes, nanoseconds."""
        if self._call_ns is None:
            self._call_ns = sorted(self._calls)[(len(self._calls) - 1) // 2]
        return self._call_ns

    def look(self) -> Look:
        """Look now."""
        begin_ns = self._clock.now_ns()
        value = self._read()
        look = Look(begin_ns, self._clock.now_ns(), value)
        self._calls.append(look.end_ns - begin_ns)
        self._call_ns = None
        return look

    def wait_for_change(self, last: Look, until_ns: int) -> Looks[Tick | None]:
        """Look every millisecond, or more seldom at a slow driver, until the counter moves; None if it does not."""
        while last.end_ns < until_ns:
            end = end_of(self._clock)
            if end is not None and last.end_ns > end:
                break
            yield last.end_ns + gap_ns(self.call_ns)
            look = self.look()
            if look.value != last.value:
                return Tick(last.begin_ns, look.end_ns, look.value, sharp_ns(self.call_ns))
            last = look
        return None


class KnownTicks(NamedTuple):
    """A board's ticks: the period, the first and the last one seen, the counter at the last, how long a call takes."""

    period_ns: float
    anchor_ns: int
    tick_ns: int
    value: int
    call_ns: int

    def holds(self, t_ns: int, value: int) -> bool:
        """Whether it tells where the ticks are now, and which one the counter shows.

        Args:
            t_ns: now.
            value: what the counter shows.
        """
        passed_ns, rise = t_ns - self.tick_ns, value - self.value
        drift_ns = sharp_ns(self.call_ns) * passed_ns / max(1, self.tick_ns - self.anchor_ns)
        to_edge_ns = abs(passed_ns - round(passed_ns / self.period_ns) * self.period_ns)
        is_the_same = 0 <= rise <= MOST_UJ_PER_NS * (passed_ns + self.period_ns)
        return is_the_same and drift_ns <= MARGIN_NS + self.call_ns < to_edge_ns
