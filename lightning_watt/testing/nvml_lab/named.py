"""Boards by name: what was published of each one's power sensor, and by whom. The rest of a `Board` is its data sheet's.

Nobody has published what feeds an energy counter, how far off its scale is, or how the driver's buffered power samples
(`nvmlDeviceGetSamples`) are spaced. Here a counter adds up the truth, unless `counter_window_ms` says otherwise, and samples
are the sensor's values. Calls cost nothing here, so that tests are fast; of real boards 0.03 to 10 ms are reported.

`SC24` is Yang, Adamek and Armour, "Part-time Power Measurements" (SC'24, arXiv 2312.02741), and its public recordings.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from lightning_watt.testing.nvml_lab.boards import Board

SECOND = 1000.0
SC24 = "arXiv 2312.02741"


class Published(NamedTuple):
    """A board as it was published.

    Attributes:
        source: who measured what.
        sensor: the arguments of `Board`.
    """

    source: str
    sensor: Mapping[str, Any]


def _sensor(period_ms: float, window_ms: float, shown_ms: float, *, counter_ms: float = 100.0) -> dict[str, float]:
    """A power sensor that looks `window_ms` of every `period_ms`; power usage is its mean over `shown_ms`."""
    return {
        "counter_ms": counter_ms,
        "samples_ms": period_ms,
        "samples_window_ms": window_ms,
        "power_period_ms": period_ms,
        "power_window_ms": shown_ms,
    }


def _board(name: str, architecture: int, capability: tuple[int, int], memory_gib: int, watts: float) -> dict[str, Any]:
    return {
        "name": name,
        "architecture": architecture,
        "compute_capability": capability,
        "memory_bytes": memory_gib << 30,
        "power_limit_w": watts,
        "power_limits_w": (min(100.0, watts), watts),
    }


_NOTHING: dict[str, Any] = {"counter_ms": None, "samples_ms": None, "power_usage": False, "fields": ()}

BOARDS: Mapping[str, Published] = MappingProxyType(
    {
        "V100": Published(
            f"{SC24}: refreshed every 20 ms, mean of 10.5 ms; nvml.h: power usage is the instant before Ampere",
            {**_board("Tesla V100-SXM2-16GB", 5, (7, 0), 16, 300), **_sensor(20, 10, 10, counter_ms=20)},
        ),
        "A100": Published(
            f"{SC24}: refreshed every 101 to 104 ms (93 to 146), mean of 18 to 25 ms; "
            "nvml.h: power usage is the instant on GA100",
            {**_board("NVIDIA A100-PCIE-40GB", 7, (8, 0), 40, 250), **_sensor(100, 25, 25)},
        ),
        "H100": Published(
            f"{SC24}: refreshed every 100 ms, mean of 21 to 25 ms; power usage is the mean of 1 s",
            {**_board("NVIDIA H100 PCIe", 9, (9, 0), 80, 350), **_sensor(100, 25, SECOND)},
        ),
        "RTX 3090": Published(
            f"{SC24}: refreshed every 100 ms, instant power is the mean of 100 ms, power usage that of 1 s",
            {**_board("NVIDIA GeForce RTX 3090", 7, (8, 6), 24, 350), **_sensor(100, 100, SECOND)},
        ),
        "RTX 4090": Published(
            f"{SC24}: refreshed every 100 ms, instant power is the mean of 109 ms, power usage that of 1 s; "
            "its counter's update of 106 ms is from a secondary text",
            {**_board("NVIDIA GeForce RTX 4090", 8, (8, 9), 24, 450), **_sensor(100, 100, SECOND, counter_ms=106)},
        ),
        "Jetson": Published(
            "a Jetson's NVML starts, and answers NOT_SUPPORTED to power, energy and limits (reports of users)",
            {**_board("Orin (nvgpu)", 7, (8, 7), 8, 60), **_NOTHING, "power_limit_w": None},
        ),
        "vGPU": Published(
            "nvml.h: power and energy are not supported on vGPU guests",
            {**_board("GRID A100D-40C", 7, (8, 0), 40, 300), **_NOTHING, "power_limit_w": None, "virtualization": 2},
        ),
    }
)
"""Boards that were measured, or whose lack of sensors is known."""


def named(board: str, **changes: Any) -> Board:
    """A board by its name in `BOARDS`.

    Args:
        board: the name.
        **changes: arguments of `Board` that differ: its power, a gain, a phase, how long a call takes.

    Raises:
        ValueError: there is none of this name; the message lists those that are.

    Example:
        >>> named("A100", call_ms=2.0).samples_window_ms
        25
    """
    if board not in BOARDS:
        raise ValueError(f"The lab has no board {board!r}; there are {', '.join(BOARDS)}.")
    return Board(**{**BOARDS[board].sensor, **changes})
