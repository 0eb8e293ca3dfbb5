"""How a run goes on from a checkpoint."""

from __future__ import annotations

import pytest

from lightning_watt import energy_of, read_record
from lightning_watt.testing import Board, Lab, constant
from tests.integration.recorded import steady, whole
from tests.integration.tiny import (
    QUIET,
    WEIGHTS_ONLY,
    finished,
    loader,
    module,
    start_child,
    trainer,
)

pytestmark = [pytest.mark.filterwarnings(entry) for entry in QUIET]


@pytest.mark.parametrize("place", ["same directory", "another directory"])
def test_a_resumed_run_goes_on_where_its_checkpoint_was(pl, tmp_path, place):
    first, second = (tmp_path, tmp_path) if place == "same directory" else (tmp_path / "1", tmp_path / "2")
    trained = trainer(pl, first, steady(), max_epochs=1)
    trained.fit(module(pl, step_s=0.01), loader(6), loader(2))
    path = tmp_path / "one.ckpt"
    trained.save_checkpoint(path)
    before = whole(first).energy
    again = trainer(pl, second, steady(), max_epochs=2)
    again.fit(module(pl, step_s=0.01), loader(6), loader(2), ckpt_path=path, **WEIGHTS_ONLY)
    record = whole(second)
    assert record.resumed_j == pytest.approx(before.total_j, rel=1e-9)
    assert record.energy.total_j > before.total_j + 6 * 0.01 * 100
    stages = record.energy.by_stage
    assert (stages["train"].batches, stages["validate"].batches) == (12, 4)
    assert list(record.energy.by_device) == ["gpu0"]
    assert float(again.callback_metrics["watt/energy_kwh"]) * 3.6e6 == pytest.approx(record.energy.total_j, rel=0.1)
    assert [(row.stage, row.epoch) for row in record.epochs] == [
        ("train", 0),
        ("validate", 0),
        ("train", 1),
        ("validate", 1),
    ]


def test_the_best_accuracy_survives_a_resume(ptl, tmp_path):
    accuracy, path = [0.9, 0.6], tmp_path / "one.ckpt"
    trained = trainer(ptl, tmp_path / "1", steady(), max_epochs=1)
    trained.fit(module(ptl, accuracy=accuracy), loader(3), loader(1))
    trained.save_checkpoint(path)
    again = trainer(ptl, tmp_path / "2", steady(), max_epochs=2)
    again.fit(module(ptl, accuracy=accuracy), loader(3), loader(1), ckpt_path=path, **WEIGHTS_ONLY)
    found = whole(tmp_path / "2").accuracy
    assert (found.last, found.best) == (pytest.approx(0.6), pytest.approx(0.9))


def test_resuming_with_the_callback_itself_counts_nothing_twice(ptl, tmp_path):
    trained = trainer(ptl, tmp_path, steady(), max_epochs=1)
    tiny = module(ptl, step_s=0.01)
    trained.fit(tiny, loader(6), loader(2))
    path = tmp_path / "one.ckpt"
    trained.save_checkpoint(path)
    before = whole(tmp_path).energy.total_j
    trained.fit_loop.max_epochs = 2
    trained.fit(tiny, loader(6), loader(2), ckpt_path=path, **WEIGHTS_ONLY)
    record = whole(tmp_path)
    assert record.energy.by_stage["train"].batches == 12
    assert (record.resumed_j, record.energy.total_j > before) == (0, True)


def test_a_checkpoint_of_a_resumed_run_can_be_resumed(ptl, tmp_path):
    path, totals = None, [0.0]
    for epochs in (1, 2, 3):
        trained = trainer(ptl, tmp_path / str(epochs), steady(), max_epochs=epochs)
        trained.fit(module(ptl, step_s=0.01), loader(4), loader(2), ckpt_path=path, **WEIGHTS_ONLY)
        path = tmp_path / f"{epochs}.ckpt"
        trained.save_checkpoint(path)
        totals.append(whole(tmp_path / str(epochs)).energy.total_j)
        assert energy_of(path).total_j == pytest.approx(totals[-1], rel=1e-9)
    assert totals == sorted(totals)
    assert read_record(tmp_path / "3").energy.by_stage["train"].batches == 12


@pytest.mark.ddp
@pytest.mark.slow
def test_a_resumed_run_in_a_new_process_goes_on(tmp_path):
    lab = Lab([Board(power=constant(250), counter_ms=10), Board(power=constant(50), counter_ms=10)])
    path = tmp_path / "one.ckpt"
    shared = {"env": lab.env(), "module": {"step_s": 0.02}}
    finished(start_child(tmp_path / "1", trainer={"max_epochs": 1}, save=str(path), **shared))
    finished(start_child(tmp_path / "2", fresh=True, trainer={"max_epochs": 2}, ckpt_path=str(path), **shared))
    first, second = whole(tmp_path / "1").energy, whole(tmp_path / "2")
    assert second.resumed_j == pytest.approx(first.total_j, rel=1e-9)
    assert second.energy.by_stage["train"].batches == 12
    for label in ("gpu0", "gpu1"):
        assert second.energy.by_device[label].joules > first.by_device[label].joules
    # The pause between the two processes was nobody's: all seconds are those of the accounts.
    seconds = sum(stage.seconds for stage in second.energy.by_stage.values())
    assert second.energy.total_j == pytest.approx(300 * seconds, rel=0.1)


def test_a_test_of_a_foreign_checkpoint_does_not_give_its_energy_to_the_next_fit(ptl, tmp_path):
    foreign = trainer(ptl, tmp_path / "foreign", steady(), max_epochs=1)
    foreign.fit(module(ptl, step_s=0.02), loader(6), loader(2))
    path = tmp_path / "foreign.ckpt"
    foreign.save_checkpoint(path)
    trained = trainer(ptl, tmp_path / "own", steady(), max_epochs=1)
    tiny = module(ptl)
    trained.test(tiny, loader(2), ckpt_path=path, verbose=False, **WEIGHTS_ONLY)
    trained.fit(tiny, loader(3), loader(1))
    record = whole(tmp_path / "own")
    assert record.energy.by_stage["train"].batches == 3
    assert record.resumed_j == 0
