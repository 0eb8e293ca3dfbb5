"""A projection as the report uses it: clean texts, possible numbers."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from experiments.report.inputs import clean

FILE_NAME: Final = "projection.json"
PHASE: Final = "project"
"""The phase of a run that is a part of a training, measured so that the whole can be projected."""
MOST_BYTES: Final = 2**20
MOST_SETTINGS: Final = 20
LIMITS: Final[dict[str, tuple[float, float]]] = {
    **dict.fromkeys(("energy_j", "once_j"), (-clean.MOST_JOULES, clean.MOST_JOULES)),
    **dict.fromkeys(("plus_minus_j", "gain_j", "low_j", "high_j"), (0.0, clean.MOST_JOULES)),
    **dict.fromkeys(("duration_s", "duration_plus_minus_s", "co2e_g", "cost", "samples"), (0.0, clean.MOST_COUNT)),
    **dict.fromkeys(("epochs", "updates", "round"), (0.0, clean.MOST_COUNT)),
    **dict.fromkeys(("start_temperature_c", "end_temperature_c"), (-100.0, 1000.0)),
    "others_cpus": (0.0, 1e6),
}
"""The numbers of the file, each with its least and its most."""
NEEDED: Final = ("energy_j", "plus_minus_j", "gain_j", "duration_s", "samples")


@dataclass(frozen=True)
class Projected:
    """What a whole training was projected to take.

    Attributes:
        of: the projected phase: "pretrain", "finetune" or "tokenizer".
        numbers: those of `LIMITS` that the file has.
        setup: how it was computed (batch size, precision, devices), by the command line's names.
        others: a sentence if other programs were at work.
    """

    of: str
    numbers: Mapping[str, float]
    setup: Mapping[str, str]
    others: str


def read_projection(directory: Path) -> Projected | None:
    """The projection beside a record; None if there is none that can be used."""
    file = directory / FILE_NAME
    try:
        found = file.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
            return None
        said = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    numbers = {name: clean.number(said.get(name), *limits) for name, limits in LIMITS.items()}
    if any(numbers[name] is None for name in NEEDED) or not numbers["samples"]:
        return None
    return Projected(
        clean.text(said.get("of"), 20),
        {name: value for name, value in numbers.items() if value is not None},
        _setup(said.get("setup")),
        clean.text(said.get("others"), 200),
    )


def _setup(said: Any) -> dict[str, str]:
    if not isinstance(said, dict):
        return {}
    pairs = list(said.items())[:MOST_SETTINGS]
    return {clean.text(name, 40): clean.text(str(value) if isinstance(value, bool) else value, 40) for name, value in pairs}
