"""What can be measured here, and who is opened for it."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_watt import discover
from lightning_watt.errors import ArgumentError, SourceUnavailable
from lightning_watt.sources import discover as discovering
from lightning_watt.sources.base import HOST_CLOCK
from lightning_watt.sources.discover import open_sources
from lightning_watt.sources.rapl import RaplSource
from lightning_watt.sources.replay import ReplaySource
from lightning_watt.testing import Board, Fault, Lab
from lightning_watt.testing.doubles import AbsentSource, FakeClock, ScriptedSource


@pytest.fixture
def no_rapl(monkeypatch, tmp_path) -> None:
    """A machine that hides its powercap, as most containers do."""
    monkeypatch.setattr(discovering, "RaplSource", lambda **_: RaplSource(tmp_path / "nowhere"))


@pytest.fixture
def rapl(monkeypatch, tmp_path) -> Path:
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    for name, content in (("name", "package-0"), ("energy_uj", "5"), ("max_energy_range_uj", "1000")):
        (zone / name).write_text(content)
    monkeypatch.setattr(discovering, "RaplSource", lambda **_: RaplSource(tmp_path))
    return tmp_path


def test_it_tells_what_is_here_and_of_the_rest_why_and_the_remedy():
    here, away = ReplaySource({"gpu0": [(0, 0)]}), AbsentSource()
    found = discover([here, away], clock=FakeClock())
    assert [device.label for device in found.devices] == ["gpu0"]
    assert [(reason.source, reason.why, reason.remedy) for reason in found.missing] == [
        ("absent", "It is not here.", "Buy one.")
    ]
    assert str(found.missing[0]) == "absent: It is not here. Buy one."
    assert found.measured


def test_an_estimate_measures_nothing():
    assert not discover([ReplaySource({"cpu0": [(0, 0)]}, provenance="estimated")]).measured
    assert not discover([]).measured


def test_everything_that_was_opened_is_closed():
    source = ScriptedSource()
    discover([source], clock=FakeClock())
    assert (source.open_count, source.closed_count) == (1, 1)


def test_all_kinds_are_looked_for_by_default(rapl):
    with Lab([Board(name="Left"), Board(name="Right")]).running():
        found = discover()
    assert [(device.label, device.source) for device in found.devices] == [
        ("gpu0", "nvml-counter"),
        ("gpu1", "nvml-counter"),
        ("cpu0", "rapl"),
        ("cpu0", "estimate"),
    ]
    assert found.missing == ()


# ---- who is opened for a measurement ----


def test_boards_and_cpu_are_opened_and_no_estimate_joins_them(rapl):
    with Lab([Board(), Board()]).running():
        opened, missing = open_sources([1], "auto", HOST_CLOCK)
        assert [(source.name, [device.label for device in devices]) for source, devices in opened] == [
            ("nvml", ["gpu1"]),
            ("rapl", ["cpu0"]),
        ]
        for source, _ in opened:
            source.close()
    assert missing == []


def test_boards_alone_are_not_joined_by_an_estimate_either(no_rapl):
    with Lab([Board()]).running():
        opened, missing = open_sources("all", "auto", HOST_CLOCK)
        assert [source.name for source, _ in opened] == ["nvml"]
        opened[0][0].close()
    assert [reason.source for reason in missing] == ["rapl"]


@pytest.mark.parametrize("gpus", ["all", "visible"])
def test_the_estimate_is_what_is_left_where_nothing_measures(no_rapl, gpus):
    with Lab([], init_error=9).running():
        opened, missing = open_sources(gpus, "auto", HOST_CLOCK)
    assert [source.name for source, _ in opened] == ["estimate"]
    assert [reason.source for reason in missing] == ["nvml", "rapl"]


def test_a_board_that_is_not_there_is_missing_beside_the_others_or_refused(no_rapl):
    with Lab([Board(), Board()]).running() as lab:
        names = [lab.uuid(1), "GPU-nowhere"]
        [(source, [device])], missing = open_sources(names, "auto", HOST_CLOCK, required=False)
        source.close()
        with pytest.raises(ValueError, match=r"GPU-nowhere.*Boards here"):
            open_sources(names, "auto", HOST_CLOCK)
    assert device.uuid == lab.uuid(1)
    assert [reason.source for reason in missing] == ["nvml", "rapl"]
    assert "GPU-nowhere" in missing[0].why


def test_a_lost_board_is_among_what_cannot_be_read(no_rapl):
    with Lab([Board(), Board(faults=[Fault("lost")])]).running():
        found = discover()
    assert [device.label for device in found.devices] == ["gpu0", "cpu0"]
    assert [reason.source for reason in found.missing] == ["nvml", "rapl"]
    assert "no board 1 that answers" in found.missing[0].why


def test_no_boards_asked_for_is_no_nvml(no_rapl):
    with Lab([Board()]).running() as lab:
        opened, missing = open_sources([], "auto", HOST_CLOCK)
        assert lab.calls("nvmlDeviceGetCount") == 0
    assert [source.name for source, _ in opened] == ["estimate"]
    assert [reason.source for reason in missing] == ["rapl"]


def test_ones_own_sources_are_all_there_is():
    source = ScriptedSource()
    opened, missing = open_sources("all", [source, AbsentSource()], FakeClock())
    assert [found for found, _ in opened] == [source]
    assert [reason.source for reason in missing] == ["absent"]
    assert open_sources("all", [AbsentSource()], FakeClock())[0] == []  # and no estimate slips in


def test_one_device_read_twice_is_refused_and_everything_closed():
    first, second, third = (ScriptedSource(name=name) for name in ("first", "second", "third"))
    with pytest.raises(ValueError, match="gpu0 would be counted twice, the second time by second"):
        open_sources("all", [first, second, third], FakeClock())
    assert [source.closed_count for source in (first, second, third)] == [1, 1, 0]


def test_a_source_that_raises_leaves_no_other_open():
    class Broken(ScriptedSource):
        def open(self, clock):
            raise ArgumentError("gpus: there is no board 7.")

    first = ScriptedSource()
    with pytest.raises(ValueError, match="no board 7"):
        open_sources("all", [first, Broken()], FakeClock())
    assert first.closed_count == 1


def test_a_source_whose_opening_fails_is_missing_and_the_others_go_on():
    class Broken(ScriptedSource):
        def open(self, clock):
            raise ZeroDivisionError("oops")

    good = ScriptedSource(labels=("gpu1",))
    opened, [reason] = open_sources("all", [Broken(name="broken"), good], FakeClock())
    assert [source for source, _ in opened] == [good]
    assert reason.source == "broken"
    assert "ZeroDivisionError('oops')" in reason.why


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), ValueError("a fault of its own")], ids=repr)
def test_a_source_that_would_end_the_caller_when_opened_is_missing(error):
    class Exits(ScriptedSource):
        def open(self, clock):
            raise error

    good = ScriptedSource(labels=("gpu1",))
    opened, [reason] = open_sources("all", [Exits(name="exits"), good], FakeClock())
    assert [source for source, _ in opened] == [good]
    assert (reason.source, reason.why) == ("exits", f"It raised {error!r} when it was opened.")
    found = discover([Exits(name="exits"), good], clock=FakeClock())
    assert [device.label for device in found.devices] == ["gpu1"]
    assert [reason.source for reason in found.missing] == ["exits"]


def test_the_users_own_interrupt_while_a_source_is_opened_passes():
    class Interrupted(ScriptedSource):
        def open(self, clock):
            raise KeyboardInterrupt

    first = ScriptedSource()
    with pytest.raises(KeyboardInterrupt):
        open_sources("all", [first, Interrupted()], FakeClock())
    assert first.closed_count == 1


def test_a_source_that_opens_nonsense_is_missing_and_closed():
    class Confused(ScriptedSource):
        def open(self, clock):
            return ["gpu0"]

    confused, good = Confused(name="confused"), ScriptedSource(labels=("gpu1",))
    opened, [reason] = open_sources("all", [confused, good], FakeClock())
    assert [source for source, _ in opened] == [good]
    assert "for a `Device`" in reason.why
    assert confused.closed_count == 1


def test_a_source_that_raises_when_it_is_closed_is_logged_and_the_next_is_closed(caplog):
    class Sticks(ScriptedSource):
        def close(self):
            raise SystemExit(3)

    good = ScriptedSource(labels=("gpu1",))
    found = discover([Sticks(name="sticks"), good], clock=FakeClock())
    assert [device.label for device in found.devices] == ["gpu0", "gpu1"]
    assert good.closed_count == 1
    assert [record.getMessage().split(" when")[0] for record in caplog.records] == ["sticks raised SystemExit(3)"]


def test_a_driver_that_hangs_at_opening_is_done_without_and_closed_when_it_answers(monkeypatch):
    monkeypatch.setattr("lightning_watt.sources.discover.OPEN_LIMIT_S", 0.1)
    answer, closed = threading.Event(), threading.Event()

    class Hanging(ScriptedSource):
        def open(self, clock):
            answer.wait(60)
            return super().open(clock)

        def close(self):
            super().close()
            closed.set()

    hanging, good = Hanging(name="hanging"), ScriptedSource(labels=("gpu1",))
    opened, [reason] = open_sources("all", [hanging, good], FakeClock())
    assert [source for source, _ in opened] == [good]
    assert reason.source == "hanging"
    assert "did not answer for 0.1 s when it was opened" in reason.why
    assert not closed.is_set()
    answer.set()
    assert closed.wait(10)


def test_a_source_without_devices_is_missing():
    empty = ScriptedSource(labels=())
    opened, [reason] = open_sources("all", [empty], FakeClock())
    assert opened == []
    assert isinstance(reason, SourceUnavailable)
    assert "no device" in reason.why
    assert empty.closed_count == 1


def test_a_discovery_does_not_change():
    found = discover([AbsentSource()])
    with pytest.raises(AttributeError):
        found.devices = ()  # type: ignore[misc]
    assert replace(found, missing=()).missing == ()
