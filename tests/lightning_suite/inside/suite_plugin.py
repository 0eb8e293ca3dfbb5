"""Writes down each test as it starts and as it ends, so that nothing is lost if the process is. A plugin of pytest's.

Copied into the throw-away distribution. Asked through two variables, which it takes away so that child processes lack them.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

JOURNAL, DONE = "LIGHTNING_SUITE_JOURNAL", "LIGHTNING_SUITE_DONE"


class Journal:
    """One line of JSON for each event; `done` are the tests that an earlier process has run."""

    def __init__(self, path: str, done: set[str]) -> None:
        self._path = path
        self._done = done

    def _write(self, **event: Any) -> None:
        with Path(self._path).open("a") as file:
            file.write(json.dumps(event) + "\n")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: Any, items: list[Any]) -> None:
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in self._done])
        items[:] = [item for item in items if item.nodeid not in self._done]

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self._write(event="report", test=report.nodeid, outcome="failed", seconds=0.0, **_error(report))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._write(event="start", test=nodeid, time=time.time())

    def pytest_runtest_logreport(self, report: Any) -> None:
        outcome = "xfailed" if report.skipped and hasattr(report, "wasxfail") else report.outcome
        if outcome != "rerun":  # of pytest-rerunfailures: another try follows
            error = _error(report) if report.failed else {}
            self._write(event="report", test=report.nodeid, outcome=outcome, seconds=report.duration, **error)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._write(event="end", test=nodeid)

    def pytest_sessionfinish(self) -> None:
        self._write(event="finished")


def _error(report: Any) -> dict[str, str]:
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is None:
        return {"error": (str(report.longrepr).strip().splitlines() or ["?"])[-1], "where": ""}
    return {"error": (crash.message.splitlines() or ["?"])[0], "where": f"{Path(crash.path).name}:{crash.lineno}"}


def pytest_configure(config: Any) -> None:
    config.addinivalue_line("markers", "flaky: pytest-rerunfailures' own, for where that is not installed")
    # Some tests look at how it is handled; whoever started the suite with `nohup` had it ignored.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    path, done = os.environ.pop(JOURNAL), os.environ.pop(DONE)
    config.pluginmanager.register(Journal(path, set(json.loads(Path(done).read_text()))))
