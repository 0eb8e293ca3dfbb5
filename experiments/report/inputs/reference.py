"""Reads trainings that others measured, from a CSV that the user brings (`--reference`); none of its numbers are kept here.

Columns: `model`, `val_acc` in [0, 1], and `pynvml_total_kwh` (or `kwh`) are needed; `backend`, `gpu`, `n_gpu_monitored`,
`epochs` and `year` are used if they are there. This is the layout of Fischer et al., ECML 2022
(github.com/raphischer/imagenet-energy-efficiency).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from experiments.report.inputs import clean
from experiments.report.inputs.records import Broken
from lightning_watt.units import J_PER_KWH

MOST_BYTES: Final = 16 * 2**20
ENERGY_COLUMNS: Final = ("pynvml_total_kwh", "kwh", "energy_kwh")
FIRST_PUBLISHED: Final = {
    "vgg": ("VGG", 2014),  # arXiv 1409.1556
    "resnet": ("ResNet", 2015),  # arXiv 1512.03385
    "densenet": ("DenseNet", 2016),  # arXiv 1608.06993
    "inceptionresnetv2": ("Inception-ResNet", 2016),  # arXiv 1602.07261
    "xception": ("Xception", 2016),  # arXiv 1610.02357
    "nasnet": ("NASNet", 2017),  # arXiv 1707.07012
    "mobilenetv2": ("MobileNetV2", 2018),  # arXiv 1801.04381
    "mobilenetv3": ("MobileNetV3", 2019),  # arXiv 1905.02244
    "efficientnet": ("EfficientNet", 2019),  # arXiv 1905.11946
    "quicknet": ("QuickNet", 2020),  # arXiv 2011.09398
    "vit": ("ViT", 2020),  # arXiv 2010.11929
    "swin": ("Swin", 2021),  # arXiv 2103.14030
}
"""Family and year of the first version of the paper, by how the model's name begins."""

SHORT: Final = {"tensorflow": "TF", "pytorch": "PyTorch"}


@dataclass(frozen=True)
class Training:
    """One training that somebody else measured.

    Attributes:
        name: the model, and the framework if it is known.
        family: the model's family.
        year: of the family's paper; None if unknown.
        device: what was measured.
        joules: the GPUs' energy, without the CPU's, which was not read for all.
        accuracy: in [0, 1].
        epochs: how many; 0 if unknown.
    """

    name: str
    family: str
    year: int | None
    device: str
    joules: float
    accuracy: float
    epochs: int


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
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.DictReader(file)
        columns = rows.fieldnames or ()
        energy_column = next((name for name in ENERGY_COLUMNS if name in columns), None)
        missing = [name for name in ("model", "val_acc") if name not in columns]
        if missing or energy_column is None:
            wanted = ", ".join(missing) or f"one of {', '.join(ENERGY_COLUMNS)}"
            raise ValueError(f"{path}: the first line lacks {wanted}. --reference takes a CSV of trainings.")
        try:
            for row in rows:
                training = _training(row, energy_column)
                if isinstance(training, str):
                    broken.append(Broken(f"{clean.text(path.name)}, line {rows.line_num}", training))
                else:
                    trainings.append(training)
        except csv.Error as error:
            broken.append(Broken(f"{clean.text(path.name)}, line {rows.line_num}", clean.text(str(error))))
    return trainings, broken


def _training(row: Mapping[str | None, str | None], energy_column: str) -> Training | str:
    """One row, or why it cannot be used."""
    energy_kwh, accuracy = _number(row, energy_column), _number(row, "val_acc")
    joules = clean.energy(energy_kwh * J_PER_KWH) if energy_kwh is not None else None
    if not joules:
        return f"{energy_column} is {clean.text(row.get(energy_column), 20) or 'missing'}: not an energy"
    if accuracy is None or not 0 <= accuracy <= 1:
        return f"val_acc is {clean.text(row.get('val_acc'), 20) or 'missing'}: not in [0, 1]"
    model = clean.text(row.get("model"), 40) or "unnamed model"
    family, year = next((known for name, known in FIRST_PUBLISHED.items() if model.lower().startswith(name)), (model, None))
    told_year = clean.number(_number(row, "year"), 1950, 2100)
    backend = clean.text(row.get("backend"), 20)
    backend = SHORT.get(backend, backend)
    return Training(
        name=f"{model} ({backend})" if backend else model,
        family=family,
        year=int(told_year) if told_year else year,
        device=_device(row),
        joules=joules,
        accuracy=accuracy,
        epochs=int(clean.number(_number(row, "epochs"), 0, 1e9) or 0),
    )


def _device(row: Mapping[str | None, str | None]) -> str:
    gpu = clean.text(row.get("gpu"), 40) or "device not named"
    count = clean.number(_number(row, "n_gpu_monitored"), 1, 1e6) or 1
    return f"{count:.0f} x {gpu}" if count > 1 else gpu


def _number(row: Mapping[str | None, str | None], column: str) -> float | None:
    try:
        return clean.number(float(row.get(column) or ""), -clean.MOST_COUNT, clean.MOST_COUNT)
    except ValueError:
        return None
