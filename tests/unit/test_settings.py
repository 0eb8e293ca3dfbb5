"""One value holds every argument: its default, its check, its reader; the callback and the meter use the same."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import math
import pickle
import re

import pytest
import torch

from lightning_watt import EnergyMeter, WattCallback
from lightning_watt.settings import NAMES, READERS, Argument, Settings, check


def test_the_callback_has_the_same_arguments_and_defaults():
    parameters = list(inspect.signature(WattCallback.__init__).parameters.values())[1:]
    assert {one.name: one.default for one in parameters} == {one.name: one.default for one in dataclasses.fields(Settings)}


@pytest.mark.parametrize("make", [EnergyMeter, WattCallback, Settings])
@pytest.mark.parametrize(
    "wrong",
    [
        {"gpus": 0},
        {"gpus": "visibel"},
        {"gpus": [-1]},
        {"gpus": [""]},
        {"gpus": [True]},
        {"sources": "rapl"},
        {"sources": []},
        {"sources": None},
        {"interval": math.inf},
        {"interval": "1"},
        {"interval": True},
    ],
    ids=repr,
)
def test_a_wrong_value_raises_the_same_sentence_everywhere(make, wrong):
    [name] = wrong
    with pytest.raises(ValueError, match=f"^{name} is .*: give ") as expected:
        check(**wrong)
    with pytest.raises(ValueError, match=name) as found:
        make(**wrong)
    assert str(found.value) == str(expected.value)


@pytest.mark.parametrize("gpus", ["auto", "visible", "all", [], [0, "GPU-1"]])
def test_the_words_for_boards_are_the_same(gpus):
    EnergyMeter(gpus=gpus)
    assert WattCallback(gpus=gpus).gpus == gpus


@pytest.mark.parametrize("name", ["alpha", "beta", "sam_unit"])
def test_sams_arguments_are_checked(name):
    with pytest.raises(ValueError, match=r"alpha is nan|beta is nan|unit nan is unknown"):
        Settings(**{name: math.nan})


@pytest.mark.parametrize(("text", "value"), [("visible", "visible"), ("0+GPU-ab", [0, "GPU-ab"]), ("all", "all")])
def test_boards_are_read_from_text(text, value):
    assert READERS["gpus"](text) == value


def test_everything_is_read_from_text():
    assert set(READERS) == set(NAMES)
    with pytest.raises(ValueError, match="'maybe' is neither 1 nor 0"):
        READERS["record"]("maybe")


def test_what_differs_from_the_defaults():
    assert Settings().changed() == {}
    assert Settings(pue=1.5, gpus=[0]).changed() == {"pue": 1.5, "gpus": [0]}


def test_scoring_is_made_of_them():
    scoring = Settings(alpha=2.0, sam_unit="Wh", electricity_price=0.25).scoring
    assert (scoring.alpha, scoring.unit, scoring.electricity_price) == (2.0, "Wh", 0.25)


def test_an_argument_is_an_attribute_of_the_callback_and_is_checked_when_it_is_set():
    callback = WattCallback(sam_unit="Wh")
    callback.interval = 2.0
    assert (callback.sam_unit, callback.interval, callback.settings.interval) == ("Wh", 2.0, 2.0)
    with pytest.raises(ValueError, match="interval is 0"):
        callback.interval = 0
    with pytest.raises(AttributeError, match="no attribute 'intervall'"):
        _ = callback.intervall


def test_a_callback_that_is_not_made_yet_has_no_arguments():
    bare = WattCallback.__new__(WattCallback)
    assert not hasattr(bare, "gpus")
    assert not hasattr(bare, "settings")
    assert "when it was asked for its text" in repr(bare)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_has_them_too(copied):
    assert copied(WattCallback(gpus="all")).settings == Settings(gpus="all")


def test_a_callback_is_shown_by_what_differs_and_has_no_result_before_a_run():
    assert repr(WattCallback()) == "WattCallback()"
    assert repr(WattCallback(gpus="all", interval=2.0)) == "WattCallback(gpus='all', interval=2.0)"
    assert WattCallback().result is None


@pytest.mark.parametrize(
    ("gpus", "instead"),
    [
        (0, "gpus=[0]."),
        ("0", "gpus=[0]."),
        ("0,2", "gpus=[0, 2]."),
        (["1"], "gpus=[1]."),
        ("cuda:1", "gpus=[1]. Torch may number boards otherwise than NVML: `lightning-watt doctor` lists them."),
        (["cuda:0", 1], "gpus=[0, 1]. Torch may number boards otherwise than NVML: `lightning-watt doctor` lists them."),
        (torch.device("cuda", 1), "gpus=[1]. Torch may number boards otherwise than NVML"),
        ([torch.device("cpu")], "gpus=[], which is the CPU alone."),
        ("cpu", "gpus=[], which is the CPU alone."),
    ],
    ids=repr,
)
def test_a_board_in_another_form_is_answered_with_what_to_write(gpus, instead):
    with pytest.raises(ValueError, match=f"Write {re.escape(instead)}"):
        WattCallback(gpus=gpus)


def test_what_means_no_board_gets_no_advice():
    for wrong in ("visibel", [True], [-1], None, 0.5):
        with pytest.raises(ValueError, match=r"^gpus is .*UUIDs\.$"):
            Settings(gpus=wrong)


@pytest.mark.parametrize(("wrong", "meant"), [("kwh", "kWh"), ("WH", "Wh"), ("joule", "J"), ("Watt-hour", "Wh")])
def test_a_unit_in_another_form_is_answered_with_its_name(wrong, meant):
    with pytest.raises(ValueError, match=f"unit {wrong!r} is unknown: .*Did you mean {meant!r}"):
        WattCallback(sam_unit=wrong)


def test_an_argument_is_an_attribute_that_is_checked_and_the_rest_stays():
    callback = WattCallback(alpha=2.0)
    callback.interval = 3.0
    assert (callback.interval, callback.alpha, callback.settings) == (3.0, 2.0, Settings(alpha=2.0, interval=3.0))
    with pytest.raises(ValueError, match="interval is 0"):
        callback.interval = 0
    assert callback.interval == 3.0
    assert not hasattr(callback, "intervals")
    assert {name for name in NAMES if isinstance(vars(WattCallback)[name], Argument)} == set(NAMES)


@pytest.mark.parametrize("name", ["energy", "total_kwh", "joules"])
def test_who_looks_for_the_energy_in_the_callback_is_told_where_it_is(name):
    with pytest.raises(AttributeError, match=f"no attribute '{name}'. .* in its `result`, such as"):
        getattr(WattCallback(), name)
    assert not hasattr(WattCallback(), name)
