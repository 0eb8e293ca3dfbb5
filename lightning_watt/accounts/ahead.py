"""What was used since the last settled point, by the devices' last known power. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from lightning_watt.accounts.events import Switch
from lightning_watt.accounts.ledger import Account, Point, Usage


def usage_ahead(
    at: Point,
    labels: Sequence[str],
    energy_uj: Sequence[int],
    edges: Sequence[tuple[int, Switch]],
    epoch: int | None = None,
) -> list[tuple[Account, Usage]]:
    """What has been used since the last settled point, shared out by time among the accounts entered since.

    Args:
        at: that point.
        labels: the devices.
        energy_uj: each device's energy now, by its last known power; microjoules.
        edges: when an account was entered (ns), which, and the batches and samples by then: the account that was open at
            the point first; last, now.
        epoch: tell stages apart only, all in this epoch.
    """
    ahead_uj = [max(0, now - int(was)) for now, was in zip(energy_uj, at.energy_uj, strict=True)]
    whole_ns = max(1, edges[-1][0] - at.t_ns)
    # Short epochs are many between two readings: first how long each account was open, then its energy.
    open_for: dict[Account, tuple[int, int, int, int]] = {}
    for (since_ns, entered), (until_ns, left) in pairwise(edges):
        account = entered.account if epoch is None else Account(entered.account.stage, epoch)
        share_ns = min(until_ns, edges[-1][0]) - max(since_ns, at.t_ns)
        was = open_for.get(account, (0, 0, 0, 0))
        open_for[account] = (
            was[0] + max(0, share_ns),
            was[1] + max(0, until_ns - since_ns),
            was[2] + left.batches - entered.batches,
            was[3] + left.samples - entered.samples,
        )
    found, used_uj, passed_ns = [], [0] * len(ahead_uj), 0
    for account, (share_ns, ns, batches, samples) in open_for.items():
        # Cumulative, so that the shares add up to the last microjoule.
        passed_ns = min(whole_ns, passed_ns + share_ns)
        by_then_uj = [uj * passed_ns // whole_ns for uj in ahead_uj]
        uj = {label: now - was for label, now, was in zip(labels, by_then_uj, used_uj, strict=True)}
        used_uj = by_then_uj
        found.append((account, Usage(uj, ns, batches, samples)))
    return found
