"""What did that training cost in electricity? An energy callback for PyTorch Lightning.

Importing this package imports nothing else; each public name is loaded when it is first asked for.

- `callback`: `WattCallback`, its arguments and hooks; `settings` checks the arguments.
- `sam`: SAM as a function and as a metric. `carbon`: CO2e a kWh by country.
- `sources`: where readings come from: NVML, RAPL, an estimate, your own.
- `meter`: `EnergyMeter` and its windows; works without Lightning.
- `accounts`: what was used by stage, epoch and device. `run`: one run, over its sessions and nodes.
- `record`: the files that a run leaves. `origin`: the commit of the project that ran, and the job of the cluster.
- `distributed`: the ranks and nodes of one run.
- `trainer`: all that knows a Trainer.
- `tensorboard`: the Watt tab.
- `commands`: the command line.
- `testing`: a clock, sources and an NVML to test with.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_watt.callback import WattCallback
    from lightning_watt.errors import WattError, WattWarning
    from lightning_watt.meter.meter import EnergyMeter
    from lightning_watt.meter.window import Window
    from lightning_watt.record.read import read_record
    from lightning_watt.record.record import Record
    from lightning_watt.run.lineage import energy_of
    from lightning_watt.sam.metric import SustainableAccuracy
    from lightning_watt.sam.score import sustainable_accuracy
    from lightning_watt.sources.discover import discover

    __version__: str

__all__ = [
    "EnergyMeter",
    "Record",
    "SustainableAccuracy",
    "WattCallback",
    "WattError",
    "WattWarning",
    "Window",
    "__version__",
    "discover",
    "energy_of",
    "read_record",
    "sustainable_accuracy",
]
_HOMES = {
    "EnergyMeter": "meter.meter",
    "Record": "record.record",
    "SustainableAccuracy": "sam.metric",
    "WattCallback": "callback",
    "WattError": "errors",
    "WattWarning": "errors",
    "Window": "meter.window",
    "discover": "sources.discover",
    "energy_of": "run.lineage",
    "read_record": "record.read",
    "sustainable_accuracy": "sam.score",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "WattCallback":
        # LightningCLI asks whether it is a `Callback`, and means that of a package that may have been loaded since.
        import_module(f"{__name__}.trainer.base").join_loaded_packages()
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def _version() -> str:
    """The installed version; "unknown" for a package that was put on the path and not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("lightning_watt")
    except PackageNotFoundError:
        return "unknown"


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
