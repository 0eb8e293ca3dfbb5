"""What is said to the user: once, and never as an exception."""

from __future__ import annotations

import logging
import warnings

import pytest

from lightning_watt.errors import WattWarning
from lightning_watt.warn_once import WarnOnce


def test_each_thing_is_said_once():
    warn_once = WarnOnce()

    def say_all(times: int) -> None:
        for i in range(times):
            warn_once.warn("gpu0 is lost: restart.")
            warn_once.warn(f"Attempt {i} failed.", about="attempt")

    with pytest.warns(WattWarning) as heard:
        say_all(3)
    assert [str(warning.message) for warning in heard] == ["gpu0 is lost: restart.", "Attempt 0 failed."]
    assert list(warn_once.said.values()) == ["gpu0 is lost: restart.", "Attempt 0 failed."]


def test_where_warnings_are_errors_it_is_logged_instead(caplog):
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING, logger="lightning_watt"):
        warnings.simplefilter("error")
        WarnOnce().warn("gpu0 is lost: restart.")
    assert [record.message for record in caplog.records] == ["gpu0 is lost: restart."]


def test_a_failure_of_ours_leaves_its_stack_in_the_log(caplog):
    warn_once = WarnOnce()
    with pytest.warns(WattWarning, match=r"on_fit_end failed \(KeyError\('a'\)\); the training goes on"):
        warn_once.failed("on_fit_end", KeyError("a"))
    [record] = caplog.records
    assert record.exc_info is not None


@pytest.mark.parametrize("error", [ZeroDivisionError("oops"), SystemExit(3)], ids=["Exception", "SystemExit"])
def test_a_warning_hook_that_raises_reaches_nobody_and_the_sentence_is_logged(caplog, monkeypatch, error):
    def broken(*arguments, **options):
        raise error

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", broken)
        WarnOnce().warn("gpu0 is lost: restart.")
    [record] = caplog.records
    assert record.message == "gpu0 is lost: restart."
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_the_users_own_interrupt_passes(monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", interrupted)
        with pytest.raises(KeyboardInterrupt):
            WarnOnce().warn("gpu0 is lost: restart.")


@pytest.mark.parametrize("error", [OSError("no disk for the log"), SystemExit(3)], ids=["Exception", "SystemExit"])
def test_a_log_that_raises_reaches_nobody_either(error):
    class Broken(logging.Handler):
        def emit(self, record):
            heard.append(record.getMessage())
            raise error

    heard: list[str] = []
    handler = Broken()
    logging.getLogger("lightning_watt").addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            WarnOnce().failed("on_fit_end", KeyError("a"))
    finally:
        logging.getLogger("lightning_watt").removeHandler(handler)
    assert heard == ["on_fit_end failed", "on_fit_end failed (KeyError('a')); the training goes on. Please report it."]


def test_an_error_that_cannot_be_shown_is_told_all_the_same():
    class Ugly(Exception):  # noqa: N818
        def __repr__(self):
            raise SystemExit

    with pytest.warns(WattWarning, match="on_fit_end failed \\(<Ugly that cannot be shown>\\)"):
        WarnOnce().failed("on_fit_end", Ugly())
