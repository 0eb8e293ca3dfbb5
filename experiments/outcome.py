"""A job's outcome: saved next to its record, described on the console, and gathered into a sweep's table."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from submitit.core.utils import UncompletedJobError

from experiments.job import Outcome
from experiments.report.inputs.run import SCRATCH
from lightning_watt import read_record
from lightning_watt.errors import RecordError
from lightning_watt.record.files import records_in
from lightning_watt.units import digits

NAME = "outcome.json"
UNTRAINED = "random weights: energy alone, no accuracy"


def save_outcome(
    directory: Path,
    choices: Mapping[str, Any],
    outcome: Outcome | None = None,
    error: BaseException | None = None,
    overrides: Sequence[str] = (),
    config: str = "",
) -> None:
    """Write `outcome.json`: what was asked for, whether it worked, and what came out.

    Args:
        directory: the job's directory.
        choices: the option of each config group.
        outcome: what the job left; None if it failed, or has only begun.
        error: why it failed; None if it did not.
        overrides: what the command line changed.
        config: what tells the job's config from others.
    """
    groups = ("task", "model", "phase", "data", "scale")
    content: dict[str, Any] = {group: choices.get(group) for group in groups}
    content |= {"overrides": list(overrides), "config": config}
    content["status"] = "running" if outcome is None else "completed"
    if error is not None:
        out_of_time = isinstance(error, (SystemExit, UncompletedJobError))
        content["status"] = "interrupted" if out_of_time else "failed"
        content["error"] = f"{type(error).__name__}: {error}"
    if outcome is not None:
        content |= _plain(outcome)
    part = directory / f"{NAME}.part"
    part.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(part, directory / NAME)


def read_outcome(directory: Path) -> dict[str, Any]:
    """What `outcome.json` says; empty if there is none."""
    with suppress(OSError, ValueError):
        said = json.loads((directory / NAME).read_text())
        return said if isinstance(said, dict) else {}
    return {}


def describe(outcome: Outcome) -> str:
    """Say what came out and where it is."""
    lines = _phase_lines("", outcome)
    if outcome.checkpoint is not None:
        lines.append(f"checkpoint   {outcome.checkpoint}")
    lines.append(f"curves       tensorboard --logdir {outcome.directory}")
    return "\n".join(lines)


def energy_tables(outcome: Outcome) -> list[str]:
    """What an outcome's run used, or each of its parts; without those that measured nothing."""
    if outcome.parts:
        return [table for part in outcome.parts.values() for table in energy_tables(part)]
    try:
        return [str(read_record(outcome.directory))]
    except RecordError:
        return []


def _phase_lines(name: str, outcome: Outcome) -> list[str]:
    """Say the outcome of one phase and of its parts."""
    lines = [line for inner, part in outcome.parts.items() for line in _phase_lines(inner, part)]
    shown = any(part.metrics == outcome.metrics for part in outcome.parts.values())
    figures = "" if shown else ", ".join(f"{key} {digits(value)}" for key, value in outcome.metrics.items())
    note = "; ".join(text for text in (UNTRAINED if outcome.start == SCRATCH else "", outcome.note) if text)
    lines += [text for text in (f"{name:<13}{figures}".rstrip(), f"{'':<13}{note}".rstrip()) if text]
    record = max(records_in(outcome.directory), key=lambda file: file.stat().st_mtime_ns, default=None)
    return lines if record is None else [*lines, f"record       {record}"]


def _plain(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON can hold it; numbers that do not exist become null."""
    metrics = {name: float(value) for name, value in outcome.metrics.items()}
    plain: dict[str, Any] = {
        "directory": str(outcome.directory),
        "checkpoint": str(outcome.checkpoint) if outcome.checkpoint else None,
        "metrics": {name: value if math.isfinite(value) else None for name, value in metrics.items()},
    }
    if outcome.model:
        plain["timm_name"] = outcome.model
    if outcome.start:
        plain["start"] = outcome.start
    if outcome.note:
        plain["note"] = outcome.note
    if outcome.parts:
        plain["parts"] = {name: _plain(part) for name, part in outcome.parts.items()}
    return plain
