"""Tables of projections, on the frames of `load_runs`: what whole trainings would take, and how they then came out."""

from __future__ import annotations

import pandas as pd

from experiments.report.cells import Cell, Energy, Table
from experiments.report.metrics import Amount

TRUTH = "with the same settings, measured"
NOT_OF_THE_FIT = ("test", "predict", "tune")
"""Stages that a projection is not of."""


def projected(runs: pd.DataFrame, stages: pd.DataFrame) -> Table:
    """Every projection, with the training that was then run with the same settings, if one was.

    Args:
        runs: the rows of `load_runs(directory)`.
        stages: the rows of `load_runs(directory, "stages")`.
    """
    frame = held_against(runs, stages)
    columns: dict[str, list[Cell]] = {
        "model": [name.partition(",")[0] for name in frame["model"]],
        "projects": frame["projects"].tolist(),
        "data": frame["data"].tolist(),
        "scale": frame["scale"].tolist(),
        "batch": frame["recipe_batch_size"].tolist(),
        "epochs": _numbers(frame["projected_epochs"]),
        "energy is": [f"projected, {kind}" for kind in frame["energy_is"].fillna("without energy")],
        "projected": _energies(frame["projected_energy_j"], frame["projected_plus_minus_j"]),
        "projected, at least": _energies(frame["projected_low_j"]),
        "projected, at most": _energies(frame["projected_high_j"]),
        "projected hours": _amounts(frame["projected_duration_s"] / 3600, frame["projected_duration_plus_minus_s"] / 3600),
        "projected CO2e (kg)": _numbers(frame["projected_co2e_g"] / 1000),
        "projected cost": _numbers(frame["projected_cost"]),
        TRUTH: _energies(frame["truth_j"]),
        "energy inside its ±": _inside(frame, "truth_j", "projected_energy_j", "projected_plus_minus_j"),
        "time inside its ±": _inside(frame, "truth_s", "projected_duration_s", "projected_duration_plus_minus_s"),
        "others at work": [None if pd.isna(cpus) else round(cpus, 1) for cpus in frame["others_cpus"]],
        "run": frame["run"].tolist(),
    }
    kept = {name: cells for name, cells in columns.items() if any(not _is_nothing(cell) for cell in cells)}
    rows = [[None if _is_nothing(cell) else cell for cell in row] for row in zip(*kept.values(), strict=True)]
    note = (
        "Each number is projected from a part of the training, the whole was not run, and it is ranked with nothing. The "
        "± has the part's own spread and the measurement's edges, at 95 %. At least and at most have the devices' errors of "
        "scale too. Others at work: CPUs that other programs kept busy. What a projection does not hold: docs/study.md."
    )
    if frame["truth_j"].notna().any():
        note += (
            " Where the training was run too, with the same settings, its energy without the final test stands beside it. "
            "The devices' errors of scale are in both."
        )
    return Table("projected", "Projected, not measured: whole trainings", list(kept), rows, note)


def held_against(runs: pd.DataFrame, stages: pd.DataFrame) -> pd.DataFrame:
    """The projections, with `truth_j` and `truth_s` of the measured trainings with the same settings, their mean."""
    own = stages[~stages["stage"].isin(NOT_OF_THE_FIT)].groupby("run")[["energy_j", "duration_s"]].sum()
    own = own.set_axis(["truth_j", "truth_s"], axis=1)
    trained = runs[(runs["status"] == "completed") & runs["projects"].isna()].join(own, on="run")
    truth = trained.groupby(["settings", "phase", "device"])[["truth_j", "truth_s"]].mean()
    return runs[runs["projects"].notna()].join(truth, on=["settings", "projects", "device"])


def _inside(frame: pd.DataFrame, truth: str, value: str, plus_minus: str) -> list[Cell]:
    """Whether the truth is within the interval; if not, how many times its ± it is away."""
    away = (frame[truth] - frame[value]).abs() / frame[plus_minus]
    return [None if pd.isna(times) else "yes" if times <= 1 else f"no: {times:.2g} times" for times in away]


def _energies(joules: pd.Series, plus_minus: pd.Series | None = None) -> list[Cell]:
    offs = plus_minus if plus_minus is not None else pd.Series(None, index=joules.index, dtype=float)
    return [
        None if pd.isna(one) else Energy(one, None if pd.isna(off) else off) for one, off in zip(joules, offs, strict=True)
    ]


def _amounts(values: pd.Series, plus_minus: pd.Series) -> list[Cell]:
    return [
        None if pd.isna(one) else Amount(one, None if pd.isna(off) else off)
        for one, off in zip(values, plus_minus, strict=True)
    ]


def _numbers(values: pd.Series) -> list[Cell]:
    return [None if pd.isna(one) else float(one) for one in values]


def _is_nothing(cell: object) -> bool:
    return cell is None or (isinstance(cell, float) and pd.isna(cell))
