"""One run as the Watt tab's table of all runs knows it, made of its last record and its last rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from lightning_watt.accounts.ledger import STAGES
from lightning_watt.errors import RecordError
from lightning_watt.record.plus_minus import inherited_by, plus_minus
from lightning_watt.record.record import Record
from lightning_watt.record.text.statement import device_names
from lightning_watt.tensorboard.rows import ACCURACY, ENERGY, FORECAST, UNCERTAINTY, decoded, finite
from lightning_watt.units import J_PER_KWH

MAX_NEWS_S = 2.0
"""A row that is younger than the record by more than this means that the run goes on."""
MAX_SETTINGS = 40
"""Hyper-parameters of one run."""
MAX_DEPTH = 3
"""Levels of nested ones."""
SAVED = ("hyperparameters", "data_hyperparameters")
"""Where the record's `model` has what a module and its data module saved."""
MAX_TEXT = 60
"""Characters of one of them."""


class Run(msgspec.Struct, kw_only=True):
    """One run in the table of all runs; what is not known is null.

    Attributes:
        name: the run's name in TensorBoard. If several Trainers logged to one directory, that is the name of the last one,
            and the earlier ones have a number after it.
        status: the record's, or "running" while rows come that are younger than it.
        seen_unix: when the last row was written.
        started_unix: when it began.
        joules: its own energy.
        uncertainty_j: plus or minus of that.
        boundary_j: the part of that which the edges make.
        gain_j: the part of it which the sensors' scales make.
        inherited_j: the energy of the runs that it started from.
        inherited_boundary_j: the edges' part of its plus or minus; null if that is not known.
        inherited_gain_j: the scales' part of it.
        forecast_j: joules at the end of its schedule, while it runs.
        provenance: where the joules come from: measured, estimated, mixed; null until the first record.
        accuracy: the accuracy that they bought.
        metric: that accuracy's name.
        by_stage: joules by stage.
        seconds: how long its stages took.
        train_samples: samples that its training had; 0 if they are not known.
        by_device: joules by device, as of its last record.
        boards: the devices' names.
        co2e_g: grams of CO2e; null without an intensity.
        cost: in the price's currency; null without a price.
        budget_j: what its training may use; null for no limit.
        session: the id of the session that wrote the record.
        resumes: those of the earlier sessions of the run.
        earlier_j: what those used; it is in `joules`.
        wasted_j: the part of it whose result is lost.
        alpha: SAM's alpha that the run was logged with.
        beta: its beta.
        unit: its unit of E.
        hparams: its hyper-parameters that are numbers or texts, nested names joined by "/".
        problem: why the record cannot be read.
    """

    name: str
    status: str | None = None
    seen_unix: float | None = None
    started_unix: float | None = None
    joules: float | None = None
    uncertainty_j: float | None = None
    boundary_j: float | None = None
    gain_j: float | None = None
    inherited_j: float = 0.0
    inherited_boundary_j: float | None = 0.0
    inherited_gain_j: float | None = 0.0
    forecast_j: float | None = None
    provenance: str | None = None
    accuracy: float | None = None
    metric: str | None = None
    by_stage: dict[str, float] = {}
    seconds: float | None = None
    train_samples: int = 0
    by_device: dict[str, float] = {}
    boards: str = ""
    co2e_g: float | None = None
    cost: float | None = None
    budget_j: float | None = None
    session: str = ""
    resumes: list[str] = []
    earlier_j: float = 0.0
    wasted_j: float = 0.0
    alpha: float | None = None
    beta: float | None = None
    unit: str | None = None
    hparams: dict[str, bool | int | float | str] = {}
    problem: str | None = None


class Recorded(NamedTuple):
    """What a record says of its run, and when it was logged, in unix seconds."""

    run: Run
    unix: float


def recorded(text: Any) -> Recorded:
    """What the record in a text row says."""
    found = Run(name="")
    try:
        _take_record(found, decoded(text))
    except RecordError as error:
        found.problem = str(error)
    return Recorded(found, text.wall_time)


def run_of(name: str, last: Mapping[str, Any], newest: Recorded | None) -> Run:
    """A run from its last rows and its last record, whichever of the two is younger."""
    run = msgspec.structs.replace(newest.run, name=name) if newest is not None else Run(name=name)
    never = -math.inf
    rows_unix: float = last[ENERGY].wall_time if ENERGY in last else never
    record_unix: float = newest.unix if newest is not None and run.problem is None else never
    run.seen_unix = finite(max(rows_unix, record_unix))
    if rows_unix > record_unix:
        _take_rows(run, last)
    if rows_unix > record_unix + MAX_NEWS_S:
        run.status = "running"
    if run.status != "running":
        run.forecast_j = None
    return run


def is_news(row: Any, newest: Recorded | None) -> bool:
    """Whether a row is younger than a record."""
    return newest is None or row.wall_time > newest.unix or newest.run.problem is not None


def _take_record(run: Run, record: Record) -> None:
    energy = record.energy
    run.status, run.started_unix = record.status, record.started_unix or None
    run.joules, run.uncertainty_j, run.provenance = energy.total_j, energy.uncertainty_j, energy.provenance
    if (own := plus_minus(energy)) is not None:
        run.boundary_j, run.gain_j = own
    run.inherited_j, inherited = inherited_by(record)
    run.inherited_boundary_j, run.inherited_gain_j = inherited if inherited is not None else (None, None)
    run.accuracy, run.metric = record.accuracy.last, record.accuracy.metric
    run.by_stage = {stage: spent.joules for stage, spent in energy.by_stage.items()}
    run.seconds = sum(spent.seconds for spent in energy.by_stage.values())
    run.train_samples = energy.by_stage["train"].samples if "train" in energy.by_stage else 0
    run.by_device = {label: device.joules for label, device in energy.by_device.items()}
    run.boards = ", ".join(device_names(energy))
    run.co2e_g, run.cost = record.co2e_g, record.cost
    run.budget_j = record.budget_kwh * J_PER_KWH if record.budget_kwh is not None else None
    run.session, run.resumes = record.session, record.resumes
    run.earlier_j, run.wasted_j = record.resumed_j + record.wasted_j, record.wasted_j
    run.hparams = dict(_settings(record.model))
    run.alpha, run.beta, run.unit = record.sam.alpha, record.sam.beta, record.sam.unit


def _take_rows(run: Run, last: Mapping[str, Any]) -> None:
    def joules(tag: str) -> float | None:
        return finite(last[tag].value * J_PER_KWH) if tag in last else None

    before_j = run.joules
    run.joules, run.uncertainty_j, run.forecast_j = joules(ENERGY), joules(UNCERTAINTY), joules(FORECAST)
    if run.uncertainty_j is not None:  # the edges' part stays what it was in the record
        run.boundary_j = min(run.boundary_j or 0.0, run.uncertainty_j)
        run.gain_j = math.sqrt(run.uncertainty_j**2 - run.boundary_j**2)
    if before_j and run.joules is not None:
        run.co2e_g, run.cost = (one and one * run.joules / before_j for one in (run.co2e_g, run.cost))
    if run.started_unix is not None:
        run.seconds = last[ENERGY].wall_time - run.started_unix
    if ACCURACY in last:
        run.accuracy = finite(last[ACCURACY].value)
    stages = {stage: joules(f"watt/{stage}/energy_kwh") for stage in STAGES}
    run.by_stage = {stage: energy for stage, energy in stages.items() if energy is not None}


def _settings(facts: Mapping[str, Any]) -> Iterator[tuple[str, bool | int | float | str]]:
    """What a run was configured with, as far as it fits into a table; what a record may hold is not to be trusted."""
    saved = [facts[key] for key in SAVED if isinstance(facts.get(key), Mapping)]
    said = {key: value for key, value in facts.items() if key not in SAVED}
    return islice((pair for found in (said, *saved) for pair in _flat(found)), MAX_SETTINGS)


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool | int | float | str]]:
    for key, value in facts.items():
        name = f"{prefix}{key[:MAX_TEXT]}"
        if isinstance(value, Mapping):
            if prefix.count("/") < MAX_DEPTH:
                yield from _flat(value, f"{name}/")
        elif isinstance(value, str):
            yield name, value[:MAX_TEXT]
        elif isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
            yield name, value
