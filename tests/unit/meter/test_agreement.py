"""A counter and the power samples beside it are two witnesses: where they differ, that is told, kept, and in the ±."""

from __future__ import annotations

from itertools import pairwise

import pytest

from experiments.bench.curves import made
from lightning_watt import EnergyMeter
from lightning_watt.meter.agreement import Agreement, measured_again
from lightning_watt.sources.base import Device
from lightning_watt.sources.nvml import NvmlSource
from lightning_watt.testing import Board, Lab, ReplayClock, named, square

S = 1_000_000_000
DEVICE = Device("gpu0", "a board", "GPU-0", "nvml-counter", gain=0.06, typical_gain=0.03, gain_source="a table")
LOAD = square(250, 100, 0.7317)  # which keeps no step with a sensor
PIECE_S = 20.0
OFTEN, SELDOM = 4 * PIECE_S, 3 * PIECE_S
FAST = made()["training"]
"""Batches of 180 ms: samples of 25 ms in 100 miss much of them, so the counter is read often."""


def measured(board: Board, seconds: float) -> tuple[EnergyMeter, float, list[int]]:
    """The meter after that time; what the board truly used; and the calls to its counter in each piece of 20 s."""
    clock = ReplayClock()
    lab = Lab([board], clock=clock, t0_ns=clock.now_ns() - 20 * S)
    calls = [0]
    with lab.running(children=False):
        with EnergyMeter(sources=[NvmlSource()], clock=clock) as meter:
            for _ in range(round(seconds / PIECE_S)):
                clock.run_for(PIECE_S)
                calls.append(lab.calls("nvmlDeviceGetTotalEnergyConsumption"))
        start, end = meter.total.start_mark.t_ns, meter.total.end_mark.t_ns
        return (
            meter,
            lab.true_joules(0, start, end),
            [after - before for before, after in pairwise(calls)],
        )


def test_where_they_agree_nothing_is_told_and_their_ratio_is_kept() -> None:
    meter, true_j, _ = measured(named("A100", power=LOAD, sensor_gain=0.95), 120)
    [device] = meter.devices
    assert device.counter_over_samples == pytest.approx(1 / 0.95, abs=0.01)
    assert device.gain == pytest.approx(0.06, abs=0.001)  # the difference lies within the table's
    assert "published" in device.gain_source
    assert not meter.complaints
    assert meter.joules == pytest.approx(true_j, rel=0.002)


@pytest.mark.parametrize(("counter_gain", "less"), [(0.7, "less"), (1.3, "more")])
def test_a_counter_that_differs_by_more_than_a_tenth_over_a_minute_is_told_once_and_in_the_uncertainty(
    counter_gain, less
) -> None:
    meter, true_j, _ = measured(named("A100", power=LOAD, counter_gain=counter_gain), 180)
    [device] = meter.devices
    [told] = [sentence for sentence in meter.complaints if "power samples" in sentence]
    assert f"rose by 30% {less} than its power samples" in told
    assert device.counter_over_samples == pytest.approx(counter_gain, abs=0.01)
    assert device.gain_source.startswith("its counter and its power samples differ by")
    assert abs(meter.joules - true_j) <= meter.total.uncertainty_j
    assert meter.total.gain_j == pytest.approx(device.gain * meter.joules)


def test_before_a_minute_nothing_is_said_of_it() -> None:
    clock = ReplayClock()
    lab = Lab([named("A100", power=LOAD, counter_gain=0.7)], clock=clock, t0_ns=clock.now_ns() - 20 * S)
    with lab.running(children=False), EnergyMeter(sources=[NvmlSource()], clock=clock) as meter:
        clock.run_for(50.0)
    assert meter.devices[0].counter_over_samples is None
    assert not meter.complaints


def test_a_counter_that_loses_while_it_is_read_often_is_found_by_a_minute_of_few_reads() -> None:
    """It loses 20 ms a look: a tenth while it is looked at five times a second, and less while it is not."""
    meter, true_j, calls = measured(named("A100", power=FAST, counter_phase_ms=37, counter_lost_ms=20), 480)
    assert max(calls[:6]) > OFTEN
    assert min(calls[:15]) < SELDOM  # the minute for comparison
    assert max(calls[15:]) < SELDOM  # no glance at a counter that is doubted
    [told] = [sentence for sentence in meter.complaints if "several times a second" in sentence]
    assert "gpu0: its energy counter rose by" in told
    assert abs(meter.joules - true_j) <= meter.total.gain_j


def test_a_counter_that_bears_it_is_read_often_again_after_a_minute_of_few_reads() -> None:
    meter, _, calls = measured(named("A100", power=FAST, counter_phase_ms=37), 600)
    assert 2 <= sum(count < SELDOM for count in calls) <= 3
    assert max(calls[-6:]) > OFTEN
    assert not meter.complaints


@pytest.mark.parametrize(("board", "ratio"), [({"samples_ms": None}, 1.0), ({"counter_ms": None}, None)])
def test_without_samples_its_polled_power_is_the_witness_and_without_a_counter_there_is_none(board, ratio) -> None:
    meter, _, calls = measured(named("A100", power=LOAD, **board), 240)
    assert board.get("counter_ms", 1) is None or calls[-1] > OFTEN  # which is asked for only while it is read often
    assert meter.devices[0].counter_over_samples == (ratio and pytest.approx(ratio, abs=0.02))
    assert not meter.complaints


def minutes(agreement: Agreement, count: int, counter_w: float, samples_w: float, *, often: bool) -> None:
    for _ in range(60 * count):
        agreement.take(1.0, counter_w, samples_w, often=often)


def test_minutes_of_another_power_are_not_compared() -> None:
    """A sensor that shows 15 W too much shows an idle board's counter as one that loses; it does not."""
    agreement = Agreement()
    minutes(agreement, 2, 300.0, 315.0, often=True)
    assert not agreement.may_be_read_often
    minutes(agreement, 1, 60.0, 65.0, often=False)
    assert agreement.may_be_read_often
    assert not agreement.doubt
    minutes(agreement, 3, 300.0, 315.0, often=True)
    assert agreement.may_be_read_often  # after four minutes, this time
    minutes(agreement, 1, 300.0, 315.0, often=True)
    assert not agreement.may_be_read_often


def test_what_spoke_against_a_counter_stands_when_it_is_measured_again() -> None:
    agreement = Agreement()
    minutes(agreement, 2, 80.0, 100.0, often=False)
    doubted = agreement.told_of(DEVICE)
    assert (doubted.gain, doubted.typical_gain, doubted.counter_over_samples) == (0.26, 0.25, 0.8)
    assert measured_again(doubted, DEVICE) == doubted
    assert measured_again(None, DEVICE) == measured_again(DEVICE, DEVICE) == DEVICE
    other = Device("gpu0", "another", "GPU-1", "nvml-counter")
    assert measured_again(doubted, other) == other
    minutes(agreement, 20, 1.0, 100.0, often=False)
    assert agreement.told_of(DEVICE).gain > 0.25
    assert measured_again(doubted, agreement.told_of(DEVICE)) == agreement.told_of(DEVICE)
