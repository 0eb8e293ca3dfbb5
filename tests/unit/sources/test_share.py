"""A job's share of the machine's CPU energy, by processor time: all shares together are what RAPL measured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_watt import EnergyMeter
from lightning_watt.meter.latch import EndingClock
from lightning_watt.settings import Settings
from lightning_watt.sources import discover as discovering
from lightning_watt.sources.powercap import share
from lightning_watt.sources.powercap.share import ProcessorShare
from lightning_watt.sources.rapl import RaplSource
from lightning_watt.testing.doubles import FakeClock
from tests.unit.powercap import zone


class Machine:
    """The busy seconds of a job and of the whole machine, as they are set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = FakeClock()
        self.job_s, self.all_s, self.looked = 100.0, 1000.0, True
        monkeypatch.setattr(share, "BusyTime", lambda clock, processes: self)
        monkeypatch.setattr(share, "machine_busy_seconds", lambda: self.all_s)

    def read(self) -> tuple[int, float]:
        return self.clock.now_ns(), self.job_s

    def works(self, job_s: float, others_s: float, seconds: float = 1.0) -> None:
        self.job_s, self.all_s = self.job_s + job_s, self.all_s + job_s + others_s
        self.clock.sleep(seconds)


@pytest.fixture
def machine(monkeypatch) -> Machine:
    return Machine(monkeypatch)


def used(parts: dict[str, tuple[int, int]]) -> dict[str, int]:
    return {label: uj for label, (_, uj) in parts.items()}


def test_energy_goes_by_busy_seconds_and_idle_power_with_it(machine):
    split = ProcessorShare(machine.clock)
    machine.works(1.0, 3.0)
    assert used(split.of({"cpu0": (1, 800), "dram0": (2, 80)})) == {"cpu0": 200, "dram0": 20}
    machine.works(1.0, 0.0)
    assert used(split.of({"cpu0": (3, 1000), "dram0": (4, 90)})) == {"cpu0": 400, "dram0": 30}
    machine.works(0.0, 1.0)
    assert used(split.of({"cpu0": (5, 2000), "dram0": (6, 99)})) == {"cpu0": 400, "dram0": 30}


def test_it_waits_until_the_machine_was_busy_for_a_while_or_has_nothing_to_do(machine):
    """The kernel counts in steps of 10 ms, which over less would be a bad share."""
    split = ProcessorShare(machine.clock)
    machine.works(0.1, 0.1)
    assert split.of({"cpu0": (1, 100)}) == {}
    machine.works(0.1, 0.1)
    machine.works(0.1, 0.1, seconds=3)
    assert used(split.of({"cpu0": (1, 1000)})) == {"cpu0": 500}


def test_it_waits_until_other_processes_were_looked_at_but_not_at_the_end(machine):
    machine.looked = False
    clock = EndingClock(machine.clock)
    split = ProcessorShare(clock)
    machine.works(1.0, 1.0)
    assert split.of({"cpu0": (1, 100)}) == {}
    clock.end_by(clock.now_ns())
    assert used(split.of({"cpu0": (1, 100)})) == {"cpu0": 50}


def test_a_job_is_never_charged_more_than_there_is_nor_for_what_fell(machine):
    split = ProcessorShare(machine.clock)
    machine.works(2.0, -1.0)  # its own time is finer than the machine's
    assert used(split.of({"cpu0": (1, 100)})) == {"cpu0": 100}
    machine.works(1.0, 1.0)
    assert used(split.of({"cpu0": (2, 40)})) == {"cpu0": 40}


@given(st.lists(st.tuples(*[st.floats(0.5, 10)] * 3, st.integers(0, 10**9)), min_size=1, max_size=20))
def test_the_shares_of_all_jobs_are_what_was_measured(steps):
    with pytest.MonkeyPatch.context() as patch:
        machines = [Machine(patch) for _ in range(3)]
        splits = []
        for machine in machines:
            patch.setattr(share, "BusyTime", lambda clock, processes, machine=machine: machine)
            patch.setattr(share, "machine_busy_seconds", lambda: machines[0].all_s)
            splits.append(ProcessorShare(machine.clock))
        whole, last = 0, [0, 0, 0]
        for *busy, uj in steps:
            whole += uj
            for machine, own in zip(machines, busy, strict=True):
                machine.works(own, sum(busy) - own)
            last = [used(split.of({"cpu0": (1, whole)}))["cpu0"] for split in splits]
        assert sum(last) == pytest.approx(whole, abs=3 * len(steps))


def test_a_share_is_labelled_as_one(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0")
    [device] = RaplSource(tmp_path, share=True).open(FakeClock())
    assert (device.label, device.source, device.provenance, device.gain) == ("cpu0", "rapl-share", "estimated", 0.5)
    assert "share of the busy processor time" in device.note


def test_of_a_real_machine_it_is_a_part(tmp_path):
    file = zone(tmp_path, "intel-rapl:0", "package-0")
    with EnergyMeter(sources=[RaplSource(tmp_path, share=True)]) as meter:
        file.write_text("1000000")
        sum(i * i for i in range(2_000_000))
    assert 0 < meter.joules <= 1


def test_one_word_asks_for_it(tmp_path, monkeypatch):
    zone(tmp_path, "intel-rapl:0", "package-0")
    monkeypatch.setattr(discovering, "RaplSource", lambda **words: RaplSource(tmp_path, **words))
    with EnergyMeter(gpus=[], sources="cpu-share") as meter:
        assert [device.source for device in meter.devices] == ["rapl-share"]
    with EnergyMeter(gpus=[], sources="auto") as meter:
        assert [device.source for device in meter.devices] == ["rapl"]
    assert Settings(sources="cpu-share").changed() == {"sources": "cpu-share"}
