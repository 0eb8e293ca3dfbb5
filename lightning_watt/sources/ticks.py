"""Reads a slow counter at its ticks, where its value is exact.

A counter that is updated every 100 ms is, at any moment, up to 100 ms old. At 300 W that is 30 J at either end of a window,
and it makes a one-second share of the energy 10 % uncertain. So the update period is watched once, and from then on each
read waits for a tick: the value then stands for a time known to a millisecond. As long as the ticks come where they are
expected, two looks between ticks tell the values at two of them; a few quick looks around the moment when one is expected
make sure of that every few seconds. Between two reads a `glance` does the same with one look. Ticks that come unevenly
cannot be expected: such a counter is looked at a few times in a read until it has changed, and the tick is known to a
quarter of its period.

A call takes microseconds on an idle driver and milliseconds on a busy one, and nobody knows at which moment of it the value
was taken: so its length is watched too, and says how close two looks can lie, how far a tick is known, and when a counter
ticks too fast for such a driver. A watch that failed is tried again later, one board at a time. What was found is remembered
by the board in this process, for as long as the period says where the ticks are. Where a measurement ends, nobody waits for
a tick beyond what its clock allows (`end_of`): the counter then shows its value at the last tick.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from lightning_watt.sources.base import HOST_CLOCK, Clock, end_of
from lightning_watt.sources.nvidia.looks import (
    MARGIN_NS,
    SHARP_NS,
    KnownTicks,
    Look,
    Looker,
    Looks,
    Tick,
    Turn,
    blur_s,
    gap_ns,
    run_together,
    sharp_ns,
)
from lightning_watt.units import NS_PER_S

WATCH_NS, LONGEST_WATCH_NS = 600_000_000, 2_000_000_000
"""How long a counter is watched at first, and where calls take long; without two sharp ticks it is read as it is."""
AGAIN_NS, SELDOMEST_NS = 5_000_000_000, 300_000_000_000
"""A watch that failed is tried again after this time, then after twice as much, up to the second."""
MISSES = 3
WEIGHT = 0.25
"""How much a sharp tick that was seen counts beside where it was expected: its two looks may lie some calls apart."""
TRUSTED_NS = 16_000_000_000
"""How long the ticks are expected where they were, without seeing one."""
UNEVEN = 5
"""Ticks lie as far from where they are expected as the last so many did."""
COARSE = 4
"""Looks in a period at a counter whose ticks are uneven."""
LONGEST_NS = 100_000_000
"""The longest period that was observed (`meter/timeline.py`); where the end comes before a second tick, it is assumed."""
_known: dict[str, KnownTicks] = {}


class TickReader:
    """Reads one counter at its ticks.

    Args:
        read: returns the counter; may raise, which passes through.
        clock: the host's clock.
        board: whose counter it is, so that its ticks can be remembered; empty if nobody knows.
        turn: shared with the readers that are read together with this one.

    Attributes:
        blur_s: by how much the times of the last readings may be off because of how the counter was read, seconds.

    Example:
        >>> from lightning_watt.testing import ReplayClock
        >>> clock = ReplayClock()  # which tells the same on a busy machine
        >>> reader = TickReader(lambda: clock.now_ns() // 20_000_000, clock)  # ticks every 20 ms
        >>> first, *_ = reader.read()
        >>> round(reader.period_s, 2)
        0.02
    """

    def __init__(self, read: Callable[[], int], clock: Clock, board: str = "", turn: Turn | None = None) -> None:
        self._clock = clock
        # A test's own clock tells another time in each test.
        self._board = board if getattr(clock, "clock", clock) is HOST_CLOCK else ""
        self._turn = turn or Turn()
        self._looker = Looker(read, clock)
        opened = self._looker.look()
        self._opened = (opened.middle_ns, opened.value)
        self.blur_s = 0.0
        self._anchor_ns = 0
        self._tick_ns = 0
        self._period_ns = 0.0
        self._misses = 0
        self._watched = False
        self._rest_ns, self._again_ns = AGAIN_NS, 0
        self._off_ns = 0.0
        self._seen_ns = 0
        self._glanced: list[tuple[int, int]] = []
        known = _known.get(self._board)
        if known is not None and known.holds(*self._opened):
            self._period_ns, self._anchor_ns, self._tick_ns = known[:3]

    @property
    def period_s(self) -> float | None:
        """The counter's update period in seconds; None before it was watched, or if it has none."""
        return self._period_ns / NS_PER_S if self._period_ns else None

    @property
    def call_ns(self) -> int:
        """How long a look at the counter takes, nanoseconds."""
        return self._looker.call_ns

    def read(self) -> list[tuple[int, int]]:
        """The counter as `[(t_ns, value), ...]`, oldest first; each value stands for its time."""
        return run_together([self.looks()], self._clock)[0]

    def looks(self) -> Looks[list[tuple[int, int]]]:
        """The same as a generator, which yields the time of its next look; many counters can then be waited for at once."""
        if not self._watched:
            self._watched = True
            if not self._period_ns:
                return (yield from self._first_watch())
            opening = (self._tick_before(self._opened[0]), self._opened[1])
            return [opening, *[found for found in (yield from self._next_tick()) if found[0] > opening[0]]]
        if self._is_to_watch_again():
            return (yield from self._watch_again())
        if not self._is_at_ticks():
            return [self._plain(self._looker.look())]
        if self._off_ns > sharp_ns(self.call_ns):
            return (yield from self._coarse_tick())
        found = yield from (self._by_the_clock() if self._knows_where() else self._next_tick())
        glanced, self._glanced = [one for one in self._glanced if one[0] < found[0][0] - self._period_ns / 2], []
        return glanced + found

    def glance(self) -> Looks[None]:
        """Look once between two reads; what it shows is handed over with the next of these.

        The counter shows its value at the last tick, and when that was is known; close to a tick, it waits for its end.
        """
        if not self._is_at_ticks() or self._off_ns > sharp_ns(self.call_ns) or not self._knows_where():
            return
        began_ns = self._clock.now_ns()
        near_ns = self._near_ns() + self.call_ns
        if self._is_at_a_tick(began_ns, began_ns + self.call_ns):
            due_ns = self._tick_before(began_ns + near_ns) + 2 * near_ns
            if self._is_over_by(due_ns):
                return
            yield due_ns
        look = self._looker.look()
        if not self._is_at_a_tick(look.begin_ns, look.end_ns):
            tick_ns = self._tick_before(look.begin_ns)
            if not self._glanced or tick_ns > self._glanced[-1][0] + self._period_ns / 2:
                self._glanced.append((tick_ns, look.value))

    def _is_at_a_tick(self, early_ns: int, late_ns: int) -> bool:
        near_ns = self._near_ns()
        return self._tick_before(early_ns - near_ns) != self._tick_before(late_ns + near_ns)

    def _near_ns(self) -> int:
        """How far from where it is expected a tick may be: the last was seen to a margin, and the period may be off."""
        since_ns = self._clock.now_ns() - self._seen_ns
        return MARGIN_NS + sharp_ns(self.call_ns) * since_ns // max(1, self._seen_ns - self._anchor_ns)

    def _knows_where(self) -> bool:
        """Whether the last ticks that were seen tell where the present ones are."""
        has_room = 4 * sharp_ns(self.call_ns) <= self._period_ns  # between two ticks, for a look that is near neither
        return has_room and self._clock.now_ns() - self._seen_ns < TRUSTED_NS and self._near_ns() <= 2 * MARGIN_NS

    def _by_the_clock(self) -> Looks[list[tuple[int, int]]]:
        """The next tick and the one before it with a look at each, because it is known where they are."""
        if not self._glanced:
            yield from self.glance()  # so that there is a stretch of one tick to test the samples by
        due_ns = self._tick_before(self._clock.now_ns() + MARGIN_NS + int(self._period_ns)) + self._near_ns()
        due_ns += MARGIN_NS + self.call_ns
        if self._is_over_by(due_ns):
            return (yield from self._last_look())
        yield due_ns
        look = self._looker.look()
        if self._is_at_a_tick(look.begin_ns, look.end_ns):
            return (yield from self._next_tick())
        self.blur_s = blur_s(self.call_ns)
        tick_ns = self._tick_before(look.begin_ns)
        before = self._glanced.pop() if self._glanced and self._glanced[-1][0] >= tick_ns - 1.5 * self._period_ns else None
        return [*([before] if before and before[0] < tick_ns else []), (tick_ns, look.value)]

    def _coarse_tick(self) -> Looks[list[tuple[int, int]]]:
        """The next tick of a counter whose ticks are uneven, by a few looks."""
        last = self._looker.look()
        gap = max(int(self._period_ns / COARSE), gap_ns(self.call_ns))
        for _ in range(2 * COARSE):
            if self._is_over_by(last.end_ns + gap):
                break
            yield last.end_ns + gap
            look = self._looker.look()
            if look.value != last.value:
                self.blur_s = (look.end_ns - last.begin_ns) / 2 / NS_PER_S
                return [((last.begin_ns + look.end_ns) // 2, look.value)]
            last = look
        return [self._plain(last)]

    def _is_at_ticks(self) -> bool:
        """Whether ticks are known, come one by one, and lie further apart than looks can tell them."""
        return self._misses < MISSES and self._period_ns >= 2 * sharp_ns(self.call_ns)

    def _is_to_watch_again(self) -> bool:
        over = end_of(self._clock) is not None
        return bool(self._again_ns) and self._clock.now_ns() >= self._again_ns and not self._turn.taken and not over

    def _plain(self, look: Look) -> tuple[int, int]:
        self.blur_s = (self._period_ns + self.call_ns) / NS_PER_S
        return look.end_ns, look.value

    def _first_watch(self) -> Looks[list[tuple[int, int]]]:
        """Find the ticks' period and phase, and so the time that the opening value stands for."""
        opened_ns, opened = self._opened
        shown, seen = yield from self._watch()
        readings = [(tick.middle_ns, tick.value) for tick in seen if tick.sharp]
        if not self._period_ns:
            # No tick worth waiting for, or a machine too busy to see it: the counter is read as it is.
            cut_short = end_of(self._clock) is not None and bool(readings)
            return [(min(opened_ns, readings[0][0] - LONGEST_NS), opened) if cut_short else self._opened, *readings]
        period = self._period_ns
        # Close to a tick, the clock does not show on which side of it the counter was opened. A change of the value does.
        ticks = 1 + next(i for i, tick in enumerate(seen) if tick.sharp)
        if shown != opened:
            ticks = max(ticks + 1, math.ceil((self._anchor_ns - opened_ns) / period))
        opening = (min(opened_ns, self._anchor_ns - int(ticks * period)), opened)
        return [opening, *readings] if opening[0] < readings[0][0] else readings

    def _watch_again(self) -> Looks[list[tuple[int, int]]]:
        """Watch once more, and read at the ticks from here on if that goes well."""
        self._turn.taken = True
        try:
            _, seen = yield from self._watch()
        finally:
            self._turn.taken = False
        readings = [(tick.middle_ns, tick.value) for tick in seen if tick.sharp]
        return readings if self._period_ns else [self._plain(self._looker.look())]

    def _watch(self) -> Looks[tuple[int, list[Tick]]]:
        """Look at the counter until its period is known: what it showed first, and the ticks that were seen."""
        self._period_ns, self._misses, self._off_ns = 0.0, 0, 0.0
        last = self._looker.look()
        shown, seen = last.value, list[Tick]()
        until = last.end_ns + min(WATCH_NS * sharp_ns(self.call_ns) // SHARP_NS, LONGEST_WATCH_NS)
        while not (locked := self._locked(seen)):
            tick = yield from self._looker.wait_for_change(last, until)
            if tick is None:
                break
            seen.append(tick)
            last = Look(tick.late_ns, tick.late_ns, tick.value)
        limit_ns = sharp_ns(self.call_ns)
        is_fast = 0 < self._period_ns < 2 * limit_ns
        if self._period_ns and not is_fast and (locked or end_of(self._clock) is not None):
            self.blur_s = blur_s(self.call_ns)
            self._rest_ns, self._again_ns = AGAIN_NS, 0
            self._seen_ns = self._tick_ns
            self._remember(seen[-1].value)
        else:
            self._period_ns = 0.0
            # A counter that is faster than quick looks stays so, and a read is as good as a tick.
            self._again_ns = 0 if is_fast and limit_ns < 2 * SHARP_NS else self._clock.now_ns() + self._rest_ns
            self._rest_ns = min(2 * self._rest_ns, SELDOMEST_NS)
        return shown, seen

    def _locked(self, seen: list[Tick]) -> bool:
        """Take the period from the ticks seen so far; True once ticks can be counted over a second by it."""
        sharp = [i for i, tick in enumerate(seen) if tick.sharp]
        if len(sharp) < 2:
            return False
        first, last = seen[sharp[0]], seen[sharp[-1]]
        span, limit_ns = last.middle_ns - first.middle_ns, sharp_ns(self.call_ns)
        # No tick is missed while looking every millisecond, so those in between count, sharp or not.
        self._anchor_ns, self._tick_ns = first.middle_ns, last.middle_ns
        self._period_ns = span / (sharp[-1] - sharp[0])
        # Two edges, each good to half a sharp tick, over `span`: over a second that may not grow to a third of a period.
        return span * self._period_ns >= 3 * limit_ns * NS_PER_S / 2 or self._period_ns < 2 * limit_ns

    def _next_tick(self) -> Looks[list[tuple[int, int]]]:
        """The next tick and the one or two before it, which bracket the moment that the read was asked for."""
        asked = self._looker.look().value
        near, due = MARGIN_NS + self.call_ns, self._next_due_ns()
        for attempt, margin in enumerate((near, 4 * near, int(self._period_ns))):  # noqa: B007 - read below
            if self._is_over_by(due + margin):
                return (yield from self._last_look())
            yield due - margin
            if self._is_over_by(due + margin):
                return (yield from self._last_look())
            before = self._looker.look()
            tick = yield from self._looker.wait_for_change(before, due + margin)
            if tick is not None:
                break
            due = self._next_due_ns()  # it was not at the expected time: look around the next one, and wider
        else:
            if end_of(self._clock) is not None:
                return (yield from self._last_look())
            self._misses += 1
            self._again_ns = self._clock.now_ns() + self._rest_ns
            return [self._plain(Look(before.begin_ns, self._clock.now_ns(), before.value))]
        self._misses, self._again_ns, self.blur_s = 0, 0, blur_s(self.call_ns)
        held_up = tick.late_ns - tick.early_ns > self._period_ns
        # The last tick that was due by the second look, as far as what was seen allows it: a thread that was woken late, or
        # held up by the driver, still knows when the tick was.
        whole = (tick.late_ns + tick.limit_ns - self._tick_ns) // self._period_ns
        expected = self._tick_ns + int(whole * self._period_ns)
        if tick.sharp:
            off_ns = abs(tick.middle_ns - expected)
            self._off_ns += (min(off_ns, abs(self._period_ns - off_ns)) - self._off_ns) / UNEVEN
            self._seen_ns = tick.middle_ns
            if self._off_ns > sharp_ns(self.call_ns):
                self._again_ns = self._clock.now_ns() + SELDOMEST_NS
                self.blur_s = self._off_ns / NS_PER_S
                return [(tick.middle_ns, tick.value)]
            expected += int(WEIGHT * (tick.middle_ns - expected))
        self._tick_ns = min(max(expected, tick.early_ns), tick.late_ns)
        if tick.sharp:
            # The period grows exact with the distance to the first tick; one missed or doubled tick must not bend it.
            period = (self._tick_ns - self._anchor_ns) / max(1, round((self._tick_ns - self._anchor_ns) / self._period_ns))
            if abs(period - self._period_ns) < 0.05 * self._period_ns:
                self._period_ns = period
                self._remember(tick.value)
        if held_up:
            return [(self._tick_ns, tick.value)]  # and nobody knows how many ticks ago it showed what it did before
        readings = [(self._tick_ns - int(self._period_ns), before.value), (self._tick_ns, tick.value)]
        if asked != before.value and attempt == 0:
            # It was asked so shortly before a tick that this one was let pass.
            readings.insert(0, (self._tick_ns - int(2 * self._period_ns), asked))
        return readings

    def _last_look(self) -> Looks[list[tuple[int, int]]]:
        """The counter as it is, which is what it was at the last tick."""
        now, margin = self._clock.now_ns(), min(self._near_ns() + self.call_ns, int(self._period_ns / 2))
        nearest = self._tick_ns + int(round((now - self._tick_ns) / self._period_ns) * self._period_ns)
        if abs(now - nearest) <= margin:
            yield nearest + margin  # only then it is clear which tick it shows
        look = self._looker.look()
        return [(self._tick_before(look.end_ns), look.value)]

    def _tick_before(self, t_ns: int) -> int:
        return self._tick_ns + int((t_ns - self._tick_ns) // self._period_ns * self._period_ns)

    def _is_over_by(self, t_ns: int) -> bool:
        return (end := end_of(self._clock)) is not None and t_ns > end

    def _remember(self, value: int) -> None:
        if self._board:
            _known[self._board] = KnownTicks(self._period_ns, self._anchor_ns, self._tick_ns, value, self.call_ns)

    def _next_due_ns(self) -> int:
        """When the next tick is expected that can still be waited for."""
        ahead = (self._clock.now_ns() - self._tick_ns + MARGIN_NS + self.call_ns) // self._period_ns + 1
        return self._tick_ns + int(ahead * self._period_ns)
