"""Stand-ins for machines: a clock, scripted sources and the NVML lab, for your tests and for ours.

Examples:
    A source with a known power, and a clock that moves only when the test moves it:

    >>> from lightning_watt import EnergyMeter
    >>> from lightning_watt.testing import FakeClock, ScriptedSource
    >>> clock = FakeClock()
    >>> with EnergyMeter(sources=[ScriptedSource()], clock=clock) as meter:  # 100 W
    ...     clock.sleep(5)  # no time passes for the test
    >>> round(meter.joules)
    500

    A recorded counter, played back; `window` gives the joules of a block:

    >>> from lightning_watt.testing import ReplaySource
    >>> source = ReplaySource({"gpu0": [(0.0, 0.0), (10.0, 2500.0), (20.0, 7500.0)]})  # 250 W, then 500 W
    >>> clock = FakeClock()
    >>> with EnergyMeter(sources=[source], clock=clock) as meter:
    ...     clock.sleep(10)
    ...     with meter.window("second half") as window:
    ...         clock.sleep(10)
    >>> round(meter.joules), round(window.joules)
    (7500, 5000)
"""

from lightning_watt.sources.replay import ReplaySource
from lightning_watt.testing.doubles import AbsentSource, FakeClock, ScriptedSource
from lightning_watt.testing.nvml_lab import (
    BOARDS,
    GPU_IS_LOST,
    UNKNOWN,
    Board,
    Curve,
    Fault,
    Lab,
    LabError,
    ReplayClock,
    constant,
    named,
    ramp,
    square,
    steps,
)

__all__ = [
    "BOARDS",
    "GPU_IS_LOST",
    "UNKNOWN",
    "AbsentSource",
    "Board",
    "Curve",
    "FakeClock",
    "Fault",
    "Lab",
    "LabError",
    "ReplayClock",
    "ReplaySource",
    "ScriptedSource",
    "constant",
    "named",
    "ramp",
    "square",
    "steps",
]
