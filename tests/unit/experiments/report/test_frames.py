"""Records as data: `load_runs`."""

from __future__ import annotations

import pandas as pd
import pytest

from experiments import load_runs
from tests.unit.experiments.report.made import lifecycle, made, write


def test_a_row_is_a_run_with_units_in_its_columns(tmp_path):
    lifecycle(tmp_path / "vit", seed=3)
    runs = load_runs(tmp_path).set_index("phase")
    assert runs["run"].to_dict() == {phase: f"vit/{phase}" for phase in ("pretrain", "finetune", "inference")}
    assert runs["energy_j"].to_dict() == {"pretrain": 300, "finetune": 100, "inference": 10}
    assert runs.loc["inference", "energy_with_inherited_j"] == 410
    assert runs.loc["inference", "energy_per_inference_j"] == pytest.approx(0.01)
    assert pd.isna(runs.loc["pretrain", "energy_inherited_j"])
    assert runs.loc["pretrain", ["accuracy", "duration_s", "seed"]].tolist() == [0.9, 6.0, 3.0]


def test_epochs_and_stages_add_up_to_their_run(tmp_path):
    lifecycle(tmp_path / "vit")
    write(tmp_path / "swin", made(50, family="swin"))
    runs = load_runs(tmp_path).set_index("run")["energy_j"]
    for rows in ("epochs", "stages"):
        frame = load_runs(tmp_path, rows)
        sums = frame.groupby("run")["energy_j"].sum()
        assert sums.to_dict() == pytest.approx(runs[sums.index].to_dict())
    epochs = load_runs(tmp_path, "epochs")
    assert (epochs.groupby("run")["energy_so_far_j"].last() == epochs.groupby("run")["energy_j"].sum()).all()
    assert epochs.groupby("run")["accuracy"].last().to_dict() == {"swin": 0.9, "vit/finetune": 0.9, "vit/pretrain": 0.9}


def test_repetitions_have_one_name(tmp_path):
    for n in range(2):
        write(tmp_path / str(n), made(100 + n, seed=n))
    write(tmp_path / "other", made(100, lr=0.1))
    bare = made(100)
    bare.model = {"name": "MyNet", "params": 3}
    write(tmp_path / "own", bare)
    found = load_runs(tmp_path).set_index("run")["repetition_of"]
    assert found["0"] == found["1"] != found["other"]
    assert pd.isna(found["own"])


@pytest.mark.parametrize("rows", ["runs", "epochs", "stages"])
def test_without_runs_the_columns_are_the_same(tmp_path, rows):
    (tmp_path / "none").mkdir()
    write(tmp_path / "some", made(None))
    nothing = load_runs(tmp_path / "none", rows)
    assert len(nothing) == 0
    pd.testing.assert_index_equal(nothing.columns, load_runs(tmp_path / "some", rows).columns)


def test_what_cannot_be_read_is_said(tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/watt.json").write_text("{")
    with pytest.warns(UserWarning, match="not read: broken/watt.json"):
        assert len(load_runs(tmp_path)) == 0
    with pytest.raises(ValueError, match="'runs', 'epochs', 'stages'"):
        load_runs(tmp_path, "batches")
    with pytest.raises(NotADirectoryError):
        load_runs(tmp_path / "nowhere")
