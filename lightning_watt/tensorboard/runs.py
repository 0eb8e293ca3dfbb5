"""What the Watt tab knows about runs, read from TensorBoard's data provider alone, so that any log directory works."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from tensorboard.data.provider import RunTagFilter

from lightning_watt.accounts.ledger import STAGES
from lightning_watt.errors import RecordError
from lightning_watt.record.plus_minus import inherited_by, plus_minus
from lightning_watt.record.read import Heading, record_from_json
from lightning_watt.record.record import Record
from lightning_watt.units import J_PER_KWH

ENERGY, UNCERTAINTY, FORECAST = "watt/energy_kwh", "watt/uncertainty_kwh", "watt/forecast_kwh"
ACCURACY, POWER, PATH = "watt/accuracy", "watt/power_w", "watt_vs_energy/accuracy"
RECORD = "watt/record/text_summary"
DEVICE_POWER = re.compile(r"watt/([^/]+)/power_w")
MAX_POINTS = 300
"""Points of one curve: as many as a chart has pixels to spare for."""
MAX_CURVES = 16
"""Runs whose curves are sent in one answer."""
MAX_RECORDS = 20
"""Records that are looked at of one directory, into which several Trainers may have logged."""
EARLIER = " · "
"""Between the name that TensorBoard gives to a directory, and the number of an earlier run in it."""
MAX_NEWS_S = 2.0
"""A row that is younger than the record by more than this means that the run goes on."""


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
    problem: str | None = None


class Curve(msgspec.Struct):
    """Watts over unix seconds."""

    t: list[float] = []
    w: list[float | None] = []


class Curves(msgspec.Struct, kw_only=True):
    """The curves of one run.

    Attributes:
        power: by device; the only key is "total" if devices were not asked for.
        path_j: joules spent when an accuracy was known.
        path_accuracy: that accuracy.
    """

    power: dict[str, Curve] = {}
    path_j: list[float] = []
    path_accuracy: list[float | None] = []


class Reader:
    """Reads one experiment.

    Args:
        provider: TensorBoard's data provider.
        context: its request context.
        experiment: the experiment's id.
    """

    def __init__(self, provider: Any, context: Any, experiment: str) -> None:
        self._provider = provider
        self._where: dict[str, Any] = {"ctx": context, "experiment_id": experiment}

    def any_runs(self) -> bool:
        """Whether any run has been measured."""
        return any(self._last({ENERGY}).values())

    def where(self) -> str:
        """What TensorBoard was pointed at."""
        return str(self._provider.experiment_metadata(**self._where).data_location)

    def runs(self) -> list[Run]:
        """All measured runs by name: two reads, however many there are."""
        stage_tags = {f"watt/{stage}/energy_kwh" for stage in STAGES}
        last = self._last({ENERGY, UNCERTAINTY, FORECAST, ACCURACY, *stage_tags})
        texts = self._texts()
        measured = {name for name, tags in last.items() if ENERGY in tags} | texts.keys()
        found: list[Run] = []
        for name in sorted(measured):
            *earlier, newest = texts.get(name) or [None]
            found += [_run(f"{name}{EARLIER}{number}", {}, text) for number, text in enumerate(earlier, start=1)]
            found.append(_run(name, last.get(name, {}), newest))
        return found

    def record(self, run: str) -> Record | None:
        """The last record of a run without its epochs, which may be thousands; None if it has none yet.

        Raises:
            RecordError: it cannot be read.
        """
        directory, number = _directory_of(run)
        texts = self._texts([run, directory])
        if texts.get(run):
            return msgspec.structs.replace(_decode(texts[run][-1]), epochs=[])
        earlier = texts.get(directory, [])[:-1]
        return msgspec.structs.replace(_decode(earlier[number - 1]), epochs=[]) if 0 < number <= len(earlier) else None

    def curves(self, runs: Collection[str], by_device: bool) -> dict[str, Curves]:
        """Power over time and accuracy over energy of some runs, each of at most `MAX_POINTS` points.

        Args:
            runs: their names; those beyond `MAX_CURVES` are left out.
            by_device: one curve a device instead of their sum.
        """
        asked = list(dict.fromkeys(runs))[:MAX_CURVES]
        wanted = list({name for run in asked for name in (run, _directory_of(run)[0])})
        tags = {PATH, POWER}
        if by_device:
            listed = self._provider.list_scalars(
                **self._where, plugin_name="scalars", run_tag_filter=RunTagFilter(runs=wanted)
            )
            tags = {PATH} | {tag for found in listed.values() for tag in found if DEVICE_POWER.fullmatch(tag)}
        read = self._provider.read_scalars(
            **self._where,
            plugin_name="scalars",
            downsample=MAX_POINTS,
            run_tag_filter=RunTagFilter(runs=wanted, tags=tags),
        )
        texts = self._texts(wanted)
        found = {}
        for run in asked:
            directory, number = (run, 0) if run in read else _directory_of(run)
            if directory in read:
                found[run] = _curves(read[directory], *_span_unix(texts.get(directory, []), number))
        return found

    def _last(self, tags: Iterable[str]) -> Mapping[str, Mapping[str, Any]]:
        found: Mapping[str, Mapping[str, Any]] = self._provider.read_last_scalars(
            **self._where, plugin_name="scalars", run_tag_filter=RunTagFilter(tags=list(tags))
        )
        return found

    def _texts(self, runs: list[str] | None = None) -> dict[str, list[Any]]:
        """The last record's row of each run in a directory, by TensorBoard's name for it."""
        found = self._provider.read_tensors(
            **self._where,
            plugin_name="text",
            downsample=MAX_RECORDS,
            run_tag_filter=RunTagFilter(runs=runs, tags=[RECORD]),
        )
        return {run: _one_each(tags[RECORD]) for run, tags in found.items() if tags.get(RECORD)}


def _one_each(rows: Sequence[Any]) -> list[Any]:
    """The last row of each session, in order; a session that a later one went on from is in that one's record."""
    found: dict[str, Any] = {}
    for row in rows:
        try:
            heading = msgspec.json.decode(_raw(row), type=Heading)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            heading = Heading()
        gone = {heading.session, *heading.resumes, ""}
        found = {session: earlier for session, earlier in found.items() if session not in gone}
        found[heading.session] = row
    return list(found.values())


def _directory_of(run: str) -> tuple[str, int]:
    """TensorBoard's name for the directory of an earlier run in it, and its number; 0 for what is no such name."""
    directory, _, number = run.rpartition(EARLIER)
    return (directory, int(number)) if number.isascii() and number.isdigit() and len(number) < MAX_RECORDS else (run, 0)


def _span_unix(texts: Sequence[Any], number: int) -> tuple[float, float]:
    """When the rows of a run were logged: after the record of the run before it, up to its own.

    Args:
        texts: the records' rows of all runs in its directory.
        number: which run it is; 0 for the last one, which may not have a record yet.
    """
    ends = [-math.inf, *(text.wall_time for text in texts[:-1])]
    if number == 0:
        return ends[-1], math.inf
    return (ends[number - 1], ends[number]) if number < len(ends) else (math.inf, math.inf)


def _run(name: str, last: Mapping[str, Any], text: Any | None) -> Run:
    """A run from its last rows and its last record, whichever of the two is younger."""
    run = Run(name=name)
    record: Record | None = None
    if text is not None:
        try:
            record = _decode(text)
        except RecordError as error:
            run.problem = str(error)
    if record is not None:
        _take_record(run, record)
    never = -math.inf
    rows_unix: float = last[ENERGY].wall_time if ENERGY in last else never
    record_unix: float = text.wall_time if text is not None and record is not None else never
    run.seen_unix = _finite(max(rows_unix, record_unix))
    if rows_unix > record_unix:
        _take_rows(run, last)
    if rows_unix > record_unix + MAX_NEWS_S:
        run.status = "running"
    if run.status != "running":
        run.forecast_j = None
    return run


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
    run.alpha, run.beta, run.unit = record.sam.alpha, record.sam.beta, record.sam.unit


def _take_rows(run: Run, last: Mapping[str, Any]) -> None:
    def joules(tag: str) -> float | None:
        return _finite(last[tag].value * J_PER_KWH) if tag in last else None

    run.joules, run.uncertainty_j, run.forecast_j = joules(ENERGY), joules(UNCERTAINTY), joules(FORECAST)
    if run.uncertainty_j is not None:  # the edges' part stays what it was in the record
        run.boundary_j = min(run.boundary_j or 0.0, run.uncertainty_j)
        run.gain_j = math.sqrt(run.uncertainty_j**2 - run.boundary_j**2)
    if ACCURACY in last:
        run.accuracy = _finite(last[ACCURACY].value)
    stages = {stage: joules(f"watt/{stage}/energy_kwh") for stage in STAGES}
    run.by_stage = {stage: energy for stage, energy in stages.items() if energy is not None}


def _curves(tags: Mapping[str, Any], since_unix: float, until_unix: float) -> Curves:
    curves = Curves()
    for tag, all_rows in tags.items():
        rows = [row for row in all_rows if since_unix < row.wall_time <= until_unix]
        device = DEVICE_POWER.fullmatch(tag)
        if device or tag == POWER:
            label = device[1] if device else "total"
            curves.power[label] = Curve([row.wall_time for row in rows], [_finite(row.value) for row in rows])
        elif tag == PATH:
            curves.path_j = [float(row.step) for row in rows]
            curves.path_accuracy = [_finite(row.value) for row in rows]
    return curves


def _decode(row: Any) -> Record:
    """The record in a text row, which stands in a Markdown fence.

    Raises:
        RecordError: it is none.
    """
    return record_from_json(_raw(row), "watt/record")


def _raw(row: Any) -> bytes:
    text = row.numpy.reshape(-1)[0] if row.numpy.size else b""
    raw = text if isinstance(text, bytes) else str(text).encode()
    return raw.removeprefix(b"```json").removesuffix(b"```")


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
