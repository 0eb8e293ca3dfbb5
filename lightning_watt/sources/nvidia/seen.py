"""What boards were seen to do, by `make gpu-evidence` or by others: the rows of `boards.csv`."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("boards.csv")


@dataclass(frozen=True, kw_only=True)
class SeenBoard:
    """One kind of board behind one driver; None is not known.

    Attributes:
        name: as NVML names it.
        driver: the driver's version.
        counter_tick_ms: the counter's update period.
        counter_lag_ms: how long after a step of the load it shows in the counter, with the board's own rise.
        call_idle_ms: how long reading the counter takes, the median, on an idle board.
        call_busy_ms: the same under load.
        samples_clock: the clock of the power samples' stamps: realtime, boottime or monotonic.
        samples_ms: their spacing, the median.
        samples_kept: how many the driver keeps.
        samples_window_ms: over how long each is averaged, at most: the board's own rise is in it.
        counter_at_1: the counter's energy over the samples' integral, read once a second under a steady load.
        counter_at_10: the same, at 10 reads a second.
        counter_at_100: the same, at 100.
        source: the command with its day, or who published it.
    """

    name: str
    driver: str | None = None
    counter_tick_ms: float | None = None
    counter_lag_ms: float | None = None
    call_idle_ms: float | None = None
    call_busy_ms: float | None = None
    samples_clock: str | None = None
    samples_ms: float | None = None
    samples_kept: float | None = None
    samples_window_ms: float | None = None
    counter_at_1: float | None = None
    counter_at_10: float | None = None
    counter_at_100: float | None = None
    source: str | None = None


COLUMNS = [field.name for field in fields(SeenBoard)]
TEXTS = {"name", "driver", "samples_clock", "source"}


@cache
def seen_boards(file: Path = FILE) -> tuple[SeenBoard, ...]:
    """Every row of the file."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    rows: list[dict[str, Any]] = [
        {key: text if key in TEXTS else float(text) for key, text in row.items() if text} for row in csv.DictReader(lines)
    ]
    return tuple(SeenBoard(**row) for row in rows)


def tick_seen_s(name: str) -> float:
    """The longest update period, in seconds, that a counter of boards of this name was seen to have; 0 if nobody has looked.

    Example:
        >>> tick_seen_s("a board that nobody has seen")
        0.0
    """
    return max((one.counter_tick_ms or 0.0 for one in seen_boards() if one.name == name), default=0.0) / 1000


def with_rows(text: str, rows: Iterable[SeenBoard]) -> str:
    """The file's text with these rows; one of the same board, driver and source as an older one takes its place.

    Args:
        text: the file as it is.
        rows: the new ones.
    """
    head = [line for line in text.splitlines() if line.startswith("#")]
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    kept = {(row["name"], row["driver"], row["source"]): row for row in csv.DictReader(lines)}
    for one in rows:
        row = {key: "" if (value := getattr(one, key)) is None else _cell(value) for key in COLUMNS}
        kept[row["name"], row["driver"], row["source"]] = row
    written = [",".join(COLUMNS)]
    written += [",".join(_quoted(row[key]) for key in COLUMNS) for _, row in sorted(kept.items())]
    return "\n".join([*head, *written]) + "\n"


def _cell(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(sign in text for sign in ',"\n') else text
