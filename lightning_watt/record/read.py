"""Reads run records, and brings them up to date from the journals next to them."""

from __future__ import annotations

import os
from itertools import groupby
from pathlib import Path

import msgspec

from lightning_watt.errors import RecordError
from lightning_watt.record.files import MAX_RECORD_BYTES, RECORD_NAME, place_of, read_bounded, record_files, records_in
from lightning_watt.record.journal import Trace, beyond, read_traces
from lightning_watt.record.record import Record
from lightning_watt.record.remote import at_hand
from lightning_watt.record.schema import SCHEMA_VERSION, DeviceEnergy, NodeEnergy, Stage
from lightning_watt.units import joules, kwh, seconds


def read_record(path: str | os.PathLike[str]) -> Record:
    """Read and check a run record.

    Several runs may have written to one directory. Their records are `watt.json`, `watt-v1.json` and so on, and this reads
    the record of the newest run, the one that began last; `read_records` reads all of them.

    If `path` is a directory and the run did not report its end (it runs, or it or one of its nodes was killed), then the
    energy is brought up to date from the journals there. Accuracies, epochs and SAM stay as they were written.

    Args:
        path: a `watt.json`, which is read as it is; or the directory that holds it; or the URL of one of these (`s3://...`).

    Returns:
        The record.

    Raises:
        RecordError: there is no record, it is broken, or a newer version wrote it; the message names the field and why.

    Example:
        >>> read_record("/none")
        Traceback (most recent call last):
        lightning_watt.errors.RecordError: /none/watt.json: there is no such file.
            Did its run use WattCallback(record=True)?
    """
    with at_hand(path) as file:
        if file.suffix != ".json" and file.is_file():
            raise RecordError(
                f"{file}: this is a file, and no run record. Give the run's directory, or the watt.json in it."
            )
        return _read(file) if file.suffix == ".json" else _read_in_directory(_oldest_first(place_of(file))[-1])


def read_records(directory: str | os.PathLike[str]) -> list[Record]:
    """Read the records of all runs that wrote to a directory, the oldest first.

    Each is brought up to date as by `read_record`. A run that went on from another one's checkpoint has that one's energy in
    its total too; `energy_of(directory)` gives the sum that counts every joule once.

    Args:
        directory: the runs' log directory, or its URL.

    Raises:
        RecordError: there is no record, or one of them cannot be read.
    """
    with at_hand(directory) as here:
        if here.is_file():
            raise RecordError(f"{here}: this is a file. Give the run's directory; `read_record` reads one watt.json.")
        return [_read_in_directory(file) for file in _oldest_first(place_of(here))]


def records_below(root: str | os.PathLike[str]) -> list[tuple[Path, Record | RecordError]]:
    """Read every record in a directory and in all directories below it, in the order of their paths.

    Args:
        root: the directory, or its URL; or one record.

    Returns:
        Each record's file and the record; or why it cannot be read.

    Raises:
        RecordError: there is no such directory.
    """
    with at_hand(root) as here:
        if here.suffix == ".json":
            return [(here, _read(here))]
        if not here.is_dir():
            raise RecordError(f"{here}: there is no such directory.")
        found: list[tuple[Path, Record | RecordError]] = []
        for directory, files in groupby(record_files(here), key=lambda file: file.parent):
            for file in _oldest_first(directory) if any(file.is_file() for file in files) else ():
                try:
                    found.append((file, _read_in_directory(file)))
                except RecordError as error:
                    found.append((file, error))
        return found


class Heading(msgspec.Struct):
    """What a record says of whose it is; empty for one that cannot be read.

    Attributes:
        session: the id of the session that wrote it.
        resumes: the ids of the earlier sessions whose energy is in it.
        nodes: what it contains of each node's session.
        started_unix: when its session began, seconds since 1970.
    """

    session: str = ""
    resumes: list[str] = []
    nodes: list[NodeEnergy] = []
    started_unix: float = 0.0


def read_heading(file: Path) -> Heading:
    """What a record says of whose it is. It raises nothing."""
    try:
        return msgspec.json.decode(read_bounded(file, MAX_RECORD_BYTES), type=Heading)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Heading()


def _oldest_first(directory: Path) -> list[Path]:
    """The records in a directory; the name of the first one if there is none, which the caller then misses."""
    found = records_in(directory) or [directory / RECORD_NAME]
    return found if len(found) == 1 else sorted(found, key=lambda file: read_heading(file).started_unix)


def _read_in_directory(file: Path) -> Record:
    record = _read(file)
    _bring_up_to_date(record, file.parent)
    return record


def _read(file: Path) -> Record:
    try:
        raw = read_bounded(file, MAX_RECORD_BYTES)
    except FileNotFoundError as error:
        raise RecordError(f"{file}: there is no such file. Did its run use WattCallback(record=True)?") from error
    except OSError as error:
        raise RecordError(f"{file}: it cannot be read ({error}). Check what it is, and its permissions.") from error
    return record_from_json(raw, str(file))


def record_from_json(raw: bytes, where: str) -> Record:
    """Check a run record that is already in memory.

    Args:
        raw: the record's JSON.
        where: where it comes from, for the error's message.

    Raises:
        RecordError: it is broken, or a newer version wrote it; the message names the field and why.
    """
    try:
        version = msgspec.json.decode(raw, type=_Versioned).schema_version
        if version == SCHEMA_VERSION:
            return msgspec.json.decode(raw, type=Record)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecordError(f"{where}: this is not a run record: {error}. Was it cut off or edited?") from error
    newer = version > SCHEMA_VERSION
    raise RecordError(
        f"{where}: its schema_version is {version}, and this lightning_watt reads {SCHEMA_VERSION}. "
        + ("Update lightning_watt." if newer else "Run the training again, or read it with the version that wrote it.")
    )


class _Versioned(msgspec.Struct):
    schema_version: int


def _bring_up_to_date(record: Record, directory: Path) -> None:
    if not record.nodes or record.energy.total_j is None or (record.status != "running" and len(record.nodes) == 1):
        return
    known = {node.session: node for node in record.nodes}
    for trace in read_traces([directory]).by_session.values():
        node = known.get(trace.session)
        if node is None and record.run and trace.run == record.run:
            node = NodeEnergy(session=trace.session, rank=trace.rank, node=trace.node)
            record.nodes.append(node)
        if node is not None and trace.last.ns > node.ns:
            _add(record, node, trace)


def _add(record: Record, node: NodeEnergy, trace: Trace) -> None:
    """Add what a node's journal knows beyond what the record contains of the node."""
    energy, last = record.energy, trace.last
    rise = beyond(trace, node.device_uj, node.ns, node.stage_uj)
    for label, uj in rise.device_uj.items():
        name = label if node.node == 0 else f"node{node.node}/{label}"
        row = energy.by_device.get(name)
        if row is None and label in trace.devices:
            device = msgspec.structs.replace(trace.devices[label], label=name)
            row = DeviceEnergy(joules=0.0, **msgspec.structs.asdict(device))
        if row is not None:
            energy.by_device[name] = msgspec.structs.replace(row, joules=row.joules + joules(uj))
    # If the journal's stages and devices do not agree, the line's own stage gets what is left.
    left_uj = rise.total_uj
    for stage, uj in [*rise.stage_uj.items(), (last.stage or "other", left_uj)]:
        stage_uj = min(left_uj, uj)
        if not stage_uj:
            continue
        left_uj -= stage_uj
        entry = energy.by_stage.setdefault(stage, Stage(joules=0.0, seconds=0.0))
        entry.joules += joules(stage_uj)
        if node.node == 0:
            entry.seconds += seconds(rise.ns) * stage_uj / rise.total_uj
    energy.total_j = (energy.total_j or 0.0) + joules(rise.total_uj)
    energy.total_kwh = kwh(energy.total_j)
    record.updated_unix = max(record.updated_unix, last.t)
    node.device_uj, node.stage_uj, node.ns = rise.known_uj, dict(last.stage_uj), rise.known_ns
