"""What is uncertain of an energy, and of a sum of energies: one rule for all that add up runs.

The errors of the sensors' scales add up, because boards of one kind err alike, and one board errs alike in all runs. The
errors of the edges are of one run alone, so they add up in squares.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from lightning_watt.record.schema import Energy, Inherited, RecordFields


class PlusMinus(NamedTuple):
    """Plus or minus in joules: the part of the edges and gaps, and the part of the sensors' scales."""

    boundary_j: float = 0.0
    gain_j: float = 0.0

    @property
    def total_j(self) -> float:
        """Both together."""
        return math.hypot(self.boundary_j, self.gain_j)


def plus_minus(energy: Energy | Inherited) -> PlusMinus | None:
    """What is uncertain of an energy; None if that is not known. If it is not known by parts, it counts as one of scale."""
    if energy.uncertainty_j is None:
        return None
    if energy.boundary_j or energy.gain_j:
        return PlusMinus(energy.boundary_j, energy.gain_j)
    return PlusMinus(gain_j=energy.uncertainty_j)


def together(parts: Iterable[PlusMinus | None]) -> PlusMinus | None:
    """What is uncertain of a sum; None if it is not known of one of its parts.

    Example:
        >>> together([PlusMinus(3.0, 10.0), PlusMinus(4.0, 20.0)])
        PlusMinus(boundary_j=5.0, gain_j=30.0)
    """
    boundaries, gain_j = [], 0.0
    for part in parts:
        if part is None:
            return None
        boundaries.append(part.boundary_j)
        gain_j += part.gain_j
    return PlusMinus(math.hypot(*boundaries), gain_j)


def inherited_by(record: RecordFields) -> tuple[float, PlusMinus | None]:
    """Joules of the runs that a run started from, and what is uncertain of them; None if that is not known."""
    used = [run for run in record.inherited if run.total_j]
    return sum(run.total_j for run in used), together(plus_minus(run) for run in used)


def with_inherited(record: RecordFields) -> tuple[float, PlusMinus | None]:
    """Joules of a run and of those that it started from, and what is uncertain of them; None if that is not known."""
    inherited_j, inherited = inherited_by(record)
    return (record.energy.total_j or 0.0) + inherited_j, together([plus_minus(record.energy), inherited])
