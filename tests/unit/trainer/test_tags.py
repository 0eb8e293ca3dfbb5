"""What is logged of a moment: what is known, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lightning_watt import sustainable_accuracy
from lightning_watt.accounts.events import LogPoint, Snapshot
from lightning_watt.accounts.forecast import Forecast, LogSpan
from lightning_watt.carbon import CarbonIntensity
from lightning_watt.sam.score import Scoring
from lightning_watt.trainer.tags import tags, tags_over_energy

KWH = 3.6e6
POINT = LogPoint(step=10, epoch=1, accuracy=0.8, batches=20, samples=320, ahead={"train": 80})
SNAPSHOT = Snapshot(
    point=POINT,
    total_j=100 * KWH,
    uncertainty_j=5 * KWH,
    stage_j={"train": 90 * KWH, "other": 10 * KWH},
    power_w={"gpu0": 300.0, "cpu0": 50.0},
    span=LogSpan(400.0, 20, 320),
    forecast=Forecast(500 * KWH, 20 * KWH),
)
PLAIN = Scoring(alpha=5, beta=5, unit="kWh")


def test_the_contracts_tags_and_their_values():
    assert tags(SNAPSHOT, replace(PLAIN, pue=1.5, carbon=CarbonIntensity(200.0))) == pytest.approx(
        {
            "watt/energy_kwh": 100,
            "watt/uncertainty_kwh": 5,
            "watt/train/energy_kwh": 90,
            "watt/other/energy_kwh": 10,
            "watt/power_w": 350,
            "watt/gpu0/power_w": 300,
            "watt/cpu0/power_w": 50,
            "watt/joules_per_batch": 20,
            "watt/joules_per_sample": 1.25,
            "watt/accuracy": 0.8,
            "watt/sam": 0.8192,
            "watt/sam_shifted": sustainable_accuracy(0.8, 100, shifted=True),
            "watt/forecast_kwh": 500,
            "watt/forecast_uncertainty_kwh": 20,
            "watt/co2e_g": 100 * 1.5 * 200,
        }
    )


def test_what_is_not_known_has_no_tag():
    unknown = replace(SNAPSHOT, point=POINT._replace(accuracy=None), power_w={}, span=LogSpan(0.0, 0, 0), forecast=None)
    assert set(tags(unknown, PLAIN)) == {
        "watt/energy_kwh",
        "watt/uncertainty_kwh",
        "watt/train/energy_kwh",
        "watt/other/energy_kwh",
    }
    assert tags_over_energy(unknown, PLAIN) == {}


def test_the_papers_metric_is_absent_where_it_is_undefined_and_the_shifted_one_stays():
    found = tags(replace(SNAPSHOT, total_j=0.5 * KWH), PLAIN)
    assert "watt/sam" not in found
    assert found["watt/sam_shifted"] == pytest.approx(sustainable_accuracy(0.8, 0.5, shifted=True))
    assert "watt/sam" in tags(replace(SNAPSHOT, total_j=0.5 * KWH), replace(PLAIN, unit="Wh"))


def test_an_unbounded_uncertainty_is_no_number_to_log():
    assert "watt/uncertainty_kwh" not in tags(replace(SNAPSHOT, uncertainty_j=float("inf")), PLAIN)


def test_over_energy_are_the_two_that_the_energy_bought():
    assert tags_over_energy(SNAPSHOT, PLAIN) == {
        "watt_vs_energy/accuracy": 0.8,
        "watt_vs_energy/sam_shifted": pytest.approx(sustainable_accuracy(0.8, 100, shifted=True)),
    }


def test_a_buildings_share_enters_co2e_only():
    assert replace(PLAIN, pue=2.0).co2e_g(KWH) is None
    assert replace(PLAIN, pue=2.0, carbon=CarbonIntensity(100.0)).co2e_g(KWH) == 200
    assert tags(SNAPSHOT, replace(PLAIN, pue=2.0))["watt/energy_kwh"] == 100
