"""CO2e a kWh: numbers, countries, and what is neither."""

from __future__ import annotations

import csv
from importlib.resources import files

import pytest

from lightning_watt.carbon import LEAST_G, carbon_intensity_of, check_carbon_intensity, read_carbon_intensity
from lightning_watt.settings import Settings


@pytest.mark.parametrize("asked", ["FR", "fr", "France", " france "])
def test_a_country_has_its_mean_its_year_and_its_source(asked):
    found = carbon_intensity_of(asked)
    assert (found.g_per_kwh, found.country, found.year) == (56.0, "France", 2023)
    assert found.source.startswith("mean of France, 2023; Ember")


def test_a_number_is_the_users():
    assert carbon_intensity_of(0).g_per_kwh == 0  # one's own sun
    found = carbon_intensity_of(400)
    assert (found.g_per_kwh, found.country, found.source) == (400.0, "", "given by the user")


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("Germny", r"'Germny', which is no country.*the nearest: Germany"),
        ("zz", r"'zz', which is no country of the table: give grams of CO2e a kWh, or a country, such as \"DE\""),
        (0.4, r"0\.4: no grid causes so little.*not in kilograms"),
        (-1, "-1: give grams of CO2e a kWh, 0 or more"),
        (float("nan"), "nan: give grams"),
        (True, "True: give grams"),
    ],
)
def test_what_is_neither_is_answered_in_a_sentence(asked, sentence):
    with pytest.raises(ValueError, match=sentence):
        Settings(carbon_intensity=asked)


def test_none_is_no_intensity():
    check_carbon_intensity("carbon_intensity", None)
    assert Settings().scoring.carbon is None


def test_text_is_a_number_or_a_country():
    assert (read_carbon_intensity("380"), read_carbon_intensity("DE")) == (380.0, "DE")


def test_the_table_holds_numbers_that_can_be():
    with (files("lightning_watt") / "carbon.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 200
    assert len({row["code"] for row in rows}) == len({row["country"] for row in rows}) == len(rows)
    assert all(len(row["code"]) == 2 and row["code"].isupper() for row in rows)
    assert all(LEAST_G < float(row["g_per_kwh"]) < 1400 and row["year"] in ("2022", "2023") for row in rows)
