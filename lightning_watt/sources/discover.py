"""What can be measured on this machine, what cannot, why, and the remedy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lightning_watt.errors import ArgumentError, SourceUnavailable
from lightning_watt.sources.base import HOST_CLOCK, Clock, Device, EnergySource
from lightning_watt.sources.estimate import EstimateSource
from lightning_watt.sources.nvml import GPU, NvmlSource
from lightning_watt.sources.rapl import RaplSource


@dataclass(frozen=True)
class Discovery:
    """What was found.

    Attributes:
        devices: every device that can be read.
        missing: what cannot, as the sources themselves said it.
    """

    devices: tuple[Device, ...] = ()
    missing: tuple[SourceUnavailable, ...] = field(default=())

    @property
    def measured(self) -> bool:
        """Whether anything here is measured rather than estimated."""
        return any(device.provenance == "measured" for device in self.devices)


def discover(sources: Sequence[EnergySource] | None = None, *, clock: Clock = HOST_CLOCK) -> Discovery:
    """Look for everything that can be read on this machine, by trying it.

    Args:
        sources: the sources to try; by default NVML (every board), RAPL, and the estimate.
        clock: the host's clock.

    Returns:
        The devices, and for each source that is missing its reason and remedy.

    Example:
        >>> any(device.label == "cpu0" for device in discover().devices)
        True
    """
    devices: list[Device] = []
    missing: list[SourceUnavailable] = []
    for source in sources if sources is not None else (NvmlSource(at_ticks=False), RaplSource(), EstimateSource()):
        try:
            devices += source.open(clock)
        except SourceUnavailable as error:
            missing.append(error)
        finally:
            source.close()
    return Discovery(tuple(devices), tuple(missing))


def open_sources(
    gpus: str | Sequence[GPU], sources: str | Sequence[EnergySource], clock: Clock
) -> tuple[list[tuple[EnergySource, list[Device]]], list[SourceUnavailable]]:
    """Open what is asked for.

    With `sources="auto"`: the chosen boards through NVML, and the CPU through RAPL; the estimate only where neither gives
    anything, so that it never joins a measured total unasked.

    Args:
        gpus: `"all"`, `"visible"`, or indices and UUIDs; an empty sequence is none.
        sources: `"auto"` or the sources themselves.
        clock: the host's clock.

    Returns:
        Each opened source with its devices, and the reasons of those that could not be opened.

    Raises:
        ValueError: `gpus` names a board that is not there, or two sources read one device.
    """
    opened: list[tuple[EnergySource, list[Device]]] = []
    missing: list[SourceUnavailable] = []
    if isinstance(sources, str):
        wanted: list[EnergySource] = [RaplSource()]
        if isinstance(gpus, str) or gpus:
            wanted.insert(0, NvmlSource(gpus))
    else:
        wanted = list(sources)
    try:
        for source in wanted:
            _try_to_open(source, clock, opened, missing)
        if not opened and isinstance(sources, str):
            _try_to_open(EstimateSource(), clock, opened, missing)
    except BaseException:
        for source, _ in opened:
            source.close()
        raise
    return opened, missing


def _try_to_open(
    source: EnergySource,
    clock: Clock,
    opened: list[tuple[EnergySource, list[Device]]],
    missing: list[SourceUnavailable],
) -> None:
    taken = {device.label for _, devices in opened for device in devices}
    try:
        devices = list(source.open(clock))
    except SourceUnavailable as error:
        missing.append(error)
        return
    except ArgumentError:
        raise  # a wrong argument, which is for whoever gave it
    except Exception as error:  # noqa: BLE001 - a source of the user's own may raise anything; the others go on
        missing.append(
            SourceUnavailable(source.name, f"It raised {error!r} when it was opened.", "Report it to its author.")
        )
        return
    if not devices:
        source.close()
        missing.append(SourceUnavailable(source.name, "It opened and has no device.", "Check what it should read."))
        return
    twice = taken & {device.label for device in devices}
    if twice:
        source.close()
        raise ArgumentError(
            f"sources: {', '.join(sorted(twice))} would be counted twice, the second time by {source.name}. "
            "Give each device one source."
        )
    opened.append((source, devices))
