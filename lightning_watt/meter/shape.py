"""How a stretch between two readings of a counter is laid out by the power samples in it. Pure.

What the counter says beyond the samples, or short of them, is put where these do not know: between two samples that differ,
the power changed at a moment that nobody saw. So a steady load keeps the power that was sampled, scaled by the board's own
ratio.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_watt.units import UJ_PER_J

Floats = NDArray[np.float64]

WHERE = 0.29
"""Standard deviation of a moment that may be anywhere in its interval, in intervals: one over the root of 12."""
WITHIN = 0.5
"""A change of power lies within its interval, so that no more than this share of the change is put there."""
FLOOR = 0.03
"""Even a steady load differs from its samples by this share of the power, from one sample to the next."""


def steps(values: NDArray[Any]) -> NDArray[Any]:
    """What is between neighbours, as `numpy.diff`, which thinks about its axes for longer than this takes."""
    return np.asarray(values[1:] - values[:-1])


class Laid(NamedTuple):
    """Knots of a stretch.

    Attributes:
        t_s: seconds since its begin.
        joules: since its begin.
        before: the share of what is uncertain in the stretch that lies before the knot, 0 to 1.
    """

    t_s: Floats
    joules: Floats
    before: Floats


class Folded(NamedTuple):
    """A stretch between two readings that is not laid out yet.

    Attributes:
        inner_ns: when its samples were taken.
        end_ns: its end.
        rise_uj: its energy.
        lay: lays it out.
    """

    inner_ns: NDArray[np.int64]
    end_ns: int
    rise_uj: int
    lay: Callable[[], Laid]


def unfold(
    folded: dict[int, Folded], asked_ns: NDArray[np.int64], t_ns: list[int], energy_uj: list[int], unsure: list[float]
) -> None:
    """Lay out the stretches that somebody asks for, exactly. Of most of them only the ends are ever asked for.

    Args:
        folded: the stretches by their starts; those that are laid out are taken out of it.
        asked_ns: the times that are asked for.
        t_ns: the curve's knots, which get those between.
        energy_uj: the energy at each.
        unsure: at each, the number of the stretch, and the share of what is uncertain in it that lies before.
    """
    asked = sorted(asked_ns.tolist()) if folded else []
    for start_ns, one in list(folded.items()):
        if bisect_right(asked, start_ns) == bisect_left(asked, one.end_ns):
            continue
        del folded[start_ns]
        start, laid = bisect_left(t_ns, start_ns), one.lay()
        after, e0, before = start + 1, energy_uj[start], round(unsure[start])
        inner_uj = np.minimum(np.rint(laid.joules[1:-1] * UJ_PER_J).astype(np.int64), one.rise_uj)
        t_ns[after:after] = one.inner_ns.tolist()
        energy_uj[after:after] = (e0 + inner_uj).tolist()
        unsure[after:after] = (before + laid.before[1:-1]).tolist()


def between(samples: Sequence[tuple[int, float]], start_ns: int, end_ns: int) -> tuple[NDArray[np.int64], Floats]:
    """Times and watts from `start_ns` to `end_ns`, both included, by the samples; flat beyond the last, 0 without any."""
    known = sorted(samples)
    at = [t_ns for t_ns, _ in known]
    # Not np.unique: its first call imports numpy.ma, 50 ms of CPU in the middle of a training.
    inside = dict.fromkeys(at[bisect_right(at, start_ns) : bisect_left(at, end_ns)])
    times = np.asarray([start_ns, *inside, end_ns], dtype=np.int64)
    if not known:
        return times, np.zeros(len(times))
    return times, np.interp(times, np.asarray(at, dtype=np.int64), np.asarray([watts for _, watts in known]))


def spread_j2(t_s: Floats, watts: Floats, power_w: float, spacing_s: float) -> Floats:
    """How uncertain the energy between each two knots is, J^2.

    Args:
        t_s: the knots, seconds.
        watts: the power by the samples at each.
        power_w: the mean power.
        spacing_s: how far apart samples are.
    """
    dt = steps(t_s)
    return np.asarray((WHERE * steps(watts) * dt) ** 2 + (FLOOR * power_w) ** 2 * dt * spacing_s)


def lay_out(
    t_s: Floats, watts: Floats, joules: float, *, trust: float, ratio: float, dense_s: float, spacing_s: float
) -> Laid:
    """Lay a stretch out.

    Args:
        t_s: its ends and the samples between them, seconds since its begin.
        watts: the power by the samples at each; all 0 without samples.
        joules: what the counter says of it.
        trust: the share of the samples' shape that the counter confirms.
        ratio: the counter's energy over the samples', as far as known.
        dense_s: what is faster than this can be tested by nothing, so denser samples are believed there.
        spacing_s: how far apart samples are.
    """
    seconds, dt, watts = float(t_s[-1]), steps(t_s), watts * ratio
    power_w = joules / seconds
    before = _running(spread_j2(t_s, watts, power_w, spacing_s))
    before = before / before[-1] if before[-1] > 0 else t_s / seconds
    believed = _believed(t_s, watts, trust, dense_s if spacing_s <= dense_s / 2 else 0.0)
    pieces = dt * (believed[1:] + believed[:-1]) / 2
    jump = np.abs(steps(believed)) * dt
    unsure = spread_j2(t_s, believed, power_w, spacing_s)
    rest, doubt = joules - float(pieces.sum()), float(unsure.sum())
    if doubt > 0:
        most = WITHIN * jump + dt * (abs(rest) / seconds)
        # Not numpy.clip, which thinks for longer than this takes.
        pieces = pieces + np.maximum(np.minimum(unsure * (rest / doubt), most), -most)
    laid = _running(np.maximum(pieces, 0.0))
    if laid[-1] <= 0:
        return Laid(t_s, joules * t_s / seconds, before)
    return Laid(t_s, laid * (joules / laid[-1]), before)


def _believed(t_s: Floats, watts: Floats, trust: float, dense_s: float) -> Floats:
    """The samples' shape as far as it is trusted: towards the mean, but for what is faster than `dense_s`."""
    if trust >= 1.0 and not dense_s:
        return np.maximum(watts, 0.0)
    by_samples = _running(steps(t_s) * (watts[1:] + watts[:-1]) / 2)
    seconds, mean_w, slow = t_s[-1], by_samples[-1] / t_s[-1], watts
    if dense_s:
        low, high = np.maximum(t_s - dense_s, 0), np.minimum(t_s + dense_s, seconds)
        slow = (np.interp(high, t_s, by_samples) - np.interp(low, t_s, by_samples)) / (high - low)
    return np.asarray(np.maximum(mean_w + trust * (slow - mean_w) + (watts - slow), 0.0))


def _running(pieces: Floats) -> Floats:
    found = np.zeros(len(pieces) + 1)
    pieces.cumsum(out=found[1:])
    return found
