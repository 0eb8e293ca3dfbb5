"""The NVML lab, seen through the real pynvml: what it shows is what its curves say."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pynvml
import pytest

from lightning_watt import EnergyMeter
from lightning_watt.meter.window import Window
from lightning_watt.sources.nvml import NvmlSource
from lightning_watt.testing import (
    BOARDS,
    Board,
    Curve,
    Fault,
    Lab,
    LabError,
    ReplayClock,
    constant,
    named,
    ramp,
    square,
    steps,
)
from lightning_watt.testing.nvml_lab import build as building

NS = 1_000_000_000
ENERGY = pynvml.nvmlDeviceGetTotalEnergyConsumption


@contextmanager
def opened(*boards: Board, age_s: float = 0.0, **arguments) -> Iterator[tuple[Lab, list]]:
    """A lab that is `age_s` seconds old, with NVML initialised, and its handles."""
    lab = Lab(boards, age_s=age_s, **arguments)
    with lab.running():
        pynvml.nvmlInit()
        yield lab, [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(len(boards))]


def refused(code: int, call, *arguments) -> None:
    with pytest.raises(pynvml.NVMLError) as caught:
        call(*arguments)
    assert caught.value.value == code


# ---- curves ----


def test_curves_integrate_exactly():
    assert square(300, 80, 0.81, duty=0.25).energy_pj(81 * NS // 100 * 7) == 7 * 81 * 135 * 10**10
    assert steps([(1, 100), (2, 50)]).energy_pj(7 * NS) == 500 * 10**12
    assert steps([(1, 100), (2, 50)], repeat=False).energy_pj(7 * NS) == 400 * 10**12
    assert steps([(1, 0)], then=constant(10)).energy_pj(3 * NS) == 20 * 10**12
    assert ramp(0, 100, 2.0).energy_pj(3 * NS) == 200 * 10**12
    assert constant(100).energy_pj(-5) == 0


def test_vectors_equal_the_exact_integral():
    t_ns = np.random.default_rng(0).integers(0, 10**13, size=500)
    for curve in (constant(7.5), square(300, 80, 0.81), ramp(50, 400, 3.0, then=square(1, 2, 0.1))):
        exact = np.array([curve.energy_pj(int(t)) / 1e12 for t in t_ns])
        np.testing.assert_allclose(curve.energy_j(t_ns), exact, rtol=1e-12, atol=1e-9)
        # The mean power over a nanosecond is the power of the segment that owns it.
        power = np.array([(curve.energy_pj(int(t) + 1) - curve.energy_pj(int(t))) / 1e3 for t in t_ns])
        np.testing.assert_array_equal(curve.power_w(t_ns), power)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: constant(-1), "0 W or more"),
        (lambda: square(1, 0, 1.0, duty=1.0), "duty"),
        (lambda: Curve(loop=()), "looping"),
        (lambda: Fault("explode"), "Unknown fault"),
        (lambda: Fault("hang"), "delay_ms"),
        (lambda: Fault("lost", at_s=2, until_s=1), "before it begins"),
        (lambda: Fault("error", function="nvmlDeviceMakeCoffee"), "no function"),
        (lambda: Board(faults=[Fault("error", function="nvmlDeviceGetCount")]), "names no board"),
        (lambda: Board(counter_ms=0), "None takes it away"),
        (lambda: Board(fields=[84]), "fields"),
        (lambda: Board(mig=9), "room for 8"),
        (lambda: Board(mig=2, mig_uuids=["MIG-1"]), "MIG UUIDs"),
        (lambda: Lab([], start="later"), "first_reading"),
    ],
)
def test_wrong_arguments_say_why(make, word):
    with pytest.raises(ValueError, match=word):
        make()


# ---- identity ----


def test_boards_are_told_apart():
    boards = Board(name="Left"), Board(name="Right", pci_bus_id="0000:3B:00.0", uuid="GPU-right", pids=[7, 9])
    with opened(*boards) as (lab, handles):
        assert pynvml.nvmlDeviceGetCount() == 2
        assert [pynvml.nvmlDeviceGetName(h) for h in handles] == ["Left", "Right"]
        assert [pynvml.nvmlDeviceGetIndex(h) for h in handles] == [0, 1]
        assert [pynvml.nvmlDeviceGetUUID(h) for h in handles] == [lab.uuid(0), "GPU-right"]
        assert lab.uuid(0).startswith("GPU-")
        for find, key in (
            (pynvml.nvmlDeviceGetHandleByUUID, "GPU-right"),
            (pynvml.nvmlDeviceGetHandleByPciBusId, "00000000:3B:00.0"),
        ):
            assert pynvml.nvmlDeviceGetIndex(find(key)) == 1
        pci = pynvml.nvmlDeviceGetPciInfo(handles[1])
        assert (pci.busId, pci.bus) == ("00000000:3B:00.0", 0x3B)
        processes = [pynvml.nvmlDeviceGetComputeRunningProcesses(h) for h in handles]
        assert [[p.pid for p in on_board] for on_board in processes] == [[], [7, 9]]
        if hasattr(pynvml, "nvmlDeviceGetComputeRunningProcesses_v2"):  # not in every nvidia-ml-py
            assert [p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses_v2(handles[1])] == [7, 9]
        refused(pynvml.NVML_ERROR_NOT_FOUND, pynvml.nvmlDeviceGetHandleByUUID, "GPU-nowhere")
        refused(pynvml.NVML_ERROR_INVALID_ARGUMENT, pynvml.nvmlDeviceGetHandleByIndex, 2)


def test_the_plain_getters_answer():
    board = Board(power=constant(150), compute_capability=(8, 0), architecture=7, virtualization=2, persistence=False)
    with opened(board, driver="535.1") as (_, [h]):
        assert pynvml.nvmlSystemGetDriverVersion() == "535.1"
        assert pynvml.nvmlSystemGetNVMLVersion() == "12.535.1"
        assert pynvml.nvmlSystemGetCudaDriverVersion_v2() == 12080
        assert pynvml.nvmlDeviceGetCudaComputeCapability(h) == (8, 0)
        assert pynvml.nvmlDeviceGetArchitecture(h) == pynvml.NVML_DEVICE_ARCH_AMPERE
        assert pynvml.nvmlDeviceGetVirtualizationMode(h) == 2
        assert pynvml.nvmlDeviceGetPersistenceMode(h) == 0
        assert pynvml.nvmlDeviceGetPowerManagementLimitConstraints(h) == [100_000, 300_000]
        assert pynvml.nvmlDeviceGetEnforcedPowerLimit(h) == 300_000
        assert pynvml.nvmlDeviceGetMemoryInfo(h).total == 16 << 30
        assert pynvml.nvmlDeviceGetMemoryInfo(h, version=pynvml.nvmlMemory_v2).total == 16 << 30
        assert pynvml.nvmlDeviceGetUtilizationRates(h).gpu == 50
        assert pynvml.nvmlErrorString(15) == "GPU is lost"


# ---- energy and power ----


@pytest.mark.parametrize(
    "board",
    [
        Board(power=square(300, 80, 0.81)),
        Board(power=ramp(50, 400, 2.0, then=square(300.125, 80, 0.0371)), counter_ms=1.0),
        Board(power=square(300, 80, 0.81), counter_gain=0.947, counter_phase_ms=33, counter_lag_ms=41),
        Board(power=constant(123.456), counter_start_mj=0, counter_ms=20),
        Board(power=square(300, 80, 0.052), counter_ms=100, counter_jitter_ms=46, counter_phase_ms=9, counter_lag_ms=3),
        Board(power=square(300, 80, 0.053), counter_ms=100, counter_window_ms=25, counter_jitter_ms=5),
    ],
)
def test_counter_is_the_truth_at_the_last_tick(board):
    with opened(board, age_s=12345.678) as (lab, [h]):
        for _ in range(200):
            before_ns = time.monotonic_ns()
            read = ENERGY(h)
            by_field = pynvml.nvmlDeviceGetFieldValues(h, [83, 191])
            after_ns = time.monotonic_ns()
            assert lab.counter_mj(0, before_ns) <= read <= lab.counter_mj(0, after_ns)
            for field in by_field:
                assert field.nvmlReturn == pynvml.NVML_SUCCESS
                assert field.valueType == pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG
                assert read <= field.value.ullVal <= lab.counter_mj(0, after_ns)
    ticked_j = (lab.counter_mj(0, after_ns) - board.counter_start_mj) / 1000
    true_j = lab.true_joules(0, lab.t0_ns, after_ns) * board.counter_gain
    if not board.counter_window_ms:  # what looks a quarter of the time counts something near the truth
        assert true_j - 400 * 0.15 <= ticked_j <= true_j
    assert ticked_j == pytest.approx(true_j, rel=0.05)
    assert lab.true_energy(0, [after_ns])[0] == pytest.approx(lab.true_joules(0, lab.t0_ns, after_ns), rel=1e-12)


def test_samples_carry_the_curve():
    curve = square(300, 80, 0.81)
    with opened(Board(power=curve, samples_window_ms=0), age_s=60) as (lab, [h]):
        asked_us = time.time_ns() // 1000
        kind, samples = pynvml.nvmlDeviceGetSamples(h, pynvml.NVML_TOTAL_POWER_SAMPLES, 0)
        assert kind == pynvml.NVML_VALUE_TYPE_UNSIGNED_INT
        stamps_us = np.array([s.timeStamp for s in samples])
        watts = np.array([s.sampleValue.uiVal for s in samples]) / 1000
        assert len(samples) == 120
        assert set(np.diff(stamps_us)) <= {19_999, 20_000, 20_001}
        assert asked_us - 25_000 < stamps_us[-1] < asked_us + 2_000_000
        # Sample k of this board was taken at k periods; which k the newest has follows from the clocks.
        offset_ns = time.time_ns() - time.monotonic_ns()
        k = np.round((stamps_us * 1000 - offset_ns - lab.t0_ns) / 20e6).astype(np.int64)
        np.testing.assert_array_equal(watts, curve.power_w(k * 20_000_000))

        _, newer = pynvml.nvmlDeviceGetSamples(h, pynvml.NVML_TOTAL_POWER_SAMPLES, int(stamps_us[100]))
        assert newer[0].timeStamp == stamps_us[101]
    with opened(Board(samples_ms=3_600_000)) as (_, [h]):
        _, [only] = pynvml.nvmlDeviceGetSamples(h, pynvml.NVML_TOTAL_POWER_SAMPLES, 0)
        refused(pynvml.NVML_ERROR_NOT_FOUND, pynvml.nvmlDeviceGetSamples, h, 0, only.timeStamp)


def test_samples_can_be_averages_unevenly_spaced_and_off_by_a_gain():
    curve = square(300, 100, 0.04)
    whole = Board(power=curve, samples_ms=20, samples_window_ms=40, sensor_gain=0.95)
    uneven = Board(power=curve, samples_jitter_ms=15, samples_window_ms=0, samples_buffer=50)
    with opened(whole, uneven, age_s=30) as (_, handles):
        _, averages = pynvml.nvmlDeviceGetSamples(handles[0], 0, 0)
        assert {s.sampleValue.uiVal for s in averages} == {190_000}
        _, jittered = pynvml.nvmlDeviceGetSamples(handles[1], 0, 0)
        assert len(jittered) == 50
        gaps_us = np.diff([s.timeStamp for s in jittered])
        assert gaps_us.min() > 0
        assert gaps_us.std() > 1000
        assert {s.sampleValue.uiVal for s in jittered} == {100_000, 300_000}


def test_power_usage_is_an_average_or_an_instant():
    # Ten whole waves fit the 1 s window, whenever it ends.
    wave = square(300, 100, 0.1)
    boards = Board(power=wave, power_window_ms=1000, module_extra_w=50), Board(power=wave, power_window_ms=0, fields=[185])
    with opened(*boards, age_s=10) as (_, handles):
        average, instant = (pynvml.nvmlDeviceGetPowerUsage(h) for h in handles)
        assert average == 200_000
        assert instant in {100_000, 300_000}
        fields = pynvml.nvmlDeviceGetFieldValues(handles[0], [185, 186, (185, 1), (186, 2), 84])
        assert [f.nvmlReturn for f in fields] == [0, 0, 0, 3, 3]
        assert [fields[i].value.uiVal for i in (0, 2)] == [200_000, 250_000]
        assert fields[1].value.uiVal in {100_000, 300_000}
        assert abs(fields[0].timestamp - time.time_ns() // 1000) < 60_000_000
        assert [f.nvmlReturn for f in pynvml.nvmlDeviceGetFieldValues(handles[1], [185, 186])] == [0, 3]


def test_what_a_board_lacks_is_not_supported():
    with opened(Board(counter_ms=None, samples_ms=None, power_usage=False)) as (_, [h]):
        refused(pynvml.NVML_ERROR_NOT_SUPPORTED, ENERGY, h)
        refused(pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.nvmlDeviceGetPowerUsage, h)
        refused(pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.nvmlDeviceGetSamples, h, 0, 0)
        refused(pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.nvmlDeviceGetMigMode, h)
        assert [f.nvmlReturn for f in pynvml.nvmlDeviceGetFieldValues(h, [83, 185])] == [3, 0]


def test_the_power_usage_is_what_the_board_says_it_is():
    board = named("A100", power=square(300, 80, 0.104), power_phase_ms=11, sensor_gain=0.945)
    with opened(board, age_s=20) as (lab, [h]):
        for _ in range(50):
            before_ns = time.monotonic_ns() - lab.t0_ns
            shown_w = pynvml.nvmlDeviceGetPowerUsage(h) / 1000
            after_ns = time.monotonic_ns() - lab.t0_ns
            assert shown_w in (board.power_usage_w(before_ns), board.power_usage_w(after_ns))


def test_samples_can_be_older_than_their_stamps():
    power = steps([(10, 100)], then=constant(200))
    with opened(Board(power=power, samples_lag_ms=500, samples_window_ms=0), age_s=10.25) as (_, [h]):
        assert {s.sampleValue.uiVal for s in pynvml.nvmlDeviceGetSamples(h, 0, 0)[1]} == {100_000}


# ---- boards by name ----


def test_a_board_without_a_name_is_a_v100():
    assert Board() == named("V100")
    assert all(board.source for board in BOARDS.values())
    with pytest.raises(ValueError, match="there are V100, A100"):
        named("A1000")


@pytest.mark.parametrize("name", BOARDS)
def test_a_named_board_answers_what_its_sensor_has(name):
    board = named(name, power=constant(40))
    with opened(board, age_s=5) as (_, [h]):
        assert pynvml.nvmlDeviceGetName(h) == board.name
        if board.counter_ms is None:
            for call in (ENERGY, pynvml.nvmlDeviceGetPowerUsage, pynvml.nvmlDeviceGetPowerManagementLimitConstraints):
                refused(pynvml.NVML_ERROR_NOT_SUPPORTED, call, h)
        else:
            assert ENERGY(h) > board.counter_start_mj
            assert pynvml.nvmlDeviceGetPowerUsage(h) == 40_000
            stamps = [s.timeStamp for s in pynvml.nvmlDeviceGetSamples(h, 0, 0)[1]]
            assert np.diff(stamps).mean() == pytest.approx(1000 * board.samples_ms, rel=0.01)


# ---- a clock of its own ----


def test_calls_take_time_and_answer_in_the_middle_of_it():
    clock = ReplayClock()
    lab = Lab([Board(power=constant(100), counter_ms=1, call_ms=10)], clock=clock)
    with lab.running():
        pynvml.nvmlInit()
        h = pynvml.nvmlDeviceGetHandleByIndex(0)
        before_ns = clock.now_ns()
        read_mj = ENERGY(h)
        took_ns = clock.now_ns() - before_ns
        assert 7e6 <= took_ns <= 13e6
        assert read_mj == lab.counter_mj(0, before_ns + took_ns // 2)
    assert clock.now_ns() == before_ns + took_ns  # it stands where it stood
    with pytest.raises(LabError, match="this process's own"):
        lab.env()
    with opened(Board(call_ms=2)) as (_, [h]):  # on the machine's clock the caller waits
        before_ns = time.monotonic_ns()
        ENERGY(h)
        assert time.monotonic_ns() - before_ns >= 1.4e6


def test_a_meter_runs_on_a_replays_clock():
    def run(seed: int) -> tuple[float, list[float], int]:
        clock = ReplayClock(seed=seed, late=(0.1, 5.0))
        lab = Lab([named("A100", power=square(300, 80, 0.81), call_ms=1.0)], clock=clock)
        joules: list[Window] = []
        with lab.running(), EnergyMeter(sources=[NvmlSource()], clock=clock) as meter:
            start_ns = meter.total.start_mark.t_ns + 2 * NS
            for k in range(20):
                window = meter.window(str(k))
                clock.at(start_ns + k * NS, window.begin)
                clock.at(start_ns + (k + 1) * NS, window.end)
                joules.append(window)
            clock.run_for(25)
            calls = lab.calls("nvmlDeviceGetTotalEnergyConsumption")
        truth = lab.true_joules(0, start_ns, start_ns + 20 * NS)
        assert sum(window.joules for window in joules) == pytest.approx(truth, rel=0.01)
        assert {window.seconds for window in joules} == {1.0}
        return meter.joules, [window.joules for window in joules], calls

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_a_replay_that_nobody_reads_ends(monkeypatch):
    monkeypatch.setattr("lightning_watt.testing.nvml_lab.clock.PATIENCE_S", 0.01)
    with pytest.raises(TimeoutError, match="started on this clock"):
        ReplayClock().run_for(1.0)


# ---- MIG ----


def test_mig_instances_have_a_parent_and_no_counter():
    boards = (
        Board(mig=0),
        Board(power=constant(250), mig=3, mig_uuids=["MIG-a", "MIG-b", "MIG-c"]),
        Board(mig=1),
    )
    with opened(*boards) as (lab, handles):
        assert [pynvml.nvmlDeviceGetMigMode(h) for h in handles] == [[0, 0], [1, 1], [1, 1]]
        assert pynvml.nvmlDeviceGetMaxMigDeviceCount(handles[1]) == 7
        instances = [pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handles[1], i) for i in range(3)]
        assert [pynvml.nvmlDeviceGetUUID(i) for i in instances] == list(lab.mig_uuids(1))
        assert lab.mig_uuids(2)[0].startswith("MIG-")
        refused(pynvml.NVML_ERROR_NOT_FOUND, pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handles[1], 3)
        second = pynvml.nvmlDeviceGetHandleByUUID("MIG-b")
        assert pynvml.nvmlDeviceIsMigDeviceHandle(second).value == 1
        assert pynvml.nvmlDeviceIsMigDeviceHandle(handles[1]).value == 0
        parent = pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(second)
        assert pynvml.nvmlDeviceGetUUID(parent) == lab.uuid(1)
        refused(pynvml.NVML_ERROR_NOT_SUPPORTED, ENERGY, second)
        refused(pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.nvmlDeviceGetPowerUsage, second)
        assert ENERGY(parent) >= boards[1].counter_start_mj


# ---- faults: the lab's age places "now" inside or outside their window ----


@pytest.mark.parametrize(("age_s", "codes"), [(100, [0, 0]), (500, [15, 0]), (5000, [0, 0])])
def test_a_lost_board_leaves_the_other(age_s, codes):
    lost = Board(faults=[Fault("lost", at_s=200, until_s=2000)])
    lab = Lab([lost, Board()], age_s=age_s)
    with lab.running():
        pynvml.nvmlInit()
        assert pynvml.nvmlDeviceGetCount() == 2
        for i, code in enumerate(codes):
            if code:
                refused(code, pynvml.nvmlDeviceGetHandleByIndex, i)
                refused(code, pynvml.nvmlDeviceGetHandleByUUID, lab.uuid(i))
            else:
                ENERGY(pynvml.nvmlDeviceGetHandleByIndex(i))


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_UNKNOWN, pynvml.NVML_ERROR_NO_PERMISSION])
def test_one_function_fails(code):
    broken = Board(faults=[Fault("error", at_s=1, function="nvmlDeviceGetTotalEnergyConsumption", code=code)])
    with opened(broken, Board(), age_s=3) as (_, handles):
        refused(code, ENERGY, handles[0])
        assert pynvml.nvmlDeviceGetPowerUsage(handles[0]) == 100_000
        assert ENERGY(handles[1])


def test_a_fault_of_the_system_befalls_every_board():
    faults = [
        Fault("error", function="nvmlDeviceGetCount"),
        Fault("error", function="nvmlDeviceGetSamples", code=4),
    ]
    with opened(Board(), Board(), faults=faults) as (_, handles):
        refused(pynvml.NVML_ERROR_UNKNOWN, pynvml.nvmlDeviceGetCount)
        for h in handles:
            refused(pynvml.NVML_ERROR_NO_PERMISSION, pynvml.nvmlDeviceGetSamples, h, 0, 0)


@pytest.mark.parametrize(
    ("faults", "joules", "start_mj"),
    [
        ([Fault("reset", at_s=4)], 600, 0),
        ([Fault("reset", at_s=2), Fault("reset", at_s=9)], 100, 0),
        ([Fault("jump", at_s=4, millijoules=5_000_000)], 1000, 5_001_000),
        ([Fault("jump", at_s=4, millijoules=-500)], 1000, 500),
        ([Fault("jump", at_s=4, millijoules=-(10**12))], 0, 0),
        ([Fault("jump", at_s=4, millijoules=999), Fault("reset", at_s=5)], 500, 0),
        ([Fault("stuck", at_s=4, until_s=100)], 400, 1000),
        ([Fault("stuck", at_s=4, until_s=5)], 1000, 1000),
        ([Fault("raw", at_s=4, until_s=100, value=2**64 - 1)], 0, 2**64 - 1),
        ([Fault("raw", at_s=4, until_s=5, value=3)], 1000, 1000),
    ],
)
def test_counter_faults(faults, joules, start_mj):
    # 100 W for 10 s, then nothing: the reading does not depend on how fast this test runs.
    power = steps([(10, 100)], then=constant(0))
    with opened(Board(power=power, counter_start_mj=1000, faults=faults), age_s=11) as (_, [h]):
        assert ENERGY(h) == start_mj + joules * 1000
        assert pynvml.nvmlDeviceGetFieldValues(h, [83])[0].value.ullVal == start_mj + joules * 1000


def test_samples_can_lie():
    faults = [
        Fault("sample_time", at_s=59.0, until_s=59.5),
        Fault("sample_raw", at_s=59.5, until_s=59.7, value=4_000_000_000),
    ]
    # The buffer holds 40 s, so that the faults are in it however slow this test is.
    with opened(Board(samples_ms=10, samples_buffer=4000, faults=faults), age_s=60) as (_, [h]):
        _, samples = pynvml.nvmlDeviceGetSamples(h, 0, 0)
        assert sum(s.timeStamp == 0 for s in samples) == 50
        assert sum(s.sampleValue.uiVal == 4_000_000_000 for s in samples) == 20


def test_the_wall_clock_can_step():
    board = Board(samples_buffer=2000, faults=[Fault("clock_step", at_s=59.5, seconds=-3600)])
    with opened(board, age_s=60) as (_, [h]):
        _, samples = pynvml.nvmlDeviceGetSamples(h, 0, 0)
        steps_us = np.diff([s.timeStamp for s in samples])
        assert (steps_us < -3_599_000_000).sum() == 1


def test_a_call_can_hang_without_holding_up_the_others():
    slow = Board(faults=[Fault("hang", function="nvmlDeviceGetTotalEnergyConsumption", delay_ms=60_000)])
    ended = []

    def hang(handle) -> None:
        with pytest.raises(pynvml.NVMLError) as caught:
            ENERGY(handle)
        ended.append(caught.value.value)

    with opened(slow, Board()) as (lab, handles):
        # A daemon: it sleeps on in the C library when the test is over.
        threading.Thread(target=hang, args=(handles[0],), daemon=True).start()
        while lab.calls("nvmlDeviceGetTotalEnergyConsumption") == 0:
            time.sleep(0.001)
        assert ENERGY(handles[1])
    assert ended == []

    brief = Board(faults=[Fault("hang", function="nvmlDeviceGetPowerUsage", delay_ms=20)])
    with opened(brief) as (_, [h]):
        began_ns = time.monotonic_ns()
        pynvml.nvmlDeviceGetPowerUsage(h)
        assert time.monotonic_ns() - began_ns >= 20_000_000


def test_an_old_driver_lacks_functions():
    with opened(Board(), missing=["nvmlDeviceGetSamples", "nvmlDeviceGetFieldValues"]) as (_, [h]):
        refused(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, pynvml.nvmlDeviceGetSamples, h, 0, 0)
        refused(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, pynvml.nvmlDeviceGetFieldValues, h, [83])
        assert ENERGY(h)


@pytest.mark.parametrize(("missing", "seen"), [([], 2), (["nvmlInit"], 0)])
def test_torch_can_be_kept_from_believing_in_the_boards(missing, seen):
    code = "import pynvml, torch; pynvml.nvmlInit(); print(pynvml.nvmlDeviceGetCount(), torch.cuda.device_count())"
    lab = Lab([Board(), Board()], missing=missing)
    env = lab.env() | {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
    env.pop("CUDA_VISIBLE_DEVICES", None)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", str(seen)]


def test_init_can_fail():
    with Lab([Board()], init_error=pynvml.NVML_ERROR_DRIVER_NOT_LOADED).running():
        refused(pynvml.NVML_ERROR_DRIVER_NOT_LOADED, pynvml.nvmlInit)
        refused(pynvml.NVML_ERROR_UNINITIALIZED, pynvml.nvmlDeviceGetCount)


def test_a_wrong_scenario_is_refused_with_its_line(tmp_path, monkeypatch, capfd):
    wrong = tmp_path / "wrong.txt"
    wrong.write_text("t0 1\nboard\nloop 1 1\ncolour green\n")
    with Lab([Board()]).running():
        monkeypatch.setenv("NVML_LAB_SCENARIO", str(wrong))
        refused(pynvml.NVML_ERROR_INVALID_ARGUMENT, pynvml.nvmlInit)
    assert "wrong.txt:4: unknown key `colour`" in capfd.readouterr().err


# ---- in and out of processes ----


def test_running_leaves_pynvml_as_it_was(monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", "/somewhere")
    before = pynvml.nvmlLib, pynvml._nvmlLib_refcount, dict(pynvml._nvmlGetFunctionPointer_cache)
    with opened(Board()) as (lab, [h]):
        ENERGY(h)
        read = pynvml.nvmlLib.nvmlDeviceGetTotalEnergyConsumption
        assert lab.env()["LD_LIBRARY_PATH"].endswith(":/somewhere")
        with pytest.raises(LabError, match="Another lab"), Lab([Board()]).running():
            pass
    assert (pynvml.nvmlLib, pynvml._nvmlLib_refcount, dict(pynvml._nvmlGetFunctionPointer_cache)) == before
    assert read(h, None) == pynvml.NVML_ERROR_UNINITIALIZED


def test_it_knows_who_asked():
    with opened(Board()) as (lab, [h]):
        assert lab.calling_threads() == {threading.get_native_id()}
        others = []

        def ask() -> None:
            others.append(threading.get_native_id())
            for _ in range(1000):
                ENERGY(h)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert lab.calls("nvmlDeviceGetTotalEnergyConsumption") == 4000
        assert lab.calling_threads() == {threading.get_native_id(), *others}


def test_truth_needs_a_time_zero():
    with pytest.raises(LabError, match="no time zero"):
        Lab([Board()]).true_joules(0, 0, 1)


ASK = """
import json, time, pynvml
pynvml.nvmlInit()
handle = pynvml.nvmlDeviceGetHandleByIndex(1)
before = time.monotonic_ns()
mj = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
print(json.dumps([pynvml.nvmlDeviceGetUUID(handle), before, mj, time.monotonic_ns()]))
"""


@pytest.mark.parametrize("start", ["now", "first_reading"])
def test_processes_share_the_boards_and_their_timeline(start):
    lab = Lab([Board(), Board(power=square(300, 80, 0.01), counter_ms=1)], start=start)
    asked = [
        subprocess.Popen([sys.executable, "-c", ASK], env=lab.env(), stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for process in asked:
        answer, _ = process.communicate()
        uuid, before_ns, read_mj, after_ns = json.loads(answer)
        assert uuid == lab.uuid(1)
        assert lab.counter_mj(1, before_ns) <= read_mj <= lab.counter_mj(1, after_ns)
    with lab.running():
        pynvml.nvmlInit()
        here = pynvml.nvmlDeviceGetHandleByIndex(1)
        before_ns = time.monotonic_ns()
        assert lab.counter_mj(1, before_ns) <= ENERGY(here) <= lab.counter_mj(1, time.monotonic_ns())


def test_what_takes_time_before_the_first_reading_uses_up_none_of_a_timeline():
    lab = Lab([Board(faults=[Fault("lost", at_s=100.5)])], age_s=100, start="first_reading")
    with lab.running():
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        time.sleep(0.6)
        with pytest.raises(LabError, match="no time zero yet"):
            _ = lab.t0_ns
        before_ns = time.monotonic_ns()
        read_mj = ENERGY(handle)
        begun_ns = lab.t0_ns + 100 * NS
        assert before_ns <= begun_ns <= time.monotonic_ns()
        assert lab.counter_mj(0, begun_ns) <= read_mj <= lab.counter_mj(0, time.monotonic_ns())
        while time.monotonic_ns() < begun_ns + 0.5 * NS:
            time.sleep(0.05)
        with pytest.raises(pynvml.NVMLError_GpuIsLost):
            ENERGY(handle)


def test_without_gcc_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match="apt install gcc"):
        building.build()


def test_a_build_lost_to_another_process_is_no_error(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    results = []
    threads = [threading.Thread(target=lambda: results.append(building.build())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(results)) == 1
    assert results[0].library.exists()
    assert results[0].in_process.exists()
    assert [path.name for path in building.cache_directory().iterdir()] == [results[0].directory.name]
