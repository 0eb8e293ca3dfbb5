"""What a checkpoint or a run has cost, with what it started from; read without running anything in it."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from lightning_watt import energy_of
from lightning_watt.accounts.ledger import Account, Ledger, Point
from lightning_watt.errors import RecordError
from lightning_watt.record import Accuracy, Energy, Inherited, Record, Sam
from lightning_watt.record.claim import RunFiles
from lightning_watt.record.writer import RunWriter


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


def a_run(directory, total_j: float | None, inherited=(), missing=(), **about):
    gain_j = 0.0 if "resumes" not in about and "session" not in about else 0.01 * (total_j or 0.0)
    energy = Energy(total_j=total_j, total_kwh=0.0, uncertainty_j=gain_j, provenance="measured", gain_j=gain_j)
    record = Record(
        schema_version=1,
        status="completed",
        energy=energy,
        accuracy=Accuracy(),
        sam=Sam(alpha=5.0, beta=5.0, unit="kWh"),
        inherited=list(inherited),
        missing=list(missing),
        **about,
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


def test_what_is_inherited_has_its_plus_minus(tmp_path):
    state = a_state(50)
    assert energy_of(a_checkpoint(tmp_path / "old.ckpt", state)).to_inherit("p").uncertainty_j is None
    board = {"label": "gpu0", "name": "b", "uuid": "GPU-0", "source": "nvml-counter", "provenance": "measured", "gain": 0.1}
    gap = {"device": "gpu0", "seconds": 1.0, "joules": 1.0, "why": "a reset"}
    state["session"] |= {"devices": {"gpu0": board}, "outer_edges": 4e12, "gaps": [gap]}
    known = energy_of(a_checkpoint(tmp_path / "new.ckpt", state)).to_inherit("p")
    assert (known.total_j, known.boundary_j, known.gain_j) == (50, 3, 5)
    # A run's record has it of the run itself, and of all that this inherited.
    run = a_run(tmp_path / "finetune", 60.0, [known])
    assert (energy_of(run).plus_minus, energy_of(run).to_inherit("p").gain_j) == ((3, 5), 5)


# ---- several runs in one directory ----


def test_the_runs_of_a_directory_are_summed(tmp_path):
    for session, joules in (("a", 100.0), ("b", 20.0), ("c", None)):
        a_run(tmp_path, joules, session=session)
    assert energy_of(tmp_path).own_j == 120
    assert energy_of(tmp_path / "watt-v1.json").own_j == 20


def test_a_run_that_went_on_from_another_one_here_is_not_counted_twice(tmp_path):
    a_run(tmp_path, 100.0, session="a")
    a_run(tmp_path, 150.0, session="b", resumes=["a"], resumed_j=90.0, wasted_j=4.0)
    a_run(tmp_path, 170.0, session="c", resumes=["a", "b"], resumed_j=150.0)
    assert energy_of(tmp_path).own_j == 100 + 56 + 20
    assert energy_of(tmp_path).own.gain_j == pytest.approx(1.76)  # of the joules that count once


def test_what_ran_before_elsewhere_is_counted_once_for_all_that_went_on_from_it(tmp_path):
    a_run(tmp_path, 150.0, session="b", resumes=["a"], resumed_j=90.0, wasted_j=4.0)
    a_run(tmp_path, 120.0, session="c", resumes=["a"], resumed_j=90.0)
    a_run(tmp_path, 200.0, session="d", resumes=["a", "b"], resumed_j=150.0)
    a_run(tmp_path, 30.0, session="x", resumes=["y"], resumed_j=10.0)
    assert energy_of(tmp_path).own_j == pytest.approx((150 - 94) + (120 - 90) + (200 - 150) + (30 - 10) + 94 + 10)


def test_the_later_of_two_records_of_one_session_counts(tmp_path):
    for joules in (100.0, 130.0):
        a_run(tmp_path, joules, session="a")
    assert energy_of(tmp_path).own_j == 130


@pytest.mark.parametrize("path", ["", "checkpoints/last.ckpt", "last.ckpt", "watt.json"])
def test_what_a_run_inherits_from_another_one_here_is_not_counted_twice(tmp_path, path):
    elsewhere = Inherited(path=str(tmp_path / "pretrain" / "x" / "last.ckpt"), total_j=1000.0)
    a_run(tmp_path, 100.0, [elsewhere], session="a")
    a_run(tmp_path, 5.0, [elsewhere, Inherited(path=str(tmp_path / path), total_j=99.0)], session="b")
    assert (energy_of(tmp_path).own_j, energy_of(tmp_path).total_j) == (105, 1105)
    assert energy_of(tmp_path / "watt-v1.json").total_j == 5 + 1000 + 99


def test_runs_of_which_none_measured_anything_carry_no_zero(tmp_path):
    for session in "ab":
        a_run(tmp_path, None, session=session, missing=["rapl: not here."])
    with pytest.raises(RecordError, match=r"measured nothing \(rapl: not here.\)"):
        energy_of(tmp_path)


# ---- checkpoints that are none ----


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
