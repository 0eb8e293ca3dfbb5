"""What a person may get wrong: each is said once, in a sentence that names the remedy, and never stops a training."""

from __future__ import annotations

import io
import math
import os
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_watt import WattCallback, read_record
from lightning_watt.errors import SourceUnavailable, WattWarning
from lightning_watt.record import read_journal
from lightning_watt.sources.base import Device
from tests.asked import asked_by_us
from tests.integration.tiny import QUIET, Steady, loader, module, trainer, watt

pytestmark = [pytest.mark.filterwarnings(entry) for entry in QUIET]


def fit(pl: Any, directory: Path, callback: Any, tiny: dict[str, Any] | None = None, **options: Any) -> Any:
    trained = trainer(pl, directory, callback, **options)
    trained.fit(module(pl, **(tiny or {})), loader(4), loader(2))
    assert trained.state.finished
    return trained


def steady(**options: Any) -> WattCallback:
    return watt(gpus="auto", sources=[Steady()], **options)


# ---- arguments ----


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"accuracy": ""}, r'"auto"'),
        ({"accuracy": None}, r'"auto"'),
        ({"accuracy": 0.9}, r"name of a logged metric"),
        ({"gpus": "al"}, r"gpus is 'al'.*'auto' or 'visible' or 'all', or a list"),
        ({"gpus": 0}, r"gpus is 0.*or a list"),
        ({"gpus": None}, r"gpus is None.*or a list"),
        ({"gpus": [0.5]}, r"gpus.*0\.5"),
        ({"gpus": [None]}, r"gpus.*None"),
        ({"gpus": [True]}, r"gpus.*True"),
        ({"sources": "nvml"}, r"sources is 'nvml'.*'auto' or 'cpu-share', or a list"),
        ({"sources": None}, r"sources is None.*or a list"),
        ({"sources": []}, r"sources.*EnergySource"),
        ({"sources": ["nvml"]}, r"sources.*'nvml'.*EnergySource"),
        ({"sources": [Steady]}, r"sources.*Steady.*EnergySource"),
        ({"alpha": math.nan}, r"alpha is nan.*finite"),
        ({"alpha": "5"}, r"alpha is '5'.*finite"),
        ({"alpha": math.inf}, r"alpha is inf.*finite"),
        ({"beta": -math.inf}, r"beta is -inf.*finite"),
        ({"beta": None}, r"beta is None.*finite"),
        ({"sam_unit": "MWh"}, r"'MWh'.*kWh, Wh, J"),
        ({"sam_unit": None}, r"None.*kWh, Wh, J"),
        ({"sam_unit": ["kWh"]}, r"kWh, Wh, J"),
        ({"interval": 0}, r"interval is 0.*above 0"),
        ({"interval": -1.0}, r"interval is -1\.0.*above 0"),
        ({"interval": math.inf}, r"interval is inf.*above 0"),
        ({"interval": "1s"}, r"interval is '1s'.*above 0"),
        ({"interval": None}, r"interval is None.*above 0"),
        ({"log_every_n_steps": 0}, r"log_every_n_steps is 0.*above 0, or None"),
        ({"log_every_n_steps": 2.5}, r"log_every_n_steps is 2\.5.*above 0, or None"),
        ({"log_every_n_steps": True}, r"log_every_n_steps is True.*above 0, or None"),
        ({"budget_kwh": 0}, r"budget_kwh is 0.*above 0"),
        ({"budget_kwh": math.nan}, r"budget_kwh is nan.*above 0"),
        ({"pue": 0.9}, r"pue is 0\.9.*1 or more"),
        ({"pue": None}, r"pue is None.*1 or more"),
        ({"carbon_intensity": -1}, r"carbon_intensity is -1.*0 or more"),
        ({"electricity_price": -0.1}, r"electricity_price is -0\.1.*0 or more"),
        ({"electricity_price": "0.30 EUR"}, r"electricity_price is '0\.30 EUR'.*what a kWh costs"),
        ({"idle_s": -1}, r"idle_s is -1.*0 or more"),
        ({"idle_s": None}, r"idle_s is None.*0 or more"),
        ({"record": "runs/one"}, r"record is 'runs/one'.*True or False"),
        ({"batches": 3}, r"batches is 3.*True or False"),
    ],
)
def test_a_wrong_argument_is_refused_at_once_with_what_is_right(arguments, named):
    with pytest.raises(ValueError, match=named):
        WattCallback(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"gpus": (0, 1)},
        {"gpus": ["GPU-1234", 0]},
        {"gpus": []},
        {"interval": 1},
        {"alpha": 0, "beta": -1},
        {"carbon_intensity": 0},
        {"budget_kwh": None, "log_every_n_steps": None},
        {"sam_unit": "Wh"},
    ],
)
def test_a_right_argument_is_taken(arguments):
    callback = WattCallback(**arguments)
    assert {name: getattr(callback, name) for name in arguments} == arguments


def test_an_unknown_argument_is_refused():
    with pytest.raises(TypeError, match="intervall"):
        WattCallback(intervall=1.0)


# ---- boards and sources ----


@pytest.mark.parametrize("gpus", [[7], ["GPU-ffffffff"], [0, 7], ["MIG-ffffffff"], ["nvidia0"], ["GPU-"]])
def test_an_unknown_board_is_refused_in_setup_with_those_that_are_there(ptl, tmp_path, lab, gpus):
    trained = trainer(ptl, tmp_path, watt(gpus=gpus))
    with pytest.raises(ValueError, match=r"gpus: .*Boards here: ") as caught:
        trained.fit(module(ptl), loader(2), loader(1))
    for index in range(2):
        assert f"{index}: {lab.uuid(index)} ({lab.boards[index].name})" in str(caught.value)


@pytest.mark.parametrize("shortened", [None, 12])
def test_a_board_is_chosen_by_its_uuid_whole_or_shortened(ptl, tmp_path, lab, shortened):
    fit(ptl, tmp_path, watt(gpus=[lab.uuid(1)[:shortened]]))
    (device,) = read_record(tmp_path).energy.by_device.values()
    assert device.uuid == lab.uuid(1)


def test_a_board_named_twice_is_counted_once(ptl, tmp_path, lab):
    fit(ptl, tmp_path, watt(gpus=[1, lab.uuid(1), 1]))
    energy = read_record(tmp_path).energy
    assert list(energy.by_device) == ["gpu1"]
    seconds = sum(stage.seconds for stage in energy.by_stage.values())
    # Where a busy machine kept the meter from seeing a tick in so short a run, its ± says that.
    assert energy.total_j == pytest.approx(120 * seconds, abs=max(energy.uncertainty_j, 0.3 * 120 * seconds))


def test_a_device_in_two_sources_is_refused(ptl, tmp_path):
    trained = trainer(ptl, tmp_path, watt(gpus="auto", sources=[Steady(), Steady()]))
    with pytest.raises(ValueError, match="gpu0 would be counted twice"):
        trained.fit(module(ptl), loader(2), loader(1))


class Absent(Steady):
    """A source of somebody's that is not there."""

    def open(self, clock):
        raise SourceUnavailable("absent", "It is not plugged in.", "Plug it in.")


class Broken(Steady):
    """A source of somebody's that raises."""

    def open(self, clock):
        raise RuntimeError("short circuit")


def test_sources_that_are_all_absent_are_told_and_the_training_goes_on(ptl, tmp_path, words):
    trained = fit(ptl, tmp_path, watt(gpus="auto", sources=[Absent()]))
    sentence = words.take("Nothing can be measured")
    assert "It is not plugged in. Plug it in." in sentence
    assert "val_acc" in trained.callback_metrics


def test_a_source_that_raises_when_opened_is_told_and_the_training_goes_on(ptl, tmp_path, words):
    good = Steady(label="gpu1")
    fit(ptl, tmp_path, watt(gpus="auto", sources=[Broken(), good]))
    assert "short circuit" in words.take("short circuit")
    # The other one's energy is worth having.
    assert read_record(tmp_path).energy.by_device["gpu1"].joules > 0
    assert not good.is_open


def test_a_source_that_opens_nothing_is_told(ptl, tmp_path, words):
    class Empty(Steady):
        def open(self, clock) -> list[Device]:
            return []

    fit(ptl, tmp_path, watt(gpus="auto", sources=[Empty()]))
    words.take("Nothing can be measured")


# ---- accuracy ----


@pytest.mark.parametrize("wanted", ["auto", "val_acccc"])
def test_an_accuracy_that_is_never_logged_is_told_once_with_the_metrics_that_are(ptl, tmp_path, words, capsys, wanted):
    tiny = {"accuracy": [0.3], "name": "val_f1"} if wanted == "auto" else {}
    trained = fit(ptl, tmp_path, steady(accuracy=wanted), tiny)
    # Nobody has to be warned who named none: it stands below the table.
    below = [line for line in capsys.readouterr().out.splitlines() if "there is no SAM" in line]
    [sentence] = below if wanted == "auto" else [words.take("was logged, so there is no SAM")]
    assert "train_loss" in sentence
    assert ("val_f1" if wanted == "auto" else "val_acc") in sentence
    assert ("Did you mean 'val_acc'?" in sentence) == (wanted != "auto")
    assert "watt/" not in sentence
    record = read_record(tmp_path)
    assert (record.accuracy.metric, record.sam.value, record.sam.shifted) == (None, None, None)
    assert record.energy.total_j > 0
    assert record.warnings == ([] if wanted == "auto" else [sentence])
    assert not {"watt/accuracy", "watt/sam", "watt/sam_shifted"} & set(trained.callback_metrics)


def test_an_accuracy_in_percent_is_told_once_and_has_no_sam(ptl, tmp_path, words):
    trained = fit(ptl, tmp_path, steady(), {"accuracy": [50.0, 60.0, 70.0]}, max_epochs=3)
    assert "percent" in words.take("'val_acc' is 50")
    record = read_record(tmp_path)
    assert (record.sam.value, record.sam.shifted, record.accuracy.last) == (None, None, None)
    assert not {"watt/accuracy", "watt/sam", "watt/sam_shifted"} & set(trained.callback_metrics)
    assert record.energy.total_j > 0


@pytest.mark.parametrize("value", [-0.5, 1000.0, math.inf])
def test_an_accuracy_that_is_none_is_told_once(ptl, tmp_path, words, value):
    fit(ptl, tmp_path, steady(), {"accuracy": [value]})
    assert "is it an accuracy?" in words.take("'val_acc' is")
    assert read_record(tmp_path).sam.shifted is None


def test_an_accuracy_that_leaves_the_range_and_comes_back(ptl, tmp_path, words):
    fit(ptl, tmp_path, steady(), {"accuracy": [0.5, 2.0, 0.7]}, max_epochs=3)
    words.take("'val_acc' is 2")
    record = read_record(tmp_path)
    assert [row.accuracy for row in record.epochs if row.stage == "validate"] == [
        pytest.approx(0.5),
        None,
        pytest.approx(0.7),
    ]
    assert record.sam.shifted == pytest.approx(5 * 0.7**5, rel=1e-3)


def test_an_accuracy_that_is_not_a_number_yet_is_no_accuracy(ptl, tmp_path):
    """A metric without any sample of a class is NaN in torchmetrics, and may be a number later."""
    trained = fit(ptl, tmp_path, steady(), {"accuracy": [math.nan, 0.5]})
    record = read_record(tmp_path)
    assert [row.accuracy for row in record.epochs if row.stage == "validate"] == [None, pytest.approx(0.5)]
    assert float(trained.callback_metrics["watt/accuracy"]) == pytest.approx(0.5)


def test_an_accuracy_that_stays_not_a_number_has_no_sam(ptl, tmp_path, words):
    trained = fit(ptl, tmp_path, steady(), {"accuracy": [math.nan]})
    words.take("val_acc")
    assert read_record(tmp_path).sam.shifted is None
    assert "watt/sam_shifted" not in trained.callback_metrics


# ---- the disk ----


def test_a_record_that_cannot_be_written_is_told_and_the_logging_goes_on(ptl, tmp_path, words):
    """Root may write anywhere, so a file stands where the directory should be."""
    (tmp_path / "runs").write_text("in the way")
    logger = ptl.loggers.CSVLogger(tmp_path, name="csv")
    trained = trainer(ptl, tmp_path / "runs", steady(batches=True), logger=[Elsewhere(ptl, tmp_path / "runs" / "x"), logger])
    trained.fit(module(ptl), loader(4), loader(2))
    assert trained.state.finished
    for name in ("watt.json ", "watt.jsonl ", "watt_batches.csv "):
        assert "go on" in words.take(f"{name}cannot be written")
    assert "watt/energy_kwh" in (Path(logger.log_dir) / "metrics.csv").read_text()
    assert "watt/energy_kwh" in trained.callback_metrics


def Elsewhere(pl: Any, directory: Path) -> Any:  # noqa: N802 - it stands for a class of either package
    """A logger that keeps nothing and names a log directory."""

    class NowhereLogger(pl.loggers.logger.DummyLogger):
        save_dir = log_dir = str(directory)

    return NowhereLogger()


def test_a_full_disk_is_told_and_the_training_goes_on(ptl, small_disk, words):
    with suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as file:
        while file.write(b"x" * 512):
            pass
    trained = fit(ptl, small_disk, steady(batches=True))
    for name in ("watt.json ", "watt.jsonl ", "watt_batches.csv "):
        assert "No space left" in words.take(f"{name}cannot be written")
    assert float(trained.callback_metrics["watt/energy_kwh"]) > 0


def test_a_disk_that_gets_room_again_gets_the_record(ptl, small_disk, words):
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 60_000)
    with filler.open("ab") as file:
        try:
            file.write(b"x" * 60_000)
            file.flush()
        except OSError:
            pass

    def on_batch(stage, index):
        if stage == "validate" and filler.exists() and tiny.current_epoch == 1:
            filler.unlink()

    tiny = module(ptl, step_s=0.05, on_batch=on_batch)
    trainer(ptl, small_disk, steady(), max_epochs=3).fit(tiny, loader(4), loader(2))
    for name in ("watt.json ", "watt.jsonl "):
        words.take(f"{name}cannot be written")
    record = read_record(small_disk)
    assert record.status == "completed"
    assert len(record.warnings) == 2
    assert read_journal(small_disk)[-1]["total_j"] == pytest.approx(record.energy.total_j)
    assert sorted(os.listdir(small_disk)) == ["watt.json", "watt.jsonl"]


def test_a_training_that_fills_its_disk_and_ends_by_it_says_so(ptl, small_disk, words):
    """As a checkpoint that does not fit does: room was kept for the record of that end."""

    def on_batch(stage, index):
        if stage == "train" and tiny.current_epoch == 1 and index == 2:
            time.sleep(0.3)
            with (small_disk / "weights").open("wb", buffering=0) as file:
                while file.write(b"x" * 512):
                    pass

    tiny = module(ptl, step_s=0.05, on_batch=on_batch)
    with pytest.raises(OSError, match="No space left"):
        trainer(ptl, small_disk, steady(), max_epochs=3).fit(tiny, loader(4), loader(2))
    if words.left():  # the last line may have fitted into the last page
        words.take("watt.jsonl cannot be written")
    record = read_record(small_disk / "watt.json")
    assert record.status == "failed"
    assert record.energy.by_stage["train"].batches == 6
    assert sorted(os.listdir(small_disk)) == ["watt.json", "watt.jsonl", "weights"]


# ---- odd trainings ----


def test_a_batch_of_any_shape_is_counted(ptl, tmp_path):
    """As a batch. Its samples are left out with the first batch whose samples are not certain; none are made up."""
    batches: list[Any] = [
        {"x": 1},
        "text",
        3,
        [],
        {"a": {"b": torch.zeros(5, 2)}, "c": torch.zeros(7)},
        [["a", "b"], torch.zeros(2)],
        torch.tensor(1.0),
    ]

    class Odd(type(module(ptl))):
        def validation_step(self, batch, batch_idx):
            self.log("val_acc", 0.5, batch_size=1)

    for first in range(len(batches)):
        directory = tmp_path / str(first)
        trained = trainer(ptl, directory, steady())
        data = torch.utils.data.DataLoader([torch.zeros(4, 2), *batches[first:]], batch_size=None)
        trained.validate(Odd(), data, verbose=False)
        stage = read_record(directory).energy.by_stage["validate"]
        assert (stage.batches, stage.samples) == (1 + len(batches) - first, 0)


def test_a_metric_of_many_numbers_in_callback_metrics_does_no_harm(ptl, tmp_path, words):
    """Another callback may put anything there."""

    class Vandal(ptl.Callback):
        def on_validation_start(self, trainer, module):
            trainer.callback_metrics["val_acc"] = torch.tensor([0.1, 0.2])

    trained = trainer(ptl, tmp_path, Vandal(), steady(accuracy="val_acc"))
    trained.fit(module(ptl, accuracy=[]), loader(4), loader(2))
    words.take("val_acc")
    record = read_record(tmp_path)
    assert record.status == "completed"
    assert (record.energy.by_stage["train"].batches, record.energy.by_stage["validate"].batches) == (8, 4)


def test_warnings_as_errors_never_reach_the_training(ptl, tmp_path, words):
    """As under `python -W error`: the sentence goes to the log."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", WattWarning)
        fit(ptl, tmp_path, steady(accuracy="nowhere"))
    words.take("nowhere")


@pytest.mark.parametrize("error", [ZeroDivisionError("oops"), SystemExit(3)], ids=["Exception", "SystemExit"])
def test_a_warning_hook_that_raises_never_reaches_the_training(ptl, tmp_path, words, monkeypatch, error):
    def broken(message, category, *arguments, **options):
        if issubclass(category, WattWarning):
            raise error

    with warnings.catch_warnings():
        warnings.simplefilter("always", WattWarning)
        monkeypatch.setattr(warnings, "showwarning", broken)
        fit(ptl, tmp_path, steady(accuracy="nowhere"))
    words.take("nowhere")
    assert read_record(tmp_path).status == "completed"


def test_otherwise_they_are_warnings_of_our_own_kind(ptl, tmp_path):
    with pytest.warns(WattWarning, match="nowhere") as caught:
        fit(ptl, tmp_path, steady(accuracy="nowhere"))
    assert len([w for w in caught if issubclass(w.category, WattWarning)]) == 1


class _Ugly:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


class _Exits:
    def __repr__(self) -> str:
        if asked_by_us():  # pytest, which shows values where a test fails, would end by it
            raise SystemExit(3)
        return super().__repr__()


class _BadMap(dict[str, int]):
    def items(self) -> Any:
        raise RuntimeError("no items")


class _BadNumber(float):
    def __float__(self) -> float:
        raise RuntimeError("no number")


def _branching(depth: int) -> list[Any]:
    """Two to the power of its depth values, of which only two lists a level are kept in memory."""
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner, inner]
    return inner


_LOOP: dict[str, Any] = {}
_LOOP["itself"] = _LOOP


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({"a": _Ugly()}, {"a": "<_Ugly: RuntimeError when it was asked for its text>"}),
        ({"a": "\udc80"}, {"a": "?"}),
        ({1: 2, (1, 2): {3}}, {"1": 2, "(1, 2)": [3]}),
        (_LOOP, {}),
        ({"a": b"\xff"}, {"a": "b'\\xff'"}),
        ({"a": _Exits()}, {"a": "<_Exits: SystemExit when it was asked for its text>"}),
        ({"a": _BadMap(b=1)}, {"a": "<_BadMap: RuntimeError when it was asked for its text>"}),
        (_BadMap(b=1), {"watt_model_info": "<_BadMap: RuntimeError when it was asked for its text>"}),
        ({"a": _BadNumber(2)}, {"a": "<_BadNumber: RuntimeError when it was asked for its text>"}),
        ({"a": _branching(40)}, {}),
    ],
)
def test_whatever_a_model_says_about_itself_the_record_and_the_table_come(ptl, tmp_path, capsys, said, kept):
    model = module(ptl)
    model.watt_model_info = said
    trainer(ptl, tmp_path, WattCallback(sources=[Steady()]), max_epochs=1).fit(model, loader(2), loader(1))
    record = read_record(tmp_path)
    assert record.status == "completed"
    assert kept == {name: record.model[name] for name in kept}
    assert "Record: " in capsys.readouterr().out


@pytest.mark.parametrize("stream", ["ascii", "closed"])
def test_a_terminal_without_the_signs_or_none_at_all_ends_nothing(ptl, tmp_path, monkeypatch, stream):
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    if stream == "closed":
        out.close()
    monkeypatch.setattr("sys.stdout", out)
    trainer(ptl, tmp_path, WattCallback(sources=[Steady()]), max_epochs=1).fit(module(ptl), loader(2), loader(1))
    assert read_record(tmp_path).status == "completed"
    if stream == "ascii":
        assert b" +- " in raw.getvalue()


def test_the_class_in_place_of_a_callback_is_answered(pl, tmp_path):
    with pytest.raises(ValueError, match=r"the class WattCallback: write callbacks=\[WattCallback\(\)\]"):
        trainer(pl, tmp_path, WattCallback).fit(module(pl), loader())


def test_a_name_that_the_callback_does_not_have_is_answered_with_where_the_numbers_are():
    with pytest.raises(AttributeError, match=r"no attribute 'energy'\. .* `result`, such as `result\.energy\.total_kwh`"):
        _ = WattCallback().energy
    with pytest.raises(AttributeError, match="no attribute '_private'"):
        _ = WattCallback()._private
