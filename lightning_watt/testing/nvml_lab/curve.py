"""Power curves of fake boards: piecewise-constant watts over time, integrated exactly."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

NS_PER_S = 1_000_000_000
MW_PER_W = 1_000
# One milliwatt over one nanosecond is one picojoule: with both as integers, every integral is exact.
PJ_PER_J = 10**12


@dataclass(frozen=True)
class Curve:
    """Power over time: the segments of `head` once, then those of `loop` for ever.

    Args:
        loop: `(nanoseconds, milliwatts)` pairs, repeated without end; at least one.
        head: `(nanoseconds, milliwatts)` pairs that come once, before the first `loop`.

    Example:
        >>> square(300, 80, 1.0).energy_pj(2_500_000_000) / PJ_PER_J
        530.0
    """

    loop: tuple[tuple[int, int], ...]
    head: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if not self.loop:
            raise ValueError("A curve needs at least one looping segment; use constant(watts) for a flat one.")
        for duration_ns, power_mw in self.head + self.loop:
            if duration_ns <= 0 or power_mw < 0:
                raise ValueError(f"A segment lasts 1 ns or more and has 0 W or more; got {duration_ns} ns, {power_mw} mW.")

    @cached_property
    def _head(self) -> _Segments:
        return _Segments(self.head)

    @cached_property
    def _loop(self) -> _Segments:
        return _Segments(self.loop)

    def energy_pj(self, t_ns: int) -> int:
        """Energy from time zero to `t_ns` (nanoseconds after it) in picojoules, exact."""
        if t_ns <= 0:
            return 0
        if t_ns < self._head.total_ns:
            return self._head.energy_pj(t_ns)
        rounds, rest_ns = divmod(t_ns - self._head.total_ns, self._loop.total_ns)
        return self._head.total_pj + rounds * self._loop.total_pj + self._loop.energy_pj(rest_ns)

    def energy_j(self, t_ns: NDArray[np.int64]) -> NDArray[np.float64]:
        """Energy from time zero to each of `t_ns` in joules; float64, any shape."""
        t_ns = np.maximum(np.asarray(t_ns, dtype=np.int64), 0)
        rounds, rest_ns = np.divmod(np.maximum(t_ns - self._head.total_ns, 0), self._loop.total_ns)
        looped_j = rounds * (self._loop.total_pj / PJ_PER_J) + self._loop.energy_j(rest_ns)
        if not self.head:
            return looped_j
        in_head_ns = np.minimum(t_ns, self._head.total_ns)
        return self._head.energy_j(in_head_ns) + looped_j

    def power_w(self, t_ns: NDArray[np.int64]) -> NDArray[np.float64]:
        """Power at each of `t_ns` (nanoseconds after time zero) in watts; a segment owns its start."""
        t_ns = np.maximum(np.asarray(t_ns, dtype=np.int64), 0)
        watts = self._loop.power_w((t_ns - self._head.total_ns) % self._loop.total_ns)
        return np.where(t_ns < self._head.total_ns, self._head.power_w(t_ns), watts) if self.head else watts


class _Segments:
    """Running sums over segments, for a search by time."""

    def __init__(self, pairs: Sequence[tuple[int, int]]) -> None:
        self.start_ns = [0, *accumulate(duration for duration, _ in pairs)]
        self.start_pj = [0, *accumulate(duration * power for duration, power in pairs)]
        self.power_mw = [power for _, power in pairs]
        self.total_ns = self.start_ns.pop()
        self.total_pj = self.start_pj.pop()

    def energy_pj(self, t_ns: int) -> int:
        i = bisect_right(self.start_ns, t_ns) - 1
        return self.start_pj[i] + (t_ns - self.start_ns[i]) * self.power_mw[i]

    def energy_j(self, t_ns: NDArray[np.int64]) -> NDArray[np.float64]:
        i = self._find(t_ns)
        start_j = np.asarray([pj / PJ_PER_J for pj in self.start_pj])[i]
        energy_j: NDArray[np.float64] = start_j + (t_ns - np.asarray(self.start_ns)[i]) * (
            np.asarray(self.power_mw)[i] / PJ_PER_J
        )
        return energy_j

    def power_w(self, t_ns: NDArray[np.int64]) -> NDArray[np.float64]:
        power_w: NDArray[np.float64] = np.asarray(self.power_mw)[self._find(t_ns)] / MW_PER_W
        return power_w

    def _find(self, t_ns: NDArray[np.int64]) -> NDArray[np.intp]:
        return np.searchsorted(np.asarray(self.start_ns), t_ns, side="right") - 1


def constant(watts: float) -> Curve:
    """`watts` at all times."""
    return Curve(loop=(_segment(1.0, watts),))


def square(high: float, low: float, period_s: float, duty: float = 0.5) -> Curve:
    """`high` watts for `duty` of every `period_s` seconds, then `low` watts for the rest; begins high."""
    if not 0 < duty < 1:
        raise ValueError(f"duty must lie between 0 and 1, got {duty}; use constant(watts) for a flat curve.")
    period_ns = round(period_s * NS_PER_S)
    high_ns = round(period_ns * duty)
    return Curve(loop=((high_ns, round(high * MW_PER_W)), (period_ns - high_ns, round(low * MW_PER_W))))


def steps(pieces: Sequence[tuple[float, float]], *, repeat: bool = True, then: Curve | None = None) -> Curve:
    """`(seconds, watts)` pieces one after another.

    Args:
        pieces: `(seconds, watts)` pairs.
        repeat: start over after the last piece; otherwise its watts stay for ever.
        then: the curve that follows the pieces (they then come once, and `repeat` has no effect).
    """
    segments = tuple(_segment(seconds, watts) for seconds, watts in pieces)
    if then is not None:
        return Curve(loop=then.loop, head=segments + then.head)
    return Curve(loop=segments) if repeat else Curve(loop=segments[-1:], head=segments)


def ramp(start: float, end: float, seconds: float, *, pieces: int = 50, then: Curve | None = None) -> Curve:
    """From `start` to `end` watts over `seconds` in equal `pieces`, each at its middle's watts.

    `then` follows (the default: `end` watts for ever). The joules equal those of the straight line to
    within the rounding of each piece to 1 mW.
    """
    rise = (end - start) / pieces
    stairs = [(seconds / pieces, start + rise * (i + 0.5)) for i in range(pieces)]
    return steps(stairs, then=constant(end) if then is None else then)


def _segment(seconds: float, watts: float) -> tuple[int, int]:
    return round(seconds * NS_PER_S), round(watts * MW_PER_W)
