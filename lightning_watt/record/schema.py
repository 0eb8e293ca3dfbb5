"""The run record: `watt.json`, replaced whole at every epoch's end, and `watt.jsonl`, one line an interval.

The classes below are the schema. A record is checked against them when it is read, so whoever has a `Record` in hand has
one that is complete. Unknown keys are let through, so that a newer minor version's record can be read. A number that is
undefined (NaN or infinite) is `null` in the file.
"""

from __future__ import annotations

import numbers
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from lightning_watt.errors import RecordError
from lightning_watt.record.files import read_bounded
from lightning_watt.record.journal import JOURNAL_NAME, MAX_JOURNAL_BYTES, RECORD_NAME, Status, Trace, place_of, read_traces
from lightning_watt.record.summary import summary_html
from lightning_watt.units import joules, kwh, seconds

SCHEMA_VERSION = 1
MAX_BYTES = 64 * 2**20
"""A record is kilobytes; whatever is larger than this was not written here."""

NotNegative = Annotated[float, msgspec.Meta(ge=0)]
"""Joules, seconds and the like; a record that says otherwise is refused when it is read."""
Share = Annotated[float, msgspec.Meta(ge=-1)]
"""The same of a part of the run: by a GPU's own clock one edge may lie microseconds before the edge that it follows."""
Count = Annotated[int, msgspec.Meta(ge=0)]


class Stage(msgspec.Struct, kw_only=True):
    """What one stage used: joules, seconds, and the batches and samples that it went through."""

    joules: Share
    seconds: Share
    batches: Count = 0
    samples: Count = 0
    uncertainty_j: NotNegative = 0.0


class DeviceEnergy(msgspec.Struct, kw_only=True):
    """What one device used, and where that number comes from."""

    joules: NotNegative
    name: str
    uuid: str
    source: str
    provenance: Literal["measured", "estimated"]
    tick_s: float | None = None
    gain: NotNegative = 0.05
    host: str = ""
    note: str = ""


class Energy(msgspec.Struct, kw_only=True):
    """The run's own energy; `total_j` is null where nothing could be measured."""

    total_j: NotNegative | None
    total_kwh: NotNegative | None
    uncertainty_j: NotNegative | None
    provenance: Literal["measured", "estimated", "mixed"] | None
    boundary_j: NotNegative = 0.0
    gain_j: NotNegative = 0.0
    by_stage: dict[str, Stage] = {}
    by_device: dict[str, DeviceEnergy] = {}


class Accuracy(msgspec.Struct, kw_only=True):
    """The accuracy that the energy bought; `metric` is null where none was found."""

    metric: str | None = None
    last: float | None = None
    best: float | None = None


class Sam(msgspec.Struct, kw_only=True):
    """SAM of the last accuracy, of the run's own energy and with what it inherited; null at and below one `unit`."""

    alpha: float
    beta: float
    unit: Literal["kWh", "Wh", "J"]
    value: float | None = None
    shifted: float | None = None
    value_with_inherited: float | None = None
    shifted_with_inherited: float | None = None


class Epoch(msgspec.Struct, kw_only=True):
    """One epoch of one stage."""

    epoch: int
    stage: str
    joules: Share
    seconds: Share
    accuracy: float | None = None


class Part(msgspec.Struct, kw_only=True):
    """What one part of the training steps used; known only with `WattCallback(batches=True)`."""

    joules: Share
    seconds: Share


class Inherited(msgspec.Struct, kw_only=True):
    """A run whose result this one started from, and the energy that it carries, its own inheritance included."""

    path: str
    total_j: NotNegative


class Idle(msgspec.Struct, kw_only=True):
    """What the devices drew before the run, by label; it is not in the energy, and was not taken off it."""

    seconds: NotNegative
    power_w: dict[str, NotNegative]


class LostData(msgspec.Struct, kw_only=True):
    """A stretch that a counter lost, and its joules by the last known power: charged, or missing where `why` says so."""

    device: str
    seconds: NotNegative
    joules: NotNegative
    why: str


class LostWork(msgspec.Struct, kw_only=True):
    """What an earlier session of this run used after the checkpoint that was gone on from: spent, and its result lost.

    `status` is how that session ended: `killed`, `failed` or `interrupted`; `directory` is where its journal was found.
    """

    session: str
    directory: str
    status: str
    joules: float
    seconds: float


class NodeEnergy(msgspec.Struct, kw_only=True):
    """What one node's reader has used of this run, as far as it is in this record: microjoules by its own device labels.

    In `energy.by_device` they stand as `gpu0` for node 0 and as `node1/gpu0` for the others.
    """

    session: str
    rank: int = 0
    node: int = 0
    host: str = ""
    device_uj: dict[str, int] = {}
    stage_uj: dict[str, int] = {}
    ns: int = 0


class BatchRow(NamedTuple):
    """One batch's energy, as it stands in `watt_batches.csv`."""

    stage: str
    epoch: int
    batch: int
    joules: float
    seconds: float
    uncertainty_j: float


class Record(msgspec.Struct, kw_only=True):
    """One run.

    `energy.total_j` is everything that the run has cost so far. In it are, apart from each other:

    - `resumed_j`: joules that earlier sessions of the run had used up to the checkpoint that it went on from;
    - `wasted_j`: joules that earlier sessions used after their checkpoint, and whose result is lost; `lost` says which
      sessions, and `energy.by_stage` has them in the stage `wasted`. A session that ended well or still runs wastes nothing;
    - the rest, `total_j - resumed_j - wasted_j`: what the session `session` itself used, on all nodes. No two records share
      any of that, so over runs that went on from one checkpoint it is the sum of these that counts every joule once.

    `resumes` are the ids of the earlier sessions. A record that says `running` is one of a run that runs or was killed: in a
    run that runs, a line comes to `watt.jsonl` every `interval_s` seconds.
    """

    schema_version: int
    status: Status
    energy: Energy
    accuracy: Accuracy
    sam: Sam
    epochs: list[Epoch] = []
    parts: dict[str, Part] = {}
    inherited: list[Inherited] = []
    hardware: dict[str, Any] = {}
    model: dict[str, Any] = {}
    software: dict[str, Any] = {}
    session: str = ""
    marks: str = "host"
    started_unix: float = 0.0
    updated_unix: float = 0.0
    interval_s: float = 0.0
    run: str = ""
    nodes: list[NodeEnergy] = []
    resumes: list[str] = []
    resumed_j: NotNegative = 0.0
    wasted_j: NotNegative = 0.0
    lost: list[LostWork] = []
    pue: float = 1.0
    carbon_intensity: float | None = None
    co2e_g: float | None = None
    electricity_price: float | None = None
    cost: float | None = None
    idle: Idle | None = None
    forecast_kwh: float | None = None
    forecast_uncertainty_kwh: float | None = None
    gaps: list[LostData] = []
    missing: list[str] = []
    warnings: list[str] = []

    def _repr_html_(self) -> str:
        """What a notebook shows of it."""
        return summary_html(self)


def read_record(path: str | os.PathLike[str]) -> Record:
    """Read and check a run record.

    Of a directory, the energy of a run that did not tell its end (it runs, or it was killed, or one of its nodes was) is
    brought up to date from the journals there; its accuracies, epochs and SAM are those of the record as it was written.

    Args:
        path: a `watt.json`, which is read as it is; or the directory that holds it.

    Returns:
        The record.

    Raises:
        RecordError: there is none, it is broken, or a newer version wrote it; says which field and why.

    Example:
        >>> read_record("/none")
        Traceback (most recent call last):
        lightning_watt.errors.RecordError: /none/watt.json: there is no such file. Had the run a WattCallback(record=True)?
    """
    file = Path(path)
    file = file if file.suffix == ".json" else place_of(file) / RECORD_NAME
    try:
        raw = read_bounded(file, MAX_BYTES)
    except FileNotFoundError as error:
        raise RecordError(f"{file}: there is no such file. Had the run a WattCallback(record=True)?") from error
    except OSError as error:
        raise RecordError(f"{file}: it cannot be read ({error}). Check its permissions.") from error
    record = record_from_json(raw, str(file))
    return record if file == Path(path) else _brought_up(record, file.parent)


def record_from_json(raw: bytes, where: str) -> Record:
    """Check a run record that is in memory already.

    Args:
        raw: the record's JSON.
        where: what the error calls it.

    Raises:
        RecordError: it is broken, or a newer version wrote it; says which field and why.
    """
    try:
        version = msgspec.json.decode(raw, type=_Versioned).schema_version
        if version == SCHEMA_VERSION:
            return msgspec.json.decode(raw, type=Record)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecordError(f"{where}: this is not a run record: {error}. Was it cut off or edited?") from error
    newer = version > SCHEMA_VERSION
    raise RecordError(
        f"{where}: its schema_version is {version}, this lightning_watt reads {SCHEMA_VERSION}. "
        + ("Update lightning_watt." if newer else "Run the training again, or read it with the version that wrote it.")
    )


def _brought_up(record: Record, directory: Path) -> Record:
    if not record.nodes or record.energy.total_j is None or (record.status != "running" and len(record.nodes) == 1):
        return record
    known = {node.session: node for node in record.nodes}
    for trace in read_traces([directory]).by_session.values():
        node = known.get(trace.session)
        if node is None and record.run and trace.run == record.run:
            node = NodeEnergy(session=trace.session, rank=trace.rank, node=trace.node)
            record.nodes.append(node)
        if node is not None and trace.last.ns > node.ns:
            _add(record, node, trace)
    return record


def _add(record: Record, node: NodeEnergy, trace: Trace) -> None:
    energy, last = record.energy, trace.last
    more_uj = {label: max(0, uj - node.device_uj.get(label, 0)) for label, uj in last.device_uj.items()}
    for label, uj in more_uj.items():
        name = label if node.node == 0 else f"node{node.node}/{label}"
        if name not in energy.by_device and label in trace.devices:
            energy.by_device[name] = DeviceEnergy(joules=0.0, **msgspec.structs.asdict(trace.devices[label]))
        if name in energy.by_device:
            energy.by_device[name].joules += joules(uj)
    # The last one takes what is left, should the journal's stages and devices not agree.
    left_uj = sum(more_uj.values())
    seconds_left = seconds(last.ns - node.ns)
    rises = {stage: max(0, uj - node.stage_uj.get(stage, 0)) for stage, uj in last.stage_uj.items()}
    for stage, more in [*rises.items(), (last.stage or "other", left_uj)]:
        rise_uj = min(left_uj, more)
        if not rise_uj:
            continue
        left_uj -= rise_uj
        entry = energy.by_stage.setdefault(stage, Stage(joules=0.0, seconds=0.0))
        entry.joules += joules(rise_uj)
        if node.node == 0 and more_uj:
            entry.seconds += seconds_left * rise_uj / (sum(more_uj.values()) or 1)
    energy.total_j = (energy.total_j or 0.0) + joules(sum(more_uj.values()))
    energy.total_kwh = kwh(energy.total_j)
    record.updated_unix = max(record.updated_unix, last.t)
    node.device_uj, node.stage_uj, node.ns = dict(last.device_uj), dict(last.stage_uj), last.ns


class _Versioned(msgspec.Struct):
    schema_version: int


def to_json(record: Record) -> bytes:
    """A record as it stands in the file; what a model says about itself in types that JSON lacks becomes text."""
    return msgspec.json.format(msgspec.json.encode(record, enc_hook=plain), indent=2)


def plain(value: Any) -> int | float | str:
    """A value that JSON lacks: numbers of other libraries (NumPy's) stay numbers."""
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    return str(value)


def read_journal(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of a `watt.jsonl`, without a last one that was cut off.

    Args:
        path: the file, or the directory that holds it.

    Raises:
        RecordError: it is missing, or a line that is not the last is broken.
    """
    file = Path(path)
    file = file if file.suffix == ".jsonl" else file / JOURNAL_NAME
    try:
        lines = read_bounded(file, MAX_JOURNAL_BYTES).splitlines()
    except OSError as error:
        raise RecordError(f"{file}: it cannot be read ({error}).") from error
    return _decode(file, lines)


def _decode(file: Path, lines: Sequence[bytes]) -> list[dict[str, Any]]:
    decoded: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            decoded.append(msgspec.json.decode(line, type=dict[str, Any]))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if number == len(lines):
                break
            raise RecordError(f"{file}: line {number} is not JSON: {error}. Was it edited?") from error
    return decoded
