"""Reads trainings that others measured, from a CSV that the user brings (`--reference`); none of its numbers are kept here.

The schema is a line a training, with these columns (`docs/study.md` describes them): `model` and one of `energy_kwh`,
`energy_j`, `kwh` and `pynvml_total_kwh` are needed; `accuracy` (or `val_acc`) in [0, 1], `provenance`, `uncertainty_kwh`,
`family`, `year`, `backend`, `device` (or `gpu`), `count` (or `n_gpu_monitored`) and `epochs` are used if they are there. It
contains the layout of Fischer et al., ECML 2022 (github.com/raphischer/imagenet-energy-efficiency).

What other tools write is translated into that schema: CodeCarbon's `emissions.csv`, the `log_file` of Zeus's `ZeusMonitor`,
and MLflow's exports of runs (`mlflow experiments csv`, and the button of its page).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from experiments.history import published_facts
from experiments.report.inputs import clean
from experiments.report.inputs.records import Broken
from lightning_watt.units import J_PER_KWH, kwh

MOST_BYTES: Final = 16 * 2**20
ENERGY_COLUMNS: Final = ("energy_kwh", "energy_j", "pynvml_total_kwh", "kwh")
ACCURACY_COLUMNS: Final = ("accuracy", "val_acc")
PROVENANCES: Final = ("measured", "mixed", "estimated")
NOT_TOLD: Final = "mixed"
"""What an energy counts as if nobody says how it was found: it may be measured, but is not ranked with what surely is."""
FIRST_PUBLISHED: Final = {
    **dict.fromkeys(("vgg16", "vgg19"), ("VGG", 2014)),  # arXiv 1409.1556
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"), ("ResNet", 2015)),  # arXiv 1512.03385
    **dict.fromkeys(("densenet121", "densenet169", "densenet201"), ("DenseNet", 2016)),  # arXiv 1608.06993
    "inceptionresnetv2": ("Inception-ResNet", 2016),  # arXiv 1602.07261
    "xception": ("Xception", 2016),  # arXiv 1610.02357
    **dict.fromkeys(("nasnetmobile", "nasnetlarge"), ("NASNet", 2017)),  # arXiv 1707.07012
    "mobilenetv2": ("MobileNetV2", 2018),  # arXiv 1801.04381
    **dict.fromkeys(("mobilenetv3small", "mobilenetv3large"), ("MobileNetV3", 2019)),  # arXiv 1905.02244
    **dict.fromkeys((f"efficientnetb{size}" for size in range(8)), ("EfficientNet", 2019)),  # arXiv 1905.11946
    **dict.fromkeys(("quicknet", "quicknetsmall", "quicknetlarge"), ("QuickNet", 2020)),  # arXiv 2011.09398
}
"""Family, and year of the first version of the paper, of the models that Keras and torchvision call so. Nothing is told by a
part of a name: a project called "resnet" may be anything."""
SHORT: Final = {"tensorflow": "TF", "pytorch": "PyTorch"}
Row = Mapping[str, str]


@dataclass(frozen=True)
class Training:
    """One training that somebody else measured.

    Attributes:
        name: the model, and the framework if it is known.
        family: the model's family, as the file has it or as the model's whole name says; else that name.
        year: of the model's paper, from there too; None if neither says it.
        device: what was measured.
        joules: as the file has them; of Fischer's, the GPUs' energy without the CPU's, which was not read for all.
        accuracy: in [0, 1]; None if the file has none.
        epochs: how many; 0 if unknown.
        provenance: "measured", "estimated", or "mixed": both, or not told.
        uncertainty_j: plus or minus; None if unknown.
        status: "completed" unless the file says otherwise.
    """

    name: str
    family: str
    year: int | None
    device: str
    joules: float
    accuracy: float | None
    epochs: int
    provenance: str = NOT_TOLD
    uncertainty_j: float | None = None
    status: str = "completed"


def read_reference(path: Path) -> tuple[list[Training], list[Broken]]:
    """Read a CSV of trainings; rows that cannot be used are listed.

    Args:
        path: the file.

    Raises:
        ValueError: it is no such CSV; the message names what is missing.
        OSError: it cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file. --reference takes a CSV of trainings.")
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path}: it is larger than {MOST_BYTES // 2**20} MiB; this is not a table of trainings.")
    trainings: list[Training] = []
    broken: list[Broken] = []
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = csv.DictReader(file)
        columns = set(rows.fieldnames or ())
        translate = _translation(columns)
        if translate is None:
            _check_schema(path, columns)
        lines: list[tuple[int, Row]] = []
        try:
            lines = [(rows.line_num, {name: value or "" for name, value in row.items() if name}) for row in rows]
        except csv.Error as error:
            broken.append(Broken(f"{clean.text(path.name)}, line {rows.line_num}", clean.text(str(error))))
        for number, row in translate(lines) if translate else lines:
            training = _training(row, is_model=translate is None)
            if isinstance(training, str):
                broken.append(Broken(f"{clean.text(path.name)}, line {number}", training))
            else:
                trainings.append(training)
    return trainings, broken


def _check_schema(path: Path, columns: set[str]) -> None:
    missing = [] if "model" in columns else ["model"]
    missing += [] if columns & set(ENERGY_COLUMNS) else [f"one of {', '.join(ENERGY_COLUMNS)}"]
    if missing:
        raise ValueError(
            f"{path}: the first line lacks {' and '.join(missing)}. --reference takes a CSV of trainings, CodeCarbon's "
            "emissions.csv, a log file of Zeus, or MLflow's CSV of runs; docs/study.md describes the columns."
        )


def _training(row: Row, *, is_model: bool) -> Training | str:
    """One row of the schema, or why it cannot be used.

    Args:
        row: the row.
        is_model: whether `model` names a model; other tools have the name of a project, a window or a run there.
    """
    column = next((name for name in ENERGY_COLUMNS if row.get(name)), next((n for n in ENERGY_COLUMNS if n in row), ""))
    energy = _number(row, column)
    joules = None if energy is None else clean.energy(energy if column == "energy_j" else energy * J_PER_KWH)
    if not joules:
        return f"{column} is {clean.text(row.get(column), 20) or 'missing'}: not an energy"
    told = next((row[name] for name in ACCURACY_COLUMNS if row.get(name)), "")
    accuracy = clean.number(_float(told), 0, 1)
    if told and accuracy is None:
        return f"the accuracy is {clean.text(told, 20)}: not in [0, 1]"
    provenance = row.get("provenance") or ("measured" if column == "pynvml_total_kwh" else NOT_TOLD)
    if provenance not in PROVENANCES:
        return f"provenance is {clean.text(provenance, 20)}: not one of {', '.join(PROVENANCES)}"
    model = clean.text(row.get("model"), 40) or "unnamed model"
    known = _published(model) if is_model else (model, None)
    told_year = clean.number(_number(row, "year"), 1950, 2100)
    backend = clean.text(row.get("backend"), 20)
    backend = SHORT.get(backend, backend)
    uncertainty = _number(row, "uncertainty_kwh")
    return Training(
        name=f"{model} ({backend})" if backend else model,
        family=clean.text(row.get("family"), 40) or known[0],
        year=int(told_year) if told_year else known[1],
        device=_device(row),
        joules=joules,
        accuracy=accuracy,
        epochs=int(clean.number(_number(row, "epochs"), 0, 1e9) or 0),
        provenance=provenance,
        uncertainty_j=None if uncertainty is None else clean.energy(uncertainty * J_PER_KWH),
        status="completed" if row.get("status", "") in ("", "completed") else "failed",
    )


def _published(model: str) -> tuple[str, int | None]:
    """Family and year of a model by its whole name, as Keras, torchvision or timm have it; else the name and None.

    Example:
        >>> _published("ResNet50"), _published("resnet"), _published("vit_base_patch16_224.orig_in21k_ft_in1k")
        (('ResNet', 2015), ('resnet', None), ('vit_base_patch16_224.orig_in21k_ft_in1k', 2020))
    """
    known = FIRST_PUBLISHED.get(re.sub(r"[ _-]", "", model.lower()))
    year = published_facts(model).get("year")
    return known or (model, year if isinstance(year, int) else None)


def _device(row: Row) -> str:
    name = clean.text(row.get("device") or row.get("gpu"), 40) or "device not named"
    count = clean.number(_number(row, "count" if row.get("count") else "n_gpu_monitored"), 1, 1e6) or 1
    return f"{count:.0f} x {name}" if count > 1 else name


# -- what other tools write -----------------------------------------------------------------------------------------------

Lines = Iterable[tuple[int, Row]]
METRICS: Final = "metrics."
_ZEUS_GPU: Final = re.compile(r"gpu\d+_energy")
MLFLOW_ENERGY_KWH: Final = ("watt/energy_kwh", "energy_kwh", "energy_consumed", "kwh")
MLFLOW_ACCURACY: Final = ("watt/accuracy", "test_acc", "test_accuracy", "val_acc", "val_accuracy", "accuracy")
MLFLOW_PAGE: Final = {"Run ID", "Name", "Source Type", "Status"}


def _translation(columns: set[str]) -> Callable[[Lines], Iterator[tuple[int, Row]]] | None:
    """What turns another tool's rows into the schema's; None for the schema itself."""
    if {"energy_consumed", "emissions", "duration"} <= columns:
        return _of_codecarbon
    if "window_name" in columns and any(_ZEUS_GPU.fullmatch(name) for name in columns):
        return _of_zeus
    if ("run_id" in columns and any(name.startswith(METRICS) for name in columns)) or columns >= MLFLOW_PAGE:
        return _of_mlflow
    return None


def _of_codecarbon(lines: Lines) -> Iterator[tuple[int, Row]]:
    """CodeCarbon: kWh of GPU, CPU and memory together, times the PUE. It assumes the memory's watts, and often the CPU's."""
    for number, row in lines:
        energy_kwh, pue = _number(row, "energy_consumed"), _number(row, "pue") or 1.0
        gpu = _number(row, "gpu_energy") or 0.0
        name = "/".join(part for part in (row.get("project_name"), row.get("task_name")) if part)
        run = (row.get("run_id") or row.get("experiment_id") or "")[:8]
        device = re.sub(r"^\d+ x ", "", row.get("gpu_model", "")) if gpu else row.get("cpu_model", "")
        yield (
            number,
            {
                "model": f"{name or 'codecarbon'} {run}".strip(),
                "family": name,
                "energy_kwh": row.get("energy_consumed", "") if energy_kwh is None else repr(energy_kwh / pue),
                "device": device,
                "count": row.get("gpu_count", "") if gpu else "",
                "provenance": "mixed" if gpu else "estimated",
                "accuracy": row.get("accuracy") or row.get("val_acc") or "",
            },
        )


def _of_zeus(lines: Lines) -> Iterator[tuple[int, Row]]:
    """Zeus: joules a GPU and window. Windows of one name are added up; those of two names may lie in one another."""
    joules: dict[str, float] = {}
    first: dict[str, tuple[int, int, int]] = {}
    for number, row in lines:
        gpus = [value for name in row if _ZEUS_GPU.fullmatch(name) and (value := _number(row, name)) is not None]
        name = row.get("window_name", "")
        begun, _, count = first.get(name, (number, 0, 0))
        first[name] = (begun, len(gpus), count + 1)
        joules[name] = joules.get(name, 0.0) + sum(gpus)
    for name, (number, gpus, count) in first.items():
        many = f" ({count} windows)" if count > 1 else ""
        told = {"model": f"{clean.text(name, 28)}{many}", "family": name, "energy_kwh": repr(kwh(joules[name]))}
        yield number, {**told, "device": "GPU, not named", "count": str(gpus), "provenance": "measured"}


def _of_mlflow(lines: Lines) -> Iterator[tuple[int, Row]]:
    """MLflow: a run a row. The energy is the metric of a known name, and nothing says how it was found."""
    for number, row in lines:

        def take(*names: str, row: Row = row) -> str:
            return next((row[name] for name in names if row.get(name)), "")

        def metric(names: Iterable[str], row: Row = row) -> str:
            return next((row[key] for name in names for key in (METRICS + name, name) if row.get(key)), "")

        yield (
            number,
            {
                "model": take("params.model", "tags.mlflow.runName", "Name", "run_id", "Run ID"),
                "family": take("params.family", "params.model", "family"),
                "energy_kwh": metric(MLFLOW_ENERGY_KWH),
                "accuracy": metric(MLFLOW_ACCURACY),
                "epochs": take("params.epochs", "params.max_epochs", "epochs"),
                "device": take("params.device", "device"),
                "provenance": take("params.provenance", "provenance"),
                "status": "completed" if take("status", "Status") in ("FINISHED", "") else "failed",
            },
        )


def _number(row: Row, column: str) -> float | None:
    return _float(row.get(column, ""))


def _float(text: str) -> float | None:
    try:
        return clean.number(float(text), -clean.MOST_COUNT, clean.MOST_COUNT)
    except ValueError:
        return None
