"""The estimate: busy CPU seconds times watts, and never less than it was."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from time import process_time

import numpy as np
import psutil
import pytest

from lightning_watt import EnergyMeter, host
from lightning_watt.meter.latch import EndingClock
from lightning_watt.sources import estimate
from lightning_watt.sources.base import HOST_CLOCK, Reading
from lightning_watt.sources.estimate import WATTS_PER_CORE, EstimateSource, busy_seconds, busy_seconds_of
from lightning_watt.testing.doubles import FakeClock, S


@pytest.fixture(autouse=True)
def always_looks(monkeypatch) -> None:
    """Each reading looks at the other processes, whatever that costs."""
    monkeypatch.setattr(estimate, "MOST_SHARE", math.inf)


def reading_of(source: EstimateSource) -> Reading:
    reading = source.read()[-1]
    assert isinstance(reading, Reading)
    return reading


def burn(seconds: float) -> None:
    start = os.times()
    while sum(os.times()[:2]) - sum(start[:2]) < seconds:
        pass


def test_it_is_labelled_an_estimate(monkeypatch):
    monkeypatch.setattr(psutil, "getloadavg", lambda: (0.1, 9.0, 9.0))
    [device] = EstimateSource().open(FakeClock())
    assert (device.label, device.source, device.provenance) == ("cpu0", "estimate", "estimated")
    assert device.gain == 0.5
    assert f"{WATTS_PER_CORE} W" in device.note


def test_busy_seconds_times_watts(monkeypatch):
    busy = iter([1.0, 2.5, 4.0])
    monkeypatch.setattr(estimate, "busy_seconds", lambda children: next(busy))
    clock, source = FakeClock(), EstimateSource(watts_per_core=8.0)
    source.open(clock)
    start_ns = clock.t_ns
    clock.sleep(3)
    # The first read comes with the reading of the opening, so that nothing is lost if it comes late.
    assert source.read() == [Reading("cpu0", start_ns, 8_000_000), Reading("cpu0", clock.t_ns, 20_000_000)]
    assert source.read() == [Reading("cpu0", clock.t_ns, 32_000_000)]


def test_it_never_falls_when_a_worker_ends(monkeypatch):
    busy = iter([0.0, 5.0, 9.0, 6.0, 10.0])
    monkeypatch.setattr(estimate, "busy_seconds", lambda children: next(busy))
    source = EstimateSource(watts_per_core=1.0)
    source.open(FakeClock())
    assert [reading_of(source).energy_uj // 10**6 for _ in range(4)] == [5, 9, 9, 10]


@pytest.fixture
def slow_search(monkeypatch) -> FakeClock:
    """A process that is always busy, on a machine where the search for its children takes three seconds."""
    clock = FakeClock()

    def search(pid: int) -> list[int]:
        clock.sleep(3)
        return []

    monkeypatch.setattr(host, "_has_lists_of_children", lambda: True)
    monkeypatch.setattr(host, "descendants", search)
    monkeypatch.setattr(host, "process_time", lambda: clock.t_ns / S)
    monkeypatch.setattr(host, "_seconds_of_ended_children", lambda: 0.0)
    monkeypatch.setattr(estimate, "process_time", lambda: clock.t_ns / S)
    return clock


@pytest.mark.parametrize("processes", [(), (1,)], ids=["alone", "with another rank"])
def test_a_reading_has_the_time_at_which_the_cpu_times_were_read(slow_search, monkeypatch, processes):
    monkeypatch.setattr(host, "_listed_seconds", lambda pid: (0.0, 0.0))
    monkeypatch.setattr(host, "clock_gettime", lambda clock: slow_search.t_ns / S)
    source = EstimateSource(watts_per_core=1.0, processes=processes)
    source.open(slow_search)
    for _ in range(2):
        for reading in source.read():
            assert isinstance(reading, Reading)
            assert reading.energy_uj * 1000 == reading.t_ns * (1 + len(processes))


def test_a_short_window_after_a_slow_search_is_not_empty(slow_search):
    """Half a second of work was charged to the time after the window, because the reading was dated after the search."""
    with EnergyMeter(sources=[EstimateSource(watts_per_core=2.0)], clock=slow_search) as meter:
        with meter.window("work") as window:
            slow_search.sleep(0.5)
        assert window.joules == pytest.approx(2.0 * window.seconds)
        assert window.uncertainty_j > 0


def test_work_of_this_process_is_in_it():
    before = busy_seconds()
    burn(0.1)
    assert busy_seconds() - before >= 0.08


def test_work_of_a_few_milliseconds_is_not_nothing():
    """The kernel's tables count in steps of 10 ms, which are 37.6 mJ."""
    source = EstimateSource()
    source.open(HOST_CLOCK)
    before, started = reading_of(source).energy_uj, process_time()
    while process_time() - started < 0.003:
        pass
    assert reading_of(source).energy_uj - before >= 0.003 * WATTS_PER_CORE * 1e6


def test_a_childs_few_milliseconds_are_counted():
    code = "import time\nwhile time.process_time() < {0}: pass\nprint(time.process_time(), flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", code.format(0.005)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        used = float(child.stdout.readline())
        assert used <= busy_seconds_of([psutil.Process(child.pid)]) < used + 0.01
        before = busy_seconds([])
        child.communicate("\n")
    assert busy_seconds([]) - before >= used


def test_on_a_machine_that_is_asked_for_too_much_an_estimate_is_less_sure(monkeypatch):
    for load, gain in ((0.0, 0.5), (1.0, 0.5), (4.0, 0.875)):
        monkeypatch.setattr(psutil, "getloadavg", lambda load=load: (load * (os.cpu_count() or 1), 0.0, 0.0))
        [device] = EstimateSource().open(FakeClock())
        assert device.gain == pytest.approx(gain)

    def unknown() -> tuple[float, float, float]:
        raise OSError("no /proc/loadavg")

    monkeypatch.setattr(psutil, "getloadavg", unknown)
    assert EstimateSource().open(FakeClock())[0].gain == 0.5


def test_a_childs_work_is_in_it_while_it_lives_and_once_it_has_ended():
    code = "import os\nwhile sum(os.times()[:2]) < 0.2: pass\nprint('done', flush=True)\ninput()"
    before = busy_seconds()
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        living = busy_seconds()
        child.communicate("\n")
    assert living - before >= 0.18
    assert busy_seconds() - before >= 0.18


def test_the_other_ranks_of_a_node_are_in_it_once():
    """One that this process started stands in its own tree already; one beside it (here: its parent's) does not."""
    code = "import os\nwhile sum(os.times()[:2]) < 0.2: pass\nprint('done', flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        source = EstimateSource(1.0, processes=[child.pid, 2**22 + 1])
        source.open(FakeClock())
        child.stdout.readline()
        below = reading_of(source).energy_uj / 1e6 - busy_seconds()
        assert below == pytest.approx(0, abs=0.05)
        child.communicate("\n")
    parent = psutil.Process(os.getppid()).cpu_times()
    beside = EstimateSource(1.0, processes=[os.getppid()])
    beside.open(FakeClock())
    expected = busy_seconds() + parent.user + parent.system
    assert reading_of(beside).energy_uj / 1e6 >= expected - 0.05


def test_a_child_that_ends_between_two_looks_does_no_harm(monkeypatch):
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    for lists in (True, False):
        monkeypatch.setattr(host, "_has_lists_of_children", lambda lists=lists: lists)
        assert busy_seconds_of([host.Seen(gone.pid)]) == 0.0


@pytest.mark.skipif(not Path("/proc/thread-self/children").exists(), reason="the kernel has no lists of children")
def test_both_ways_to_look_at_a_process_tell_the_same_and_one_makes_no_object_of_it(monkeypatch):
    code = "import os, subprocess\nsubprocess.run(['sh', '-c', 'i=0; while [ $i -lt 99999 ]; do i=$((i+1)); done'])\ninput()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, text=True) as child:

        def ended_s() -> float:
            return host._listed_seconds(child.pid)[1]

        while not ended_s():
            time.sleep(0.01)
        told = {}
        for lists in (True, False):
            monkeypatch.setattr(host, "_has_lists_of_children", lambda lists=lists: lists)
            told[lists] = host._listed_seconds(child.pid)
        assert told[True] == pytest.approx(told[False], abs=0.03)
        monkeypatch.setattr(host, "_has_lists_of_children", lambda: True)
        monkeypatch.setattr(psutil, "Process", lambda *_: pytest.fail("an object of a process"))
        assert busy_seconds_of([host.Seen(child.pid)]) == pytest.approx(sum(told[True]), abs=0.03)
        child.communicate("\n")


@pytest.mark.parametrize("watts", [0, -1.0, float("nan")])
def test_watts_that_cannot_be_are_refused(watts):
    with pytest.raises(ValueError, match="above zero"):
        EstimateSource(watts_per_core=watts)


def test_a_step_of_booked_time_is_not_refused():
    from lightning_watt.meter.timeline import Timeline
    from lightning_watt.sources.base import HOST_CLOCK, Reading

    [device] = EstimateSource().open(HOST_CLOCK)
    line = Timeline(device)
    line.add(Reading("cpu0", 0, 0))
    # 40 ms of CPU time are booked at once, 3 ms later.
    step = line.add(Reading("cpu0", 3_000_000, 150_400))
    assert step is not None
    assert step.gap is None
    assert line.energy_uj_at([3_000_000]).tolist() == [150_400]


def test_looks_at_many_children_take_their_share_of_the_time_and_lose_nothing(monkeypatch):
    """Each look takes 20 ms of the thread's CPU time, so there is one in ten seconds, and one at the end."""
    clock, looks = EndingClock(FakeClock()), []
    spent = itertools.count(step=0.02)
    others_s = 0.0

    def busy(children: object) -> float:
        looks.append(clock.now_ns())
        return others_s

    monkeypatch.setattr(estimate, "MOST_SHARE", 0.002)
    monkeypatch.setattr(estimate, "thread_time", lambda: next(spent))
    monkeypatch.setattr(estimate, "process_time", lambda: 0.0)
    monkeypatch.setattr(estimate, "living_children", list)
    monkeypatch.setattr(estimate, "busy_seconds", busy)
    source = EstimateSource(watts_per_core=1.0)
    source.open(clock)
    for second in range(1, 36):
        clock.sleep(1)
        others_s = second * 400.0
        reading = reading_of(source)
        assert reading.t_ns == clock.now_ns()
        assert reading.energy_uj in (second // 10 * 4000 * 10**6, others_s * 10**6)
    assert np.diff(looks).tolist() == [10 * S] * 3
    clock.end_by(clock.now_ns())
    assert reading_of(source).energy_uj == 35 * 400 * 10**6


@pytest.mark.skipif(sys.platform != "linux", reason="the lists of children are Linux's")
@pytest.mark.parametrize("lists", [True, False])
def test_children_and_their_children_are_found_with_and_without_the_kernels_lists(monkeypatch, lists):
    if lists and not Path("/proc/thread-self/children").exists():
        pytest.skip("this kernel was built without CONFIG_PROC_CHILDREN, so that the slow search is the only one")
    monkeypatch.setattr(host, "_has_lists_of_children", lambda: lists)
    code = "import subprocess, sys\nsubprocess.run(['sh', '-c', 'echo ready; read line; true'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        found = {process.pid: psutil.Process(process.pid).ppid() for process in host.living_children()}
        assert child.pid in found
        assert child.pid in found.values()
        child.communicate("\n")
