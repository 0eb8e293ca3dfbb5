"""What homes and appliances use, to hold a training's electricity against: others' numbers, each with its source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lightning_watt.units import J_PER_KWH, kwh

OFGEM: Final = (
    "Ofgem, typical domestic consumption value, medium, from 1 July 2026 (2,700 kWh from October 2023, 2,900 from 2020)"
)
SURVEY: Final = "Household Electricity Survey 2010-11, 250 English homes (DECC/Defra 475/09/2012)"
TRUST: Final = "Energy Saving Trust figures, 2023"


@dataclass(frozen=True)
class Use:
    """What something uses.

    Attributes:
        item: what.
        energy_kwh: kilowatt-hours in `per`.
        per: "year" or "use".
        source: who published the number.
    """

    item: str
    energy_kwh: float
    per: str
    source: str


USES: Final = (
    Use("typical UK home", 2500, "year", OFGEM),
    Use("cold appliances of a home", 566, "year", SURVEY),
    Use("audiovisual devices of a home", 537, "year", SURVEY),
    Use("lighting of a home", 483, "year", SURVEY),
    Use("cooking in a home", 448, "year", SURVEY),
    Use("washing and drying in a home", 437, "year", SURVEY),
    Use("computers of a home", 207, "year", SURVEY),
    Use("electric showers of a home", 112, "year", SURVEY),
    Use("fridge-freezer", 292, "year", TRUST),
    Use("washing machine cycle", 0.5, "use", TRUST),
    Use("tumble dryer cycle", 3, "use", TRUST),
    Use("dishwasher cycle", 0.9, "use", TRUST),
    Use("full kettle", 0.2, "use", TRUST),
)

HOME_KWH_YEAR: Final = USES[0].energy_kwh
HOURS_A_YEAR: Final = 8766.0
_SECONDS: Final = {"s": 1.0, "min": 60.0, "h": 3600.0, "days": 86400.0, "years": 3600.0 * HOURS_A_YEAR}


@dataclass(frozen=True)
class Mark:
    """A line in the figure: what it is, and its joules."""

    label: str
    joules: float


def home_w() -> float:
    """Mean power of a typical UK home, in watts: 2,500 kWh a year is 285 W."""
    return HOME_KWH_YEAR * 1000 / HOURS_A_YEAR


def marks() -> list[Mark]:
    """What the figure shows, rising. Times of a home and months of a fridge are derived from the yearly values."""
    by_item = {use.item: use.energy_kwh for use in USES}
    a_second = home_w()
    return [
        Mark("UK home, 1 s", a_second),
        Mark("UK home, 1 min", 60 * a_second),
        Mark("full kettle", by_item["full kettle"] * J_PER_KWH),
        Mark("tumble dryer cycle", by_item["tumble dryer cycle"] * J_PER_KWH),
        Mark("fridge-freezer, 1 month", by_item["fridge-freezer"] / 12 * J_PER_KWH),
        Mark("UK home, 1 month", HOME_KWH_YEAR / 12 * J_PER_KWH),
        Mark("UK home, 1 year", HOME_KWH_YEAR * J_PER_KWH),
    ]


def as_home(joules: float) -> str:
    """For how long a typical UK home could live on it.

    Example:
        >>> as_home(285.2), as_home(3.6e6), as_home(2500 * 3.6e6)
        ('1 s', '3.51 h', '1 years')
    """
    seconds = joules / home_w()
    unit = next((unit for unit, size in reversed(_SECONDS.items()) if seconds >= size), "s")
    return f"{seconds / _SECONDS[unit]:.3g} {unit}"


def as_kettles(joules: float) -> float:
    """How many full kettles it would boil."""
    return kwh(joules) / next(use.energy_kwh for use in USES if use.item == "full kettle")
