"""The boards that `fidelity` replays, and what of each board's scale is published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_watt.testing import Board, Curve, named

PHASES: dict[str, Any] = {"counter_phase_ms": 37, "samples_phase_ms": 11, "power_phase_ms": 11, "call_ms": 0.03}
"""When ticks and samples come is nobody's choice; a call takes 30 µs if nothing else is said."""

BOARDS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "V100": ("V100", {}),
    "A100": ("A100", {}),
    "H100": ("H100", {}),
    "RTX 3090": ("RTX 3090", {}),
    "RTX 4090": ("RTX 4090", {}),
    "H100, samples over 1 s": ("H100", {"samples_window_ms": 1000}),
    "3090, samples over 1 s": ("RTX 3090", {"samples_window_ms": 1000}),
    "V100, stamps since boot": ("V100", {"stamps": "boot"}),
    "A100, no samples": ("A100", {"samples_ms": None}),
    "A100, uneven ticks": ("A100", {"counter_jitter_ms": 46, "samples_jitter_ms": 46}),
    "A100, calls of 2.5 ms": ("A100", {"call_ms": 2.5}),
    "V100, calls of 2.5 ms": ("V100", {"call_ms": 2.5}),
    "A100, calls of 10 ms": ("A100", {"call_ms": 10}),
    "V100, no counter": ("V100", {"counter_ms": None}),
    "A100, no counter": ("A100", {"counter_ms": None}),
}
"""By what stands in the table: a board's name in the lab, and what is different."""

FED = {"A100, counter fed by its sensor": ("A100", {"counter_window_ms": 25})}
"""Nobody knows whether a counter sees only what the board's sensor sees. What it would cost is shown, and no goal is set."""

GAINS = {
    "NVIDIA A100-PCIE-40GB": -0.055,
    "NVIDIA GeForce RTX 2080 Ti": -0.062,
    "NVIDIA GeForce RTX 2060 SUPER": 0.109,
    "NVIDIA GeForce RTX 3070 Ti": -0.023,
    "NVIDIA GeForce RTX 3090": -0.047,
    "NVIDIA GeForce RTX 4090": -0.043,
    "NVIDIA GeForce GTX 1080 Ti": -0.004,
    "NVIDIA RTX A5000": -0.07,
    "Tesla K40m": 0.034,
    "Tesla K80": -0.089,
    "Tesla M40 24GB": -0.017,
    "Tesla P100-PCIE-16GB": 0.007,
}
"""Steady errors of power sensors against a meter (arXiv 2312.02741 and its recordings), the largest of a board's. The Quadro
K620's, -41 %, is left out: it is a board without a counter, from before Pascal."""


def board(case: tuple[str, Mapping[str, Any]], power: Curve) -> Board:
    """The board of a case, with its power."""
    name, changes = case
    return named(name, **{**PHASES, **changes, "power": power})
