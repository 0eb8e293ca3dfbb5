"""Where a benchmark was run, and where its results go."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def about(*packages: str) -> str:
    """The machine, its load, and the versions of what was measured."""
    found = []
    for package in ("torch", "pytorch-lightning", "nvidia-ml-py", "zeus", *packages):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} not installed")
    where = f"{os.cpu_count()} CPUs ({platform.machine()}), load {os.getloadavg()[0]:.1f}"
    return ", ".join([where, f"Python {platform.python_version()}", *found])
