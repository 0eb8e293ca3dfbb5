"""What the records in event files say, remembered between the polls of a page, because most of them have not changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from tensorboard.data.provider import RunTagFilter

from lightning_watt.record.read import Heading
from lightning_watt.tensorboard.rows import RECORD, raw_json
from lightning_watt.tensorboard.runs import Recorded, recorded

MAX_RECORDS = 20
"""Records that are looked at of one directory, into which several Trainers may have logged."""


class Records:
    """The last record of each run in each directory of an experiment."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, tuple[Any, list[Recorded]]]] = {}

    def of(self, provider: Any, where: Mapping[str, Any]) -> dict[str, list[Recorded]]:
        """All runs of an experiment by directory, the newest last. Only directories with a new row are read.

        Args:
            provider: TensorBoard's data provider.
            where: its request context and the experiment's id.
        """
        listed = provider.list_tensors(**where, plugin_name="text", run_tag_filter=RunTagFilter(runs=None, tags=[RECORD]))
        last = {run: (tags[RECORD].max_wall_time, tags[RECORD].max_step) for run, tags in listed.items() if RECORD in tags}
        known = self._known.get(where["experiment_id"], {})
        new = [run for run, stamp in last.items() if run not in known or known[run][0] != stamp]
        texts = texts_of(provider, where, new) if new else {}
        # Of this poll alone, so that what is gone is forgotten.
        found = {run: known[run] for run in last if run not in texts and run in known}
        found |= {run: (last[run], [recorded(row) for row in rows]) for run, rows in texts.items()}
        self._known[where["experiment_id"]] = found
        return {run: records for run, (_, records) in found.items()}


def texts_of(provider: Any, where: Mapping[str, Any], runs: Sequence[str]) -> dict[str, list[Any]]:
    """The last record's row of each run in some directories, by TensorBoard's name for each."""
    found = provider.read_tensors(
        **where, plugin_name="text", downsample=MAX_RECORDS, run_tag_filter=RunTagFilter(runs=runs, tags=[RECORD])
    )
    return {run: _one_each(tags[RECORD]) for run, tags in found.items() if tags.get(RECORD)}


def _one_each(rows: Sequence[Any]) -> list[Any]:
    """The last row of each session, in order; a session that a later one went on from is in that one's record."""
    found: dict[str, Any] = {}
    for row in rows:
        heading = _heading(row)
        gone = {heading.session, *heading.resumes, ""}
        found = {session: earlier for session, earlier in found.items() if session not in gone}
        found[heading.session] = row
    return list(found.values())


def _heading(row: Any) -> Heading:
    try:
        return msgspec.json.decode(raw_json(row), type=Heading)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Heading()
