"""How a stretch between two readings of a counter is laid out by the power samples in it. Pure.

What the counter says beyond the samples, or short of them, is put where these do not know: between two samples that differ,
the power changed at a moment that nobody saw. So a steady load keeps the power that was sampled, scaled by the board's own
ratio.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

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
    seconds = float(t_s[-1])
    dt = steps(t_s)
    spread = spread_j2(t_s, watts * ratio, joules / seconds, spacing_s)
    before = _running(spread) / float(spread.sum()) if spread.any() else t_s / seconds
    piece = _believed(t_s, watts * ratio, trust, dense_s if spacing_s <= dense_s / 2 else 0.0)
    jump = np.abs(steps(piece.watts)) * dt
    unsure = (WHERE * jump) ** 2 + (FLOOR * joules / seconds) ** 2 * dt * spacing_s
    rest = joules - float(piece.joules.sum())
    if unsure.any():
        most = WITHIN * jump + abs(rest) * dt / seconds
        piece = piece._replace(joules=piece.joules + np.clip(rest * unsure / float(unsure.sum()), -most, most))
    laid = _running(np.maximum(piece.joules, 0.0))
    if laid[-1] <= 0:
        return Laid(t_s, joules * t_s / seconds, before)
    return Laid(t_s, laid * (joules / laid[-1]), before)


class _Pieces(NamedTuple):
    watts: Floats
    joules: Floats


def _believed(t_s: Floats, watts: Floats, trust: float, dense_s: float) -> _Pieces:
    """The samples' shape as far as it is trusted: towards the mean, but for what is faster than `dense_s`."""
    by_samples = _running(steps(t_s) * (watts[1:] + watts[:-1]) / 2)
    seconds, mean_w, slow = t_s[-1], by_samples[-1] / t_s[-1], watts
    if dense_s:
        low, high = np.clip(t_s - dense_s, 0, seconds), np.clip(t_s + dense_s, 0, seconds)
        slow = (np.interp(high, t_s, by_samples) - np.interp(low, t_s, by_samples)) / (high - low)
    believed = np.maximum(mean_w + trust * (slow - mean_w) + (watts - slow), 0.0)
    return _Pieces(believed, steps(t_s) * (believed[1:] + believed[:-1]) / 2)


def _running(pieces: Floats) -> Floats:
    return np.concatenate([[0.0], np.cumsum(pieces)])
