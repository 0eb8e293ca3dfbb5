"""CPU packages and memory, from a powercap tree of real files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_watt.errors import SourceUnavailable
from lightning_watt.sources.base import Failure, Reading
from lightning_watt.sources.powercap.zones import Zone
from lightning_watt.sources.rapl import RaplSource
from lightning_watt.testing.doubles import FakeClock, S
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


@given(st.integers(10**9, 10**12), st.integers(0, 10**9), st.lists(st.integers(0, 5 * 10**8), max_size=30))
def test_wraps_are_undone(range_uj, start, rises):
    """A counter of `range_uj + 1` states, read every second, that never rises by half a round meanwhile."""
    true = start
    files = {"name": "package-0", "max_energy_range_uj": str(range_uj), "energy_uj": str(start)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "read_text", lambda path: files[path.name])
        counter = Zone(Path("intel-rapl:0"), "package", "package-0")
        counter.start(0)
        for second, rise in enumerate(rises, 1):
            true += rise
            files["energy_uj"] = str(true % (range_uj + 1))
            assert counter.read_uj(second * S) == true - start


def test_a_wrap_in_real_files(tmp_path):
    file = zone(tmp_path, "intel-rapl:0", "package-0", RANGE_UJ - 10)
    clock, source = FakeClock(), RaplSource(tmp_path)
    source.open(clock)
    clock.sleep(1)
    file.write_text("30\n")
    assert values(source) == {"cpu0": 41}
    clock.sleep(1500)
    file.write_text("25\n")  # a whole round but five, in so long a time
    assert values(source) == {"cpu0": 41 + RANGE_UJ - 4}


def test_a_fall_is_no_wrap_and_ends_where_it_began(tmp_path):
    """Half a minute of 2 kW would be needed for a whole round; in one second it fell."""
    file = zone(tmp_path, "intel-rapl:0", "package-0", 10**10, 65_532_610_987)
    clock, source = FakeClock(), RaplSource(tmp_path)
    source.open(clock)
    for uj, used in ((10**10 - 690_000_000, -690_000_000), (10**10 - 680_000_000, -680_000_000), (10**10 + 16, 16)):
        clock.sleep(1)
        file.write_text(f"{uj}\n")
        assert values(source) == {"cpu0": used}


def test_a_fall_beside_a_wrap_ends_too(tmp_path):
    file = zone(tmp_path, "intel-rapl:0", "package-0", RANGE_UJ - 10)
    clock, source = FakeClock(), RaplSource(tmp_path)
    source.open(clock)
    for uj, used in ((RANGE_UJ - 10_000_000_000, -9_999_999_990), (3, 14)):
        clock.sleep(1)
        file.write_text(f"{uj}\n")
        assert values(source) == {"cpu0": used}


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


def test_psys_alone_is_the_whole_platform_and_says_so(tmp_path):
    zone(tmp_path, "intel-rapl:0", "psys")
    [device] = RaplSource(tmp_path).open(FakeClock())
    assert (device.label, device.source, device.provenance) == ("psys0", "rapl", "measured")
    assert "not documented" in device.note


def test_psys_is_not_read_beside_boards_that_it_may_contain(tmp_path):
    zone(tmp_path, "intel-rapl:0", "psys")
    with pytest.raises(SourceUnavailable, match="may contain the boards"):
        RaplSource(tmp_path, psys=False).open(FakeClock())


def test_a_package_that_is_memory_mapped_only_is_read_that_way(tmp_path):
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 5)
    zone(tmp_path, "intel-rapl-mmio:0/intel-rapl-mmio:0:0", "dram", 6)
    devices = RaplSource(tmp_path).open(FakeClock())
    assert [(device.label, device.uuid) for device in devices] == [
        ("cpu0", "intel-rapl-mmio:0"),
        ("dram0", "intel-rapl-mmio:0:0"),
    ]


def test_a_package_whose_own_registers_cannot_be_read_is_read_the_other_way(machine):
    (machine / "intel-rapl:0/energy_uj").write_text("soon")
    source = RaplSource(machine)
    devices = source.open(FakeClock())
    assert {device.label: device.uuid for device in devices}["cpu0"] == "intel-rapl-mmio:0"
    assert source.left_out == []


def test_memory_that_stands_beside_the_packages_is_read(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0")
    zone(tmp_path, "intel-rapl:1", "dram")
    assert [device.label for device in RaplSource(tmp_path).open(FakeClock())] == ["cpu0", "dram0"]


class Moving(FakeClock):
    """Counters of given watts, which move when the clock does."""

    def __init__(self, watts: dict[Path, float]) -> None:
        super().__init__()
        self.watts, self.start_ns = watts, self.t_ns
        self.first = {file: int(file.read_text()) for file in watts}

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        for file, watts in self.watts.items():
            file.write_text(str(self.first[file] + round(watts * (self.t_ns - self.start_ns) / 1000)))


def dies(root: Path, *packages: tuple[str, int]) -> list[Path]:
    return [zone(root, f"intel-rapl:{i}", name, uj) for i, (name, uj) in enumerate(packages)]


def test_dies_that_show_one_counter_are_counted_once(tmp_path):
    """Also the second package keeps its number."""
    names = [f"package-{package}-die-{die}" for package in (0, 1) for die in (0, 1)]
    files = dies(tmp_path, *zip(names, (5_000_000, 5_000_010, 70, 60), strict=True))
    clock = Moving(dict.fromkeys(files[:2], 68.0) | dict.fromkeys(files[2:], 20.0))
    source = RaplSource(tmp_path)
    devices = source.open(clock)
    assert [(device.label, device.name) for device in devices] == [("cpu0", "CPU package 0"), ("cpu1", "CPU package 1")]
    assert "package-0-die-0, package-0-die-1 show one counter" in devices[0].note
    clock.sleep(10)
    assert values(source) == {"cpu0": 680_000_000, "cpu1": 200_000_000}


@pytest.mark.parametrize("second", [(5_000_000, 30.0), (9_000_000, 68.0)], ids=["another power", "another height"])
def test_dies_with_counters_of_their_own_are_all_counted(tmp_path, second):
    files = dies(tmp_path, ("package-0-die-0", 5_000_000), ("package-0-die-1", second[0]))
    source = RaplSource(tmp_path)
    devices = source.open(clock := Moving({files[0]: 68.0, files[1]: second[1]}))
    assert [device.name for device in devices] == ["CPU package 0, die 0", "CPU package 0, die 1"]
    clock.sleep(10)
    assert sum(values(source).values()) == pytest.approx((68 + second[1]) * 10**7)


def test_packages_are_never_taken_for_each_other(tmp_path):
    """Two that stand and move alike by chance, as after a boot."""
    files = dies(tmp_path, ("package-0", 0), ("package-1", 0))
    assert len(RaplSource(tmp_path).open(Moving(dict.fromkeys(files, 50.0)))) == 2


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


def test_a_zone_that_cannot_be_read_is_told_and_the_others_are_read(machine):
    (machine / "intel-rapl:0/intel-rapl:0:2/energy_uj").write_text("soon")
    source = RaplSource(machine)
    assert [device.label for device in source.open(FakeClock())] == ["cpu0", "cpu1", "dram1"]
    [reason] = source.left_out
    assert "intel-rapl:0:2 cannot be read" in str(reason)
    (machine / "intel-rapl:1/intel-rapl:1:2/energy_uj").unlink()
    (machine / "intel-rapl:1/energy_uj").write_text("")
    assert [device.label for device in source.open(FakeClock())] == ["cpu0"]
    assert len(source.left_out) == 3


def test_where_no_zone_can_be_read_it_says_why(machine):
    for file in machine.rglob("energy_uj"):
        file.write_text("soon")
    with pytest.raises(SourceUnavailable, match="intel-rapl:0 cannot be read"):
        RaplSource(machine).open(FakeClock())


@pytest.mark.parametrize("content", ["", "0", None])
def test_a_zone_whose_range_is_not_known_is_read_and_its_wrap_is_a_fall(tmp_path, content):
    file = zone(tmp_path, "intel-rapl:0", "package-0", 10**9)
    range_file = tmp_path / "intel-rapl:0/max_energy_range_uj"
    range_file.unlink() if content is None else range_file.write_text(content)
    source = RaplSource(tmp_path)
    [device] = source.open(FakeClock())
    assert "wraps is not known" in device.note
    file.write_text("1000000500")
    assert values(source) == {"cpu0": 500}
    file.write_text("0")
    assert values(source) == {"cpu0": -(10**9)}


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
