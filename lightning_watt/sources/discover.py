"""What can be measured on this machine, what cannot, why, and the remedy."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from lightning_watt.errors import ArgumentError, SourceUnavailable, log_safely, shown
from lightning_watt.sources.base import CPU_SHARE, HOST_CLOCK, Clock, Device, EnergySource
from lightning_watt.sources.door import AUTHOR, devices_of, let_go, take_up
from lightning_watt.sources.estimate import EstimateSource
from lightning_watt.sources.masks import GPU
from lightning_watt.sources.nvml import NvmlSource
from lightning_watt.sources.nvml_boards import uuids_of
from lightning_watt.sources.rapl import RaplSource

OPEN_LIMIT_S = 10.0
"""A driver that has not answered by then is done without. Real ones take tenths of a second, cold ones up to a few."""


@dataclass(frozen=True)
class Discovery:
    """What was found.

    Attributes:
        devices: every device that can be read.
        missing: what cannot, with the reasons that the sources gave.
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
            devices += _open_in_time(source, clock)
        except SourceUnavailable as error:
            missing.append(error)
        else:
            missing += _left_out(source)
            _close(source)
    return Discovery(tuple(devices), tuple(missing))


def open_sources(
    gpus: str | Sequence[GPU],
    sources: str | Sequence[EnergySource],
    clock: Clock,
    processes: Sequence[int] = (),
    *,
    required: bool = True,
) -> tuple[list[tuple[EnergySource, list[Device]]], list[SourceUnavailable]]:
    """Open what is asked for.

    With `sources="auto"`: the chosen boards through NVML, and the CPU through RAPL; the estimate only if neither gives
    anything, so that it never joins a measured total unasked. With `"cpu-share"` the same, and of the CPU this job's share.

    Args:
        gpus: `"all"`, `"visible"` (`"auto"` means the same), or indices and UUIDs; an empty sequence is none.
        sources: `"auto"`, `"cpu-share"`, or the sources themselves.
        clock: the host's clock.
        processes: other processes of the run: estimates and shares count their work, and they are no strangers on a board.
        required: a board that a list of `gpus` names and that is not there raises; otherwise the others are opened.

    Returns:
        Each opened source with its devices, and the reasons of those that could not be opened, or of a part of them.

    Raises:
        ValueError: `gpus` names a board that is not there, or two sources read one device.
    """
    opened: list[tuple[EnergySource, list[Device]]] = []
    missing: list[SourceUnavailable] = []
    wanted: list[EnergySource] = []
    if not isinstance(sources, str):
        wanted = list(sources)
    elif isinstance(gpus, str) or gpus:
        wanted = [NvmlSource("visible" if gpus == "auto" else gpus, required=required, processes=processes)]
    try:
        for source in wanted:
            _try_to_open(source, clock, opened, missing)
        if isinstance(sources, str):
            share = sources == CPU_SHARE
            rapl = RaplSource(share=share, processes=processes, psys=not opened)  # which may contain the boards
            _try_to_open(rapl, clock, opened, missing)
        if not opened and isinstance(sources, str):
            _try_to_open(EstimateSource(processes=processes), clock, opened, missing)
    except BaseException:
        for source, _ in opened:
            _close(source)
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
        devices = _open_in_time(source, clock)
        missing += _left_out(source)
    except SourceUnavailable as error:
        missing.append(error)
        return
    if not devices:
        _close(source)
        missing.append(SourceUnavailable(source.name, "It opened and has no device.", "Check what it should read."))
        return
    twice = taken & {device.label for device in devices}
    if twice:
        _close(source)
        raise ArgumentError(
            f"sources: {', '.join(sorted(twice))} would be counted twice, the second time by {source.name}. "
            "Give each device one source."
        )
    opened.append((source, devices))


def _left_out(source: EnergySource) -> list[SourceUnavailable]:
    """What a source that was opened says of devices that it has to leave out."""
    return list(getattr(source, "left_out", ()))


def _close(source: EnergySource) -> None:
    if sentence := let_go(source):
        log_safely(logging.WARNING, sentence)


def _open_in_time(source: EnergySource, clock: Clock) -> list[Device]:
    """Open a source in a thread of its own, so that a driver that hangs cannot keep a training from beginning.

    Raises:
        SourceUnavailable: it did not answer within `OPEN_LIMIT_S` (should it answer later, it is closed again), or what it
            raised or returned is nothing to measure with. A source of the user's own may raise anything, `SystemExit` too,
            which would otherwise end the caller.
        ArgumentError: a wrong argument, for the caller.
    """
    lock, answered = threading.Lock(), threading.Event()
    devices: list[Device] = []
    failures: list[BaseException] = []
    given_up = False

    def work() -> None:
        is_open = False
        try:
            found = take_up(source, clock)
            is_open = True
            devices.extend(devices_of(source, found))
        except BaseException as error:  # noqa: BLE001 - reported below
            failures.append(error)
        if is_open and failures:
            _close(source)
        with lock:
            answered.set()
            late = given_up
        if late and not failures:
            _close(source)

    threading.Thread(target=work, name=f"lightning_watt opens {source.name}", daemon=True).start()
    try:
        answered.wait(OPEN_LIMIT_S)
    finally:  # also if the user's Ctrl-C comes in between
        with lock:
            given_up = not answered.is_set()
    if given_up:
        raise SourceUnavailable(
            source.name,
            f"It did not answer for {OPEN_LIMIT_S:g} s when it was opened: the driver hangs.",
            "Check `nvidia-smi` and the kernel log.",
        )
    for error in failures:
        if isinstance(error, (ArgumentError, SourceUnavailable, KeyboardInterrupt)):
            raise error
        raise SourceUnavailable(source.name, f"It raised {shown(error)} when it was opened.", AUTHOR) from error
    return devices


def board_uuids(gpus: str | Sequence[GPU], limit_s: float = 10.0) -> list[str]:
    """Which boards a choice means here, without opening them: NVML is started, asked for their names, and shut down.

    Args:
        gpus: as of `NvmlSource`; of a list, the boards that are there.
        limit_s: how long a driver that hangs is waited for.

    Returns:
        The boards' whole UUIDs, a MIG slice's parent's, each once; none if NVML does not know. Never raises.

    Example:
        >>> board_uuids([])
        []
    """
    found: list[str] = []
    asking = threading.Thread(
        target=lambda: found.extend(uuids_of(gpus)), name="lightning_watt asks for the boards", daemon=True
    )
    asking.start()
    asking.join(limit_s)
    return list(found)
