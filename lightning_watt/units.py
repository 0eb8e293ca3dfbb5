"""Energy and time units, and the only place that converts between them.

Counters are integers of microjoules (`uj`): RAPL's own unit, and NVML's millijoules times 1,000, so that differences are
exact. What people read is float64 joules, watt-hours and kilowatt-hours.
"""

from __future__ import annotations

from typing import Final, Literal

EnergyUnit = Literal["kWh", "Wh", "J"]

NS_PER_S: Final = 1_000_000_000
NS_PER_US: Final = 1_000
UJ_PER_J: Final = 1_000_000
UJ_PER_MJ: Final = 1_000
"""Microjoules in a millijoule."""
J_PER_WH: Final = 3_600.0
J_PER_KWH: Final = 3_600_000.0
J_PER: Final[dict[EnergyUnit, float]] = {"kWh": J_PER_KWH, "Wh": J_PER_WH, "J": 1.0}


def joules(uj: int | float) -> float:
    """Microjoules to joules."""
    return uj / UJ_PER_J


def kwh(joules: float) -> float:
    """Joules to kilowatt-hours."""
    return joules / J_PER_KWH


def wh(joules: float) -> float:
    """Joules to watt-hours."""
    return joules / J_PER_WH


def seconds(ns: int | float) -> float:
    """Nanoseconds to seconds."""
    return ns / NS_PER_S


def nanoseconds(seconds: float) -> int:
    """Seconds to whole nanoseconds."""
    return round(seconds * NS_PER_S)


def human_energy(joules: float) -> str:
    """Energy in the unit a person would pick, to four digits: `"12.5 J"`, `"3.472 Wh"`, `"1.2 kWh"`."""
    for unit, size in (("kWh", J_PER_KWH), ("Wh", J_PER_WH)):
        if abs(joules) >= size:
            return f"{joules / size:.4g} {unit}"
    return f"{joules:.4g} J"
