"""Marks: moments that a hook notes and goes on; the meter fills in their energy when the curves have passed them.

Noting a mark is one clock read, or one event put on the GPU's stream, and one append. Nothing here asks a power sensor, and
nothing waits. On a CPU the host's clock is the mark. A GPU runs behind the host, so there a mark is a CUDA event: it is done
when the GPU comes to it, and its time is worked out later, without a synchronise.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Any, Generic, Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from lightning_watt.sources.base import HOST_CLOCK, Clock

log = logging.getLogger(__name__)
Payload = TypeVar("Payload")

NS_PER_MS = 1_000_000
CHAIN_MS = 60_000.0
"""`elapsed_time` is a float32 of milliseconds: 4 µs coarse after a minute, 0.25 ms after an hour. So a new anchor is taken
this often, from an event that has just been resolved."""
POOL = 4096
"""Events that are kept for use again; more than this are in flight only if the GPU is that many batches behind."""


class Mark(msgspec.Struct, Generic[Payload], eq=False):
    """A moment, and the energy that each device had used by then. A struct, because making one is a single step.

    Attributes:
        t_ns: the moment, on the host's steady clock; while `event` is pending, the time at which it was noted.
        payload: what the one who noted it wants to know it by.
        event: the device's event whose completion is the moment; None once that is known, and on a host mark.
        energy_uj: microjoules since the meter began, one value a device in the meter's order; None until settled.
        edge_uj: how far off each may be because the moment lies between two known points, microjoules.
        gap_uj: microjoules of all gaps until the moment, which were charged and are uncertain.
        peak_w: the highest power of all devices together that was seen until it was settled.
    """

    t_ns: int
    payload: Payload
    event: Any = None
    energy_uj: NDArray[np.int64] | None = None
    edge_uj: NDArray[np.float64] | None = None
    gap_uj: float = 0.0
    peak_w: float = 0.0


Waiting = deque[Any]
"""Marks that are not settled yet. One that is noted after every batch waits as a plain tuple, because making that is the
quickest of all: `(t_ns, payload)`, or `(t_ns, kind, ...)` with what makes the payload of the rest."""


def oldest(waiting: Waiting) -> Mark[Any]:
    """The first of those that wait, as a mark; called by the reader's thread.

    Example:
        >>> oldest(deque([(5, "here")])).t_ns, oldest(deque([(6, complex, 1.0, 2.0)])).payload
        (5, (1+2j))
    """
    first = waiting[0]
    if type(first) is tuple:
        t_ns, payload, *rest = first
        waiting[0] = first = Mark(t_ns, payload(*rest) if rest else payload)
    mark: Mark[Any] = first
    return mark


class Marker(Protocol):
    """Makes marks and finds out when they were.

    Attributes:
        kind: `host` or `cuda-events`, for the record.
    """

    kind: str

    def mark(self, payload: Any) -> Mark[Any]:
        """Note this moment; called by the training's thread."""

    def resolve(self, mark: Mark[Any], *, wait: bool = False) -> bool:
        """Find the mark's time; False while its device has not come to it. Called by the reader's thread."""


class HostMarker:
    """The host's clock is the mark."""

    kind = "host"

    def __init__(self, clock: Clock = HOST_CLOCK) -> None:
        self.now_ns = clock.now_ns

    def mark(self, payload: Any) -> Mark[Any]:
        """The host's time now."""
        return Mark(self.now_ns(), payload)

    def resolve(self, mark: Mark[Any], *, wait: bool = False) -> bool:
        """Known from the start."""
        return True


class CudaMarker:
    """An event on the GPU's current stream is the mark.

    An event's time is that of an anchor, which was synchronised once before the training, plus `elapsed_time`. The two
    clocks drift apart by some parts in a million; each event is known not to be over before it was noted and to be over when
    it is first seen so, and where the computed time leaves these bounds, the anchor is moved back into them.

    Args:
        device: the CUDA device, as torch takes it.
        clock: the host's clock.
        cuda: what makes events (`Event(enable_timing=True)`), knows whether a graph is being captured
            (`is_current_stream_capturing()`) and gives a device context (`device(...)`): `torch.cuda`, or a stand-in.

    Raises:
        RuntimeError: what torch raises if there are no events; the caller uses host marks and reports it.

    Source: CUDA Runtime API, section Event Management: `cudaEventElapsedTime` has a resolution of about 0.5 µs.
    """

    kind = "cuda-events"

    def __init__(self, device: Any, clock: Clock = HOST_CLOCK, cuda: Any = None) -> None:
        if cuda is None:
            import torch

            cuda = torch.cuda
        self._cuda = cuda
        self._device = device
        self._now_ns = clock.now_ns
        self._pool: deque[Any] = deque(maxlen=POOL)
        with cuda.device(device):
            self._anchor = self._new()
            self._anchor.record()
            self._anchor.synchronize()  # the only one, before the first batch
        self._anchor_ns = clock.now_ns()

    def mark(self, payload: Any) -> Mark[Any]:
        """Put an event on the current stream. Inside a graph capture it takes host time: the event would join the graph."""
        if self._cuda.is_current_stream_capturing():
            return Mark(self._now_ns(), payload)
        try:
            event = self._pool.popleft()
        except IndexError:
            event = self._new()
        noted_ns = self._now_ns()
        event.record()
        return Mark(noted_ns, payload, event)

    def resolve(self, mark: Mark[Any], *, wait: bool = False) -> bool:
        """The time of a mark whose event is over."""
        event = mark.event
        if event is None:
            return True
        if wait:
            event.synchronize()
        elif not event.query():
            return False
        seen_ns = self._now_ns()
        elapsed_ms = self._anchor.elapsed_time(event)
        t_ns = self._anchor_ns + round(elapsed_ms * NS_PER_MS)
        bounded_ns = min(max(t_ns, mark.t_ns), seen_ns)
        self._anchor_ns += bounded_ns - t_ns
        mark.t_ns, mark.event = bounded_ns, None
        if elapsed_ms > CHAIN_MS:
            self._anchor, self._anchor_ns, event = event, bounded_ns, self._anchor
        self._pool.append(event)
        return True

    def _new(self) -> Any:
        return self._cuda.Event(enable_timing=True)


def marker_for(device: Any, clock: Clock = HOST_CLOCK) -> tuple[Marker, str]:
    """The best marker for a torch device, and a sentence for the record if that is not the device's own.

    Args:
        device: a `torch.device`.
        clock: the host's clock.
    """
    if getattr(device, "type", "cpu") != "cuda":
        return HostMarker(clock), ""
    try:
        return CudaMarker(device, clock), ""
    except Exception as error:  # torch raises many kinds; host time always works
        log.debug("no CUDA events", exc_info=error)
        return HostMarker(clock), f"Batch edges are host times, since CUDA events cannot be had here ({error})."
