"""What accounts come to: the few sums that a log row needs, made without a copy of the accounts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from lightning_watt.accounts.ahead import stages_ahead
from lightning_watt.accounts.events import Switch
from lightning_watt.accounts.ledger import Ledger
from lightning_watt.sources.base import Device, Gap
from lightning_watt.units import joules


class Uncertainty(NamedTuple):
    """Plus or minus in joules: all of it, the part of the edges and gaps, the part of the devices' scales."""

    total_j: float
    boundary_j: float
    gain_j: float


class Sums(msgspec.Struct, frozen=True):
    """What some accounts come to.

    Attributes:
        stage_uj: microjoules by stage.
        edges: squared microjoules that may lie beyond the beginnings and ends of their sessions.
        gaps_j: joules that counters lost.
        gain_uj: microjoules by which the devices' scales may be off; boards of one kind err alike, so the shares add up.
    """

    stage_uj: Mapping[str, int]
    edges: float = 0.0
    gaps_j: float = 0.0
    gain_uj: float = 0.0

    @property
    def total_uj(self) -> int:
        """Microjoules."""
        return sum(self.stage_uj.values())

    @property
    def uncertainty(self) -> Uncertainty:
        """Plus or minus of the total.

        Only the sessions' own beginnings and ends count: what an inner edge takes from one account, the next one gets.
        """
        boundary_j, gain_j = joules(math.sqrt(self.edges)) + self.gaps_j, joules(self.gain_uj)
        return Uncertainty(math.hypot(boundary_j, gain_j), boundary_j, gain_j)

    def and_more(self, other: Sums) -> Sums:
        """These and others."""
        if not other.stage_uj and not other.edges and not other.gaps_j:
            return self
        stage_uj = dict(self.stage_uj)
        for stage, uj in other.stage_uj.items():
            stage_uj[stage] = stage_uj.get(stage, 0) + uj
        return Sums(stage_uj, self.edges + other.edges, self.gaps_j + other.gaps_j, self.gain_uj + other.gain_uj)


def sums_of(ledgers: Iterable[Ledger], devices: Mapping[str, Device], edges: float, gaps: Iterable[Gap]) -> Sums:
    """The sums of some ledgers.

    Args:
        ledgers: the ledgers.
        devices: their devices, by label.
        edges: squared microjoules beyond their sessions' beginnings and ends.
        gaps: what their counters lost.
    """
    stage_uj: dict[str, int] = {}
    gain_uj = 0.0
    for ledger in ledgers:
        for stage, uj in ledger.uj_by_stage().items():
            stage_uj[stage] = stage_uj.get(stage, 0) + sum(uj.values())
            gain_uj += gain_of(uj, devices)
    return Sums(stage_uj, edges, sum(gap.beyond_edges_j for gap in gaps), gain_uj)


def sums_ahead(
    ledger: Ledger,
    devices: Mapping[str, Device],
    energy_uj: Sequence[int],
    entered: Iterable[tuple[int, Switch]],
    now_ns: int,
) -> Sums:
    """What has been used since a ledger's last point, by the devices' last known power.

    Args:
        ledger: the ledger; nothing is ahead of one that has no open account.
        devices: its devices, by label.
        energy_uj: each device's energy now, microjoules.
        entered: when what was entered since that point.
        now_ns: now.
    """
    at, account = ledger.at, ledger.account
    if at is None or account is None:
        return Sums({})
    pairs = zip(ledger.labels, energy_uj, at.energy_uj, strict=True)
    uj = {label: max(0, now - was) for label, now, was in pairs}
    stage_uj = stages_ahead(sum(uj.values()), at.t_ns, account.stage, entered, now_ns)
    return Sums(stage_uj, gain_uj=gain_of(uj, devices))


def gain_of(uj: Mapping[str, int], devices: Mapping[str, Device]) -> float:
    """Microjoules by which the devices' scales may be off."""
    return sum(devices[label].gain * value for label, value in uj.items() if label in devices)
