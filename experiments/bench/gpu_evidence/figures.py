"""Numbers for people: percentiles, histograms in words, and Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def spread(values: Sequence[float], digits: int = 4) -> dict[str, float | int]:
    """Count, least, median, 99th percentile and most of some values; only the count if there are none."""
    if not len(values):
        return {"n": 0}
    at = np.percentile(np.asarray(values, dtype=float), [0, 5, 50, 95, 99, 100])
    names = ("min", "p5", "median", "p95", "p99", "max")
    return {"n": len(values)} | {name: round(float(v), digits) for name, v in zip(names, at, strict=True)}


def histogram(values: Sequence[float], width: float) -> dict[str, int]:
    """How often each multiple of `width` came, by the nearest; keys are its text."""
    rounded, counts = np.unique(np.rint(np.asarray(values, dtype=float) / width).astype(int), return_counts=True)
    return {f"{key * width:.6g}": int(count) for key, count in zip(rounded, counts, strict=True)}


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """A Markdown table as lines."""
    lines = [f"| {' | '.join(headers)} |", f"|{'---|' * len(headers)}"]
    return lines + [f"| {' | '.join('' if cell is None else str(cell) for cell in row)} |" for row in rows]


def percent(value: float | None, digits: int = 1, *, sign: bool = False) -> str:
    """A share as per cent; a dash if it is not known."""
    if value is None or not np.isfinite(value):
        return "–"
    return f"{value:{'+' if sign else ''}.{digits}%}"


def number(value: float | None, digits: int = 4) -> str:
    """A number to so many significant digits; a dash if it is not known."""
    return "–" if value is None or not np.isfinite(value) else f"{value:.{digits}g}"
