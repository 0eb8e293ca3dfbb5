"""The published errors of boards' power sensors, and what is said of each board's number."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from lightning_watt import EnergyMeter
from lightning_watt.sources.nvidia.gains import ALONE, OTHERS, SENSOR_ERRORS, SPECIMEN, gain_of, typical_gain_of
from lightning_watt.testing import Board, Lab, constant

PUBLISHED = Path(__file__).parents[4] / "shared/reference/boards/board_sensor_gains.csv"


@pytest.mark.parametrize("name", SENSOR_ERRORS)
def test_the_truth_is_inside_whatever_a_boards_sensor_was_found_to_show(name):
    gain, why = gain_of(f"NVIDIA {name}", is_counter=False)
    for pct in (SENSOR_ERRORS[name].lowest_pct, SENSOR_ERRORS[name].highest_pct):
        shown = 100 * (1 + pct / 100)
        assert shown * (1 - gain) <= 100 + 1e-9
        assert shown * (1 + gain) + 1e-9 >= 100
        assert f"{pct:+.1f}" in why
    assert gain >= SPECIMEN


def test_a_board_that_nobody_has_measured_is_taken_for_as_bad_as_the_others():
    gain, why = gain_of("NVIDIA B300", is_counter=True)
    assert gain == max(gain_of(name, is_counter=True)[0] for name in SENSOR_ERRORS if name not in ALONE)
    assert OTHERS.lowest_pct <= -8.9
    assert OTHERS.highest_pct >= 10.88
    assert "nothing was published" in why


@pytest.mark.parametrize("name", ["NVIDIA GeForce RTX 3090 Ti", "NVIDIA A100-SXM4-80GB", "NVIDIA L4", "NVIDIA RTX A500"])
def test_a_board_of_a_similar_name_is_another_board(name):
    assert "nothing was published" in gain_of(name, is_counter=True)[1]


def test_a_name_with_the_brand_of_another_year_is_the_same_board():
    assert gain_of("Tesla K80", is_counter=False) == gain_of("NVIDIA Tesla K80", is_counter=False)
    assert gain_of("NVIDIA TITAN X (Pascal)", is_counter=False) == gain_of("NVIDIA TITAN X Pascal", is_counter=False)


def test_a_device_says_what_its_figure_is_of():
    """Of a counter nothing was ever published; of power alone it is the sensor itself."""
    boards = Board(name="NVIDIA A100-PCIE-40GB", power=constant(100)), Board(power=constant(100), counter_ms=None)
    with Lab(boards).running():
        meter = EnergyMeter(gpus=[0, 1])
        counted, sensed, *_ = meter.open()
        meter.start().stop()
    assert counted.gain == pytest.approx(0.06, abs=1e-3)
    assert "no counter's was ever published" in counted.gain_source
    assert "arXiv 2312.02741" in counted.gain_source
    assert sensed.source == "nvml-power"
    assert "counter" not in sensed.gain_source


@pytest.mark.skipif(not PUBLISHED.exists(), reason="needs the published table beside this checkout")
def test_every_row_of_the_published_table_is_covered_by_its_boards_own_figure():
    for row in csv.DictReader(PUBLISHED.read_text().splitlines()):
        # The table says RTX of the two boards that are GTX, and whose a board is.
        name = row["board"].removeprefix("Alienware_").replace("_", " ").replace("RTX 1080", "GTX 1080")
        gain, why = gain_of(name, is_counter=False)
        assert "nothing" not in why, name
        assert abs(1 / (1 + float(row["steady_state_error_pct"]) / 100) - 1) <= gain, row


def test_what_is_typical_is_less_than_what_cannot_be_excluded():
    for name in SENSOR_ERRORS:
        assert 0 < typical_gain_of(name) <= gain_of(name, is_counter=True)[0]
    # Of boards that nobody has measured, what half of the published ones keep.
    kept = [
        error
        for name, error in SENSOR_ERRORS.items()
        if name not in ALONE and error.typical <= typical_gain_of("NVIDIA B300")
    ]
    assert len(kept) == (len(SENSOR_ERRORS) - len(ALONE) + 1) // 2
    assert typical_gain_of("NVIDIA B300") == pytest.approx(0.030, abs=0.001)
