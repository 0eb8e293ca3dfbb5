"""CPU packages and memory, from a powercap tree of real files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_watt.errors import SourceUnavailable
from lightning_watt.sources import rapl
from lightning_watt.sources.base import Failure, Reading
from lightning_watt.sources.rapl import RaplSource
from lightning_watt.testing.doubles import FakeClock
from tests.unit.powercap import RANGE_UJ, zone


@pytest.fixture
def machine(tmp_path) -> Path:
    """Two sockets with everything that a kernel shows: control type, cores, uncore, dram, psys, MMIO."""
    (tmp_path / "intel-rapl").mkdir()
    for package in range(2):
        zone(tmp_path, f"intel-rapl:{package}", f"package-{package}", 1000 * (package + 1))
        for part, name in enumerate(("core", "uncore", "dram")):
            zone(tmp_path, f"intel-rapl:{package}/intel-rapl:{package}:{part}", name, 50 * (package + 1))
            (tmp_path / f"intel-rapl:{package}:{part}").symlink_to(f"intel-rapl:{package}/intel-rapl:{package}:{part}")
    zone(tmp_path, "intel-rapl:2", "psys", 10**6)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 7)
    return tmp_path


def opened(root: Path) -> RaplSource:
    source = RaplSource(root)
    source.open(FakeClock())
    return source


def values(source: RaplSource) -> dict[str, int]:
    found = source.read()
    assert all(isinstance(reading, Reading) for reading in found)
    return {reading.label: reading.energy_uj for reading in found if isinstance(reading, Reading)}


def test_packages_and_their_memory_are_read_and_nothing_that_is_in_them_already(machine):
    devices = RaplSource(machine).open(FakeClock())
    assert [device.label for device in devices] == ["cpu0", "dram0", "cpu1", "dram1"]
    assert [device.uuid for device in devices] == ["intel-rapl:0", "intel-rapl:0:2", "intel-rapl:1", "intel-rapl:1:2"]
    assert {device.source for device in devices} == {"rapl"}
    assert {device.provenance for device in devices} == {"measured"}


def test_a_reading_is_what_was_used_since_opening(machine):
    source = opened(machine)
    assert values(source) == {"cpu0": 0, "dram0": 0, "cpu1": 0, "dram1": 0}
    (machine / "intel-rapl:1/energy_uj").write_text("5000\n")
    (machine / "intel-rapl:0/intel-rapl:0:2/energy_uj").write_text("60\n")
    (machine / "intel-rapl:2/energy_uj").write_text("99999999\n")
    assert values(source) == {"cpu0": 0, "dram0": 10, "cpu1": 3000, "dram1": 0}


def test_the_first_read_comes_with_the_reading_of_the_opening(machine):
    """It may come late, when other sources are slow to begin; what was used meanwhile is not lost."""
    clock = FakeClock()
    source = RaplSource(machine)
    source.open(clock)
    start_ns = clock.t_ns
    (machine / "intel-rapl:0/energy_uj").write_text("1900")
    clock.sleep(1.5)
    found = source.read()
    assert found[:4] == [Reading(label, start_ns, 0) for label in ("cpu0", "dram0", "cpu1", "dram1")]
    assert found[4] == Reading("cpu0", clock.t_ns, 900)
    assert len(found) == 8
    assert len(source.read()) == 4


@given(st.integers(10**6, 10**12), st.integers(0, 10**6), st.lists(st.integers(0, 10**6 - 1), max_size=30))
def test_wraps_are_undone(range_uj, start, rises):
    """A counter of `range_uj + 1` states that never rises by a whole round between two reads."""
    true = start
    files = {"name": "package-0", "max_energy_range_uj": str(range_uj), "energy_uj": str(start)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "read_text", lambda path: files[path.name])
        counter = rapl._Zone(Path("intel-rapl:0"), "cpu0", "a package")
        counter.start()
        for rise in rises:
            true += rise
            files["energy_uj"] = str(true % (range_uj + 1))
            assert counter.read_uj() == true - start


def test_a_wrap_in_real_files(tmp_path):
    file = zone(tmp_path, "intel-rapl:0", "package-0", RANGE_UJ - 10)
    source = opened(tmp_path)
    file.write_text("30\n")
    assert values(source) == {"cpu0": 41}
    file.write_text("25\n")  # a whole round but five
    assert values(source) == {"cpu0": 41 + RANGE_UJ - 4}


def test_opening_again_begins_again(machine):
    source = opened(machine)
    (machine / "intel-rapl:0/energy_uj").write_text("5000\n")
    source.close()
    assert source.read() == []
    source.open(FakeClock())
    assert values(source)["cpu0"] == 0


def test_ten_packages_keep_their_order(tmp_path):
    for package in range(12):
        zone(tmp_path, f"intel-rapl:{package}", f"package-{package}")
    devices = RaplSource(tmp_path).open(FakeClock())
    assert [device.uuid for device in devices] == [f"intel-rapl:{package}" for package in range(12)]
    assert [device.label for device in devices] == [f"cpu{package}" for package in range(12)]


@pytest.mark.parametrize("exists", [True, False])
def test_no_package_says_where_it_was_looked_for(tmp_path, exists):
    root = tmp_path if exists else tmp_path / "nowhere"
    with pytest.raises(SourceUnavailable, match="virtual machines") as caught:
        RaplSource(root).open(FakeClock())
    assert str(root) in caught.value.why
    assert caught.value.source == "rapl"


def test_psys_alone_is_not_taken_for_a_package(tmp_path):
    zone(tmp_path, "intel-rapl:0", "psys")
    with pytest.raises(SourceUnavailable):
        RaplSource(tmp_path).open(FakeClock())


def test_a_counter_for_root_only_says_which_and_the_remedy(machine, monkeypatch):
    """Root may read every file, so the kernel's refusal is played."""
    read_text = Path.read_text

    def refuse(path: Path) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path)

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(SourceUnavailable) as caught:
        RaplSource(machine).open(FakeClock())
    assert "intel-rapl:0/energy_uj may not be read" in caught.value.why
    assert "chmod" in caught.value.remedy


@pytest.mark.parametrize(("file", "content"), [("energy_uj", "soon"), ("max_energy_range_uj", "")])
def test_a_file_of_garbage_is_said(machine, file, content):
    (machine / "intel-rapl:1" / file).write_text(content)
    with pytest.raises(SourceUnavailable, match="intel-rapl:1 cannot be read"):
        RaplSource(machine).open(FakeClock())


def test_a_zone_that_goes_away_fails_alone_and_may_come_back(machine):
    source = opened(machine)
    source.read()
    file = machine / "intel-rapl:0/energy_uj"
    file.unlink()
    failed, *others = source.read()
    assert isinstance(failed, Failure)
    assert (failed.label, "cannot be read" in failed.why) == ("cpu0", True)
    assert [reading.label for reading in others] == ["dram0", "cpu1", "dram1"]
    assert all(isinstance(reading, Reading) for reading in others)
    file.write_text("1700")
    assert values(source)["cpu0"] == 700
