"""Every way that a Trainer runs: each joule and batch in its stage's account, and each hook called as Lightning calls it."""

from __future__ import annotations

import inspect
import json
from functools import wraps
from types import ModuleType
from typing import Any

import pytest
import torch

from lightning_watt import WattCallback, read_record
from lightning_watt.record import Record
from lightning_watt.units import kwh
from tests.integration.tiny import (
    BATCH,
    PACKAGES,
    QUIET,
    Steady,
    Stream,
    columns,
    finished,
    loader,
    module,
    start_child,
    trainer,
    watt,
)

pytestmark = [pytest.mark.filterwarnings(entry) for entry in QUIET]
WATTS = 100.0


def steady(**options: Any) -> WattCallback:
    return watt(gpus="auto", sources=[Steady(WATTS)], **options)


def counts(record: Record) -> dict[str, tuple[int, int]]:
    """Batches and samples of every stage that had any."""
    return {name: (s.batches, s.samples) for name, s in record.energy.by_stage.items() if s.batches}


def whole(record: Record) -> Record:
    """The record, once its sums and its rate are found right."""
    energy = record.energy
    stages = energy.by_stage.values()
    assert energy.total_j > 0
    assert sum(stage.joules for stage in stages) == pytest.approx(energy.total_j, rel=1e-9)
    assert sum(device.joules for device in energy.by_device.values()) == pytest.approx(energy.total_j, rel=1e-9)
    # One device at a constant power: every stage's energy is its time's. The counter's first tick is a millisecond.
    for stage in stages:
        assert stage.joules == pytest.approx(WATTS * stage.seconds, rel=0.02, abs=0.2)
    return record


def samples(batches: int) -> tuple[int, int]:
    return batches, batches * BATCH


def run(pl: ModuleType, directory: Any, *data: Any, tiny: dict[str, Any] | None = None, **options: Any) -> Any:
    """A fit on these loaders with the callback; returns the Trainer."""
    trained = trainer(pl, directory, steady(), **options)
    trained.fit(module(pl, **(tiny or {})), *data)
    return trained


# ---- the stages ----


def test_fit_has_sanity_check_train_and_validate(pl, tmp_path):
    run(pl, tmp_path, loader(6), loader(3), tiny={"step_s": 0.01})
    record = whole(read_record(tmp_path))
    assert record.status == "completed"
    assert counts(record) == {"train": samples(12), "validate": samples(6), "sanity_check": samples(2)}
    assert set(record.energy.by_stage) == {"train", "validate", "sanity_check", "other"}
    assert [(row.stage, row.epoch) for row in record.epochs] == [
        ("train", 0),
        ("validate", 0),
        ("train", 1),
        ("validate", 1),
    ]


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_each_stage_alone(pl, tmp_path, stage):
    trained = trainer(pl, tmp_path, steady())
    quiet = {} if stage == "predict" else {"verbose": False}
    getattr(trained, stage)(module(pl, step_s=0.01), loader(5), **quiet)
    record = whole(read_record(tmp_path))
    assert counts(record) == {stage: samples(5)}
    assert record.energy.by_stage[stage].seconds > 0.05
    assert record.accuracy.last == pytest.approx({"validate": 0.5, "test": 0.25}[stage]) if quiet else True
    assert float(trained.callback_metrics[f"watt/{stage}/energy_kwh"]) > 0


def test_several_runs_with_one_callback_add_up(ptl, tmp_path):
    trained = trainer(ptl, tmp_path, steady(), max_epochs=1)
    tiny, totals = module(ptl, step_s=0.005), []
    for go in (
        lambda: trained.fit(tiny, loader(4), loader(2)),
        lambda: trained.test(tiny, loader(3), verbose=False),
        lambda: trained.predict(tiny, loader(5)),
        lambda: trained.validate(tiny, loader(2), verbose=False),
        lambda: trained.test(tiny, loader(3), verbose=False),
    ):
        go()
        totals.append(whole(read_record(tmp_path)).energy.total_j)
    assert totals == sorted(totals)
    assert len(set(totals)) == 5
    assert counts(read_record(tmp_path)) == {
        "train": samples(4),
        "validate": samples(4),
        "test": samples(6),
        "predict": samples(5),
        "sanity_check": samples(2),
    }


def test_a_second_fit_of_the_same_trainer_goes_on(ptl, tmp_path):
    trained = trainer(ptl, tmp_path, steady(), max_epochs=1)
    tiny = module(ptl)
    trained.fit(tiny, loader(4), loader(2))
    first = read_record(tmp_path).energy.total_j
    trained.fit_loop.max_epochs = 3
    trained.fit(tiny, loader(4), loader(2))
    record = whole(read_record(tmp_path))
    assert record.energy.total_j > first
    assert record.energy.by_stage["train"].batches == 12
    assert [row.epoch for row in record.epochs if row.stage == "train"] == [0, 1, 2]


def test_another_trainer_elsewhere_is_another_run(ptl, tmp_path):
    callback = steady()
    for name in ("a", "b"):
        trainer(ptl, tmp_path / name, callback, max_epochs=1).fit(module(ptl), loader(4), loader(2))
    for name in ("a", "b"):
        assert whole(read_record(tmp_path / name)).energy.by_stage["train"].batches == 4


# ---- how a fit may be cut ----


@pytest.mark.parametrize(
    ("options", "batches"),
    [
        pytest.param({"val_check_interval": 0.5}, (12, 12, 2), id="validation within the epoch"),
        pytest.param({"val_check_interval": 4, "check_val_every_n_epoch": None}, (12, 9, 2), id="by steps"),
        pytest.param({"check_val_every_n_epoch": 2}, (12, 3, 2), id="every second epoch"),
        pytest.param({"limit_train_batches": 3, "limit_val_batches": 1}, (6, 2, 1), id="limits"),
        pytest.param({"limit_val_batches": 0}, (12, 0, 0), id="no validation"),
        pytest.param({"num_sanity_val_steps": 0}, (12, 6, 0), id="no sanity check"),
        pytest.param({"num_sanity_val_steps": -1}, (12, 6, 3), id="whole sanity check"),
        pytest.param({"accumulate_grad_batches": 4}, (12, 6, 2), id="accumulation"),
        pytest.param({"max_steps": 8, "max_epochs": -1}, (8, 3, 2), id="max_steps"),
        pytest.param({"max_steps": 2, "max_epochs": None, "accumulate_grad_batches": 3}, (6, 3, 2), id="optimiser steps"),
        pytest.param({"max_time": "00:00:00:00"}, (0, 0, 2), id="no time"),
        pytest.param({"overfit_batches": 2}, (4, 4, 2), id="overfit_batches"),
        pytest.param({"reload_dataloaders_every_n_epochs": 1}, (12, 6, 2), id="reload"),
        pytest.param({"max_epochs": 0}, (0, 0, 2), id="no epoch"),
    ],
)
def test_a_fit_cut_short_is_counted_right(ptl, tmp_path, options, batches):
    run(ptl, tmp_path, loader(6), loader(3), **options)
    record = whole(read_record(tmp_path))
    wanted = dict(zip(("train", "validate", "sanity_check"), map(samples, batches), strict=True))
    assert counts(record) == {stage: count for stage, count in wanted.items() if count[0]}


def test_validation_within_an_epoch_is_one_row_of_the_record(ptl, tmp_path):
    run(ptl, tmp_path, loader(6), loader(3), val_check_interval=2, max_epochs=1)
    rows = [(row.stage, row.epoch) for row in read_record(tmp_path).epochs]
    assert sorted(rows) == [("train", 0), ("validate", 0)]
    assert read_record(tmp_path).energy.by_stage["validate"].batches == 9


def test_many_loaders(ptl, tmp_path):
    trained = trainer(ptl, tmp_path, steady())
    tiny = module(ptl, accuracy=())
    trained.validate(tiny, [loader(2), loader(3)], verbose=False)
    trained.test(tiny, [loader(1), loader(4)], verbose=False)
    trained.predict(tiny, [loader(2), loader(2), loader(1)])
    assert counts(whole(read_record(tmp_path))) == {
        "validate": samples(5),
        "test": samples(5),
        "predict": samples(5),
    }
    assert read_record(tmp_path).accuracy.metric == "test_acc/dataloader_idx_0"


def test_many_training_loaders_make_one_batch(ptl, tmp_path):
    class Pair(type(module(ptl))):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch["a"], batch_idx)

    trained = trainer(ptl, tmp_path, steady(), max_epochs=1)
    trained.fit(Pair(), {"a": loader(6), "b": loader(6)}, loader(2))
    # All of its samples count: those of the shorter loader come twice, as Lightning gives them.
    assert counts(whole(read_record(tmp_path)))["train"] == (6, 12 * BATCH)


def test_a_batch_whose_samples_are_not_certain_leaves_its_stage_without_and_no_other(ptl, tmp_path):
    class Graphs(type(module(ptl))):
        def training_step(self, batch, batch_idx):
            return super().training_step((batch["x"], batch["y"]), batch_idx)

    def graph(samples):
        pictures, labels = zip(*samples, strict=True)
        edges = torch.zeros(2, 5 if labels[0] else 4)  # in every second batch as many as there are labels
        return {"x": torch.stack(pictures), "y": torch.tensor(labels), "edges": edges.T}

    batches = [[(torch.zeros(8), i % 2)] * BATCH for i in range(4)]
    data = torch.utils.data.DataLoader(batches, batch_size=None, collate_fn=graph)
    logger = ptl.loggers.CSVLogger(tmp_path)
    trained = trainer(ptl, tmp_path, steady(), max_epochs=1, logger=logger)
    trained.fit(Graphs(step_s=0.03), data, loader(2))
    record = whole(read_record(logger.log_dir))
    assert counts(record) == {"train": (4, 0), "validate": samples(2), "sanity_check": samples(2)}
    rows = columns(logger.log_dir)
    assert len(rows["watt/joules_per_batch"]) == 4
    assert len(rows["watt/joules_per_sample"]) == 1  # that of the batch before
    assert record.warnings == []


def test_a_module_says_how_many_samples_a_batch_has(ptl, tmp_path, words):
    class Says(type(module(ptl))):
        def watt_batch_size(self, batch):
            if self.trainer.validating or self.trainer.sanity_checking:
                raise KeyError("edges")
            return len(batch[1]) + 3

    trained = trainer(ptl, tmp_path, steady(), max_epochs=1, num_sanity_val_steps=0)
    trained.fit(Says(), loader(6), loader(2))
    assert counts(read_record(tmp_path)) == {"train": (6, 6 * (BATCH + 3)), "validate": (2, 0)}
    assert "KeyError" in words.take("The samples of validate cannot be counted")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_are_counted_and_their_rows_logged(ptl, tmp_path):
    class Ragged(type(module(ptl))):
        def training_step(self, batch, batch_idx):
            loss = self.layer(torch.cat(batch.unbind())).square().mean()
            self.log("train_acc", 0.5, batch_size=batch.size(0))
            return loss

    data = [torch.zeros(2 + i % 3, 8) for i in range(14)]
    logger = ptl.loggers.CSVLogger(tmp_path)
    trained = trainer(ptl, tmp_path, steady(), max_epochs=1, logger=logger)
    trained.fit(Ragged(), torch.utils.data.DataLoader(data, batch_size=BATCH, collate_fn=torch.nested.nested_tensor))
    assert counts(read_record(logger.log_dir)) == {"train": (4, 14)}
    assert len(columns(logger.log_dir)["watt/energy_kwh"]) >= 4


def test_a_stream_without_a_length(ptl, tmp_path):
    data = torch.utils.data.DataLoader(Stream(5), batch_size=BATCH)
    trained = run(ptl, tmp_path, data, torch.utils.data.DataLoader(Stream(2), batch_size=BATCH))
    assert counts(whole(read_record(tmp_path))) == {
        "train": samples(10),
        "validate": samples(4),
        "sanity_check": samples(2),
    }
    assert "watt/energy_kwh" in trained.callback_metrics


def test_manual_optimisation(ptl, tmp_path):
    trained = run(ptl, tmp_path, loader(6), loader(3), tiny={"manual": True})
    assert trained.global_step == 12
    assert whole(read_record(tmp_path)).energy.by_stage["train"].batches == 12


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_a_training_step_that_skips_batches(ptl, tmp_path):
    class Skipping(type(module(ptl))):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return None if batch_idx % 2 else loss

    trained = trainer(ptl, tmp_path, steady(), max_epochs=1)
    trained.fit(Skipping(), loader(6), loader(2))
    assert whole(read_record(tmp_path)).energy.by_stage["train"].batches == 6


def test_an_epoch_skipped_by_the_module(ptl, tmp_path):
    class Lazy(type(module(ptl))):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if batch_idx == 2 else None

    trainer(ptl, tmp_path, steady()).fit(Lazy(), loader(6), loader(2))
    assert whole(read_record(tmp_path)).energy.by_stage["train"].batches == 4


def test_loader_workers(ptl, tmp_path):
    data = torch.utils.data.DataLoader(loader(4).dataset, batch_size=BATCH, num_workers=1)
    run(ptl, tmp_path, data, loader(2), max_epochs=1)
    assert counts(whole(read_record(tmp_path)))["train"] == samples(4)


# ---- the budget ----


def test_a_budget_stops_the_training(ptl, tmp_path, words):
    budget_j = 60.0
    trained = trainer(ptl, tmp_path, steady(budget_kwh=kwh(budget_j)), max_epochs=100)
    trained.fit(module(ptl, step_s=0.02), loader(10), loader(2))
    words.take("budget")
    assert trained.current_epoch < 20  # one takes 24 J or more
    assert trained.state.finished
    # Not before the end of the first epoch (ten steps at 100 W), when the plan is made. How close it comes to the budget
    # depends on how even the steps of the machine are; tests/unit/trainer/test_budget.py has the plan itself.
    assert read_record(tmp_path).energy.total_j > 10 * 0.02 * 100


def test_a_used_up_budget_stops_the_next_fit_at_once(ptl, tmp_path, words):
    trained = trainer(ptl, tmp_path, steady(budget_kwh=kwh(20.0)), max_epochs=40)
    tiny = module(ptl, step_s=0.02)
    for _ in range(2):
        trained.fit(tiny, loader(10), loader(2))
    words.take("budget")
    assert trained.current_epoch < 20


# ---- hooks ----


def recording(cls: type) -> tuple[type, list[tuple[str, tuple[Any, ...], dict[str, Any]]]]:
    """A subclass that notes how each hook that WattCallback overrides is called, and passes the call on."""
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def noted(name: str) -> Any:
        own = getattr(cls, name)

        @wraps(own)
        def hook(self: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append((name, args, kwargs))
            return own(self, *args, **kwargs)

        return hook

    return type("Recording", (cls,), {name: noted(name) for name in overridden(cls)}), calls


def overridden(cls: type) -> set[str]:
    """Lightning's hooks that the class has of its own."""
    import pytorch_lightning

    hooks = {name for name in vars(pytorch_lightning.Callback) if not name.startswith("__") and name != "state_key"}
    return hooks & {name for kind in cls.__mro__ if kind.__module__.startswith("lightning_watt") for name in vars(kind)}


def test_every_hook_fits_the_call_that_the_trainer_makes(pl, tmp_path):
    cls, calls = recording(WattCallback)
    callback = cls(gpus="auto", sources=[Steady()], interval=0.1)
    trained = trainer(pl, tmp_path / "a", callback, max_epochs=1)
    tiny = module(pl)
    trained.fit(tiny, loader(4), loader(2))
    trained.validate(tiny, loader(2), verbose=False)
    trained.test(tiny, loader(2), verbose=False)
    trained.predict(tiny, loader(2))
    path = tmp_path / "a.ckpt"
    trained.save_checkpoint(path)

    def bad(stage, index):
        if stage == "train":
            raise ZeroDivisionError

    again = trainer(pl, tmp_path / "b", callback, max_epochs=2)
    with pytest.raises(ZeroDivisionError):
        again.fit(module(pl, on_batch=bad), loader(4), loader(2), ckpt_path=path)
    # `words` fails this test if a hook raised inside: what a hook of ours raises goes to the log.
    called = {name for name, _, _ in calls}
    assert called >= overridden(WattCallback)
    assert called >= {"setup", "teardown", "on_exception", "on_train_batch_end", "state_dict", "load_state_dict"}
    for name, args, kwargs in calls:
        inspect.signature(getattr(WattCallback, name)).bind(callback, *args, **kwargs)


def test_hooks_have_lightnings_own_parameter_names(pl):
    """So that whoever calls one by keyword, as Lightning does with `stage`, is answered."""
    for name in overridden(WattCallback):
        theirs = list(inspect.signature(getattr(pl.Callback, name)).parameters)
        ours = list(inspect.signature(getattr(WattCallback, name)).parameters)
        assert ours == theirs, name


# ---- two packages ----


@pytest.mark.ddp
@pytest.mark.parametrize("name", PACKAGES)
def test_each_package_works_where_the_other_is_not_loaded(tmp_path, name):
    finished(start_child(tmp_path, fresh=True, package=name, steady=WATTS, runs=["fit", "test", "predict"]))
    answer = json.loads((tmp_path / "rank0.json").read_text())
    assert answer["loaded"] == [name]
    assert answer["said"] == []
    assert counts(whole(read_record(tmp_path))) == {
        "train": samples(12),
        "validate": samples(6),
        "test": samples(3),
        "predict": samples(3),
        "sanity_check": samples(2),
    }


def test_both_packages_in_one_process_take_a_callback_given_singly(tmp_path):
    import lightning.pytorch
    import pytorch_lightning

    for name, pl in (("a", pytorch_lightning), ("b", lightning.pytorch)):
        callback = steady()
        assert isinstance(callback, pl.Callback)
        trained = pl.Trainer(
            callbacks=callback,
            accelerator="cpu",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            default_root_dir=tmp_path / name,
        )
        trained.fit(module(pl), loader(3), loader(1))
        record = whole(read_record(tmp_path / name))
        assert record.energy.by_stage["train"].batches == 3
        assert pl.__name__.split(".")[0] in record.software
