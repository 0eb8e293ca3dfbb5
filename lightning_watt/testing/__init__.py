"""Stand-ins for machines: a clock, scripted sources and the NVML lab, for your tests and for ours."""

from lightning_watt.sources.replay import ReplaySource
from lightning_watt.testing.doubles import AbsentSource, FakeClock, ScriptedSource
from lightning_watt.testing.nvml_lab import (
    GPU_IS_LOST,
    UNKNOWN,
    Board,
    Curve,
    Fault,
    Lab,
    LabError,
    constant,
    ramp,
    square,
    steps,
)

__all__ = [
    "GPU_IS_LOST",
    "UNKNOWN",
    "AbsentSource",
    "Board",
    "Curve",
    "FakeClock",
    "Fault",
    "Lab",
    "LabError",
    "ReplaySource",
    "ScriptedSource",
    "constant",
    "ramp",
    "square",
    "steps",
]
