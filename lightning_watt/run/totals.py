"""The energy part of a record, from a session's accounts and those of the run's other parts. Its user holds the lock."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import msgspec

from lightning_watt.record.journal import About
from lightning_watt.record.schema import DeviceEnergy, Energy, Epoch, LostData, Stage
from lightning_watt.run.ledger import Account, Ledger, merged
from lightning_watt.run.other_sessions import Parts
from lightning_watt.units import UJ_PER_J, joules, kwh, seconds


def about_of(device: DeviceEnergy) -> About:
    """What a device is, of its row in a record."""
    return About(**{name: getattr(device, name) for name in About.__struct_fields__})


def whole_of(own: Ledger, parts: Parts) -> Ledger:
    """All sessions' sums by stage and device, without their epochs; to be read only."""
    others = [ledger for ledger in parts.ledgers() if ledger.entries]
    if not others:
        return own
    whole = Ledger()
    whole.labels = own.labels
    for ledger in (own, *others):
        for stage, entry in ledger.by_stage().items():
            whole.add(Account(stage, 0), entry)
    return whole


def energy_of_all(
    own: Ledger,
    devices: Mapping[str, DeviceEnergy],
    parts: Parts,
    ticks_s: Mapping[str, float],
    edges: float,
    own_gaps: Iterable[LostData],
) -> Energy:
    """The energy of the run.

    Args:
        own: the session's accounts.
        devices: the session's devices, whose joules and ticks are brought up to date.
        parts: the run's other parts.
        ticks_s: the devices' update periods, seconds.
        edges: squared microjoules that may lie beyond the beginnings and ends of all sessions.
        own_gaps: what the session's counters lost.
    """
    about = {label: about_of(device) for label, device in devices.items()}
    about = {**about, **{label: facts for label, facts in parts.all_devices().items() if label not in about}}
    if not about:
        return Energy(total_j=None, total_kwh=None, uncertainty_j=None, provenance=None)
    whole = whole_of(own, parts)
    by_device = whole.by_device()
    rows: dict[str, DeviceEnergy] = {}
    for label, facts in about.items():
        row = devices.get(label) or DeviceEnergy(joules=0.0, **msgspec.structs.asdict(facts))
        row.joules = joules(by_device.get(label, 0))
        row.tick_s = ticks_s.get(label, row.tick_s)
        rows[label] = row
    kinds = {row.provenance for row in rows.values()}
    total_j = joules(whole.total_uj)
    uncertainty_j, boundary_j, gain_j = uncertainty(whole, about, edges, [*parts.all_gaps(), *own_gaps])
    return Energy(
        total_j=total_j,
        total_kwh=kwh(total_j),
        uncertainty_j=uncertainty_j,
        provenance="mixed" if len(kinds) > 1 else kinds.pop(),
        boundary_j=boundary_j,
        gain_j=gain_j,
        by_stage={
            stage: Stage(
                joules=joules(entry.total_uj),
                seconds=seconds(entry.ns),
                batches=entry.batches,
                samples=entry.samples,
                uncertainty_j=math.hypot(joules(math.sqrt(entry.edge_variance)), gain_uj(entry.uj, about) / UJ_PER_J),
            )
            for stage, entry in whole.by_stage().items()
        },
        by_device=rows,
    )


def epochs_of_all(own: Ledger, parts: Parts, own_accuracies: Mapping[Account, float | None]) -> list[Epoch]:
    """The finished epochs of every stage, in order; validation that runs several times in an epoch is one row."""
    accuracies = {**parts.accuracies, **own_accuracies}
    earlier, *others = parts.ledgers()
    return [
        Epoch(
            epoch=account.epoch,
            stage=account.stage,
            joules=joules(entry.total_uj),
            seconds=seconds(entry.ns),
            accuracy=accuracies[account],
        )
        for account, entry in merged([earlier, own, *others]).entries.items()
        if account in accuracies
    ]


def uncertainty(
    whole: Ledger, about: Mapping[str, About], edges: float, gaps: Iterable[LostData]
) -> tuple[float, float, float]:
    """Plus or minus of the total in joules: all, its boundary part, its gain part.

    Only the sessions' own beginnings and ends count: what an inner edge takes from one account the next one gets.
    """
    boundary_j = joules(math.sqrt(edges)) + sum(gap.joules for gap in gaps)
    gain_j = joules(gain_uj(whole.by_device(), about))
    return math.hypot(boundary_j, gain_j), boundary_j, gain_j


def gain_uj(uj: Mapping[str, int], about: Mapping[str, About]) -> float:
    """Microjoules by which scales may be off; boards of one kind err alike, so the shares add up."""
    return sum(about[label].gain * value for label, value in uj.items() if label in about)
