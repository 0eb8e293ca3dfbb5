"""The parts: each a module with a `TITLE`, a `LIMIT_S`, `run(bench, found)` and `summarise(found)`.

`run` puts what it finds into `found` as it goes, so that a part which runs out of time keeps what it had. `summarise` makes
Markdown lines of that, whole or not.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol, cast

from experiments.bench.gpu_evidence.bench import Bench

NAMES = ("latency", "tick", "timestamp", "samples", "lag", "bias", "sum", "sync", "fidelity", "overhead", "families")
"""In the order in which they run: what asks least of the machine comes first."""


class Part(Protocol):
    """A part of the evidence.

    Attributes:
        TITLE: the question that it answers.
        LIMIT_S: how long it may take, seconds, at scale 1.
    """

    TITLE: str
    LIMIT_S: float

    def run(self, bench: Bench, found: dict[str, Any]) -> None:
        """Find out."""

    def summarise(self, found: dict[str, Any]) -> list[str]:
        """What was found, as Markdown lines."""


def part(name: str) -> Part:
    """A part by its name; only now its imports happen."""
    return cast(Part, import_module(f"{__name__}.{name}"))
