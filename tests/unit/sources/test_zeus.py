"""The Zeus adapter, against a stand-in package that has Zeus's real names; and without Zeus."""

from __future__ import annotations

import sys
import textwrap

import pytest

from lightning_watt.errors import SourceUnavailable
from lightning_watt.sources.base import Failure, Reading
from lightning_watt.sources.zeus import INSTALL, ZeusSource
from lightning_watt.testing.doubles import FakeClock

# Names and units as in zeus/device/__init__.py, gpu/common.py, soc/apple.py and soc/jetson.py of ml-energy/zeus.
STAND_IN = '''
from dataclasses import dataclass


class ZeusGPUInitError(Exception):
    pass


class ZeusSoCInitError(Exception):
    pass


class GPUs:
    """What `get_gpus` returns; energies in mJ."""

    names = ["AMD Instinct MI300X", "AMD Instinct MI100"]
    counts = [True, True]
    energy_mj = [1000, 2000]
    lost = set()

    def __len__(self):
        return len(self.names)

    def get_name(self, gpu_index):
        return self.names[gpu_index]

    def supports_get_total_energy_consumption(self, gpu_index):
        return self.counts[gpu_index]

    def get_total_energy_consumption(self, gpu_index):
        if gpu_index in self.lost:
            raise ZeusGPUInitError("the board is gone")
        return self.energy_mj[gpu_index]


@dataclass
class AppleSiliconMeasurement:
    cpu_total_mj: int | None = None
    efficiency_cores_mj: list[int] | None = None
    dram_mj: int | None = None
    gpu_mj: int | None = None
    gpu_sram_mj: int | None = None
    ane_mj: int | None = None


@dataclass
class JetsonMeasurement:
    cpu_energy_mj: float | None = None
    gpu_energy_mj: float | None = None
    total_energy_mj: float | None = None


class SoC:
    now = None

    def get_total_energy_consumption(self):
        return self.now


gpus = GPUs()
soc = SoC()


def get_gpus(ensure_homogeneous=False):
    if gpus is None:
        raise ZeusGPUInitError("NVML and AMDSMI unavailable.")
    return gpus


def get_soc():
    if soc.now is None:
        raise ZeusSoCInitError("No observable SoC was found.")
    return soc
'''


@pytest.fixture
def zeus(tmp_path, monkeypatch):
    """The stand-in, importable as `zeus`; gives its `zeus.device`."""
    package = tmp_path / "zeus" / "device"
    package.mkdir(parents=True)
    (tmp_path / "zeus" / "__init__.py").touch()
    (package / "__init__.py").write_text(textwrap.dedent(STAND_IN))
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__("zeus.device").device
    for name in ("zeus", "zeus.device"):
        del sys.modules[name]


def values(source: ZeusSource) -> dict[str, int]:
    found = source.read()
    assert all(isinstance(reading, Reading) for reading in found)
    return {reading.label: reading.energy_uj for reading in found if isinstance(reading, Reading)}


def test_without_zeus_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "zeus", None)
    with pytest.raises(SourceUnavailable) as caught:
        ZeusSource().open(FakeClock())
    assert "cannot be imported" in caught.value.why
    assert caught.value.remedy == INSTALL


def test_gpus_are_read_in_microjoules(zeus):
    clock, source = FakeClock(), ZeusSource("gpu")
    devices = source.open(clock)
    assert [(d.label, d.name, d.source) for d in devices] == [
        ("gpu0", "AMD Instinct MI300X", "zeus"),
        ("gpu1", "AMD Instinct MI100", "zeus"),
    ]
    assert len({device.uuid for device in devices}) == 2
    assert all(device.always_draws for device in devices)
    assert values(source) == {"gpu0": 10**6, "gpu1": 2 * 10**6}
    zeus.gpus.energy_mj = [1500, 2001]
    clock.sleep(1)
    assert values(source) == {"gpu0": 1_500_000, "gpu1": 2_001_000}
    assert {reading.t_ns for reading in source.read()} == {clock.t_ns}
    source.close()
    assert source.read() == []


def test_a_gpu_without_a_counter_is_left_out_and_the_others_keep_their_number(zeus):
    zeus.gpus.counts = [False, True]
    source = ZeusSource()
    assert [device.label for device in source.open(FakeClock())] == ["gpu1"]
    assert values(source) == {"gpu1": 2 * 10**6}


def test_no_gpu_with_a_counter_is_said(zeus):
    zeus.gpus.counts = [False, False]
    with pytest.raises(SourceUnavailable, match="no gpu with an energy counter"):
        ZeusSource().open(FakeClock())


def test_what_zeus_raises_at_opening_is_the_reason(zeus):
    zeus.gpus = None
    with pytest.raises(SourceUnavailable, match="NVML and AMDSMI unavailable"):
        ZeusSource("gpu").open(FakeClock())
    with pytest.raises(SourceUnavailable, match="No observable SoC"):
        ZeusSource("soc").open(FakeClock())


def test_a_lost_gpu_fails_alone(zeus):
    source = ZeusSource()
    source.open(FakeClock())
    zeus.gpus.lost = {0}
    failed, other = source.read()
    assert isinstance(failed, Failure)
    assert (failed.label, "the board is gone" in failed.why) == ("gpu0", True)
    assert isinstance(other, Reading)


def test_apples_whole_devices_are_read_and_not_their_parts(zeus):
    zeus.soc.now = zeus.AppleSiliconMeasurement(900, [100, 200], 40, 500, gpu_sram_mj=30, ane_mj=5)
    source = ZeusSource("soc")
    devices = source.open(FakeClock())
    assert {device.label for device in devices} == {"cpu0", "gpu0", "dram0"}
    assert not any(device.always_draws for device in devices)
    assert values(source) == {"gpu0": 500_000, "cpu0": 900_000, "dram0": 40_000}


def test_jetsons_rails_are_read_and_the_sum_is_not_added_to_its_parts(zeus):
    zeus.soc.now = zeus.JetsonMeasurement(1000.9, None, 5000.0)
    source = ZeusSource("soc")
    assert [device.label for device in source.open(FakeClock())] == ["cpu0"]
    assert values(source) == {"cpu0": 1_000_000}
    zeus.soc.now = zeus.JetsonMeasurement(1001.0, None, 5001.0)
    assert values(source) == {"cpu0": 1_001_000}


def test_a_kind_that_is_neither_is_refused():
    with pytest.raises(ValueError, match='"gpu" nor "soc"'):
        ZeusSource("tpu")
