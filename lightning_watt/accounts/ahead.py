"""What was used since the last settled point, by the devices' last known power. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from lightning_watt.accounts.events import Switch
from lightning_watt.accounts.ledger import Account, Point, Usage


def usage_ahead(
    at: Point,
    labels: Sequence[str],
    energy_uj: Sequence[int],
    edges: Sequence[tuple[int, Switch]],
) -> list[tuple[Account, Usage]]:
    """What has been used since the last settled point, shared out by time among the accounts entered since.

    Args:
        at: that point.
        labels: the devices.
        energy_uj: each device's energy now, by its last known power; microjoules.
        edges: when an account was entered (ns), which, and the batches and samples by then: the account that was open at
            the point first; last, now.
    """
    ahead_uj = [max(0, now - int(was)) for now, was in zip(energy_uj, at.energy_uj, strict=True)]
    whole_ns = max(1, edges[-1][0] - at.t_ns)
    # Short epochs are many between two readings: first how long each account was open, then its energy.
    open_for: dict[Account, tuple[int, int, int, int]] = {}
    for (since_ns, entered), (until_ns, left) in pairwise(edges):
        account = entered.account
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


def stages_ahead(
    ahead_uj: int, at_ns: int, stage: str, entered: Iterable[tuple[int, Switch]], now_ns: int
) -> dict[str, int]:
    """The same of all devices together, and by stage only: microjoules.

    Args:
        ahead_uj: what has been used since that point.
        at_ns: when that was.
        stage: the stage that was open there.
        entered: when what was entered since.
        now_ns: now.
    """
    open_ns: dict[str, int] = {}
    since_ns = at_ns
    for entered_ns, switch in entered:
        until_ns = min(max(entered_ns, since_ns), now_ns)
        open_ns[stage] = open_ns.get(stage, 0) + until_ns - since_ns
        since_ns, stage = until_ns, switch.account.stage
    open_ns[stage] = open_ns.get(stage, 0) + max(0, now_ns - since_ns)
    whole_ns = max(1, now_ns - at_ns)
    found, used_uj, passed_ns = {}, 0, 0
    for name, ns in open_ns.items():
        passed_ns = min(whole_ns, passed_ns + ns)
        by_then_uj = ahead_uj * passed_ns // whole_ns  # cumulative, as above
        found[name] = by_then_uj - used_uj
        used_uj = by_then_uj
    return found
