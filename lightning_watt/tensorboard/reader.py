"""Reads what the Watt tab shows from TensorBoard's data provider alone, so that any log directory works."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from tensorboard.data.provider import RunTagFilter

from lightning_watt.accounts.ledger import STAGES
from lightning_watt.errors import RecordError
from lightning_watt.record.read import Heading
from lightning_watt.record.record import Record
from lightning_watt.record.schema import Epoch
from lightning_watt.tensorboard.curves import OF_A_RUN, Curves, curves_of
from lightning_watt.tensorboard.rows import (
    ACCURACY,
    DEVICE_POWER,
    ENERGY,
    FORECAST,
    POWER,
    RECORD,
    UNCERTAINTY,
    Remembered,
    decoded,
    raw_json,
)
from lightning_watt.tensorboard.runs import Run, is_news, run_of

MAX_POINTS = 300
"""Points of one curve: as many as a chart has pixels to spare for."""
MAX_CURVES = 16
"""Runs whose curves are sent in one answer."""
MAX_RECORDS = 20
"""Records that are looked at of one directory, into which several Trainers may have logged."""
EARLIER = " · "
"""Between the name that TensorBoard gives to a directory, and the number of an earlier run in it."""


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
        """All measured runs by name: two reads, however many there are, and a third where rows are younger than records."""
        last = {name: dict(rows) for name, rows in self._last({ENERGY}).items()}
        texts = self._texts()
        young = [name for name, rows in last.items() if is_news(rows[ENERGY], (texts.get(name) or [None])[-1])]
        if young:
            stage_tags = {f"watt/{stage}/energy_kwh" for stage in STAGES}
            for name, rows in self._last({UNCERTAINTY, FORECAST, ACCURACY, *stage_tags}, young).items():
                last[name].update(rows)
        measured = {name for name, tags in last.items() if ENERGY in tags} | texts.keys()
        found: list[Run] = []
        for name in sorted(measured):
            *earlier, newest = texts.get(name) or [None]
            found += [run_of(f"{name}{EARLIER}{number}", {}, text) for number, text in enumerate(earlier, start=1)]
            found.append(run_of(name, last.get(name, {}), newest))
        return found

    def record(self, run: str) -> Record | None:
        """The last record of a run, with its newest epochs; None if it has none yet.

        Raises:
            RecordError: it cannot be read.
        """
        directory, number = _directory_of(run)
        texts = self._texts([run, directory])
        if texts.get(run):
            return decoded(texts[run][-1])
        earlier = texts.get(directory, [])[:-1]
        return decoded(earlier[number - 1]) if 0 < number <= len(earlier) else None

    def epochs(self, runs: Collection[str]) -> dict[str, list[Epoch]]:
        """The newest epochs of some runs by their last records; those beyond `MAX_CURVES` are left out."""
        found = {}
        for run in list(dict.fromkeys(runs))[:MAX_CURVES]:
            with suppress(RecordError):  # the table says what is wrong with it
                record = self.record(run)
                found[run] = record.epochs if record is not None else []
        return found

    def curves(self, runs: Collection[str], by_device: bool) -> dict[str, Curves]:
        """Power over time and accuracy over energy of some runs, each of at most `MAX_POINTS` points.

        Args:
            runs: their names; those beyond `MAX_CURVES` are left out.
            by_device: one curve a device instead of their sum.
        """
        asked = list(dict.fromkeys(runs))[:MAX_CURVES]
        wanted = list({name for run in asked for name in (run, _directory_of(run)[0])})
        tags = {*OF_A_RUN, POWER}
        if by_device:
            listed = self._provider.list_scalars(
                **self._where, plugin_name="scalars", run_tag_filter=RunTagFilter(runs=wanted)
            )
            tags = {*OF_A_RUN} | {tag for found in listed.values() for tag in found if DEVICE_POWER.fullmatch(tag)}
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
                found[run] = curves_of(read[directory], *_span_unix(texts.get(directory, []), number))
        return found

    def _last(self, tags: Iterable[str], runs: list[str] | None = None) -> Mapping[str, Mapping[str, Any]]:
        found: Mapping[str, Mapping[str, Any]] = self._provider.read_last_scalars(
            **self._where, plugin_name="scalars", run_tag_filter=RunTagFilter(runs=runs, tags=list(tags))
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
        heading = HEADINGS.of(row)
        gone = {heading.session, *heading.resumes, ""}
        found = {session: earlier for session, earlier in found.items() if session not in gone}
        found[heading.session] = row
    return list(found.values())


def _heading(row: Any) -> Heading:
    try:
        return msgspec.json.decode(raw_json(row), type=Heading)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Heading()


HEADINGS = Remembered(_heading)


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
