"""The door: whatever a source of the user's own does, its neighbours' readings pass as they are."""

from __future__ import annotations

import itertools
import math
import re
import threading
from typing import Any

import numpy as np
import pytest

from lightning_watt.errors import SourceUnavailable
from lightning_watt.sources.base import Device, Failure, Reading
from lightning_watt.sources.door import BEHIND_NS, devices_of, let_go, readings_of, take_up
from lightning_watt.testing.doubles import UNIX_NS, FakeClock, S, ScriptedSource
from tests.asked import asked_by_us
from tests.unit.forking import in_a_child

NOW = 5 * 3600 * S
GOOD = Reading("gpu1", NOW, 7)


def kind(value: Any) -> str:
    """A test's name from a value that may not be printable."""
    return value if isinstance(value, str) else type(value).__name__


class Ugly(Exception):  # noqa: N818 - it is a value here
    def __repr__(self) -> str:
        if asked_by_us():  # pytest, which shows values where a test fails, would end by it
            raise SystemExit("no repr either")
        return super().__repr__()


class Returns(ScriptedSource):
    """Hands over whatever it is told to; an exception is raised."""

    def __init__(self, what: Any) -> None:
        super().__init__(name="mine", labels=("gpu0", "gpu1"))
        self.what = what

    def read(self) -> Any:
        if isinstance(self.what, BaseException):
            raise self.what
        return self.what


def read(what: Any) -> list[Reading | Failure]:
    return readings_of(Returns(what), ["gpu0", "gpu1"], FakeClock(NOW), NOW)


def endless_after(*first: Any) -> Any:
    yield from first
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (None, "mine returned None for a `Reading`"),
        (7, "type `int`"),
        ("nonsense", "type `str`"),
        ([{"label": "gpu0"}], "type `dict`"),
        ([Reading], "type `type`"),
        ([Reading(["gpu0"], NOW, 7)], "type `Reading`"),  # type: ignore[arg-type]
        (SystemExit(3), r"mine raised SystemExit\(3\)"),
        (GeneratorExit(), "mine raised GeneratorExit"),
        (KeyboardInterrupt(), "mine raised KeyboardInterrupt"),
        (Ugly(), "mine raised <Ugly that cannot be shown>"),
        (endless_after(), r"mine raised SystemExit\(3\)"),
    ],
    ids=kind,
)
def test_what_belongs_to_no_reading_is_a_failure_of_every_device(what, said):
    found = read(what)
    assert [(type(one), one.label) for one in found] == [(Failure, "gpu0"), (Failure, "gpu1")]
    for failure in found:
        assert re.search(said, failure.why)
        assert failure.remedy == "Report it to its author."


@pytest.mark.parametrize(
    "what", [[GOOD, None], [None, GOOD], [GOOD, {"label": "gpu0"}], [7, GOOD], endless_after(GOOD)], ids=kind
)
def test_a_device_that_was_read_is_not_lost_by_what_stands_beside_it(what):
    found = read(what)
    assert [one for one in found if one.label == "gpu1"] == [GOOD]
    [failure] = [one for one in found if one.label == "gpu0"]
    assert isinstance(failure, Failure)


@pytest.mark.parametrize(
    "energy", [math.nan, math.inf, -math.inf, "12", None, 2**70, -(2**70), 10**5000, True, [1], np.nan, 1j], ids=kind
)
def test_an_energy_that_is_no_number_is_a_failure_of_its_device_alone(energy):
    failure, good = read([Reading("gpu0", NOW, energy), GOOD])
    assert isinstance(failure, Failure)
    assert failure.label == "gpu0"
    assert "no number of microjoules" in failure.why
    assert good == GOOD


@pytest.mark.parametrize(
    ("t_ns", "said"),
    [
        (UNIX_NS, r"a time to come, by 1\.7e\+09 s"),
        (NOW + 3 * S, "a time to come, by 2 s"),
        (NOW - BEHIND_NS - 5 * S, "a time long past, by 5 s"),
        (18_000, "a time long past"),
        (math.nan, "nan, which is no time"),
        ("now", "'now', which is no time"),
        (None, "None, which is no time"),
        (2**64, "which is no time"),
    ],
)
def test_a_stamp_of_another_clock_is_a_failure_that_names_the_right_one(t_ns, said):
    failure, good = read([Reading("gpu0", t_ns, 5), GOOD])
    assert isinstance(failure, Failure)
    assert re.search(said, failure.why)
    if "a time" in said:
        assert "`clock.now_ns()`" in failure.remedy
    assert good == GOOD


@pytest.mark.parametrize("t_ns", [NOW, NOW + S // 2, NOW - BEHIND_NS + S])
def test_a_stamp_that_is_a_little_ahead_or_of_a_slow_counter_is_taken(t_ns):
    assert read([Reading("gpu0", t_ns, 5), GOOD]) == [Reading("gpu0", t_ns, 5), GOOD]


@pytest.mark.parametrize("energy", [np.int64(2**62 + 1), np.uint64(2**62 + 1), 2**62 + 1])
def test_numbers_of_other_kinds_are_made_whole_to_the_last_digit(energy):
    [reading, _] = read([Reading("gpu0", np.int64(NOW), energy), GOOD])
    assert reading == Reading("gpu0", NOW, 2**62 + 1)
    assert (type(reading.t_ns), type(reading.energy_uj)) == (int, int)
    [reading, _] = read([Reading("gpu0", float(NOW), 12.7), GOOD])  # type: ignore[arg-type]
    assert reading == Reading("gpu0", NOW, 12)


def test_power_samples_that_are_none_are_left_out_and_the_energy_stays():
    samples = ((NOW - S, 5.0), (NOW, math.nan), (NOW, "9"), (None, 9.0), (UNIX_NS, 9.0), (NOW, 6), (NOW, math.inf))
    [reading, _] = read([Reading("gpu0", NOW, 7, samples), GOOD])  # type: ignore[arg-type]
    assert reading == Reading("gpu0", NOW, 7, ((NOW - S, 5.0), (NOW, 6.0)))


def test_power_samples_that_are_right_are_not_copied():
    samples = ((NOW - S, 5.0), (NOW, 6.0))
    [reading, _] = read([Reading("gpu0", NOW, 7, samples), GOOD])
    assert isinstance(reading, Reading)
    assert reading.power is samples


@pytest.mark.parametrize("power", [None, 5, ((1,),), "ab", [3.0]])
def test_power_that_is_no_list_of_samples_is_a_failure(power):
    failure, good = read([Reading("gpu0", NOW, 7, power), GOOD])
    assert isinstance(failure, Failure)
    assert "power samples" in failure.why
    assert good == GOOD


@pytest.mark.parametrize("tick_s", [math.nan, -1.0, "fast", 1e9])
def test_a_period_that_is_none_is_a_failure(tick_s):
    failure, good = read([Reading("gpu0", NOW, 7, tick_s=tick_s), GOOD])
    assert isinstance(failure, Failure)
    assert "period" in failure.why
    assert good == GOOD


def test_a_failure_passes_and_one_that_is_none_does_not():
    lost = Failure("gpu0", "Lost.", "Look for it.")
    assert read([lost, GOOD]) == [lost, GOOD]
    failure, good = read([Failure("gpu0", None, 3), GOOD])  # type: ignore[arg-type]
    assert (failure, good) != (lost, GOOD)


def test_a_source_that_never_ends_is_cut_off():
    found = read(GOOD for _ in itertools.count())
    assert len(found) < 200_000


# ---- devices ----


def a_device(**options: Any) -> Device:
    return Device(**{"label": "gpu0", "name": "mine", "uuid": "u", "source": "mine"} | options)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "It opened None for a `Device`"),
        (3, "type `int` for a `Device`"),
        (["gpu0"], "type `str` for a `Device`"),
        ([Device], "for a `Device`"),
        ([a_device(), a_device()], "more than one device named gpu0"),
        ([a_device(label=None)], "label is None"),
        ([a_device(label="")], "label is ''"),
        ([a_device(uuid=5)], "uuid is 5"),
        ([a_device(provenance="trust me")], "provenance is 'trust me'"),
        ([a_device(gain=math.nan)], "gain is nan"),
        ([a_device(gain=-1)], "gain is -1"),
        ([a_device(tick_s="fast")], "tick_s is 'fast'"),
        ([a_device(max_power_w=math.nan)], "max_power_w is nan"),
    ],
)
def test_what_is_no_device_is_refused_with_the_reason(found, said):
    with pytest.raises(SourceUnavailable, match=said) as caught:
        devices_of(ScriptedSource(name="mine"), found)
    assert caught.value.remedy == "Report it to its author."


@pytest.mark.parametrize("due_s", [None, 0, -1.0, math.nan, "1"])
def test_a_source_that_is_due_at_no_time_is_refused(due_s):
    source = ScriptedSource(name="mine")
    source.due_s = due_s
    with pytest.raises(SourceUnavailable, match="due_s"):
        devices_of(source, [a_device()])


def test_devices_without_a_ceiling_and_iterators_are_taken():
    assert devices_of(ScriptedSource(), iter([a_device(max_power_w=math.inf)])) == [a_device(max_power_w=math.inf)]


# ---- the end ----


def test_closing_that_fails_is_a_sentence():
    class Sticks(ScriptedSource):
        def close(self) -> None:
            raise SystemExit(3)

    assert let_go(ScriptedSource()) == ""
    assert "mine raised SystemExit(3) when it was closed" in let_go(Sticks(name="mine"))


def test_the_last_that_lets_go_of_a_source_closes_it():
    source, clock = ScriptedSource(), FakeClock()
    for _ in range(2):
        take_up(source, clock)
    assert (let_go(source), source.closed_count) == ("", 0)
    assert (let_go(source), source.closed_count) == ("", 1)
    take_up(source, clock)
    assert (let_go(source), source.closed_count) == ("", 2)


@pytest.mark.parametrize("held", [False, True])
def test_one_that_cannot_be_opened_is_closed_only_if_an_earlier_measurement_left_it_open(held):
    class Refuses(ScriptedSource):
        def open(self, clock):
            if self.open_count == held:
                if held:
                    let_go(self)  # the earlier one ends just now
                raise OSError("no")
            return super().open(clock)

    source, clock = Refuses(), FakeClock()
    if held:
        take_up(source, clock)
    with pytest.raises(OSError, match="no"):
        take_up(source, clock)
    assert source.closed_count == held


def test_a_source_is_not_opened_while_another_thread_closes_it():
    closing, go_on, order = threading.Event(), threading.Event(), []

    class Slow(ScriptedSource):
        def open(self, clock):
            order.append("opens")
            return super().open(clock)

        def close(self):
            closing.set()
            go_on.wait(10)
            order.append("closed")

    source = Slow()
    take_up(source, FakeClock())
    threads = [threading.Thread(target=call) for call in (lambda: let_go(source), lambda: take_up(source, FakeClock()))]
    threads[0].start()
    assert closing.wait(10)
    threads[1].start()
    threads[1].join(0.05)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert order == ["opens", "closed", "opens"]


def test_in_a_child_nothing_of_the_parents_is_held():
    source = ScriptedSource()
    take_up(source, FakeClock())

    def again() -> list[int]:
        take_up(source, FakeClock())
        let_go(source)
        return [source.closed_count]

    assert in_a_child(again) == [1]
    let_go(source)
    assert source.closed_count == 1


def test_the_users_own_interrupt_passes():
    class Interrupted(ScriptedSource):
        def close(self) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        let_go(Interrupted())
