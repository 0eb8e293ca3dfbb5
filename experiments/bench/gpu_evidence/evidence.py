"""The evidence file: every part's raw numbers in one JSON, replaced atomically; and a part's time limit."""

from __future__ import annotations

import json
import math
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAME = "evidence.json"


class OutOfTime(BaseException):
    """A part's time is over; what it found so far is kept. Nothing that catches errors may swallow it."""


class Evidence:
    """What was found, by part; parts that are run again replace their older selves.

    Args:
        directory: where `evidence.json` is or will be.
        about: the machine and its GPU.
        keep: a directory with older evidence, whose parts are kept with the new ones; by default the same.

    Raises:
        ValueError: the directory holds another GPU's evidence, or `keep` none.
    """

    def __init__(self, directory: Path, about: dict[str, Any], keep: Path | None = None) -> None:
        self.path = directory / NAME
        self.content: dict[str, Any] = {"about": about, "parts": {}}
        before = (keep or directory) / NAME
        if keep or before.exists():
            try:
                older = json.loads(before.read_text())
            except OSError as error:
                raise ValueError(f"There is no older evidence to keep: {error}.") from error
            was = older["about"].get("gpu")
            if was != about["gpu"]:
                raise ValueError(f"{before} holds the evidence of {was}, not of {about['gpu']}: give another directory.")
            self.content["parts"] = older["parts"]

    @property
    def parts(self) -> dict[str, Any]:
        """By name: `status`, `why`, `seconds`, `command`, `when`, `found`."""
        return self.content["parts"]

    def keep(self, name: str, part: dict[str, Any]) -> None:
        """Put a part in and replace the file."""
        self.parts[name] = part
        write_atomically(self.path, json.dumps(_plain(self.content), separators=(",", ":"), allow_nan=False) + "\n")


def write_atomically(path: Path, content: str) -> None:
    """Replace a file at once, so that a killed process leaves the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(content)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `OutOfTime` in this block once so many seconds have passed; only the main thread can be interrupted so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(signum: int, frame: Any) -> None:
        raise OutOfTime

    started = time.monotonic()
    before = signal.signal(signal.SIGALRM, ring)
    left_s, _ = signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left_s:  # somebody else's alarm was set, and goes on
            signal.setitimer(signal.ITIMER_REAL, max(left_s - (time.monotonic() - started), 0.001))


def _plain(value: Any) -> Any:
    """As JSON holds it: six significant digits beyond the point are plenty, and what is not a number is null."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, (str, bool)) or value is None:
        return value
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return str(value)
