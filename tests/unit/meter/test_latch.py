"""The clock that a measurement's sources sleep by."""

from __future__ import annotations

import threading
import time

from lightning_watt.meter.latch import EndingClock, Latch
from lightning_watt.sources.base import HOST_CLOCK, end_of
from lightning_watt.testing import ReplayClock
from lightning_watt.testing.doubles import FakeClock, S


def test_an_end_wakes_who_sleeps_and_nobody_sleeps_beyond_it():
    clock, woken = EndingClock(HOST_CLOCK), threading.Event()

    def sleeps() -> None:
        clock.sleep(3600)
        clock.sleep(3600)  # and again, until the end itself
        woken.set()

    threading.Thread(target=sleeps, daemon=True).start()
    time.sleep(0.01)
    assert end_of(clock) is None
    clock.end_by(clock.now_ns() + S // 100)
    assert woken.wait(60)
    assert clock.now_ns() >= (end_of(clock) or 0)


def test_a_tests_own_clock_goes_on_by_itself():
    fake = FakeClock()
    clock, began_ns = EndingClock(fake), fake.now_ns()
    clock.sleep(2)
    assert fake.now_ns() - began_ns == 2 * S
    clock.end_by(fake.now_ns() + S)
    clock.sleep(5)
    assert fake.now_ns() - began_ns == 3 * S
    assert end_of(fake) is None


def test_a_clock_of_its_own_also_passes_where_threads_wait():
    replayed, machine = ReplayClock(), EndingClock(HOST_CLOCK)
    ending = EndingClock(replayed)
    assert ending.steady_s() == replayed.now_ns() / 1e9
    assert type(ending.latch()) is type(replayed.latch())
    assert isinstance(machine.latch(), Latch)
    assert abs(machine.steady_s() - time.monotonic()) < 60
