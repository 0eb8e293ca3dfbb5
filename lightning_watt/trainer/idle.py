"""What the devices draw while nothing runs: measured before a run, where that is asked for, by a meter of its own.

It stands beside the run's energy and is neither in it nor taken off it: a run pays for the board that it keeps awake.
"""

from __future__ import annotations

from time import sleep

from lightning_watt.meter.meter import EnergyMeter
from lightning_watt.record.schema import Idle


def measure_idle(meter: EnergyMeter, seconds: float) -> Idle:
    """Wait, and say what was drawn meanwhile.

    Args:
        meter: one that has not been started, on the devices that the run will use.
        seconds: how long to wait.

    Raises:
        WattError: nothing could be read.
        ValueError: the meter's arguments name what is not there.

    Example:
        >>> from lightning_watt.sources.replay import ReplaySource
        >>> board = ReplaySource({"gpu0": [(0, 0), (60, 1800.0)]})  # 30 W
        >>> list(measure_idle(EnergyMeter(sources=[board]), 0.1).power_w)
        ['gpu0']
    """
    with meter, meter.window("idle") as window:
        sleep(seconds)
    passed_s = window.seconds
    return Idle(seconds=passed_s, power_w={label: joules / passed_s for label, joules in window.by_device.items()})
