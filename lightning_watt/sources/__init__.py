"""Where energy readings come from: one module a source; `discover` says what a machine has."""

from lightning_watt.sources.base import Device, EnergySource, Failure, Reading
from lightning_watt.sources.estimate import EstimateSource
from lightning_watt.sources.nvml import NvmlSource
from lightning_watt.sources.rapl import RaplSource
from lightning_watt.sources.replay import ReplaySource
from lightning_watt.sources.zeus import ZeusSource

__all__ = [
    "Device",
    "EnergySource",
    "EstimateSource",
    "Failure",
    "NvmlSource",
    "RaplSource",
    "Reading",
    "ReplaySource",
    "ZeusSource",
]
