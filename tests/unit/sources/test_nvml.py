"""NVIDIA boards, through the real pynvml over the lab's driver."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from lightning_watt.errors import SourceUnavailable
from lightning_watt.sources.base import HOST_CLOCK, Device, Reading
from lightning_watt.sources.nvidia.gains import gain_of, typical_gain_of
from lightning_watt.sources.nvidia.looks import SHARP_NS
from lightning_watt.sources.nvml import NvmlSource
from lightning_watt.sources.ticks import TickReader
from lightning_watt.testing import UNKNOWN, Board, Fault, Lab, ReplayClock, constant
from lightning_watt.testing.doubles import MS, S
from tests.unit.lab_boards import AGE_S, machine, opened

ENERGY = "nvmlDeviceGetTotalEnergyConsumption"
SAMPLES = "nvmlDeviceGetSamples"


# ---- what a board offers ----


def test_a_device_says_what_it_is():
    with machine(Board(name="NVIDIA H100", power_limits_w=(100, 700))) as lab:
        _, [device] = opened()
    gain, gain_source = gain_of("NVIDIA H100", is_counter=True)
    assert device == Device(
        "gpu0",
        "NVIDIA H100",
        lab.uuid(0),
        "nvml-counter",
        "measured",
        tick_s=0.0,
        gain=gain,
        max_power_w=1400,
        gain_source=gain_source,
        samples_clock="realtime",
        typical_gain=typical_gain_of("NVIDIA H100"),
    )


def test_notes_say_with_whom_the_counter_is_shared():
    boards = Board(mig=2), Board(pids=[os.getpid(), 4242]), Board(pids=[os.getpid()]), Board(mig=0)
    with machine(*boards) as lab:
        _, [mig, busy, own, off] = opened()
        _, [sliced] = opened([lab.mig_uuids(0)[0]])
    assert "MIG is on" in mig.note
    assert "4242" in busy.note
    assert str(os.getpid()) not in busy.note
    assert own.note == off.note == ""
    assert f"{lab.mig_uuids(0)[0]} is one slice" in sliced.note
    assert sliced.uuid == lab.uuid(0)


def test_the_runs_other_ranks_are_no_strangers_on_a_board():
    with machine(Board(pids=[4242, 77]), Board(pids=[4242])):
        source = NvmlSource(processes=[4242])
        shared, own = source.open(HOST_CLOCK)
        source.close()
    assert "processes 77 were on it" in shared.note
    assert own.note == ""


def test_what_the_runs_processes_started_are_no_strangers_either():
    """Loader workers that use CUDA, say; also those of another rank."""
    with subprocess.Popen(["sleep", "60"]) as worker, machine(Board(pids=[worker.pid, 2**22 + 5])):
        source = NvmlSource()
        [own] = source.open(HOST_CLOCK)
        source.close()
        other = NvmlSource(processes=[os.getppid()])
        [as_seen_from_there] = other.open(HOST_CLOCK)
        other.close()
        worker.kill()
    assert f"processes {2**22 + 5} were on it" in own.note
    assert as_seen_from_there.note == own.note


def test_without_power_limits_only_the_impossible_is_refused():
    fault = Fault("error", function="nvmlDeviceGetPowerManagementLimitConstraints", code=3)
    with machine(Board(faults=[fault])):
        assert opened()[1][0].max_power_w == 10_000


@pytest.mark.parametrize(
    ("board", "source", "due_s"),
    [
        (Board(), "nvml-counter", 1.0),
        (Board(samples_ms=None), "nvml-counter", 1.0),
        (Board(counter_ms=None), "nvml-power", 1.0),
        (Board(counter_ms=None, samples_ms=None), "nvml-power", 0.1),
        (Board(faults=[Fault("error", function=ENERGY, code=4)], samples_ms=None), "nvml-power", 0.1),  # no permission
        (Board(faults=[Fault("error", function=ENERGY, code=UNKNOWN)]), "nvml-counter", 1.0),  # a passing fault
        (Board(counter_ms=None, faults=[Fault("error", function=SAMPLES, code=6)]), "nvml-power", 0.1),  # none to be had
    ],
)
def test_what_a_board_can_do_is_found_by_calling(board, source, due_s):
    with machine(board):
        found, [device] = opened()
        assert (device.source, found.due_s) == (source, due_s)


def test_an_old_driver_without_the_function_is_a_board_without_a_counter():
    with machine(Board(), missing=[ENERGY]):
        assert opened()[1][0].source == "nvml-power"


# ---- reading ----


def test_the_counter_is_read_in_microjoules_at_its_time():
    with machine(Board(counter_ms=10, power=constant(200))) as lab:
        source, _ = opened()
        before_ns = time.monotonic_ns()
        [reading] = source.read()
        after_ns = time.monotonic_ns()
    assert isinstance(reading, Reading)
    assert before_ns <= reading.t_ns <= after_ns
    assert lab.counter_mj(0, before_ns) * 1000 <= reading.energy_uj <= lab.counter_mj(0, after_ns) * 1000


def test_at_ticks_the_value_stands_for_its_time():
    with machine(Board(counter_ms=20, power=constant(200))) as lab:
        source = NvmlSource("all")
        source.open(HOST_CLOCK)
        readings = [reading for _ in range(3) for reading in source.read()]
        for reading in readings:
            assert isinstance(reading, Reading)
            true_uj = lab.boards[0].counter_start_mj * 1000 + lab.true_joules(0, lab.t0_ns, reading.t_ns) * 1e6
            assert abs(reading.energy_uj - true_uj) < 200 * 1e6 * 0.025  # never off by more than a tick, and a late look
        times = [reading.t_ns for reading in readings if isinstance(reading, Reading)]
        assert np.diff(times).min() > -SHARP_NS  # one tick may be told of twice, by two reads
        source.close()


def test_samples_come_once_on_the_hosts_clock():
    with machine(Board(samples_ms=20, power=constant(150))) as lab:
        source, _ = opened()
        [first] = source.read()
        time.sleep(0.1)
        [second] = source.read()
    assert isinstance(first, Reading)
    assert isinstance(second, Reading)
    assert len(first.power) >= 45  # a second of them
    assert second.power
    assert {watts for _, watts in (*first.power, *second.power)} == {150}
    times = np.asarray([t_ns for t_ns, _ in (*first.power, *second.power)])
    np.testing.assert_allclose(np.diff(times), 20 * MS, atol=2 * MS)  # none twice, none left out
    assert np.abs((times - lab.t0_ns + 10 * MS) % (20 * MS) - 10 * MS).max() < 2 * MS  # when the lab took them


def test_samples_of_garbage_are_left_out():
    faults = [
        Fault("sample_raw", at_s=AGE_S - 0.5, until_s=AGE_S - 0.4, value=2**31),
        Fault("sample_time", at_s=AGE_S - 0.3),
    ]
    with machine(Board(samples_ms=20, power=constant(150), faults=faults)):
        source, _ = opened()
        [reading] = source.read()
    assert isinstance(reading, Reading)
    assert 20 <= len(reading.power) <= 36  # of the 35 before the stamps were lost, less 5
    assert {watts for _, watts in reading.power} == {150}


@pytest.mark.parametrize("samples_ms", [10, None])
def test_a_board_without_a_counter_is_integrated_from_when_it_was_opened(samples_ms):
    """From its samples, or from what it draws at each read."""
    with machine(Board(counter_ms=None, samples_ms=samples_ms, power=constant(300))):
        before_ns = time.monotonic_ns()
        source, _ = opened()
        after_ns = time.monotonic_ns()
        time.sleep(0.1)
        readings = source.read()
        time.sleep(0.1)
        readings += source.read()
    assert len(readings) == 3
    first, *later = readings
    assert isinstance(first, Reading)
    assert first.energy_uj == 0
    assert before_ns - (S + 20 * MS if samples_ms else 0) <= first.t_ns <= after_ns
    for reading in later:
        assert isinstance(reading, Reading)
        assert reading.energy_uj == pytest.approx(300 * (reading.t_ns - first.t_ns) / 1000, rel=1e-6)
    assert isinstance(later[-1], Reading)
    assert later[-1].t_ns - after_ns > 0.15 * S


# ---- what goes wrong ----


def test_no_pynvml_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(SourceUnavailable, match="pip install nvidia-ml-py"):
        opened()


@pytest.mark.parametrize(
    ("code", "words"), [(9, "modprobe"), (18, "restart the machine"), (4, "/dev/nvidia"), (999, "Reinstall")]
)
def test_a_driver_that_does_not_start_says_why_and_the_remedy(code, words):
    with machine(Board(), init_error=code), pytest.raises(SourceUnavailable, match=words) as caught:
        opened()
    assert "NVML does not start" in caught.value.why


def test_a_machine_without_boards_says_so():
    with machine(), pytest.raises(SourceUnavailable, match="shows no board"):
        opened("all")


# ---- slow drivers ----


@pytest.mark.parametrize(("call_ms", "counter_ms"), [(2, 20), (2.6, 100), (10, 100)])
def test_a_slow_driver_is_read_at_its_ticks_too(call_ms, counter_ms):
    clock = ReplayClock()
    board = Board(power=constant(200), counter_ms=counter_ms, call_ms=call_ms)
    lab = Lab([board], age_s=AGE_S, clock=clock)
    with lab.running():
        source = NvmlSource("all")
        source.open(clock)
        readings = source.read() + source.read()
        ticks = source._boards[0]._ticks
        assert isinstance(ticks, TickReader)
        assert ticks.period_s == pytest.approx(counter_ms / 1000, rel=0.25)
        assert ticks.call_ns == pytest.approx(call_ms * MS, rel=0.5)
        for reading in readings:
            assert isinstance(reading, Reading)
            true_uj = board.counter_start_mj * 1000 + lab.true_joules(0, lab.t0_ns, reading.t_ns) * 1e6
            assert abs(reading.energy_uj - true_uj) / 200e6 <= reading.blur_s + 0.0035 or reading.t_ns == readings[0].t_ns
        assert readings[-1].blur_s < 0.04
        source.close()
