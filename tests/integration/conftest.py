"""Real Trainers of both packages, fake boards, and a check that `lightning_watt` says nothing unasked."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lightning_watt.record.text.printed import PRINTED
from lightning_watt.testing import Lab
from tests.integration.tiny import PACKAGES, package, two_boards


class Words:
    """What lightning_watt said. Warnings are errors in these tests, so its own go to its log instead."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        self._taken: set[int] = set()

    def left(self) -> list[str]:
        """Every sentence that no test has taken."""
        records = self._caplog.get_records("setup") + self._caplog.get_records("call")
        mine = (r for r in records if r.name.startswith("lightning_watt") and id(r) not in self._taken)
        return [f"{r.getMessage()} {r.exc_info[1]!r}" if r.exc_info else r.getMessage() for r in mine]

    def take(self, pattern: str) -> str:
        """The one sentence that the pattern is found in; it must have been said exactly once."""
        records = [r for r in self._caplog.get_records("call") if r.name.startswith("lightning_watt")]
        found = [r for r in records if re.search(pattern, r.getMessage())]
        said = [r.getMessage() for r in records]
        assert len(found) == 1, f"{pattern!r} was said {len(found)} times; all that was said: {said}"
        self._taken.add(id(found[0]))
        return found[0].getMessage()


@pytest.fixture(autouse=True)
def words(caplog: pytest.LogCaptureFixture) -> Iterator[Words]:
    """What was said; whatever the test has not taken fails it."""
    words = Words(caplog)
    yield words
    assert words.left() == [], "lightning_watt said something that this test did not expect"


@pytest.fixture(params=PACKAGES)
def pl(request: pytest.FixtureRequest) -> ModuleType:
    """Each Lightning package in turn."""
    return package(request.param)


@pytest.fixture
def ptl() -> ModuleType:
    """The first package alone, where both being the same is proved elsewhere."""
    return package(PACKAGES[0])


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Two boards, running."""
    with two_boards().running() as lab:
        yield lab


@pytest.fixture(autouse=True)
def _nothing_printed_yet() -> None:
    """How much is printed of a run depends on those that the process has had."""
    PRINTED.forget()


@pytest.fixture(autouse=True)
def _own_sigint() -> Iterator[None]:
    """Lightning ignores SIGINT for good once a run was interrupted; the next test wants it back."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A file system of 64 KiB."""
    directory = tmp_path / "small"
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(directory)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a tmpfs cannot be mounted here ({error}); run as root with CAP_SYS_ADMIN to have this test")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)
