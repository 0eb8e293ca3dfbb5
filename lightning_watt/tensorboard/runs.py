"""One run as the Watt tab's table of all runs knows it, made of its last record and its last rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from itertools import islice
from typing import Any

import msgspec

from lightning_watt.accounts.ledger import STAGES
from lightning_watt.errors import RecordError
from lightning_watt.record.plus_minus import inherited_by, plus_minus
from lightning_watt.record.record import Record
from lightning_watt.tensorboard.rows import ACCURACY, ENERGY, FORECAST, UNCERTAINTY, decoded, finite, raw_json
from lightning_watt.units import J_PER_KWH

MAX_NEWS_S = 2.0
"""A row that is younger than the record by more than this means that the run goes on."""
MAX_SETTINGS = 40
"""Hyper-parameters of one run."""
MAX_KNOWN = 4096
"""Records that are remembered."""
MAX_DEPTH = 3
"""Levels of nested ones."""
SAVED = ("hyperparameters", "data_hyperparameters")
"""Where the record's `model` has what a module and its data module saved."""
MAX_TEXT = 60
"""Characters of one of them."""


_known: dict[bytes, Run] = {}


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
    alpha: float | None = None
    beta: float | None = None
    unit: str | None = None
    hparams: dict[str, bool | int | float | str] = {}
    problem: str | None = None


def run_of(name: str, last: Mapping[str, Any], text: Any | None) -> Run:
    """A run from its last rows and its last record, whichever of the two is younger."""
    run = msgspec.structs.replace(_of_record(text), name=name) if text is not None else Run(name=name)
    never = -math.inf
    rows_unix: float = last[ENERGY].wall_time if ENERGY in last else never
    record_unix: float = text.wall_time if text is not None and run.problem is None else never
    run.seen_unix = finite(max(rows_unix, record_unix))
    if rows_unix > record_unix:
        _take_rows(run, last)
    if rows_unix > record_unix + MAX_NEWS_S:
        run.status = "running"
    if run.status != "running":
        run.forecast_j = None
    return run


def is_news(row: Any, text: Any | None) -> bool:
    """Whether a row is younger than a record."""
    return text is None or row.wall_time > text.wall_time or _of_record(text).problem is not None


def _of_record(text: Any) -> Run:
    """What a record says. It is remembered, because a poll every few seconds meets the same records again."""
    raw = raw_json(text)
    key = blake2b(raw, digest_size=16).digest()
    found = _known.get(key)
    if found is None:
        found = Run(name="")
        try:
            _take_record(found, decoded(text))
        except RecordError as error:
            found.problem = str(error)
        if len(_known) >= MAX_KNOWN:
            _known.clear()
        _known[key] = found
    return found


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
    run.hparams = dict(_settings(record.model))
    run.alpha, run.beta, run.unit = record.sam.alpha, record.sam.beta, record.sam.unit


def _take_rows(run: Run, last: Mapping[str, Any]) -> None:
    def joules(tag: str) -> float | None:
        return finite(last[tag].value * J_PER_KWH) if tag in last else None

    run.joules, run.uncertainty_j, run.forecast_j = joules(ENERGY), joules(UNCERTAINTY), joules(FORECAST)
    if run.uncertainty_j is not None:  # the edges' part stays what it was in the record
        run.boundary_j = min(run.boundary_j or 0.0, run.uncertainty_j)
        run.gain_j = math.sqrt(run.uncertainty_j**2 - run.boundary_j**2)
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
