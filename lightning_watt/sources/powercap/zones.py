"""The zones of Linux's powercap tree: their counters, and which of them count each joule once.

A package is shown by its model-specific registers (`intel-rapl:0`; so is AMD's), and on many laptops a second time through
memory-mapped ones (`intel-rapl-mmio:0`). psys contains the packages, and a package its cores. The dies of some packages each
have a zone, and all of these show one counter.

Source: Linux Documentation/power/powercap/powercap.rst, drivers/powercap/intel_rapl_common.c.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from lightning_watt.units import NS_PER_S, UJ_PER_J

MAX_PACKAGE_W = 2_000.0
MAX_PLATFORM_W = 10_000.0
LOOKS = 20
LOOK_S = 0.005
"""Dies are looked at so often, and so far apart, to see whether they move together; registers change every millisecond."""
LEAST_MOVES = 6
_DIE = re.compile(r"package-(\d+)(?:-die-(\d+))?$")


@dataclass
class Zone:
    """One counter, unwrapped.

    Attributes:
        path: its directory.
        kind: `package`, `dram` or `psys`.
        package: the name of the package that it is of, or its own.
        mirrors: the names of dies that show the same counter and are therefore left out.
        range_uj: the most that it shows; None if that cannot be read, and then a wrap is a fall.
    """

    path: Path
    kind: str
    package: str
    mirrors: list[str] = field(default_factory=list)
    range_uj: int | None = None
    _last_uj: int = 0
    _last_ns: int = 0
    _total_uj: int = 0

    @property
    def max_power_w(self) -> float:
        """More cannot be drawn."""
        return MAX_PLATFORM_W if self.kind == "psys" else MAX_PACKAGE_W

    @property
    def socket(self) -> str:
        """The package without its die."""
        found = _DIE.match(self.package)
        return found[1] if found else self.package

    @property
    def title(self) -> str:
        """What a person calls it."""
        if self.kind == "psys":
            return "The whole platform (psys)"
        found = _DIE.match(self.package)
        name = f"{found[1]}, die {found[2]}" if found and found[2] and not self.mirrors else self.socket
        if self.kind == "package":
            return f"CPU package {name}"
        return "Memory" if self.package == "dram" else f"Memory of package {name}"

    def start(self, t_ns: int) -> None:
        """Begin at the counter as it is.

        Raises:
            OSError: it cannot be read.
            ValueError: what it shows is no number.
        """
        self._last_uj, self._last_ns, self._total_uj = self.shown_uj(), t_ns, 0
        try:
            self.range_uj = int((self.path / "max_energy_range_uj").read_text()) or None
        except (OSError, ValueError):
            self.range_uj = None

    def shown_uj(self) -> int:
        """The counter as it is."""
        return int((self.path / "energy_uj").read_text())

    def read_uj(self, t_ns: int) -> int:
        """Microjoules since `start`.

        What fell is a wrap if so much can have been drawn since, or if the way on over the range is shorter than the way
        back. Otherwise it is a fall, and whoever reads this sees it.
        """
        now_uj = self.shown_uj()
        rise_uj = now_uj - self._last_uj
        if self.range_uj is not None:
            states = self.range_uj + 1
            rise_uj %= states
            most_uj = self.max_power_w * (t_ns - self._last_ns) / NS_PER_S * UJ_PER_J
            if rise_uj > max(most_uj, states / 2):
                rise_uj -= states
        self._last_uj, self._last_ns = now_uj, t_ns
        self._total_uj += rise_uj
        return self._total_uj


def zones_below(root: Path) -> Iterator[Zone]:
    """All zones that may count, in the kernel's order; of one package, its own registers before the memory-mapped ones."""
    directories = [path for path in root.glob("intel-rapl*:*") if path.name.count(":") == 1]
    for path in sorted(directories, key=lambda path: ("mmio" in path.name, _numbers(path))):
        name = _name_of(path)
        if name in ("psys", "dram") or name.startswith("package"):
            yield Zone(path, name if name in ("psys", "dram") else "package", name)
        if name.startswith("package"):
            parts = sorted(path.glob(f"{path.name}:*"), key=_numbers)
            yield from (Zone(part, "dram", name) for part in parts if _name_of(part) == "dram")


def each_once(zones: Sequence[Zone]) -> list[Zone]:
    """Of zones that can be read, those that count each joule once: psys only without a package, no package by two ways."""
    seen: set[tuple[str, str]] = set()
    found = []
    for zone in zones:
        key = (zone.kind, zone.package)
        if "mmio" in zone.path.parts[-1] and key in seen:
            continue
        seen.add(key)
        found.append(zone)
    if any(zone.kind == "package" for zone in found):
        return [zone for zone in found if zone.kind != "psys"]
    return [zone for zone in found if zone.kind == "psys"] or found


def without_mirrors(zones: Sequence[Zone], sleep: Callable[[float], None]) -> list[Zone]:
    """Leave out the dies of a package that show the same counter as another of its dies.

    They are looked at until they have moved some times: two that always show the same, to about one move, are one.
    """
    dies: dict[tuple[str, str], list[Zone]] = {}
    for zone in zones:
        dies.setdefault((zone.kind, zone.socket), []).append(zone)
    alike = [group for group in dies.values() if len(group) > 1 and _DIE.match(group[0].package)]
    if not alike:
        return list(zones)
    looks: list[list[list[int]]] = []
    try:
        while len(looks) < LOOKS and not all(_moves([look[i] for look in looks]) >= LEAST_MOVES for i in range(len(alike))):
            looks.append([[zone.shown_uj() for zone in group] for group in alike])
            sleep(LOOK_S)
    except (OSError, ValueError):  # the reads that follow will say so
        return list(zones)
    left_out = []
    for i, group in enumerate(alike):
        kept: list[int] = []
        shown = [look[i] for look in looks]
        for j, zone in enumerate(group):
            same = next((k for k in kept if _one_and_the_same([(look[k], look[j]) for look in shown], zone.range_uj)), None)
            if same is None:
                kept.append(j)
            else:
                group[same].mirrors.append(zone.package)
                left_out.append(zone)
    return [zone for zone in zones if not any(zone is other for other in left_out)]


def _moves(shown: Sequence[Sequence[int]]) -> int:
    """How often all of them have moved."""
    return min((len({look[j] for look in shown}) for j in range(len(shown[0]))), default=1) - 1 if shown else 0


def _one_and_the_same(looks: Sequence[tuple[int, int]], range_uj: int | None) -> bool:
    states = (range_uj or 2**63) + 1
    moves = [(after[0] - before[0]) % states for before, after in pairwise(looks)]
    apart = [min((b - a) % states, (a - b) % states) for a, b in looks]
    return 0 < sum(moves) < states / 2 and max(apart) <= 1.5 * max(moves)


def labels_of(zones: Sequence[Zone], packages: Sequence[str]) -> list[str]:
    """A label for each zone: `cpu1` and `dram1` are of the second package, whatever is left out."""
    labels: list[str] = []
    for zone in zones:
        word = {"package": "cpu"}.get(zone.kind, zone.kind)
        number = packages.index(zone.package) if zone.package in packages else 0
        while f"{word}{number}" in labels:
            number += 1
        labels.append(f"{word}{number}")
    return labels


def _name_of(path: Path) -> str:
    try:
        return (path / "name").read_text().strip()
    except (OSError, ValueError):
        return ""


def _numbers(path: Path) -> list[int]:
    return [int(part) for part in path.name.split(":")[1:] if part.isdigit()]
