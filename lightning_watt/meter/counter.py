"""What a counter says was used, whatever it does: it may fall, come back, jump, and begin anew.

Pure: no clock, no file, no driver. A counter that falls may have begun anew (a driver reload), or may show something
else for a while and return (reported of laptops, and of drivers under load). Nobody can tell at once, so the lost time
is bridged, and what the counter rises by from there on is charged. As soon as a step is better explained by a return to
where the counter had been before it fell, the counter is right again: what was bridged and charged meanwhile gives way
to it, so no joule is charged twice and none is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from lightning_watt.sources.base import Gap
from lightning_watt.units import NS_PER_S, UJ_PER_J

MOST_UJ = 2**62
"""No more is charged, 1.3 GWh, so that every sum of energies is a number of 64 bits."""
MOST_PATHS = 16
"""So many are remembered that the counter may come back to."""
MOST_GAPS = 100
"""Of one counter; more of them are kept as their sum."""
CLEAR = 3
"""One explanation is clear if the next best is so many times further from what was to be expected."""
BACKWARDS = "the counter went backwards"
TOO_FAST = "the counter rose faster than the device can draw"
OWED = "the counter returned, and showed less than had been charged meanwhile"

UNCLEAR = "the counter went backwards before, and may have returned or not"


class Step(NamedTuple):
    """What one reading comes to.

    Attributes:
        charge_uj: microjoules to charge since the reading before.
        power_w: the device's power since then, watts.
        gap: the gap that it revealed.
        returned: the counter is back where it had been before it fell.
    """

    charge_uj: int
    power_w: float
    gap: Gap | None = None
    returned: bool = False


class _Path(NamedTuple):
    """Where the counter was when it left a path that it may come back to, what had been used by then, and the gap since."""

    t_ns: int
    counter_uj: int
    used_uj: int
    gap: Gap | None


class Counter:
    """One device's counter.

    Args:
        label: the device's label.
        max_power_w: more than this cannot be drawn.

    Example:
        >>> counter = Counter("cpu0", 1000.0)
        >>> counter.begin(0, 500_000_000)
        >>> readings = [(1, 600), (2, 90), (3, 800)]  # 100 W, and once 610 J less than before
        >>> steps = [counter.take(s * 10**9, j * 10**6, 0.0, lambda: 100_000_000) for s, j in readings]
        >>> [step.charge_uj // 10**6 for step in steps], counter.gaps
        ([100, 100, 100], ())
    """

    def __init__(self, label: str, max_power_w: float) -> None:
        self._label, self._max_power_w = label, max_power_w
        self._t_ns = 0
        self._last_uj = 0
        self._used_uj = 0  # as far as is known now
        self._charged_uj = 0  # what was told, which is never taken back
        self._left: list[_Path] = []
        self._for_good: list[Gap] = []
        self.gaps: tuple[Gap, ...] = ()
        """What is charged and uncertain; a gap goes when the counter returns."""

    def begin(self, t_ns: int, counter_uj: int) -> None:
        """The first reading."""
        self._t_ns, self._last_uj = t_ns, counter_uj

    def moves(self, counter_uj: int) -> bool:
        """Whether this differs from the reading before."""
        return counter_uj != self._last_uj

    def rise_uj(self, counter_uj: int) -> int:
        """Microjoules since the reading before, by the counter alone."""
        return counter_uj - self._last_uj

    def take(self, t_ns: int, counter_uj: int, slack_s: float, expected: Callable[[], int]) -> Step:
        """Take a later reading.

        Args:
            t_ns: its time.
            counter_uj: the counter, microjoules.
            slack_s: by how much the readings' own times may be off together, seconds.
            expected: returns the microjoules since the reading before by anything but the counter: by power samples, or by
                the last known power.
        """
        here = _Path(self._t_ns, self._last_uj, self._used_uj, None)
        likely_uj = self._used_uj + (expected() if self._left else 0)
        found = [
            (abs(used_uj - likely_uj), -index, path, used_uj)
            for index, path in enumerate([*self._left, here])
            if (used_uj := self._used_on(path, t_ns, counter_uj, slack_s)) is not None
        ]
        self._t_ns, self._last_uj = t_ns, counter_uj
        if not found:
            return self._leave(here, expected())
        (off_uj, index, path, used_uj), *others = sorted(found)
        if others and others[0][0] < CLEAR * off_uj:
            doubt_j = abs(others[0][3] - used_uj) / UJ_PER_J
            self._keep(Gap(device=self._label, seconds=(t_ns - here.t_ns) / NS_PER_S, joules=doubt_j, why=UNCLEAR))
        returned = path is not here
        del self._left[-index:]
        power_w = (used_uj - path.used_uj) / UJ_PER_J / ((t_ns - path.t_ns) / NS_PER_S)
        return Step(self._charge(used_uj), power_w, returned=returned)

    def _used_on(self, path: _Path, t_ns: int, counter_uj: int, slack_s: float) -> int | None:
        """What has been used if the counter is on this path; None if the device cannot have drawn it since."""
        rise_uj = counter_uj - path.counter_uj
        most_uj = self._max_power_w * ((t_ns - path.t_ns) / NS_PER_S + slack_s) * UJ_PER_J
        return path.used_uj + rise_uj if 0 <= rise_uj <= min(most_uj, MOST_UJ - path.used_uj) else None

    def _leave(self, path: _Path, bridge_uj: int) -> Step:
        """The counter is on no path that is known: it begins another, and the time between is bridged."""
        seconds = (self._t_ns - path.t_ns) / NS_PER_S
        bridge_uj = max(0, min(bridge_uj, MOST_UJ - self._used_uj))
        why = BACKWARDS if self._last_uj < path.counter_uj else TOO_FAST
        gap = Gap(device=self._label, seconds=seconds, joules=bridge_uj / UJ_PER_J, why=why)
        self._left.append(path._replace(gap=gap))
        if len(self._left) > MOST_PATHS:
            self._keep(self._left.pop(0).gap)
        return Step(self._charge(self._used_uj + bridge_uj), gap.joules / seconds, gap)

    def _charge(self, used_uj: int) -> int:
        charge_uj = max(0, used_uj - self._charged_uj)
        self._used_uj = used_uj
        self._charged_uj += charge_uj
        owed_j = (self._charged_uj - used_uj) / UJ_PER_J
        owed = [Gap(device=self._label, seconds=0.0, joules=owed_j, why=OWED)] if owed_j > 0 else []
        self.gaps = (*self._for_good, *(path.gap for path in self._left if path.gap), *owed)
        return charge_uj

    def _keep(self, gap: Gap | None) -> None:
        """A gap that nothing ends any more."""
        self._for_good += [gap] if gap else []
        if len(self._for_good) > MOST_GAPS:
            one, other = self._for_good[:2]
            whole = Gap(
                device=self._label, seconds=one.seconds + other.seconds, joules=one.joules + other.joules, why=other.why
            )
            self._for_good[:2] = [whole]
