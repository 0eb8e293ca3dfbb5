"""CPU packages and memory through Linux's powercap files (Intel and AMD RAPL): the only source that reads them.

Packages plus dram; psys, the whole platform, only where there is no package, because it contains them. The counters are
microjoules that wrap (22 minutes at 200 W), and have been readable by root only since Linux 5.10 (CVE-2020-8694).

Source: Linux Documentation/power/powercap/powercap.rst.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from lightning_watt.errors import SourceUnavailable
from lightning_watt.sources.base import Clock, Device, Failure, Reading
from lightning_watt.sources.estimate import GAIN
from lightning_watt.sources.powercap.share import ProcessorShare
from lightning_watt.sources.powercap.zones import Zone, each_once, labels_of, without_mirrors, zones_below

POWERCAP = Path("/sys/class/powercap")
TICK_S = 0.001
"""RAPL's registers are updated about every millisecond."""
PERMISSION = (
    "Run `sudo chmod a+r /sys/class/powercap/intel-rapl*/energy_uj /sys/class/powercap/intel-rapl*/*/energy_uj` "
    "(until the next boot; a udev rule keeps it)."
)
ASSUMED_GAIN = 0.05
ASSUMED = "assumed: no published comparison of this processor's RAPL with a meter is known here"
SHARE_GAIN = "assumed: by as much as estimates by utilisation were off a meter (raphischer/ai-energy-validation)"
CHECK = "Check it by hand; a kernel module that was reloaded (`intel_rapl_msr`) brings it back."
WHOLE = "The whole of it: what other programs use is in, and jobs side by side are each charged all of it."
SHARE = (
    "Of what RAPL measured, this job's share of the busy processor time of the machine: an estimate, because not every "
    "second of a processor costs the same. All jobs' shares together, the idle power among them, are what RAPL measured."
)


class RaplSource:
    """Reads CPU packages and their memory.

    Args:
        root: the powercap directory; another one serves tests and containers that mount it elsewhere.
        share: charge this job's share only, by processor time; for jobs side by side on one machine. The share is an
            estimate and is labelled as one: `rapl-share`, `estimated`.
        processes: with `share`, other processes whose time counts too: the run's ranks on this node.
        psys: read the whole platform where no package can be read. It may contain a laptop's GPU.

    Attributes:
        left_out: after `open`, of each zone that cannot be read: why, and the remedy.
    """

    name = "rapl"
    due_s = 1.0

    def __init__(
        self, root: Path = POWERCAP, *, share: bool = False, processes: Collection[int] = (), psys: bool = True
    ) -> None:
        self.root, self.share, self.processes, self.psys = Path(root), share, processes, psys
        self.left_out: list[SourceUnavailable] = []
        self._zones: list[tuple[str, Zone]] = []
        self._share: ProcessorShare | None = None
        self._clock: Clock | None = None
        self._opening: list[Reading | Failure] = []

    def open(self, clock: Clock) -> list[Device]:
        """Find the zones.

        Raises:
            SourceUnavailable: no powercap, no zone, or none that may be read.
        """
        self._clock, self.left_out = clock, []
        found = list(zones_below(self.root))
        refused = {id(zone): reason for zone in found if (reason := self._refused(zone, clock)) is not None}
        readable = [zone for zone in found if id(zone) not in refused]
        once = [zone for zone in each_once(readable) if self.psys or zone.kind != "psys"]
        if not once:
            raise self._nothing(found, list(refused.values()))
        had = {(zone.kind, zone.package) for zone in readable}
        self.left_out = [
            refused[id(zone)]
            for zone in found
            if id(zone) in refused and zone.kind != "psys" and (zone.kind, zone.package) not in had
        ]
        zones = without_mirrors(once, clock.sleep)
        mirrors = {name for zone in zones for name in zone.mirrors}
        packages = [zone.package for zone in found if zone.kind == "package" and zone.package not in mirrors]
        self._zones = list(zip(labels_of(zones, list(dict.fromkeys(packages))), zones, strict=True))
        for zone in zones:
            zone.start(clock.now_ns())
        self._share = ProcessorShare(clock, self.processes) if self.share else None
        self._opening = [Reading(label, clock.now_ns(), 0) for label, _ in self._zones]
        return [self._device(label, zone) for label, zone in self._zones]

    def read(self) -> list[Reading | Failure]:
        """Read every zone, its wraps undone; the first time also as it was at opening, which may have been a while ago."""
        assert self._clock is not None, "open the source first"
        found, self._opening = self._opening, []
        values: dict[str, tuple[int, int]] = {}
        for label, zone in self._zones:
            t_ns = self._clock.now_ns()
            try:
                values[label] = t_ns, zone.read_uj(t_ns)
            except (OSError, ValueError) as error:
                remedy = PERMISSION if isinstance(error, PermissionError) else CHECK
                found.append(Failure(label, f"{zone.path} cannot be read: {error}.", remedy))
        if self._share is not None:
            values = self._share.of(values)
        return [*found, *(Reading(label, t_ns, uj) for label, (t_ns, uj) in values.items())]

    def close(self) -> None:
        """Forget the zones."""
        self._zones = []
        self._opening = []

    def _refused(self, zone: Zone, clock: Clock) -> SourceUnavailable | None:
        try:
            zone.start(clock.now_ns())
        except PermissionError as error:
            return SourceUnavailable(self.name, f"{error.filename} may not be read.", PERMISSION)
        except (OSError, ValueError) as error:
            return SourceUnavailable(self.name, f"{zone.path} cannot be read: {error}.", CHECK)
        return None

    def _nothing(self, found: Sequence[Zone], refused: Sequence[SourceUnavailable]) -> SourceUnavailable:
        if refused:
            return next((reason for reason in refused if reason.remedy == PERMISSION), refused[0])
        if found:
            why = (
                "There is no CPU package, and the whole platform (psys) may contain the boards that are measured themselves."
            )
            return SourceUnavailable(self.name, why, "To measure it and no board: `sources=[RaplSource()]`.")
        return SourceUnavailable(
            self.name,
            f"there is no CPU package under {self.root}.",
            "Most virtual machines and containers hide it; on bare metal load `intel_rapl_msr` (or `amd_energy`'s "
            "successor in Linux 5.8 and newer).",
        )

    def _device(self, label: str, zone: Zone) -> Device:
        notes = [SHARE if self.share else WHOLE]
        if zone.kind == "psys":
            notes.append("It is all that the maker of the machine has wired to it: which parts is not documented.")
        if zone.mirrors:
            notes.append(f"{', '.join([zone.package, *zone.mirrors])} show one counter, which is counted once.")
        if zone.range_uj is None:
            notes.append("Where its counter wraps is not known, so a wrap is a gap.")
        return Device(
            label=label,
            name=zone.title,
            uuid=zone.path.name,
            source="rapl-share" if self.share else "rapl",
            provenance="estimated" if self.share else "measured",
            gain=GAIN if self.share else ASSUMED_GAIN,
            gain_source=SHARE_GAIN if self.share else ASSUMED,
            tick_s=TICK_S,
            max_power_w=zone.max_power_w,
            always_draws=not self.share,
            note=" ".join(notes),
        )
