"""The rest of the fault table: counters that lie, clocks that step, RAPL that vanishes, drivers of another time, disks.

Every row of `lightning_watt/FAULTS.md` names the test that injects it; the last test here sees to that.
"""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lightning_watt import EnergyMeter, discover, read_record
from lightning_watt.meter import timeline
from lightning_watt.meter.curves import NOT_TO_THE_END
from lightning_watt.sources import nvml
from lightning_watt.sources.base import HostClock
from lightning_watt.sources.nvml import NvmlSource
from lightning_watt.sources.rapl import RaplSource
from lightning_watt.testing import Fault, Lab
from lightning_watt.testing.nvml_lab.faults import symbol
from tests.integration.short_fit import board, fit, lab_of, seconds
from tests.integration.tiny import QUIET, ROOT, loader, module, trainer, watt
from tests.unit.powercap import zone

pytestmark = [pytest.mark.filterwarnings(entry) for entry in QUIET]

# ---- counters ----


def test_a_counter_that_goes_back_for_good_is_bridged(ptl, tmp_path, words):
    with lab_of(board(200, Fault("jump", at_s=0.9, millijoules=-500_000)), board(120)).running():
        record = fit(ptl, tmp_path, watt())
    assert "went backwards" in words.take("gpu0: the counter")
    for label, watts in (("gpu0", 200), ("gpu1", 120)):
        assert record.energy.by_device[label].joules == pytest.approx(watts * seconds(record), rel=0.1)
    assert {gap.device for gap in record.gaps} == {"gpu0"}
    assert sum(gap.joules for gap in record.gaps) <= record.energy.boundary_j


@pytest.mark.parametrize(
    ("faults", "words_of_it"),
    [
        ([Fault("raw", at_s=0.9, until_s=1.3, value=10**15)], "faster than the device can draw"),
        ([Fault("raw", at_s=0.9, until_s=1.3, value=0)], "went backwards"),
        (
            [Fault("jump", at_s=0.9, millijoules=-500_000), Fault("jump", at_s=1.3, millijoules=500_000)],
            "went backwards",
        ),
    ],
    ids=["a billion kilojoules", "zero", "back and forth"],
)
def test_a_counter_of_nonsense_is_not_believed_and_is_when_it_returns(ptl, tmp_path, words, faults, words_of_it):
    """Bridged by the power that is known, which gives way to the counter when that is itself again."""
    with lab_of(board(200, *faults), board(120)).running():
        record = fit(ptl, tmp_path, watt())
    assert words_of_it in words.take("gpu0: the counter went" if "went" in words_of_it else "gpu0: the counter rose")
    assert "gave way" in words.take("gpu0: the counter is back")
    for label, watts in (("gpu0", 200), ("gpu1", 120)):
        assert record.energy.by_device[label].joules == pytest.approx(watts * seconds(record), rel=0.03)
    assert sum(gap.joules for gap in record.gaps) < 5


def test_a_counter_of_all_ones_is_no_reading_and_nothing_is_lost(ptl, tmp_path, words):
    """No number of 64 bits in microjoules: the counter goes on behind it, as behind an error."""
    with Lab(
        [board(200, Fault("raw", at_s=0.6, until_s=1.2, value=2**64 - 1)), board(120)], start="first_reading"
    ).running():
        record = fit(ptl, tmp_path, watt())
    assert "no number of microjoules" in words.take("gpu0 could not be read")
    for label, watts in (("gpu0", 200), ("gpu1", 120)):
        assert record.energy.by_device[label].joules == pytest.approx(watts * seconds(record), rel=0.06)
    assert record.gaps == []


def test_a_counter_that_stands_still_is_said_and_the_other_goes_on(ptl, tmp_path, words, monkeypatch):
    monkeypatch.setattr(timeline, "STANDSTILL_S", 0.5)
    with lab_of(board(200, Fault("stuck", at_s=0.7)), board(120)).running():
        record = fit(ptl, tmp_path, watt())
    assert "is missing from now on" in words.take("gpu0: its energy counter stands still")
    assert record.energy.by_device["gpu1"].joules == pytest.approx(120 * seconds(record), rel=0.05)
    assert 0 < record.energy.by_device["gpu0"].joules < 200 * 0.8


def test_a_counter_that_rests_and_goes_on_loses_nothing(ptl, tmp_path):
    with lab_of(board(200, Fault("stuck", at_s=0.7, until_s=1.2))).running():
        record = fit(ptl, tmp_path, watt())
    assert record.energy.total_j == pytest.approx(200 * seconds(record), rel=0.05)


SILENCES = {
    "a counter that stands": ({}, Fault("stuck", at_s=0.7)),
    "power samples that stop": ({"counter_ms": None}, Fault("error", at_s=0.7, function="nvmlDeviceGetSamples", code=6)),
}


@pytest.mark.parametrize("kind", SILENCES)
def test_a_driver_that_is_silent_until_the_end_is_told_and_what_is_missing_is_in_the_uncertainty(
    ptl, tmp_path, words, monkeypatch, kind
):
    """Too short for a standstill or a failure: before, the record was that of a run which had used less, and sure of it."""
    monkeypatch.setattr(timeline, "STANDSTILL_S", 60.0)  # on a machine that is busy, too
    monkeypatch.setattr(nvml, "SILENT_NS", 60 * 10**9)
    options, fault = SILENCES[kind]
    with lab_of(board(200, fault, **options), board(120)).running():
        record = fit(ptl, tmp_path, watt())
    assert "nothing is known of its last" in words.take("gpu0: nothing is known")
    [gap] = record.gaps
    assert (gap.device, gap.why) == ("gpu0", NOT_TO_THE_END)
    known_j = record.energy.by_device["gpu0"].joules
    assert known_j < 200 * (seconds(record) - 0.5)
    assert known_j + gap.joules == pytest.approx(200 * seconds(record), rel=0.1)
    assert abs(200 * seconds(record) - known_j) <= 1.05 * record.energy.uncertainty_j
    assert record.energy.by_device["gpu1"].joules == pytest.approx(120 * seconds(record), rel=0.05)


# ---- clocks ----


@pytest.mark.parametrize(
    ("step_s", "counter_ms"),
    [(3600.0, None), (-3600.0, None), (-3600.0, 10)],
    ids=["on", "back", "back, with a counter"],
)
def test_a_wall_clock_that_is_set_changes_no_energy(ptl, tmp_path, monkeypatch, step_s, counter_ms):
    """The driver stamps its power samples by the wall clock, and steps with it."""
    lab = Lab(
        [board(200, Fault("clock_step", at_s=10.8, seconds=step_s), counter_ms=counter_ms)],
        age_s=10,
    )

    def unix_ns() -> int:
        stepped = time.monotonic_ns() - lab.t0_ns >= 10.8e9
        return time.time_ns() + (round(step_s * 1e9) if stepped else 0)

    monkeypatch.setattr(HostClock, "unix_ns", staticmethod(unix_ns))
    with lab.running():
        record = fit(ptl, tmp_path, watt())
    assert record.energy.total_j == pytest.approx(200 * seconds(record), rel=0.1)
    assert record.gaps == []


@pytest.mark.parametrize("step_s", [3600.0, -3600.0])
def test_a_driver_whose_stamps_step_alone_makes_up_nothing(ptl, tmp_path, words, step_s):
    """Its samples are of another hour: those of the future are not believed, and what is missing is said."""
    faulty = Fault("clock_step", at_s=10.8, seconds=step_s)
    lab = Lab([board(200, faulty, counter_ms=None), board(100)], age_s=10)
    with lab.running():
        record = fit(ptl, tmp_path, watt())
    assert record.energy.by_device["gpu0"].joules <= 200 * seconds(record) * 1.02
    assert record.energy.by_device["gpu1"].joules == pytest.approx(100 * seconds(record), rel=0.05)
    for sentence in words.left():  # where it was silent for five seconds
        words.take(re.escape(sentence))


# ---- RAPL ----


class Machine:
    """Two CPU packages whose counters rise by the given watts, in real files, until `stop`."""

    def __init__(self, root: Path, watts: tuple[float, float], range_uj: int = 2**40) -> None:
        self.root, self.watts, self.range_uj = root, watts, range_uj
        self.files = [zone(root, f"intel-rapl:{i}", f"package-{i}", 0, range_uj) for i in range(2)]
        self.gone: set[int] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        start_ns = time.monotonic_ns()
        while not self._stop.wait(0.005):
            for number, (file, watts) in enumerate(zip(self.files, self.watts, strict=True)):
                if number not in self.gone:
                    uj = int((time.monotonic_ns() - start_ns) * watts / 1000) % (self.range_uj + 1)
                    half = file.with_name("half")
                    half.write_text(f"{uj}\n")
                    half.replace(file)

    def take_away(self, number: int) -> None:
        self.gone.add(number)
        time.sleep(0.02)
        self.files[number].unlink()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def machine(tmp_path):
    """Its counters wrap every 0.8 and 1.6 seconds."""
    machine = Machine(tmp_path / "powercap", (100.0, 50.0), range_uj=80_000_000)
    yield machine
    machine.stop()


def test_rapl_that_wraps_loses_nothing(ptl, tmp_path, machine):
    record = fit(ptl, tmp_path, watt(gpus="auto", sources=[RaplSource(machine.root)]))
    assert record.energy.by_device["cpu0"].joules == pytest.approx(100 * seconds(record), rel=0.05)
    assert record.energy.by_device["cpu1"].joules == pytest.approx(50 * seconds(record), rel=0.05)
    assert record.energy.by_device["cpu0"].source == "rapl"


def test_rapl_that_vanishes_is_told_once_and_the_other_package_goes_on(ptl, tmp_path, machine, words):
    def on_batch(stage: str, index: int) -> None:
        if stage == "train" and index == 6 and not machine.gone:
            machine.take_away(0)

    trained = trainer(ptl, tmp_path, watt(gpus="auto", sources=[RaplSource(machine.root)]))
    trained.fit(module(ptl, step_s=0.05, on_batch=on_batch), loader(12), loader(4))
    assert "is missing from now on" in words.take("cpu0 could not be read")
    record = read_record(tmp_path)
    assert record.energy.by_device["cpu1"].joules == pytest.approx(50 * seconds(record), rel=0.05)
    assert 0 < record.energy.by_device["cpu0"].joules < 100 * seconds(record) * 0.7


def test_rapl_for_root_alone_is_missing_with_its_remedy(tmp_path):
    """Asked by a user who is not root, of real files that are root's."""
    root = tmp_path / "powercap"
    zone(root, "intel-rapl:0", "package-0").chmod(0o400)
    if os.geteuid() != 0:
        pytest.skip("files of another user are made by root alone: run as root to have this test")
    for part in [tmp_path, *tmp_path.parents[:3]]:  # one more than there are without pytest-xdist
        part.chmod(0o755)
    code = (
        "import os, sys; from pathlib import Path; from lightning_watt import discover; "
        "from lightning_watt.sources.rapl import RaplSource; os.setuid(65534); "
        "print(*discover([RaplSource(Path(sys.argv[1]))]).missing)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(root)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "energy_uj may not be read. Run `sudo chmod a+r" in done.stdout


# ---- NVML of another time ----


@pytest.mark.parametrize("code", [9, 18], ids=["no driver", "version mismatch"])
def test_nvml_that_does_not_start_is_missing_and_the_rest_is_measured(ptl, tmp_path, machine, words, code):
    sources = [NvmlSource("all"), RaplSource(machine.root)]
    with Lab([board(100)], init_error=code).running():
        record = fit(ptl, tmp_path, watt(gpus="auto", sources=sources), step_s=0.02)
    sentence = words.take("^nvml: ")
    assert any(sentence == missing for missing in record.missing)
    assert sorted(record.energy.by_device) == ["cpu0", "cpu1"]


CALLED = re.findall(r"nvml\.(nvml(?:Device|System)\w+)", Path(inspect.getfile(NvmlSource)).read_text())
DEVICE_CALLS = sorted({symbol(name) for name in CALLED})


@pytest.mark.parametrize("function", DEVICE_CALLS)
@pytest.mark.parametrize("how", ["missing", "fails"])
def test_no_function_of_the_driver_is_needed_to_go_on(function, how):
    """Each in turn is one that the driver does not have, or that always fails: what can be is measured."""
    faults = [Fault("error", function=function, code=999)] if how == "fails" else []
    lab = Lab([board(200)], missing=[function] if how == "missing" else [], faults=faults, age_s=10)
    with lab.running():
        found = discover([NvmlSource("all")])
        assert bool(found.devices) != bool(found.missing)
        if not found.devices:
            assert found.missing[0].remedy
            return
        with EnergyMeter(sources=[NvmlSource("all", at_ticks=False)], interval=0.1) as meter, meter.window("w") as window:
            time.sleep(0.15)
        if meter.answered:
            assert 0 <= window.joules <= 200 * window.seconds * 1.5
        else:
            assert meter.complaints


# ---- disks ----


def test_a_file_system_that_may_not_be_written_is_told_and_the_training_goes_on(ptl, small_disk, words):
    """Read-only for root as well, as a disk becomes after an error."""
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    trained = trainer(ptl, small_disk, watt(gpus="all", batches=True), max_epochs=1)
    with Lab([board(100)]).running():
        trained.fit(module(ptl), loader(3), loader(1))
    assert trained.state.finished
    for name in ("watt.json ", "watt.jsonl ", "watt_batches.csv "):
        assert "Read-only file system" in words.take(f"{name}cannot be written")
    assert float(trained.callback_metrics["watt/energy_kwh"]) > 0


# ---- the table itself ----

TABLE = ROOT / "lightning_watt" / "FAULTS.md"


def rows() -> list[list[str]]:
    lines = [line for line in TABLE.read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_row_of_the_table_names_a_test_that_is_there():
    assert len(rows()) > 20
    tests = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text(), re.M)
    }
    for row in rows():
        assert len(row) == 4, row
        named = re.findall(r"`(test_\w+)`", row[3])
        assert named, row
        assert set(named) <= tests, row
