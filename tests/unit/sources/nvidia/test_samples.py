"""The driver's power samples, whatever clock it stamps them by, through the real pynvml over the lab's driver."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pynvml
import pytest

from lightning_watt import EnergyMeter
from lightning_watt.meter.latch import EndingClock
from lightning_watt.sources.base import HOST_CLOCK, Reading, boot_ns
from lightning_watt.sources.nvidia.samples import PowerSamples, plain
from lightning_watt.testing import Board, Fault, Lab, ReplayClock, constant
from lightning_watt.testing.doubles import MS, FakeClock, S
from lightning_watt.testing.nvml_lab.clock import UNIX_OFFSET_NS
from tests.unit.lab_boards import AGE_S, machine, opened


class SleepyClock:
    """The host's clocks, on a machine that has slept for so long."""

    def __init__(self, slept_s: float) -> None:
        self.slept_ns = round(slept_s * S)
        self.set_ns = 0

    now_ns = staticmethod(time.monotonic_ns)
    sleep = staticmethod(time.sleep)

    def unix_ns(self) -> int:
        return time.time_ns() + self.set_ns

    def boot_ns(self) -> int:
        return time.monotonic_ns() + self.slept_ns


def samples_of(clock) -> PowerSamples:
    pynvml.nvmlInit()
    return PowerSamples(pynvml, pynvml.nvmlDeviceGetHandleByIndex(0), clock)


def is_in_step(samples, lab) -> bool:
    """Whether they have the times at which the lab took them, every 20 ms."""
    times = np.asarray([t_ns for t_ns, _ in samples])
    late = (times - lab.t0_ns + 10 * MS) % (20 * MS) - 10 * MS
    return bool(len(times) and times[-1] > time.monotonic_ns() - 100 * MS and np.abs(late).max() < 2 * MS)


def a_board(*faults: Fault, **options) -> Board:
    return Board(**{"samples_ms": 20, "samples_window_ms": 0, "power": constant(150), "faults": faults} | options)


def slept(seconds: float, at_s: float = 0.0) -> Fault:
    """As a clock that goes on while the machine sleeps shows it."""
    return Fault("clock_step", at_s=at_s, seconds=seconds)


@pytest.mark.parametrize(
    ("board", "slept_s", "clock_name"),
    [
        (a_board(), 0, "realtime"),
        (a_board(), 3600, "realtime"),
        (a_board(stamps="boot"), 0, "boottime"),  # which is the monotonic one, where nothing slept
        (a_board(stamps="boot"), 3600, "monotonic"),
        (a_board(slept(3600), stamps="boot"), 3600, "boottime"),
    ],
    ids=["1970", "1970, slept", "boot", "boot without sleep", "boot with sleep"],
)
def test_the_clock_of_the_stamps_is_learned_and_stands_in_the_device(board, slept_s, clock_name):
    with machine(board) as lab:
        clock = SleepyClock(slept_s)
        source, [device] = opened(clock=clock)
        [reading] = source.read()
        assert isinstance(reading, Reading)
        assert is_in_step(reading.power, lab)
        assert 45 <= len(reading.power) <= 55  # a second of them, none of before
        assert [watts for _, watts in reading.power] == [150] * len(reading.power)
        source.close()
    assert (device.samples_clock, device.note) == (clock_name, "")


@pytest.mark.parametrize("counts_sleep", [True, False])
@pytest.mark.parametrize("slept_before_s", [0, 7200])
def test_a_machine_that_sleeps_while_it_is_measured_does_not_lose_the_samples(counts_sleep, slept_before_s):
    """Only then it shows, where nothing had slept before, which clock since boot it is."""
    faults = [slept(slept_before_s), slept(600, at_s=AGE_S + 0.2)] if counts_sleep else []
    with machine(a_board(*faults, stamps="boot")) as lab:
        clock = SleepyClock(slept_before_s)
        samples = samples_of(clock)
        assert is_in_step(samples.read(), lab)
        time.sleep(max(0.0, (lab.t0_ns - time.monotonic_ns()) / S + AGE_S + 0.2))
        clock.slept_ns += 600 * S
        first = samples.read()
        time.sleep(0.1)
        found = first + samples.read()
        assert is_in_step(found, lab)
        assert np.diff([t_ns for t_ns, _ in found]).min() > 15 * MS  # none twice, none of before the sleep in the future
    assert samples.clock_name == ("boottime" if counts_sleep else "monotonic")


def test_a_wall_clock_that_is_set_is_followed_and_those_since_boot_do_not_care():
    for board in (a_board(Fault("clock_step", at_s=AGE_S + 0.2, seconds=-3600)), a_board(stamps="boot")):
        with machine(board) as lab:
            clock = SleepyClock(0)
            samples = samples_of(clock)
            assert is_in_step(samples.read(), lab)
            time.sleep(max(0.0, (lab.t0_ns - time.monotonic_ns()) / S + AGE_S + 0.2))
            clock.set_ns = -3600 * S
            time.sleep(0.05)
            assert is_in_step(samples.read(), lab)


def test_a_board_without_a_counter_whose_stamps_count_from_boot_is_measured():
    """Before, its samples were taken for old ones, and it read nothing."""
    with machine(a_board(stamps="boot", counter_ms=None, power_usage=False)) as lab:
        with EnergyMeter(gpus="all", interval=0.1) as meter:
            time.sleep(0.6)
        run = meter.total
        assert meter.joules == pytest.approx(lab.true_joules(0, run.start_mark.t_ns, run.end_mark.t_ns), rel=0.1)
    assert meter.complaints == meter.complaints.__class__()
    assert meter.devices[0].source == "nvml-power"


def of_no_clock(*, ahead: bool = True) -> float:
    """By how many seconds a clock since boot is none of this machine's, which may have been started just now."""
    return 500.0 if ahead else -time.monotonic() / 2


@pytest.mark.parametrize("ahead", [True, False])
def test_stamps_of_no_clock_are_told_and_give_no_shape_until_one_fits(ahead):
    """A time namespace, say, or a buffer that nothing has come into for long."""
    off_s = of_no_clock(ahead=ahead)
    with machine(a_board(slept(off_s), slept(-off_s, at_s=AGE_S + 0.3), stamps="boot")) as lab:
        source, [device] = opened()
        [before] = source.read()
        assert isinstance(before, Reading)
        assert before.power == ()
        assert device.samples_clock == ""
        assert "of another time by every clock" in device.note
        time.sleep(0.4)
        [after] = source.read()
        assert isinstance(after, Reading)
        assert is_in_step(after.power, lab)


def test_a_board_without_a_counter_whose_stamps_fit_no_clock_is_asked_for_its_power():
    with machine(a_board(slept(of_no_clock()), stamps="boot", counter_ms=None, power_window_ms=0)):
        source, [device] = opened()
        time.sleep(0.05)
        readings = source.read()
    assert (device.source, source.due_s) == ("nvml-power", 0.1)
    assert readings[-1].energy_uj == pytest.approx(150 * (readings[-1].t_ns - readings[0].t_ns) / 1000, rel=1e-6)


class NearClock(ReplayClock):
    """The wall clock of a machine that was started with it at zero, as boards without a battery for it are."""

    def unix_ns(self) -> int:
        return self.now_ns() + NEAR_S * S


NEAR_S = 1
"""How far such a machine's wall clock is ahead of the time since boot: what the kernel took."""


def near(board: Board) -> tuple[NearClock, Lab]:
    clock = NearClock()
    stamped_unix = board.stamps == "unix"
    faults = [*board.faults, slept(NEAR_S - UNIX_OFFSET_NS / S)] if stamped_unix else board.faults
    return clock, Lab([replace(board, faults=faults)], clock=clock, t0_ns=clock.now_ns() - 100 * S)


@pytest.mark.parametrize(("stamps", "clock_name"), [("unix", "realtime"), ("boot", "boottime")])
@pytest.mark.parametrize("samples_ms", [20, 7000])
def test_clocks_that_are_near_each_other_are_told_apart_at_the_latest_by_the_next_sample(stamps, clock_name, samples_ms):
    """The newest sample is two seconds old where they are seldom: it fits either clock."""
    clock, lab = near(a_board(samples_ms=samples_ms, stamps=stamps))
    with lab.running(children=False):
        samples = samples_of(clock)
        samples.read()
        clock.sleep(5.05)
        found = samples.read()
        assert samples.clock_name == clock_name
        assert found
        assert all((t_ns - lab.t0_ns + MS) % (samples_ms * MS) < 2 * MS for t_ns, _ in found)


def test_a_sample_of_the_future_among_others_hides_no_clock():
    ahead = Fault("clock_step", at_s=AGE_S - 0.01, seconds=50)
    with machine(a_board(ahead, slept(-50, at_s=AGE_S + 0.01), stamps="boot")) as lab:
        samples = samples_of(HOST_CLOCK)
        assert samples.clock_name == "boottime"
        assert is_in_step(samples.read(), lab)


def test_a_buffer_that_has_run_dry_is_no_fault_and_tells_its_clock_later():
    """An idle board's does, for minutes."""
    dry = Fault("error", function="nvmlDeviceGetSamples", code=6, at_s=0, until_s=AGE_S + 0.2)
    with machine(a_board(dry, stamps="boot")) as lab:
        samples = samples_of(HOST_CLOCK)
        assert (samples.offered, samples.strange, samples.clock_name) == (True, False, "")
        assert samples.read() == ()
        time.sleep(0.25)
        assert is_in_step(samples.read(), lab)


def test_clocks_that_know_of_no_sleep_tell_their_own_time():
    fake = FakeClock()
    assert boot_ns(fake) == boot_ns(EndingClock(fake)) == fake.t_ns
    assert boot_ns(EndingClock(SleepyClock(5))) == pytest.approx(boot_ns(SleepyClock(5)), abs=S)
    now = boot_ns(HOST_CLOCK)
    assert 0 <= boot_ns(HOST_CLOCK) - now < 60 * S


def test_samples_read_all_at_once_are_those_that_their_fields_say():
    with machine(a_board()):
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        _, raw = pynvml.nvmlDeviceGetSamples(handle, pynvml.NVML_TOTAL_POWER_SAMPLES, 0)
        fields = [(one.timeStamp, one.sampleValue.uiVal) for one in raw]
        assert plain(raw) == fields
        assert plain([SimpleNamespace(timeStamp=5, sampleValue=SimpleNamespace(uiVal=7))]) == [(5, 7)]  # another binding's
        assert len(fields) > 50
        assert plain([]) == []
