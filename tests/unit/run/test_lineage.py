"""What a checkpoint or a run has cost, with what it started from; read without running anything in it."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from lightning_watt import energy_of
from lightning_watt.errors import RecordError
from lightning_watt.record import Accuracy, Energy, Inherited, Record, Sam
from lightning_watt.record.claim import RunFiles
from lightning_watt.record.writer import RunWriter
from lightning_watt.run.ledger import Account, Ledger, Point


def a_state(joules: float = 50.0, inherited=()) -> dict:
    """The callback's state as `WattCallback.state_dict` gives it."""
    ledger = Ledger()
    ledger.open(["gpu0"], Account("train", 0), Point(0, [0], [0.0], 0, 0))
    ledger.close(Point(10, [round(joules * 1e6)], [0.0], 4, 64))
    return {"session": {"sessions": ["a"], "ledger": ledger.state_dict(), "devices": {}}, "inherited": list(inherited)}


def a_checkpoint(path, state, **more):
    callbacks = {"ModelCheckpoint{'monitor': None}": {"best": 1}, "WattCallback": state}
    torch.save({"state_dict": {"weight": torch.zeros(1000)}, "callbacks": callbacks, **more}, path)
    return path


def a_run(directory, total_j: float | None, inherited=(), missing=()):
    energy = Energy(total_j=total_j, total_kwh=0.0, uncertainty_j=0.0, provenance="measured")
    record = Record(
        schema_version=1,
        status="completed",
        energy=energy,
        accuracy=Accuracy(),
        sam=Sam(alpha=5.0, beta=5.0, unit="kWh"),
        inherited=list(inherited),
        missing=list(missing),
    )
    RunWriter(RunFiles(directory), pytest.fail).record(record)
    return directory


def test_a_checkpoint_carries_its_own_energy_and_what_it_inherited(tmp_path):
    state = a_state(50, [{"path": "pretrain.ckpt", "total_j": 300.0}, {"path": "tokenizer", "total_j": 10.0}])
    carried = energy_of(a_checkpoint(tmp_path / "last.ckpt", state))
    assert carried.own_j == 50
    assert carried.inherited == (Inherited(path="pretrain.ckpt", total_j=300.0), Inherited(path="tokenizer", total_j=10.0))
    assert carried.total_j == float(carried) == 360
    assert carried.total_kwh == pytest.approx(1e-4)
    assert carried.path == tmp_path / "last.ckpt"


def test_a_run_carries_what_its_record_says(tmp_path):
    directory = a_run(tmp_path / "finetune", 60.0, [Inherited(path="pretrain", total_j=300.0)])
    for path in (directory, str(directory), directory / "watt.json"):
        assert (energy_of(path).own_j, energy_of(path).total_j) == (60, 360)


def test_a_run_that_measured_nothing_carries_no_zero(tmp_path):
    directory = a_run(tmp_path, None, missing=["rapl: not here."])
    with pytest.raises(RecordError, match=r"measured nothing.*rapl: not here"):
        energy_of(directory)


class Evil:
    """Runs a command where it is unpickled."""

    def __init__(self, sign: str) -> None:
        self.sign = sign

    def __reduce__(self):
        return os.mkdir, (self.sign,)


@pytest.mark.parametrize("where", ["hyper_parameters", "callbacks"])
@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_not_run(tmp_path, where, zipped):
    sign = tmp_path / "it ran"
    path = a_checkpoint(tmp_path / "evil.ckpt", a_state(), **{where: Evil(str(sign))})
    if not zipped:
        torch.save({where: Evil(str(sign))}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(RecordError, match="without running code"):
        energy_of(path)
    assert not sign.exists()
    torch.load(path, weights_only=False)
    assert sign.exists()  # so it would have run


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"callbacks": None},
        {"callbacks": {}},
        {"callbacks": {"Timer": {}}},
        {"callbacks": [1]},
        [1],
        5,
        {"callbacks": {"WattCallback": 7}},
    ],
)
def test_a_checkpoint_of_another_run_says_so(tmp_path, content):
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(RecordError, match="carries no energy"):
        energy_of(tmp_path / "other.ckpt")


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"session": None, "inherited": []},
        {"session": {}, "inherited": []},
        {"session": {"ledger": [["train", 0]]}, "inherited": []},
        {"session": {"ledger": [["train", 0, {"gpu0": float("inf")}, 0, 0, 0, 0.0]]}, "inherited": []},
        {"session": {"ledger": []}},
        {"session": {"ledger": []}, "inherited": ["pretrain"]},
        {"session": {"ledger": []}, "inherited": [{"path": "a", "total_j": "much"}]},
    ],
)
def test_a_broken_state_is_an_error_and_no_zero(tmp_path, state):
    with pytest.raises(RecordError, match="broken"):
        energy_of(a_checkpoint(tmp_path / "broken.ckpt", state))


def test_what_is_not_there_or_no_checkpoint_says_so(tmp_path):
    with pytest.raises(RecordError, match="no such file"):
        energy_of(tmp_path / "nowhere.ckpt")
    with pytest.raises(RecordError, match=r"watt\.json"):
        energy_of(tmp_path)
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    with pytest.raises(RecordError, match=r"text\.ckpt"):
        energy_of(tmp_path / "text.ckpt")
    (tmp_path / "empty.ckpt").touch()
    with pytest.raises(RecordError, match=r"empty\.ckpt"):
        energy_of(tmp_path / "empty.ckpt")


def test_numbers_of_numpys_in_the_weights_do_not_keep_the_energy_from_being_read(tmp_path):
    path = a_checkpoint(
        tmp_path / "last.ckpt", a_state(), hyper_parameters={"lr": 0.1, "sizes": [1, 2], "path": str(tmp_path)}
    )
    assert energy_of(path).own_j == 50
    a_checkpoint(path, a_state(), hyper_parameters={"lr": np.float64(0.1)})
    with pytest.raises(RecordError, match="Ask the run's directory"):
        energy_of(path)
