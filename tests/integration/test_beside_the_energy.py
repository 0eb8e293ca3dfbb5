"""What stands beside the kWh and never in it: CO2e, cost, and the idle power before the run."""

from __future__ import annotations

import pytest

from lightning_watt import read_record
from lightning_watt.sources.base import Failure, Reading
from tests.integration.tiny import QUIET, Steady, loader, module, trainer, watt

pytestmark = [pytest.mark.filterwarnings(entry) for entry in QUIET]


def fit(pl, directory, callback, **tiny):
    trainer(pl, directory, callback, max_epochs=1).fit(module(pl, **tiny), loader(4), loader(2))
    return read_record(directory)


def test_by_default_there_is_nothing_beside_it(ptl, tmp_path, capsys):
    record = fit(ptl, tmp_path, watt(gpus="auto", sources=[Steady()]))
    assert (record.pue, record.carbon_intensity, record.co2e_g) == (1.0, None, None)
    assert (record.electricity_price, record.cost, record.idle) == (None, None, None)
    printed = capsys.readouterr().out
    assert not [word for word in ("CO2e", "Cost", "Idle") if word in printed]


def test_cost_and_co2e_are_of_the_building_and_the_energy_is_not(ptl, tmp_path, capsys):
    callback = watt(gpus="auto", sources=[Steady()], pue=1.5, carbon_intensity=400.0, electricity_price=0.3)
    record = fit(ptl, tmp_path, callback, step_s=0.02)
    kwh = record.energy.total_kwh
    seconds = sum(stage.seconds for stage in record.energy.by_stage.values())
    assert kwh * 3.6e6 == pytest.approx(100 * seconds, rel=0.01)  # the devices' alone
    assert record.cost == pytest.approx(kwh * 1.5 * 0.3)
    assert record.co2e_g == pytest.approx(kwh * 1.5 * 400)
    printed = capsys.readouterr().out
    assert f"Cost {record.cost:.4g}, at 0.3 a kWh and a PUE of 1.5." in printed


class Switched(Steady):
    """A device that idles at 40 W until it is told otherwise."""

    def __init__(self) -> None:
        super().__init__(40.0)
        self._uj, self._last_ns = 0.0, 0

    def read(self) -> list[Reading | Failure]:
        self.turn(self.watts)
        return [Reading(self.label, self._last_ns, round(self._uj))]

    def turn(self, watts: float) -> None:
        """Draw that from now on."""
        now = self.clock.now_ns()
        if self._last_ns:
            self._uj += (now - self._last_ns) * self.watts / 1000  # 1 W is 1 uJ in 1000 ns
        self._last_ns, self.watts = now, watts


def test_the_idle_power_is_measured_before_and_is_not_in_the_run(ptl, tmp_path, capsys):
    source = Switched()
    tiny = module(ptl, step_s=0.05)
    tiny.setup = lambda stage: source.turn(240.0)  # after the callback's own
    trained = trainer(ptl, tmp_path, watt(gpus="auto", sources=[source], idle_s=0.3), max_epochs=1)
    trained.fit(tiny, loader(8), loader(2))
    record = read_record(tmp_path)
    assert record.idle.seconds >= 0.3
    assert record.idle.power_w["gpu0"] == pytest.approx(40.0, rel=0.05)
    seconds = sum(stage.seconds for stage in record.energy.by_stage.values())
    assert record.energy.total_j == pytest.approx(240 * seconds, rel=0.1)  # nothing taken off, nothing added
    assert "not taken off" in capsys.readouterr().out
    trained.test(tiny, loader(2), verbose=False)
    assert read_record(tmp_path).idle == record.idle  # once a run


def test_idle_power_that_cannot_be_measured_is_told_and_the_run_is_measured(ptl, tmp_path, words):
    reads = iter(range(10**6))

    def at_first() -> None:
        if next(reads) < 2:
            raise RuntimeError("asleep")

    record = fit(ptl, tmp_path, watt(gpus="auto", sources=[Steady(on_read=at_first)], idle_s=0.05), step_s=0.05)
    words.take("The idle power is not known")
    assert record.idle is None
    assert record.energy.total_j > 0
