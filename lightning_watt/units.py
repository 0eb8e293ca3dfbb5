"""Energy and time units, and the only place that converts between them.

Counters are integers of microjoules (`uj`): RAPL's own unit, and NVML's millijoules times 1,000, so that differences are
exact. What people read is float64 joules, watt-hours and kilowatt-hours.
"""

from __future__ import annotations

import math
from decimal import Decimal
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


def digits(value: float, significant: int = 4) -> str:
    """A number to some significant digits, without an exponent unless it is tiny or huge.

    Example:
        >>> digits(129_600), digits(0.000123456), digits(396, 2), digits(1.2e-9)
        ('129600', '0.0001235', '400', '1.2e-09')
    """
    rounded = f"{value:.{significant}g}"
    if not math.isfinite(value) or not (value == 0 or 1e-4 <= abs(value) < 1e9):
        return rounded
    return f"{Decimal(rounded):f}"


class Shown(float):
    """A number that is printed with its unit, whatever format is asked for; to reckon with, it is a plain float.

    Args:
        value: the number.
        text: how it is printed.

    Example:
        >>> power = Shown(42.3, "42.3 W")
        >>> f"{power:.3f}", power + 1
        ('42.3 W', 43.3)
    """

    text: str

    def __new__(cls, value: float, text: str) -> Shown:
        """Make it."""
        made = super().__new__(cls, value)
        made.text = text
        return made

    def __getnewargs__(self) -> tuple[float, str]:  # type: ignore[override]
        return float(self), self.text

    def __format__(self, _: str) -> str:
        return self.text

    def __str__(self) -> str:
        return self.text


def unit_that_fits(joules: float) -> EnergyUnit:
    """The unit in which a person would give this energy."""
    return next((unit for unit, size in J_PER.items() if abs(joules) >= size), "J")


def human_energy(joules: float, significant: int = 4) -> str:
    """Energy in the unit that fits, to some significant digits: `"12.5 J"`, `"3.472 Wh"`, `"1.2 kWh"`."""
    unit = unit_that_fits(joules)
    return f"{digits(joules / J_PER[unit], significant)} {unit}"


def energy_in(unit: EnergyUnit, joules: float, plus_minus_j: float | None = None) -> str:
    """Energy in one unit, with its plus or minus if that is given.

    Example:
        >>> energy_in("kWh", 3.96e6), energy_in("Wh", 7200, 36)
        ('1.1 kWh', '2 ± 0.01 Wh')
    """
    spread = "" if plus_minus_j is None else f" ± {digits(plus_minus_j / J_PER[unit], 2)}"
    return f"{digits(joules / J_PER[unit])}{spread} {unit}"
