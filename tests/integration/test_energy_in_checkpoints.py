"""The energy that a checkpoint carries, and that the next run inherits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_watt import WattCallback, energy_of
from lightning_watt.errors import RecordError
from tests.integration.recorded import steady, whole
from tests.integration.tiny import (
    QUIET,
    Steady,
    loader,
    module,
    trainer,
)

pytestmark = [pytest.mark.filterwarnings(entry) for entry in QUIET]


# ---- what a checkpoint carries ----


def test_each_checkpoint_carries_the_energy_up_to_it(ptl, tmp_path):
    every = ptl.callbacks.ModelCheckpoint(tmp_path / "all", "{epoch}", save_top_k=-1, every_n_epochs=1)
    trained = trainer(ptl, tmp_path, every, steady(), max_epochs=3, enable_checkpointing=True)
    trained.fit(module(ptl, step_s=0.03), loader(6), loader(2))
    carried = [energy_of(tmp_path / "all" / f"epoch={epoch}.ckpt").total_j for epoch in range(3)]
    total_j = whole(tmp_path).energy.total_j
    assert carried == sorted(carried)
    assert 0 < carried[0] < carried[2] <= total_j
    # The last one is behind by what its last read had not seen: the interval of 0.1 s, and what a busy machine adds.
    assert carried[2] > 0.5 * total_j


def test_a_checkpoint_loads_without_running_code(ptl, tmp_path):
    trained = trainer(ptl, tmp_path, steady(), max_epochs=1)
    tiny = module(ptl)
    tiny.watt_inherits = [fitted(ptl, tmp_path / "before")]
    trained.fit(tiny, loader(3), loader(1))
    trained.save_checkpoint(tmp_path / "one.ckpt")
    state = torch.load(tmp_path / "one.ckpt", weights_only=True)["callbacks"]["WattCallback"]
    assert json.loads(json.dumps(state)) == state  # plain values, and nothing else
    assert state["inherited"][0]["total_j"] > 0


def test_a_subclass_saves_under_the_same_key(ptl, tmp_path):
    class Mine(WattCallback):
        pass

    trained = trainer(ptl, tmp_path, Mine(sources=[Steady()]), max_epochs=1)
    trained.fit(module(ptl), loader(3), loader(1))
    trained.save_checkpoint(tmp_path / "one.ckpt")
    assert energy_of(tmp_path / "one.ckpt").total_j == pytest.approx(whole(tmp_path).energy.total_j, rel=1e-9)


def test_energy_of_says_what_is_wrong(ptl, tmp_path):
    bare = trainer(ptl, tmp_path, max_epochs=1)
    bare.fit(module(ptl), loader(2), loader(1))
    bare.save_checkpoint(tmp_path / "bare.ckpt")
    (tmp_path / "torn.ckpt").write_bytes((tmp_path / "bare.ckpt").read_bytes()[:200])
    for name, why in [("bare.ckpt", "no WattCallback"), ("torn.ckpt", "cannot be read"), ("none.ckpt", "no such file")]:
        with pytest.raises(RecordError, match=why):
            energy_of(tmp_path / name)
    with pytest.raises(RecordError, match="record=True"):
        energy_of(tmp_path)


# ---- lineage ----


def fitted(pl: Any, directory: Path) -> Path:
    """The run directory of a short fit."""
    trainer(pl, directory, steady(), max_epochs=1).fit(module(pl, step_s=0.01), loader(4), loader(2))
    return directory


@pytest.mark.parametrize("kind", ["directory", "record", "checkpoint"])
def test_a_run_inherits_what_its_module_says(ptl, tmp_path, kind):
    trained = trainer(ptl, tmp_path / "pretrain", steady(), max_epochs=1)
    trained.fit(module(ptl, step_s=0.01), loader(4), loader(2))
    trained.save_checkpoint(tmp_path / "pretrain.ckpt")
    paths = {"directory": "pretrain", "record": "pretrain/watt.json", "checkpoint": "pretrain.ckpt"}
    path = tmp_path / paths[kind]
    before = whole(tmp_path / "pretrain").energy
    before_j = before.total_j
    tiny = module(ptl)
    tiny.watt_inherits = str(path)
    finetune = trainer(ptl, tmp_path / "finetune", steady(sam_unit="J"), max_epochs=1)
    finetune.fit(tiny, loader(4), loader(2))
    record = whole(tmp_path / "finetune")
    (inherited,) = record.inherited
    assert (inherited.path, inherited.total_j) == (str(path), pytest.approx(before_j, rel=1e-9))
    assert inherited.gain_j == pytest.approx(before.gain_j, rel=1e-9)
    assert inherited.boundary_j == pytest.approx(before.boundary_j, rel=0.5)  # a checkpoint's edge is another moment's
    carried = energy_of(tmp_path / "finetune")
    assert carried.plus_minus.gain_j == pytest.approx(record.energy.gain_j + before.gain_j)
    assert (carried.own_j, carried.total_j) == (record.energy.total_j, pytest.approx(record.energy.total_j + before_j))
    assert record.sam.shifted_with_inherited < record.sam.shifted
    # A third run inherits all of it.
    finetune.save_checkpoint(tmp_path / "finetune.ckpt")
    again = energy_of(tmp_path / "finetune.ckpt")
    assert again.total_j == pytest.approx(carried.total_j, rel=1e-9)
    assert again.plus_minus.gain_j == pytest.approx(carried.plus_minus.gain_j, rel=1e-9)


def test_what_cannot_be_inherited_is_told_and_is_not_zero(ptl, tmp_path, words):
    tiny = module(ptl)
    tiny.watt_inherits = [tmp_path / "nowhere"]
    trainer(ptl, tmp_path, steady(), max_epochs=1).fit(tiny, loader(3), loader(1))
    sentence = words.take("inherits is not known")
    assert str(tmp_path / "nowhere") in sentence
    record = whole(tmp_path)
    assert record.inherited == []
    assert record.warnings == [sentence]
