"""Whether two runs differ in energy, or cannot be told apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lightning_watt.errors import RecordError
from lightning_watt.record.schema import RecordFields


@dataclass(frozen=True)
class Difference:
    """How much more one run used than another.

    Attributes:
        joules: the difference; below zero if it used less.
        plus_minus_j: what is not known of it.
        why: which parts of the two plus or minus count, and why, as a sentence.
    """

    joules: float
    plus_minus_j: float
    why: str

    @property
    def is_sure(self) -> bool:
        """Whether the runs differ, and not only their readings."""
        return abs(self.joules) > self.plus_minus_j


def difference(more: RecordFields, less: RecordFields) -> Difference:
    """How much more energy a run used than another, by the rule of "How sure is a number?" in `docs/numbers.md`.

    Args:
        more: the run.
        less: the one that it is compared with.

    Raises:
        RecordError: one of them measured nothing, so that there is no difference.
    """
    if more.energy.total_j is None or less.energy.total_j is None:
        raise RecordError("One of the two runs measured nothing, so how they differ is not known.")
    runs = (more, less)
    used_on = [{(device.uuid, device.source) for device in run.energy.by_device.values()} for run in runs]
    parts = [run.energy.uncertainty_j or 0.0 for run in runs]
    if any(run.energy.provenance != "measured" for run in runs):
        why = "What an estimate is wrong by depends on what the machine did, so the whole ± of both counts."
    elif used_on[0] != used_on[1]:
        why = "They were not measured on the same devices, so the whole ± of both counts."
    else:
        why = "Both were measured on the same devices, so only what is uncertain at the edges counts."
        parts = [run.energy.boundary_j for run in runs]
    return Difference(more.energy.total_j - less.energy.total_j, math.hypot(*parts), why)
