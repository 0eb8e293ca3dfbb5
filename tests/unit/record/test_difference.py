"""Whether two runs differ: by their edges on one board, by everything otherwise."""

from __future__ import annotations

import pytest

from lightning_watt.errors import RecordError
from lightning_watt.record import DeviceEnergy, Record, difference
from tests.unit.record.made import a_record


def a_run(joules: float, *, boundary_j: float, uuid: str = "GPU-0", provenance: str = "measured") -> Record:
    record = a_record()
    energy = record.energy
    energy.total_j, energy.boundary_j, energy.uncertainty_j, energy.provenance = (
        joules,
        boundary_j,
        0.05 * joules,
        provenance,
    )
    energy.by_device = {
        "gpu0": DeviceEnergy(joules=joules, name="b", uuid=uuid, source="nvml-counter", provenance=provenance)
    }
    return record


@pytest.mark.parametrize(("more_j", "is_sure"), [(1003.0, False), (997.0, False), (1006.0, True), (994.0, True)])
def test_on_one_board_only_the_edges_count(more_j, is_sure):
    found = difference(a_run(more_j, boundary_j=3.0), a_run(1000.0, boundary_j=4.0))
    assert (found.joules, found.plus_minus_j, found.is_sure) == (pytest.approx(more_j - 1000.0), pytest.approx(5.0), is_sure)
    assert "same devices" in found.why


def test_on_different_boards_everything_counts():
    found = difference(a_run(1060.0, boundary_j=3.0, uuid="GPU-1"), a_run(1000.0, boundary_j=4.0))
    assert found.plus_minus_j == pytest.approx((53.0**2 + 50.0**2) ** 0.5)
    assert (found.is_sure, found.why.startswith("They were not measured on the same devices")) == (False, True)


def test_a_name_that_the_kernel_gives_on_every_machine_is_no_device():
    runs = [a_run(joules, boundary_j=0.0, uuid="intel-rapl:0") for joules in (1040.0, 1000.0)]
    assert difference(*runs).is_sure
    runs[0].hardware = {**runs[0].hardware, "host": "another"}
    assert not difference(*runs).is_sure


def test_an_estimate_is_never_sure_by_its_edges():
    runs = [a_run(joules, boundary_j=0.0, provenance="estimated") for joules in (1040.0, 1000.0)]
    found = difference(*runs)
    assert (found.is_sure, found.why.startswith("What an estimate is wrong by")) == (False, True)


def test_a_run_that_measured_nothing_has_no_difference():
    nothing = a_run(1.0, boundary_j=0.0)
    nothing.energy.total_j = None
    with pytest.raises(RecordError, match="measured nothing"):
        difference(nothing, a_run(1.0, boundary_j=0.0))
