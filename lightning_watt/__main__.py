"""`python -m lightning_watt`: what can be measured on this machine, what cannot, why, and the remedy."""

from __future__ import annotations

import sys

from lightning_watt.sources.discover import discover
from lightning_watt.sources.estimate import WATTS_PER_CORE
from lightning_watt.tables import table


def main() -> int:
    """Print what was found; 0 if something can be measured, 1 if there is only an estimate or nothing."""
    found = discover()
    rows = [[d.label, d.source, d.provenance, f"{d.gain:.0%}", d.name, d.uuid] for d in found.devices]
    print(table(rows, ["device", "source", "kind", "±", "name", "identity"], "simple"))
    for device in found.devices:
        if device.note:
            print(f"{device.label}: {device.note}")
    if found.missing:
        print("\nCannot be read here:")
        for reason in found.missing:
            print(f"  {reason.source}: {reason.why}\n    Remedy: {reason.remedy}")
    if found.measured:
        print("\nEnergy is measured here. Scope: what these devices draw, not the wall socket.")
        return 0
    print(
        f"\nNothing is measured here. Energy is estimated: {WATTS_PER_CORE} W for each busy thread of the process tree. "
        "It is labelled so, and off by tens of percent."
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
