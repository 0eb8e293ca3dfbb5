"""The run record, `watt.json`: its keys, their types and their limits.

A record is checked against these classes when it is read, so every record in memory is complete. Unknown keys are ignored,
so that the record of a newer minor version can be read. A number that is undefined (NaN or infinite) is `null` in the file.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from lightning_watt.sources.base import Device, Gap, NotNegative

SCHEMA_VERSION = 1

Status = Literal["running", "completed", "interrupted", "failed"]
Share = Annotated[float, msgspec.Meta(ge=-1)]
"""Joules or seconds of a part of the run. By a GPU's own clock, a part may end microseconds before it begins."""
Count = Annotated[int, msgspec.Meta(ge=0)]


class Stage(msgspec.Struct, kw_only=True):
    """What one stage used: joules and seconds, and how many batches and samples it had; 0 samples if they are not known."""

    joules: Share
    seconds: Share
    batches: Count = 0
    samples: Count = 0
    uncertainty_j: NotNegative = 0.0


class DeviceEnergy(Device, kw_only=True, frozen=True):
    """What one device used: the device, and its joules."""

    label: str = ""
    joules: NotNegative
    tick_s: float | None = None  # type: ignore[assignment]
    max_power_w: float | None = None  # type: ignore[assignment]


class Energy(msgspec.Struct, kw_only=True):
    """The run's own energy; `total_j` is null if nothing could be measured.

    `uncertainty_j` is what cannot be excluded, and consists of `boundary_j` and `gain_j`. `typical_j` is the same by the
    errors that were typical where the like was checked with a meter; null if only the first is known.
    """

    total_j: NotNegative | None
    total_kwh: NotNegative | None
    uncertainty_j: NotNegative | None
    provenance: Literal["measured", "estimated", "mixed"] | None
    boundary_j: NotNegative = 0.0
    gain_j: NotNegative = 0.0
    typical_j: NotNegative | None = None
    by_stage: dict[str, Stage] = {}
    by_device: dict[str, DeviceEnergy] = {}


class Accuracy(msgspec.Struct, kw_only=True):
    """The accuracy that the energy bought; `metric` is null if none was found."""

    metric: str | None = None
    last: float | None = None
    best: float | None = None


class Sam(msgspec.Struct, kw_only=True):
    """SAM of the last accuracy: by the run's own energy, and by own and inherited energy.

    A value is null if its energy is at most one `unit`. `uncertainty` and `shifted_uncertainty` are what the plus or minus
    of the run's own energy makes of them; null if that reaches down to one `unit`.
    """

    alpha: float
    beta: float
    unit: Literal["kWh", "Wh", "J"]
    value: float | None = None
    shifted: float | None = None
    uncertainty: float | None = None
    shifted_uncertainty: float | None = None
    value_with_inherited: float | None = None
    shifted_with_inherited: float | None = None


class Epoch(msgspec.Struct, kw_only=True):
    """One epoch of one stage."""

    epoch: int
    stage: str
    joules: Share
    seconds: Share
    accuracy: float | None = None


class StepPart(msgspec.Struct, kw_only=True):
    """What one part of the training steps used; known only with `WattCallback(batches=True)`."""

    joules: Share
    seconds: Share


class Inherited(msgspec.Struct, kw_only=True):
    """A run from whose result this run started, and the energy that it carries, with what it inherited itself.

    `uncertainty_j` is the plus or minus of it; null if that is not known, as in records of earlier versions.
    """

    path: str
    total_j: NotNegative
    uncertainty_j: NotNegative | None = None
    boundary_j: NotNegative = 0.0
    gain_j: NotNegative = 0.0


class Idle(msgspec.Struct, kw_only=True):
    """The devices' power before the run, watts by label. The run's energy neither contains it nor was reduced by it."""

    seconds: NotNegative
    power_w: dict[str, NotNegative]


class LostWork(msgspec.Struct, kw_only=True):
    """What an earlier session of this run used after the checkpoint that the run resumed from: spent, its result lost.

    `status` is how that session ended: `killed`, `failed` or `interrupted`. `directory` is where its journal was found.
    """

    session: str
    directory: str
    status: str
    joules: float
    seconds: float


class NodeEnergy(msgspec.Struct, kw_only=True):
    """What this record contains of one node's energy: microjoules by the node's own device labels, and by stage.

    In `energy.by_device` a device of node 0 is `gpu0`, and a device of another node is `node1/gpu0`.
    """

    session: str
    rank: int = 0
    node: int = 0
    host: str = ""
    device_uj: dict[str, int] = {}
    stage_uj: dict[str, int] = {}
    ns: int = 0


class BatchRow(NamedTuple):
    """One batch's energy, a row of `watt_batches.csv`."""

    stage: str
    epoch: int
    batch: int
    joules: float
    seconds: float
    uncertainty_j: float


class RecordFields(msgspec.Struct, kw_only=True):
    """All keys of a run record; `Record` is the class to use.

    `energy.total_j` is all that the run has cost so far. It is the sum of three parts:

    - `resumed_j`: what earlier sessions of the run used up to the checkpoint that the run resumed from.
    - `wasted_j`: what earlier sessions used after their checkpoint, so that its result is lost. `lost` lists these sessions,
      and `energy.by_stage` has their joules in the stage `wasted`. A session that completed, or still runs, wastes nothing.
    - The rest, `total_j - resumed_j - wasted_j`: what the session `session` itself used, on all nodes. No two records share
      any of it. If several runs resumed from one checkpoint, the sum of these rests counts every joule once.

    `slurm_j` is what the cluster had counted for the job `hardware["slurm_job_id"]` when the run ended (Slurm's
    ConsumedEnergy): whole nodes, whoever else ran on them.

    `resumes` holds the ids of the earlier sessions. A run whose record says `running` is running or was killed: while it
    runs, it adds a line to `watt.jsonl` every `interval_s` seconds.
    """

    schema_version: int
    status: Status
    energy: Energy
    accuracy: Accuracy
    sam: Sam
    epochs: list[Epoch] = []
    parts: dict[str, StepPart] = {}
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
    carbon_source: str = ""
    country: str = ""
    co2e_g: float | None = None
    electricity_price: float | None = None
    cost: float | None = None
    idle: Idle | None = None
    slurm_j: NotNegative | None = None
    budget_kwh: float | None = None
    forecast_kwh: float | None = None
    forecast_uncertainty_kwh: float | None = None
    gaps: list[Gap] = []
    missing: list[str] = []
    warnings: list[str] = []
