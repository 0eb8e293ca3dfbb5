"""What several tests of the meter make: labs of some age, a meter on all their boards, the threads that run."""

from __future__ import annotations

import threading
import time
from typing import Any

from lightning_watt import EnergyMeter
from lightning_watt.sources.nvml import NvmlSource
from lightning_watt.testing import Board, Lab


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("lightning_watt")]


def aged(*boards: Board, age_s: float = 10.0) -> Lab:
    return Lab(boards, t0_ns=time.monotonic_ns() - round(age_s * 1e9))


def on_all_boards(**arguments: Any) -> EnergyMeter:
    return EnergyMeter(sources=[NvmlSource("all")], **arguments)
