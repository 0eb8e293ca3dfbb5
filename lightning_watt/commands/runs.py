"""`lightning-watt show`, `compare`, `sum`, `statement` and `export`: what records say."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from lightning_watt.carbon import CarbonIntensity
from lightning_watt.errors import RecordError
from lightning_watt.record.difference import difference
from lightning_watt.record.plus_minus import PlusMinus, inherited_by, plus_minus, together, with_inherited
from lightning_watt.record.read import read_record, read_records, records_below
from lightning_watt.record.record import Record
from lightning_watt.record.text.drawn import say, say_wrapped, width_of, wrapped
from lightning_watt.record.text.statement import device_names, statement
from lightning_watt.record.text.summary import drawing
from lightning_watt.run.lineage import energy_below
from lightning_watt.sam.score import co2e_g
from lightning_watt.tables import ratio, table
from lightning_watt.units import J_PER, EnergyUnit, digits, energy_in, unit_that_fits


def show(paths: Sequence[str]) -> int:
    """Print the table of each run; of each one in a directory."""
    for path in paths:
        records = [read_record(path)] if Path(path).is_file() else read_records(path)
        for number, record in enumerate(records):
            where = path if len(records) == 1 else f"{path}, run {number + 1} of {len(records)}"
            say(f"{where}: {record.status}\n{drawing(record).text(width_of())}\n")
    return 0


def compare(first: str, second: str) -> int:
    """Print how two runs differ, and whether they do.

    Returns:
        0 if they differ by more than is uncertain, 1 if they cannot be told apart.
    """
    runs = [read_record(first), read_record(second)]
    found = difference(runs[1], runs[0])
    unit = unit_that_fits(max(run.energy.total_j or 0.0 for run in runs))
    seconds = [sum(stage.seconds for stage in run.energy.by_stage.values()) for run in runs]
    rows = [
        [f"energy, {unit}", *(digits((run.energy.total_j or 0.0) / J_PER[unit]) for run in runs)],
        [f"± {unit}", *(digits((run.energy.uncertainty_j or 0.0) / J_PER[unit], 2) for run in runs)],
        ["seconds", *map(digits, seconds)],
        ["mean W", *(ratio(run.energy.total_j or 0.0, passed_s) for run, passed_s in zip(runs, seconds, strict=True))],
        ["accuracy", *("-" if run.accuracy.last is None else f"{run.accuracy.last:.4f}" for run in runs)],
        ["status", *(run.status for run in runs)],
        ["provenance", *(str(run.energy.provenance) for run in runs)],
        ["devices", *(", ".join(device_names(run.energy)) for run in runs)],
    ]
    if any(run.inherited for run in runs):
        rows.insert(2, ["with inherited", *(_with_plus_minus(*with_inherited(run), unit) for run in runs)])
    say(table(rows, ["", "first", "second"], "simple", width_of()))
    more = "more" if found.joules >= 0 else "less"
    by = energy_in(unit, abs(found.joules), found.plus_minus_j)
    share = found.joules / (runs[0].energy.total_j or 1.0)
    say_wrapped("", f"{found.verdict}: the second used {by} {more} ({share:+.1%}).", found.why)
    if found.is_sure:
        say_wrapped("This is of these two runs. How much runs of one program differ, only repetitions tell.")
    if any(run.status != "completed" for run in runs):
        say_wrapped("Not both of them completed: what they did may differ too.")
    return 0 if found.is_sure else 1


def sum_up(root: str) -> int:
    """Print the energy of all runs in a directory and below it, each joule once.

    Returns:
        0; 1 if a record could not be read.
    """
    records, broken = _read_below(root)
    carried = energy_below(Path(root), [record for _, record in records])
    statuses = Counter(record.status for _, record in records)
    kinds = sorted({str(record.energy.provenance) for _, record in records if record.energy.provenance})
    runs = ", ".join(f"{count} {status}" for status, count in statuses.items())
    many = "1 run" if len(records) == 1 else f"{len(records)} runs"
    used = _with_plus_minus(carried.own_j, carried.own)
    say_wrapped(f"{used} in {many} ({runs}), {' and '.join(kinds)}. Each joule is counted once.")
    if carried.inherited:
        outside = together(plus_minus(run) for run in carried.inherited if run.total_j)
        outside_j = carried.total_j - carried.own_j
        say_wrapped(f"The runs outside of it that these started from: {_with_plus_minus(outside_j, outside)}.")
    return broken


def _with_plus_minus(joules: float, known: PlusMinus | None, unit: EnergyUnit | None = None) -> str:
    unit = unit or unit_that_fits(joules)
    return energy_in(unit, joules, known.total_j) if known is not None else f"{energy_in(unit, joules)} ± unknown"


def state(paths: Sequence[str], part: str | None, carbon: CarbonIntensity | None = None, pue: float | None = None) -> int:
    """Print each run in words for a paper.

    Args:
        paths: the runs.
        part: `text`, `latex`, `bibtex` or `model-card`; None for all.
        carbon: what a kWh causes; None for what the record says.
        pue: the building's power over its computers' power; None for what the record says.
    """
    for path in paths:
        record = _with_carbon(read_record(path), carbon, pue)
        name = Path(path).name if Path(path).suffix != ".json" else Path(path).absolute().parent.name
        said = statement(record, name)
        said = replace(said, text=wrapped(said.text, width_of(), indent=0))
        say(str(said) if part is None else str(getattr(said, part.replace("-", "_"))))
        say("")
    return 0


def export(root: str, kind: str, to: str | None) -> int:
    """Write all runs in a directory and below it as CSV.

    Args:
        root: the directory.
        kind: a row for each run, or for each stage, epoch or device of each.
        to: the file; None for standard output.

    Returns:
        0; 1 if a record could not be read.
    """
    records, broken = _read_below(root)
    rows = [row for file, record in records for row in _rows(_name(file, Path(root)), record, kind)]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    if to is None:
        say(out.getvalue().rstrip("\n"))
    else:
        try:
            Path(to).write_text(out.getvalue(), encoding="utf-8", newline="")
        except OSError as error:
            raise RecordError(f"{to}: it cannot be written ({error}).") from error
        say(f"{len(rows)} rows in {to}")
    return broken


def _read_below(root: str) -> tuple[list[tuple[Path, Record]], int]:
    """The records, and 1 if one of them cannot be read, which is told."""
    found = records_below(root)
    for _, record in found:
        if isinstance(record, RecordError):
            say_wrapped(f"Left out: {record}")
    records = [(file, record) for file, record in found if isinstance(record, Record)]
    if not records:
        raise RecordError(f"{root}: there is no run record in it or below it. Did its runs use WattCallback(record=True)?")
    return records, int(len(records) < len(found))


def _name(file: Path, root: Path) -> str:
    run = file.parent if file.name == "watt.json" else file.with_suffix("")
    return str(run.relative_to(root)) if run != root and run.is_relative_to(root) else run.absolute().name


def _rows(name: str, record: Record, kind: str) -> Iterator[dict[str, Any]]:
    energy = record.energy
    if kind == "stages":
        for stage, used in energy.by_stage.items():
            yield {"run": name, "stage": stage, **msgspec.structs.asdict(used)}
    elif kind == "epochs":
        for epoch in record.epochs:
            yield {"run": name, **msgspec.structs.asdict(epoch)}
    elif kind == "devices":
        for label, device in energy.by_device.items():
            keys = ("joules", "name", "uuid", "source", "provenance", "gain", "host")
            yield {"run": name, "device": label, **{key: getattr(device, key) for key in keys}}
    else:
        yield {
            "run": name,
            "status": record.status,
            "model": record.model.get("name"),
            "started_unix": record.started_unix,
            "seconds": sum(stage.seconds for stage in energy.by_stage.values()),
            "energy_kwh": energy.total_kwh,
            "energy_j": energy.total_j,
            "uncertainty_j": energy.uncertainty_j,
            "boundary_j": energy.boundary_j,
            "provenance": energy.provenance,
            "devices": "; ".join(device_names(energy)),
            "inherited_j": inherited_by(record)[0],
            "with_inherited_uncertainty_j": (whole := with_inherited(record)[1]) and whole.total_j,
            "resumed_j": record.resumed_j,
            "wasted_j": record.wasted_j,
            "accuracy_metric": record.accuracy.metric,
            "accuracy_last": record.accuracy.last,
            "accuracy_best": record.accuracy.best,
            "sam": record.sam.value,
            "sam_shifted": record.sam.shifted,
            "sam_unit": record.sam.unit,
            "co2e_g": record.co2e_g,
            "cost": record.cost,
        }


def _with_carbon(record: Record, carbon: CarbonIntensity | None, pue: float | None) -> Record:
    """The record with an intensity or a PUE that were given afterwards."""
    made = msgspec.structs.replace(record, pue=record.pue if pue is None else pue)
    if carbon is not None:
        made.carbon_intensity, made.carbon_source, made.country = carbon.g_per_kwh, carbon.source, carbon.country
    used_j, intensity = made.energy.total_j, made.carbon_intensity
    made.co2e_g = None if used_j is None or intensity is None else co2e_g(used_j, intensity, made.pue)
    return made
