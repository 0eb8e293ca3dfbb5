"""Run records as a callback writes them, made of the library's own classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from lightning_watt.record import Accuracy, DeviceEnergy, Energy, Epoch, Inherited, Record, Sam, Stage
from lightning_watt.record.writer import to_json

REFERENCE = """model,backend,gpu,n_gpu_monitored,pynvml_total_kwh,rapl_kwh,epochs,val_acc
ResNet50,pytorch,NVIDIA A100-SXM4-40GB,8,5.0,0.0,10,0.51
MobileNetV2,pytorch,NVIDIA A100-SXM4-40GB,8,1.5,0.0,10,0.53
QuickNet,tensorflow,NVIDIA A100-SXM4-40GB,8,0.9,0.0,10,0.47
VGG16,pytorch,Quadro RTX 5000,1,6.0,1.4,10,0.001
"""


def made(
    joules: float | None = 100.0,
    accuracy: float | None = 0.9,
    *,
    phase: str = "finetune",
    family: str = "vit",
    status: str = "completed",
    provenance: str = "measured",
    device: str = "NVIDIA H100",
    uuid: str = "GPU-1",
    inherited: list[Inherited] | None = None,
    unit: str = "kWh",
    epochs: list[Epoch] | None = None,
    **model: Any,
) -> Record:
    """One run. Joules are split 80 to 20 over train and validate, or all test in an inference run of 1,000 samples."""
    told = joules or 0.0
    stages = (
        {"test": Stage(joules=told, seconds=2.0, samples=1000, uncertainty_j=told / 10)}
        if phase == "inference"
        else {
            "train": Stage(joules=0.8 * told, seconds=5.0, samples=100, uncertainty_j=0.08 * told),
            "validate": Stage(joules=0.2 * told, seconds=1.0, uncertainty_j=0.02 * told),
        }
    )
    sensor = "estimated" if provenance == "estimated" else "measured"
    source = "estimate" if provenance == "estimated" else "nvml-counter"
    facts = {
        "name": f"{family} (test_{family})",
        "family": family,
        "timm_name": f"test_{family}",
        "phase": phase,
        "scale": "tiny",
        "data": "digits",
        "pretraining": "supervised",
        "year": 2020,
        "params": 1_000_000,
        "gflops_per_sample": 2.0,
    }
    return Record(
        schema_version=1,
        status=status,
        energy=Energy(
            total_j=joules,
            total_kwh=None if joules is None else joules / 3.6e6,
            uncertainty_j=None if joules is None else joules / 10,
            provenance=None if joules is None else provenance,
            by_stage=stages if joules is not None else {},
            by_device={"gpu0": DeviceEnergy(joules=told, name=device, uuid=uuid, source=source, provenance=sensor)},
        ),
        accuracy=Accuracy(metric="test_acc", last=accuracy, best=accuracy),
        sam=Sam(alpha=5.0, beta=5.0, unit=unit),
        epochs=curve(told, accuracy or 0.0) if epochs is None and phase != "inference" else epochs or [],
        inherited=inherited or [],
        model=facts | model,
    )


def curve(joules: float, accuracy: float, length: int = 4) -> list[Epoch]:
    """Epochs of even cost whose accuracy rises in even steps."""
    found = []
    for n in range(length):
        reached = accuracy * (n + 1) / length
        for stage, share in (("train", 0.8), ("validate", 0.2)):
            found.append(Epoch(epoch=n, stage=stage, joules=share * joules / length, seconds=1.0, accuracy=reached))
    return found


def write(directory: Path, record: Record, name: str = "watt.json") -> Path:
    """Write a record where a run with this directory would."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(to_json(record))
    return directory


def write_raw(directory: Path, record: Record, **changes: Any) -> Path:
    """Write a record with parts of it replaced by anything; `energy__total_j=1` goes one level down."""
    raw = msgspec.to_builtins(record)
    for key, value in changes.items():
        *above, last = key.split("__")
        part = raw
        for name in above:
            part = part[name]
        part[last] = value
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "watt.json").write_bytes(msgspec.json.encode(raw))
    return directory


def lifecycle(root: Path, family: str = "vit", scale: float = 1.0, accuracy: float = 0.9, **more: Any) -> None:
    """Write pretrain, finetune and inference below a directory, each inheriting the one before."""
    first = write(root / "pretrain", made(300 * scale, accuracy, phase="pretrain", family=family, **more))
    carried = [Inherited(path=str(first), total_j=300 * scale)]
    second = write(root / "finetune", made(100 * scale, accuracy, family=family, inherited=carried, **more))
    carried = [Inherited(path=str(second), total_j=400 * scale)]
    write(root / "inference", made(10 * scale, accuracy, phase="inference", family=family, inherited=carried, **more))
