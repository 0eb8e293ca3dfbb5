"""How much CO2e a kilowatt-hour of electricity causes, by country.

The numbers in `carbon.csv` are grams of CO2-equivalents for each kWh that was generated, over the whole life of the plants.
Each is the mean of one country and of one year, which stands beside it. They are from Ember, Yearly Electricity Data, and
Energy Institute, Statistical Review of World Energy, as processed by Our World in Data in 2024 (licence CC BY 4.0), rounded
to grams. A grid differs from its mean by the hour and by the region: whoever knows better gives a number.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

SOURCE = "Ember and Energy Institute via Our World in Data, CC BY 4.0"
LEAST_G = 1.0
"""No grid causes less than this; the lowest country's mean is 20. Whoever gives less, and not 0, has meant kilograms."""


@dataclass(frozen=True)
class CarbonIntensity:
    """What a kilowatt-hour causes.

    Attributes:
        g_per_kwh: grams of CO2e.
        country: the country's name; empty if a number was given.
        year: the year of the mean; None if a number was given.
    """

    g_per_kwh: float
    country: str = ""
    year: int | None = None

    @property
    def source(self) -> str:
        """Where the number comes from, in words."""
        return f"mean of {self.country}, {self.year}; {SOURCE}" if self.country else "given by the user"


def carbon_intensity_of(value: float | str) -> CarbonIntensity:
    """The intensity that a number or a country's name stands for.

    Args:
        value: grams of CO2e a kWh; or a country by its two letters of ISO 3166, or by its English name.

    Raises:
        ValueError: it is neither, in a sentence.

    Example:
        >>> carbon_intensity_of("DE").g_per_kwh, carbon_intensity_of("germany").country, carbon_intensity_of(20).source
        (381.0, 'Germany', 'given by the user')
        >>> carbon_intensity_of(0.4)
        Traceback (most recent call last):
        ValueError: carbon_intensity is 0.4: no grid causes so little. It is in grams of CO2e a kWh, not in kilograms.
    """
    if isinstance(value, str):
        return _of_country(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise ValueError(
            f'carbon_intensity is {value!r}: give grams of CO2e a kWh, 0 or more, or a country such as "DE" or "Germany".'
        )
    if 0 < value < LEAST_G:
        raise ValueError(
            f"carbon_intensity is {value!r}: no grid causes so little. It is in grams of CO2e a kWh, not in kilograms."
        )
    return CarbonIntensity(float(value))


def check_carbon_intensity(name: str, value: Any) -> None:
    """A carbon intensity, or None.

    Raises:
        ValueError: it is neither.
    """
    if value is not None:
        carbon_intensity_of(value)


def read_carbon_intensity(text: str) -> float | str:
    """A carbon intensity from text: a number if it is one, else a country.

    Example:
        >>> read_carbon_intensity("381"), read_carbon_intensity("DE")
        (381.0, 'DE')
    """
    try:
        return float(text)
    except ValueError:
        return text


def _of_country(asked: str) -> CarbonIntensity:
    known = _countries()
    found = known.get(asked.strip().casefold())
    if found is None:
        close = get_close_matches(asked.strip().casefold(), known, n=3, cutoff=0.75)
        nearest = f"; the nearest: {', '.join(dict.fromkeys(known[name].country for name in close))}" if close else ""
        raise ValueError(
            f"carbon_intensity is {asked!r}, which is no country of the table: give grams of CO2e a kWh, or a country, such "
            f'as "DE" or "Germany"{nearest}.'
        )
    return found


@cache
def _countries() -> dict[str, CarbonIntensity]:
    """By their two letters and by their names, in small letters."""
    found = {}
    with (files("lightning_watt") / "carbon.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            intensity = CarbonIntensity(float(row["g_per_kwh"]), row["country"], int(row["year"]))
            found[row["code"].casefold()] = found[row["country"].casefold()] = intensity
    return found
