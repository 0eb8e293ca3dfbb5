"""What a comparison depends on besides what is compared: how hot the boards are, and who else works on the machine."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil
import pynvml

from lightning_watt import discover
from lightning_watt.sources import Device, NvmlSource

SHARED = "Shared"
"""How the note of a board begins that others use too."""
OTHERS_BUSY = 0.1
"""Other programs that keep more than this share of the CPUs busy count as another program."""


@dataclass(frozen=True)
class Conditions:
    """The machine at one moment.

    Attributes:
        temperature_c: degrees Celsius by board, as far as the boards say.
        shared: sentences on boards that other programs use.
        t_s: when, by `time.perf_counter`.
        busy_s: CPU seconds of all processes of the machine so far.
        own_s: those of this process and those below it.
    """

    temperature_c: dict[str, float]
    shared: tuple[str, ...]
    t_s: float
    busy_s: float
    own_s: float


def conditions(devices: Sequence[Device]) -> Conditions:
    """Look at the machine, which takes some milliseconds.

    Args:
        devices: what is measured.
    """
    boards = {device.uuid: device.label for device in devices if device.source.startswith("nvml")}
    temperatures = {label: _temperature(uuid) for uuid, label in boards.items()}
    seen = discover([NvmlSource(at_ticks=False)]).devices if boards else ()
    return Conditions(
        {label: celsius for label, celsius in temperatures.items() if celsius is not None},
        tuple(one.note for one in seen if one.uuid in boards and one.note.startswith(SHARED)),
        time.perf_counter(),
        _machine_busy_s(),
        _own_busy_s(),
    )


def said_of(first: Conditions, last: Conditions) -> dict[str, Any]:
    """What a projection's file holds of the time between two moments, as plain values.

    Returns:
        `start_temperature_c` and `end_temperature_c` of the hottest board, None if no board says; `others_cpus`, how many
        CPUs other programs kept busy; and `others`, a sentence if others were at work.
    """
    passed_s = last.t_s - first.t_s
    others = max(0.0, (last.busy_s - first.busy_s) - (last.own_s - first.own_s)) / passed_s if passed_s > 0 else 0.0
    sentences = list(dict.fromkeys([*first.shared, *last.shared]))
    count = os.cpu_count() or 1
    if others > OTHERS_BUSY * count:
        sentences.append(f"Other programs kept {others:.1f} of {count} CPUs busy; the interval holds if they go on so.")
    return {
        "start_temperature_c": max(first.temperature_c.values(), default=None),
        "end_temperature_c": max(last.temperature_c.values(), default=None),
        "others_cpus": others,
        "others": " ".join(sentences),
    }


def _temperature(uuid: str) -> float | None:
    """A board's degrees Celsius; None if it does not say."""
    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        try:
            handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            return float(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))
        finally:
            pynvml.nvmlShutdown()
    return None


def _machine_busy_s() -> float:
    times = psutil.cpu_times()
    return float(sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq")))


def _own_busy_s() -> float:
    own = psutil.Process()
    total = 0.0
    for process in (own, *own.children(recursive=True)):
        with suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total
