"""Finds and reads the run records below a directory. What they say about themselves is taken as hostile text."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from experiments.report.inputs import clean
from experiments.report.inputs.projected import PHASE, read_projection
from experiments.report.inputs.run import SCRATCH, EpochUse, Run, StageUse
from lightning_watt import read_record
from lightning_watt.errors import RecordError
from lightning_watt.record import DeviceEnergy, PlusMinus, Record, inherited_by, measured_with, plus_minus
from lightning_watt.record.files import RECORD_NAME, record_files

MOST_STAGES: Final = 12
OUTCOME_NAME: Final = "outcome.json"
MOST_OUTCOME_BYTES: Final = 2**20
SEEDS: Final = {"seed", "random_seed", "random_state"}
"""Facts in which repetitions of one run differ."""
NO_FACTS: Final = {"name", "params"}
"""What a record says about every model; two runs may agree in it and still be two experiments."""
OF_THE_RECIPE: Final = ("world_size", "nodes", "precision")
OF_THE_MACHINE: Final = ("accelerator", "cpu")
VERSIONS: Final = ("torch", "cuda")


@dataclass(frozen=True)
class Broken:
    """A record that could not be used, and why."""

    path: str
    why: str


@dataclass(frozen=True)
class FailedJob:
    """A job of the study that did not complete: where, "failed" or "interrupted", what was asked for, and why it ended."""

    path: str
    status: str
    asked: str
    why: str


@dataclass(frozen=True)
class Found:
    """What lies below a directory."""

    runs: Sequence[Run] = ()
    broken: Sequence[Broken] = field(default_factory=tuple)
    failed: Sequence[FailedJob] = field(default_factory=tuple)


def load(root: Path) -> Found:
    """Read every record below a directory; what cannot be read is listed. Symbolic links are not followed.

    Args:
        root: where to look.

    Raises:
        NotADirectoryError: `root` is no directory.
    """
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is no directory. Give the one that your runs write to.")
    runs: list[Run] = []
    broken: list[Broken] = []
    base = Path(os.path.abspath(root))
    for file in _records(base, broken):
        try:
            runs.append(_run(base, file))
        except RecordError as error:
            broken.append(Broken(_shown(base, file), clean.text(str(error).removeprefix(f"{file}: "), 300)))
    return Found(runs, broken, list(_failed_jobs(base)))


def _records(base: Path, broken: list[Broken]) -> Iterator[Path]:
    """Every record, in the order of their paths; what has its name and is no plain file is listed as broken."""

    def unreadable(error: OSError) -> None:
        where = Path(os.fsdecode(error.filename or base))
        broken.append(Broken(_shown(base, where), f"the directory cannot be read: {error.strerror}"))

    for file in record_files(base, unreadable):
        # A link may lead out of the directory, and a pipe would keep the report waiting.
        if stat.S_ISREG(file.lstat().st_mode):
            yield file
        else:
            broken.append(Broken(_shown(base, file), "it is a link, a pipe or a directory, not a file; it was not opened"))


def _failed_jobs(base: Path) -> Iterator[FailedJob]:
    """What the outcomes below a directory say of jobs that did not complete; other files of that name are passed over."""
    for directory, folders, files in os.walk(base, followlinks=False):
        folders.sort()
        file = Path(directory) / OUTCOME_NAME
        if OUTCOME_NAME not in files or not stat.S_ISREG(file.lstat().st_mode) or file.lstat().st_size > MOST_OUTCOME_BYTES:
            continue
        try:
            said = json.loads(file.read_bytes())
        except (ValueError, OSError, RecursionError):
            continue
        if isinstance(said, dict) and said.get("status") in ("failed", "interrupted"):
            asked = [f"{group}={clean.text(said.get(group), 40)}" for group in ("model", "phase", "data", "scale", "task")]
            why = clean.text(said.get("error"), 300)
            yield FailedJob(_shown(base, Path(directory)), said["status"], " ".join(asked), why)


def _shown(base: Path, path: Path) -> str:
    return clean.text(os.path.relpath(path, base), 200)


def _run(base: Path, file: Path) -> Run:
    record = read_record(file)
    path = clean.text(base.name) if file.parent == base else _shown(base, file.parent)
    path += "" if file.name == RECORD_NAME else f"/{file.name}"
    notes: list[str] = []
    own_j, uncertainty_j = _energy(record)
    is_untrained = (record.model.get("phase"), record.model.get("start")) == ("inference", SCRATCH)
    if is_untrained:
        notes.append("random weights, so without accuracy")
    accuracy = None if is_untrained else clean.number(record.accuracy.last, 0, 1)
    if accuracy is None and not is_untrained and record.accuracy.last is not None:
        notes.append(f"accuracy {clean.text(record.accuracy.last)} is not in [0, 1] and was left out")
    warned = len(record.warnings) + len(record.gaps)
    if warned:
        notes.append(f"{warned} warning{'s' if warned > 1 else ''}")
    texts = ("model", "family", "timm_name", "task", "metric", "phase", "scale", "data", "pretraining", "start", "settings")
    limits = {
        "params": (1, clean.MOST_COUNT),
        "gflops_per_sample": (0, clean.MOST_COUNT),
        "year": (1950, 2100),
        "published_top1": (0, 1),
        "image_size": (1, 1e6),
        "num_classes": (2, 1e9),
        "epochs": (1, 1e9),
        "batch_size": (1, 1e9),
        "lr": (0, 1e6),
    }
    numbers = {key: clean.number(record.model.get(key), *limit) for key, limit in limits.items()}
    facts = {key: clean.text(record.model.get(key), 40) for key in texts}
    return Run(
        path=path,
        place=str(file.parent),
        status=record.status,
        name=clean.text(record.model.get("name"), 60) or "unnamed model",
        facts=facts,
        numbers={key: value for key, value in numbers.items() if value is not None},
        metric="" if is_untrained else clean.text(record.accuracy.metric, 40),
        accuracy=accuracy,
        own_j=own_j,
        uncertainty_j=uncertainty_j,
        provenance=(record.energy.provenance or "") if own_j is not None else "",
        inherited=_inherited(record),
        devices=_devices(list(record.energy.by_device.values())),
        sources=clean.text(", ".join(sorted({device.source for device in record.energy.by_device.values()}))),
        stages=_stages(record, notes),
        epochs=tuple(one._replace(accuracy=None) if is_untrained else one for one in _epochs(record)),
        sam=_sam(record),
        notes=tuple(notes),
        plus_minus=plus_minus(record.energy) if uncertainty_j is not None else None,
        inherited_plus_minus=_inherited_plus_minus(record),
        boundary_j=_boundary(record),
        boards=measured_with(record),
        recipe_key=_recipe_key(record),
        machine_key=_machine_key(record),
        processes=_whole(record.hardware.get("world_size"), 1),
        seed=_whole(record.model.get("seed"), 0),
        started_s=clean.number(record.started_unix, 1, clean.MOST_COUNT),
        projection=read_projection(file.parent) if facts["phase"] == PHASE and file.name == RECORD_NAME else None,
        is_untrained=is_untrained,
    )


def _energy(record: Record) -> tuple[float | None, float | None]:
    """Joules and plus or minus, refused if no run can have used that."""
    own_j = record.energy.total_j
    if own_j is not None and clean.energy(own_j) is None:
        raise RecordError(f"energy.total_j is {own_j:g}: no run uses that. Was it edited?")
    return own_j, clean.energy(record.energy.uncertainty_j)


def _inherited(record: Record) -> tuple[tuple[str, float], ...]:
    for run in record.inherited:
        if clean.energy(run.total_j) is None:
            raise RecordError(f"inherited.total_j is {run.total_j:g}: no run uses that. Was it edited?")
    return tuple((os.path.normpath(run.path.replace("\0", "")), run.total_j) for run in record.inherited)


def _inherited_plus_minus(record: Record) -> PlusMinus | None:
    known = inherited_by(record)[1]
    return known if known is not None and clean.energy(known.total_j) is not None else None


def _devices(devices: Sequence[DeviceEnergy]) -> str:
    counts = Counter(clean.text(device.name, 40) or "unnamed device" for device in devices[:1000])
    return clean.text(" + ".join(f"{n} x {name}" if n > 1 else name for name, n in sorted(counts.items())))


def _stages(record: Record, notes: list[str]) -> dict[str, StageUse]:
    """Energy by stage; stages with impossible numbers are left out with a note."""
    found: dict[str, StageUse] = {}
    for name, use in list(record.energy.by_stage.items())[:MOST_STAGES]:
        joules, uncertainty_j = clean.energy(use.joules), clean.energy(use.uncertainty_j)
        seconds = clean.number(use.seconds, 0, clean.MOST_COUNT)
        samples = clean.number(use.samples, 0, clean.MOST_COUNT)
        shown = clean.text(name, 20)
        if joules is None or uncertainty_j is None or seconds is None or samples is None:
            notes.append(f"stage {shown} has impossible numbers and was left out")
        else:
            found[shown] = StageUse(joules, uncertainty_j, seconds, int(samples), _whole(use.batches, 0) or 0)
    if len(record.energy.by_stage) > MOST_STAGES:
        notes.append(f"only {MOST_STAGES} of {len(record.energy.by_stage)} stages are shown")
    return found


def _epochs(record: Record) -> Iterator[EpochUse]:
    """Every epoch, up to one that has impossible numbers."""
    spent = 0.0
    for epoch in record.epochs:
        joules, seconds = clean.energy(epoch.joules), clean.number(epoch.seconds, 0, clean.MOST_COUNT)
        if joules is None or seconds is None or spent + joules > clean.MOST_JOULES:
            return
        spent += joules
        yield EpochUse(epoch.epoch, clean.text(epoch.stage, 20), joules, seconds, clean.number(epoch.accuracy, 0, 1))


def _boundary(record: Record) -> float | None:
    energy = record.energy
    told = energy.boundary_j or energy.gain_j or not energy.uncertainty_j
    return clean.energy(energy.boundary_j) if told else None


def _recipe_key(record: Record) -> str:
    if not record.model.keys() - NO_FACTS:
        return ""
    return _digest([record.model, [record.hardware.get(key) for key in OF_THE_RECIPE]])


def _machine_key(record: Record) -> str:
    kind = [record.hardware.get(key) for key in OF_THE_MACHINE] + [record.software.get(key) for key in VERSIONS]
    return _digest([kind, _devices(list(record.energy.by_device.values()))])


def _digest(facts: Any) -> str:
    """Eight digits that are equal if the facts are, whatever their seeds; nothing if they are nested without reason."""
    try:
        text = json.dumps(_without_seeds(facts), sort_keys=True)
    except RecursionError:
        return ""
    # Where an object lay in memory is no fact.
    return hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", text).encode()).hexdigest()[:8]


def _without_seeds(facts: Any) -> Any:
    if isinstance(facts, Mapping):
        return {key: _without_seeds(value) for key, value in facts.items() if key not in SEEDS}
    return [_without_seeds(value) for value in facts] if isinstance(facts, list) else facts


def _whole(value: object, least: int) -> int | None:
    number = clean.number(value, least, clean.MOST_COUNT)
    return None if number is None else int(number)


def _sam(record: Record) -> tuple[float, float, str]:
    alpha, beta = clean.number(record.sam.alpha, 0, 1000), clean.number(record.sam.beta, 0, 1e6)
    return (alpha if alpha is not None else 5.0, beta if beta is not None else 5.0, record.sam.unit)
