"""What is said to the user: once, and never as an exception."""

from __future__ import annotations

import logging
import warnings

import pytest

from lightning_watt.errors import WattWarning
from lightning_watt.voice import Voice


def test_each_thing_is_said_once():
    voice = Voice()

    def say_all(times: int) -> None:
        for i in range(times):
            voice.warn("gpu0 is lost: restart.")
            voice.warn(f"Attempt {i} failed.", about="attempt")

    with pytest.warns(WattWarning) as heard:
        say_all(3)
    assert [str(warning.message) for warning in heard] == ["gpu0 is lost: restart.", "Attempt 0 failed."]
    assert list(voice.said.values()) == ["gpu0 is lost: restart.", "Attempt 0 failed."]


def test_where_warnings_are_errors_it_is_logged_instead(caplog):
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING, logger="lightning_watt"):
        warnings.simplefilter("error")
        Voice().warn("gpu0 is lost: restart.")
    assert [record.message for record in caplog.records] == ["gpu0 is lost: restart."]


def test_a_failure_of_ours_leaves_its_stack_in_the_log(caplog):
    voice = Voice()
    with pytest.warns(WattWarning, match=r"on_fit_end failed \(KeyError\('a'\)\); the training goes on"):
        voice.failed("on_fit_end", KeyError("a"))
    [record] = caplog.records
    assert record.exc_info is not None
