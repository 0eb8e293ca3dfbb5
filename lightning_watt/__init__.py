"""What did that training cost in electricity? An energy callback for PyTorch Lightning.

Importing this package imports nothing else; each public name is loaded when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_watt.callback import WattCallback
    from lightning_watt.meter.meter import EnergyMeter
    from lightning_watt.record.read import read_record
    from lightning_watt.run.lineage import energy_of
    from lightning_watt.sam import SustainableAccuracy, sustainable_accuracy
    from lightning_watt.sources.discover import discover

__all__ = [
    "EnergyMeter",
    "SustainableAccuracy",
    "WattCallback",
    "discover",
    "energy_of",
    "read_record",
    "sustainable_accuracy",
]
_HOMES = {
    "EnergyMeter": "meter.meter",
    "SustainableAccuracy": "sam",
    "WattCallback": "callback",
    "discover": "sources.discover",
    "energy_of": "run.lineage",
    "read_record": "record.read",
    "sustainable_accuracy": "sam",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "WattCallback":
        # Whoever asks whether it is a `Callback` (LightningCLI does) means that of a package that may be loaded since.
        import_module(f"{__name__}.trainer.base").join_loaded_packages()
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
