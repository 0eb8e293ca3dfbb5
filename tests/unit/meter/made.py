"""What several tests of the meter make: labs of some age, a meter on all their boards, the threads that run."""

from __future__ import annotations

import threading
from typing import Any

from lightning_watt import EnergyMeter
from lightning_watt.sources.nvml import NvmlSource
from lightning_watt.testing import Board, Lab


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("lightning_watt")]


def aged(*boards: Board, age_s: float = 10.0) -> Lab:
    """Boards that have run that long when they are first read."""
    return Lab(boards, age_s=age_s, start="first_reading")


def on_all_boards(**arguments: Any) -> EnergyMeter:
    return EnergyMeter(sources=[NvmlSource("all")], **arguments)
