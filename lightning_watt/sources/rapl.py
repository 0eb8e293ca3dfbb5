"""CPU packages and memory through Linux's powercap files (Intel and AMD RAPL): the only module that reads them.

Packages plus dram, never psys beside packages: psys contains the package, and the package contains its cores, so adding
them would charge a joule twice. The counters are microjoules that wrap at `max_energy_range_uj` (22 minutes at 200 W), and
have been readable by root only since Linux 5.10 (CVE-2020-8694).

Source: Linux Documentation/power/powercap/powercap.rst.
"""

from __future__ import annotations

from pathlib import Path

from lightning_watt.errors import SourceUnavailable
from lightning_watt.sources.base import Clock, Device, Failure, Reading

POWERCAP = Path("/sys/class/powercap")
TICK_S = 0.001
"""RAPL's registers are updated about every millisecond."""
MAX_PACKAGE_W = 2_000.0
PERMISSION = (
    "Run `sudo chmod a+r /sys/class/powercap/intel-rapl*/energy_uj /sys/class/powercap/intel-rapl*/*/energy_uj` "
    "(until the next boot; a udev rule keeps it)."
)


class RaplSource:
    """Reads CPU packages and their memory.

    Args:
        root: the powercap directory; another one serves tests and containers that mount it elsewhere.
    """

    name = "rapl"
    due_s = 1.0

    def __init__(self, root: Path = POWERCAP) -> None:
        self.root = root
        self._zones: list[_Zone] = []
        self._clock: Clock | None = None
        self._opening: list[Reading | Failure] = []

    def open(self, clock: Clock) -> list[Device]:
        """Find the zones.

        Raises:
            SourceUnavailable: no powercap, no package zone, or no permission.
        """
        self._clock = clock
        zones: list[_Zone] = []
        for package in sorted(self.root.glob("intel-rapl:*"), key=_number):
            if package.name.count(":") != 1 or not _read(package / "name").startswith("package"):
                continue
            index = len([z for z in zones if z.device.label.startswith("cpu")])
            zones.append(_Zone(package, f"cpu{index}", f"CPU package {index}"))
            zones += [
                _Zone(sub, f"dram{index}", f"Memory of package {index}")
                for sub in sorted(package.glob("intel-rapl:*:*"), key=_number)
                if _read(sub / "name") == "dram"
            ]
        if not zones:
            raise SourceUnavailable(
                self.name,
                f"there is no CPU package under {self.root}.",
                "Most virtual machines and containers hide it; on bare metal load `intel_rapl_msr` (or `amd_energy`'s "
                "successor in Linux 5.8 and newer).",
            )
        for zone in zones:
            try:
                zone.start()
            except PermissionError as error:
                raise SourceUnavailable(self.name, f"{error.filename} may not be read.", PERMISSION) from error
            except (OSError, ValueError) as error:
                raise SourceUnavailable(self.name, f"{zone.path} cannot be read: {error}.", "Check it by hand.") from error
        self._zones = zones
        self._opening = [Reading(zone.device.label, clock.now_ns(), 0) for zone in zones]
        return [zone.device for zone in zones]

    def read(self) -> list[Reading | Failure]:
        """Read every zone, its wraps undone; the first time also as it was at opening, which may have been a while ago."""
        assert self._clock is not None, "open the source first"
        found, self._opening = self._opening, []
        for zone in self._zones:
            try:
                uj = zone.read_uj()
            except (OSError, ValueError) as error:
                found.append(Failure(zone.device.label, f"{zone.path} cannot be read: {error}.", PERMISSION))
                continue
            found.append(Reading(zone.device.label, self._clock.now_ns(), uj))
        return found

    def close(self) -> None:
        """Forget the zones."""
        self._zones = []
        self._opening = []


class _Zone:
    """One counter, unwrapped."""

    def __init__(self, path: Path, label: str, name: str) -> None:
        self.path = path
        self._range_uj = 0
        self._last_uj = 0
        self._total_uj = 0
        self.device = Device(
            label=label,
            name=name,
            uuid=path.name,
            source="rapl",
            tick_s=TICK_S,
            max_power_w=MAX_PACKAGE_W,
            note="The whole of it: what other programs use is in, and jobs side by side are each charged all of it.",
        )

    def start(self) -> None:
        self._range_uj = int(_read(self.path / "max_energy_range_uj"))
        self._last_uj = int((self.path / "energy_uj").read_text())

    def read_uj(self) -> int:
        """Microjoules since `start`. A fall to less than before is one wrap; a second read apart there is never a second."""
        now_uj = int((self.path / "energy_uj").read_text())
        rise = now_uj - self._last_uj
        self._total_uj += rise if rise >= 0 else rise + self._range_uj + 1
        self._last_uj = now_uj
        return self._total_uj


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _number(path: Path) -> list[int]:
    return [int(part) for part in path.name.split(":")[1:] if part.isdigit()]
