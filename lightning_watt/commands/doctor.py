"""`lightning-watt doctor`: what can be measured on this machine, what cannot, why, and the remedy."""

from __future__ import annotations

import msgspec

from lightning_watt.record.text.drawn import say, say_wrapped, width_of
from lightning_watt.sources.discover import Discovery, discover
from lightning_watt.sources.estimate import WATTS_PER_CORE
from lightning_watt.tables import table


def doctor(*, as_json: bool = False) -> int:
    """Print what was found.

    Args:
        as_json: for other programs.

    Returns:
        0 if something can be measured, 1 if there is only an estimate or nothing.
    """
    found = discover()
    if as_json:
        say(_as_json(found))
    else:
        _say_in_words(found)
    return 0 if found.measured else 1


def _say_in_words(found: Discovery) -> None:
    # A run takes the estimate only where nothing is measured.
    used = [device for device in found.devices if device.provenance == "measured" or not found.measured]
    rows = [[d.label, d.source, d.provenance, f"{d.gain:.0%}", d.name, d.uuid] for d in used]
    say(table(rows, ["device", "source", "kind", "±", "name", "identity"], "simple", width_of()))
    lines = [f"{device.label}: {device.note}" for device in used if device.note]
    lines += [f"{device.label}: ± {device.gain:.0%}: {device.gain_source}." for device in used if device.gain_source]
    if found.missing:
        lines += ["", "Cannot be read here:"]
        lines += [
            line for reason in found.missing for line in (f"  {reason.source}: {reason.why}", f"    Remedy: {reason.remedy}")
        ]
    if found.measured:
        lines += ["", "Energy is measured here. Scope: what these devices draw, not the wall socket."]
    else:
        lines += [
            "",
            f"Nothing is measured here. Energy is estimated: {WATTS_PER_CORE} W for each busy thread of the process tree. "
            "It is labelled so, and off by tens of percent.",
        ]
    say_wrapped(*lines)


def _as_json(found: Discovery) -> str:
    missing = [{"source": reason.source, "why": reason.why, "remedy": reason.remedy} for reason in found.missing]
    whole = {"measured": found.measured, "devices": found.devices, "missing": missing}
    return msgspec.json.format(msgspec.json.encode(whole), indent=2).decode()
