"""Whether two runs differ in energy, or cannot be told apart: one rule, for two records and for the study's report."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lightning_watt.errors import RecordError
from lightning_watt.record.schema import RecordFields

UNIQUE = ("GPU-", "MIG-")
"""How NVML's UUIDs begin; other sources name a device only within its machine."""


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

    @property
    def verdict(self) -> str:
        """The same in words."""
        return "They differ" if self.is_sure else "They cannot be told apart"


@dataclass(frozen=True)
class Uncertain:
    """What is uncertain of a measured number, in its own unit.

    Attributes:
        boundary: plus or minus of the measurement's edges, which no other measurement shares.
        whole: plus or minus with the devices' gain errors.
        measured_with: what `measured_with` says; another number with the same has the same gain errors.
    """

    boundary: float
    whole: float
    measured_with: frozenset[str]

    def shares_gain(self, other: Uncertain) -> bool:
        """Whether the gain errors are those of the other, and so say nothing about which of the two is larger."""
        return bool(self.measured_with) and self.measured_with == other.measured_with

    def of_difference(self, other: Uncertain) -> float:
        """Plus or minus of the difference of the two numbers."""
        if self.shares_gain(other):
            return math.hypot(self.boundary, other.boundary)
        return math.hypot(self.whole, other.whole)


def measured_with(run: RecordFields) -> frozenset[str]:
    """The devices and sources of a run, by names that no other device has; empty if it is estimated, even in part."""
    if run.energy.provenance != "measured":
        return frozenset()
    host = run.hardware.get("host")
    return frozenset(
        f"{device.source} of {device.uuid if device.uuid.startswith(UNIQUE) else f'{host}/{device.uuid or label}'}"
        for label, device in run.energy.by_device.items()
    )


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
    uncertain = [Uncertain(run.energy.boundary_j, run.energy.uncertainty_j or 0.0, measured_with(run)) for run in runs]
    if any(run.energy.provenance != "measured" for run in runs):
        why = "What an estimate is wrong by depends on what the machine did, so the whole ± of both counts."
    elif uncertain[0].shares_gain(uncertain[1]):
        why = "Both were measured on the same devices, so only what is uncertain at the edges counts."
    else:
        why = "They were not measured on the same devices, so the whole ± of both counts."
    return Difference(more.energy.total_j - less.energy.total_j, uncertain[0].of_difference(uncertain[1]), why)
