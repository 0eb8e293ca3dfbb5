"""The NVML lab, seen through the real pynvml: what it shows is what its curves say."""

from __future__ import annotations

import time

import numpy as np
import pynvml
import pytest

from lightning_watt.testing import (
    BOARDS,
    Board,
    Curve,
    Fault,
    Lab,
    constant,
    named,
    ramp,
    square,
    steps,
)
from tests.unit.opened_lab import opened, refused

NS = 1_000_000_000
ENERGY = pynvml.nvmlDeviceGetTotalEnergyConsumption


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
