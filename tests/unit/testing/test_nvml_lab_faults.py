"""Faults of the NVML lab, seen through the real pynvml: the lab's age places "now" inside or outside their window."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import numpy as np
import pynvml
import pytest

from lightning_watt.testing import (
    Board,
    Fault,
    Lab,
    constant,
    steps,
)
from tests.unit.opened_lab import opened, refused

ENERGY = pynvml.nvmlDeviceGetTotalEnergyConsumption


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


def test_who_slept_through_the_end_of_a_lab_shuts_down_no_later_one():
    """A reader that comes back late closes its source, which was of the lab before."""
    slow = Board(faults=[Fault("hang", function="nvmlDeviceGetTotalEnergyConsumption", delay_ms=300)])
    go_on, codes = threading.Event(), []

    def late(handle) -> None:
        for call in (lambda: ENERGY(handle), lambda: go_on.wait(10), pynvml.nvmlShutdown):
            try:
                call()
            except pynvml.NVMLError as error:
                codes.append(error.value)

    with opened(slow) as (lab, [h]):
        thread = threading.Thread(target=late, args=(h,))
        thread.start()
        while lab.calls("nvmlDeviceGetTotalEnergyConsumption") == 0:
            time.sleep(0.001)
    with opened(Board()) as (_, [h]):
        go_on.set()
        thread.join(10)
        assert codes == [pynvml.NVML_ERROR_UNINITIALIZED] * 2
        assert ENERGY(h)


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
