"""A zone of a powercap tree, in real files."""

from __future__ import annotations

from pathlib import Path

RANGE_UJ = 262_143_328_850


def zone(root: Path, path: str, name: str, energy_uj: int = 0, range_uj: int = RANGE_UJ) -> Path:
    """One powercap zone as the kernel shows it; returns its counter's file."""
    directory = root / path
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "name").write_text(f"{name}\n")
    (directory / "max_energy_range_uj").write_text(f"{range_uj}\n")
    (directory / "energy_uj").write_text(f"{energy_uj}\n")
    return directory / "energy_uj"
