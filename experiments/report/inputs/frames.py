"""Run records as data: tidy tables of runs, epochs and stages, with the unit in each column's name."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import pandas as pd

from experiments.report.inputs.records import load
from experiments.report.inputs.run import Run

Rows = Literal["runs", "epochs", "stages"]


def load_runs(directory: str | os.PathLike[str], rows: Rows = "runs") -> pd.DataFrame:
    """Read all run records (`watt.json`) below a directory into a table. The report is built on the same tables.

    What a record does not have is NaN. Energies are joules of the run itself, without what it
    inherited, unless the column says otherwise. Accuracies are between 0 and 1.

    Args:
        directory: where the runs are.
        rows: what a row is. "runs": one run. "epochs": one epoch of one stage, with the run's energy up to its end in
            `energy_so_far_j`. "stages": one stage of one run. The last two repeat `run`, `status`, `phase`, `model`,
            `family` and `energy_is`, so that they can be grouped, and joined to the first by `run`.

    Returns:
        The table. In "runs", runs with the same `repetition_of` differ in nothing but their seed, as far as their records
        tell; it is NaN where a record has no facts to tell by.

    Raises:
        NotADirectoryError: `directory` is no directory.
        ValueError: `rows` is none of the three.

    Example:
        >>> import tempfile
        >>> len(load_runs(tempfile.mkdtemp()))
        0
    """
    if rows not in _FRAMES:
        raise ValueError(f"rows is {rows!r}; it must be one of {', '.join(map(repr, _FRAMES))}.")
    found = load(Path(directory))
    for broken in found.broken:
        warnings.warn(f"not read: {broken.path}: {broken.why}", stacklevel=2)
    return _FRAMES[rows](found.runs)


def runs_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """One row a run."""
    return _frame(runs, lambda run: [{}], _OF_RUN, {})


def epochs_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """One row an epoch of a stage, in the order of time."""

    def rows(run: Run) -> list[dict[str, Any]]:
        spent_j, found = 0.0, []
        for use in run.epochs:
            spent_j += use.joules
            found.append({**dict(zip(_OF_EPOCH, use, strict=False)), "energy_so_far_j": spent_j})
        return found

    return _frame(runs, rows, {name: _OF_RUN[name] for name in SHARED}, dict.fromkeys([*_OF_EPOCH, "energy_so_far_j"]))


def stages_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """One row a stage of a run."""

    def rows(run: Run) -> list[dict[str, Any]]:
        return [
            {
                "stage": stage,
                "energy_j": use.joules,
                "energy_uncertainty_j": use.uncertainty_j,
                "duration_s": use.seconds,
                "batches": use.batches or None,
                "samples": use.samples or None,
                "energy_per_sample_j": use.joules / use.samples if use.samples else None,
            }
            for stage, use in run.stages.items()
        ]

    own = ("stage", "energy_j", "energy_uncertainty_j", "duration_s", "batches", "samples", "energy_per_sample_j")
    return _frame(runs, rows, {name: _OF_RUN[name] for name in SHARED}, dict.fromkeys(own))


def _frame(
    runs: Sequence[Run],
    rows: Callable[[Run], Sequence[dict[str, Any]]],
    of_run: dict[str, Callable[[Run], Any]],
    own: dict[str, None],
) -> pd.DataFrame:
    found = [
        {**{name: take(run) or None if name in TEXTS else take(run) for name, take in of_run.items()}, **row}
        for run in runs
        for row in rows(run)
    ]
    frame = pd.DataFrame(found, columns=[*of_run, *own])
    return frame.astype({name: object if name in TEXTS else float for name in frame})


def _sum(run: Run, what: str) -> float | None:
    return sum(getattr(use, what) for use in run.stages.values()) if run.stages else None


def _train_samples(run: Run) -> int | None:
    return run.stages["train"].samples or None if "train" in run.stages else None


def _projected(run: Run, name: str) -> float | None:
    return run.projection and run.projection.numbers.get(name)


def _repetition_of(run: Run) -> str:
    return f"{run.recipe_key}-{run.machine_key}" if run.recipe_key else ""


PROJECTED: Final = (
    *("energy_j", "plus_minus_j", "gain_j", "once_j", "low_j", "high_j", "duration_s", "duration_plus_minus_s"),
    *("co2e_g", "cost", "samples", "epochs"),
)
"""The columns that begin with `projected_`."""
SETUP: Final = (
    "recipe.batch_size",
    "micro_batch",
    "trainer.precision",
    "compile",
    "channels_last",
    "matmul_precision",
    "num_workers",
    "device.accelerator",
    "device.count",
    "threads",
)
"""How a projected training was computed, by the command line's names; in the tables the dots are underscores."""
_OF_RUN: Final[dict[str, Callable[[Run], Any]]] = {
    "run": lambda run: run.path,
    "directory": lambda run: run.place,
    "status": lambda run: run.status,
    "phase": lambda run: run.phase,
    "model": lambda run: run.name,
    **{
        name: lambda run, name=name: run.facts[name]
        for name in ("family", "timm_name", "task", "scale", "data", "pretraining", "start")
    },
    "metric": lambda run: run.metric,
    "accuracy": lambda run: run.accuracy,
    "energy_j": lambda run: run.own_j,
    "energy_uncertainty_j": lambda run: run.uncertainty_j,
    "energy_boundary_j": lambda run: run.boundary_j,
    "energy_inherited_j": lambda run: run.inherited_j if run.inherited else None,
    "energy_with_inherited_j": lambda run: run.carried_j,
    "energy_per_inference_j": lambda run: run.per_sample_j and run.per_sample_j[0],
    "energy_is": lambda run: run.provenance,
    "source": lambda run: run.sources,
    "device": lambda run: run.devices,
    "processes": lambda run: run.processes,
    "duration_s": lambda run: _sum(run, "seconds"),
    "train_samples": _train_samples,
    **{
        name: lambda run, name=name: run.numbers.get(name)
        for name in (
            *("params", "gflops_per_sample", "year", "published_top1", "image_size", "num_classes"),
            *("epochs", "batch_size", "lr"),
        )
    },
    "seed": lambda run: run.seed,
    "started_unix_s": lambda run: run.started_s,
    "projects": lambda run: run.projection and run.projection.of,
    **{f"projected_{name}": lambda run, name=name: _projected(run, name) for name in PROJECTED},
    **{name: lambda run, name=name: _projected(run, name) for name in ("start_temperature_c", "others_cpus", "round")},
    "others": lambda run: run.projection and run.projection.others,
    **{name.replace(".", "_"): lambda run, name=name: run.projection and run.projection.setup.get(name) for name in SETUP},
    "settings": lambda run: run.facts["settings"],
    "repetition_of": _repetition_of,
    "notes": lambda run: "; ".join(run.notes),
}
SHARED: Final = ("run", "status", "phase", "model", "family", "energy_is")
_OF_EPOCH: Final = ("epoch", "stage", "energy_j", "duration_s", "accuracy")
TEXTS: Final = frozenset(
    {*SHARED, "directory", "timm_name", "task", "scale", "data", "pretraining", "start", "metric", "source", "device"}
    | {"repetition_of", "notes", "stage", "projects", "others", "settings"}
    | {name.replace(".", "_") for name in SETUP}
)
_FRAMES: Final[dict[str, Callable[[Sequence[Run]], pd.DataFrame]]] = {
    "runs": runs_frame,
    "epochs": epochs_frame,
    "stages": stages_frame,
}
