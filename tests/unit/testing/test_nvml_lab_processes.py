"""The NVML lab over time and processes: a clock of its own, calls that take time, who asked, one timeline."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import pynvml
import pytest

from lightning_watt import EnergyMeter
from lightning_watt.meter.window import Window
from lightning_watt.sources.nvml import NvmlSource
from lightning_watt.testing import (
    Board,
    Fault,
    Lab,
    LabError,
    ReplayClock,
    constant,
    named,
    square,
)
from lightning_watt.testing.nvml_lab import build as building
from tests.unit.opened_lab import opened

NS = 1_000_000_000
ENERGY = pynvml.nvmlDeviceGetTotalEnergyConsumption


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
