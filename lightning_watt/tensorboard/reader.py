"""Reads what the Watt tab shows from TensorBoard's data provider alone, so that any log directory works."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from tensorboard.data.provider import RunTagFilter

from lightning_watt.accounts.ledger import STAGES
from lightning_watt.errors import RecordError
from lightning_watt.record.record import Record
from lightning_watt.record.schema import Epoch
from lightning_watt.tensorboard.curves import OF_A_RUN, Curves, curves_of
from lightning_watt.tensorboard.records import MAX_RECORDS, Records, texts_of
from lightning_watt.tensorboard.rows import ACCURACY, DEVICE_POWER, ENERGY, FORECAST, POWER, UNCERTAINTY, decoded
from lightning_watt.tensorboard.runs import Run, is_news, run_of

MAX_POINTS = 300
"""Points of one curve: as many as a chart has pixels to spare for."""
MAX_CURVES = 16
"""Runs whose curves are sent in one answer."""
EARLIER = " · "
"""Between the name that TensorBoard gives to a directory, and the number of an earlier run in it."""


class Reader:
    """Reads one experiment.

    Args:
        provider: TensorBoard's data provider.
        context: its request context.
        experiment: the experiment's id.
        records: what earlier requests have read.
    """

    def __init__(self, provider: Any, context: Any, experiment: str, records: Records) -> None:
        self._provider, self._records = provider, records
        self._where: dict[str, Any] = {"ctx": context, "experiment_id": experiment}

    def any_runs(self) -> bool:
        """Whether any run has been measured."""
        return any(self._last({ENERGY}).values())

    def where(self) -> str:
        """What TensorBoard was pointed at."""
        return str(self._provider.experiment_metadata(**self._where).data_location)

    def runs(self) -> list[Run]:
        """All measured runs by name.

        It reads each last row and the list of records, however many runs there are; the records that are new; and further
        rows of runs whose rows are younger than their records.
        """
        last = {name: dict(rows) for name, rows in self._last({ENERGY}).items()}
        records = self._records.of(self._provider, self._where)
        newest = {name: found[-1] for name, found in records.items()}
        young = [name for name, rows in last.items() if is_news(rows[ENERGY], newest.get(name))]
        if young:
            stage_tags = {f"watt/{stage}/energy_kwh" for stage in STAGES}
            for name, rows in self._last({UNCERTAINTY, FORECAST, ACCURACY, *stage_tags}, young).items():
                last[name].update(rows)
        measured = {name for name, tags in last.items() if ENERGY in tags} | records.keys()
        found: list[Run] = []
        for name in sorted(measured):
            earlier = records.get(name, [])[:-1]
            found += [run_of(f"{name}{EARLIER}{number}", {}, one) for number, one in enumerate(earlier, start=1)]
            found.append(run_of(name, last.get(name, {}), newest.get(name)))
        return found

    def record(self, run: str) -> Record | None:
        """The last record of a run, with its newest epochs; None if it has none yet.

        Raises:
            RecordError: it cannot be read.
        """
        directory, number = _directory_of(run)
        texts = texts_of(self._provider, self._where, [run, directory])
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
        texts = texts_of(self._provider, self._where, wanted)
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
