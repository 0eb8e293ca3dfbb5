"""Marks on a GPU's own stream, against a GPU that is simulated: it runs behind the host, and its clock drifts."""

import numpy as np
import pytest

from lightning_watt.meter.marks import CHAIN_MS, CudaMarker, HostMarker, Mark, marker_for

MS = 1_000_000


class Gpu:
    """A stream of work with its own clock, as `torch.cuda` would show it. Times in ns; `drift` in parts of one."""

    def __init__(self, drift: float = 0.0, capturing: bool = False) -> None:
        self.now = 5_000_000_000
        self.done_at = self.now
        self.drift = drift
        self.capturing = capturing
        self.made = 0
        self.synchronised = 0

    def now_ns(self) -> int:
        return self.now

    def unix_ns(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)

    def work(self, ns: int) -> None:
        """Put work on the stream; it begins when what is there is done."""
        self.done_at = max(self.done_at, self.now) + ns

    def device(self, device):
        import contextlib

        return contextlib.nullcontext()

    def is_current_stream_capturing(self) -> bool:
        return self.capturing

    def Event(self, enable_timing):  # noqa: N802 - torch's name
        assert enable_timing
        self.made += 1
        return Event(self)


class Event:
    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.over_at = None

    def record(self) -> None:
        self.over_at = max(self.gpu.done_at, self.gpu.now)

    def query(self) -> bool:
        return self.gpu.now >= self.over_at

    def synchronize(self) -> None:
        self.gpu.synchronised += 1
        self.gpu.now = max(self.gpu.now, self.over_at)

    def elapsed_time(self, other: "Event") -> float:
        assert self.query()
        assert other.query()
        return float(np.float32((other.over_at - self.over_at) * (1 + self.gpu.drift) / MS))


def test_a_host_mark_is_its_time_at_once():
    gpu = Gpu()
    marker = HostMarker(gpu)
    mark = marker.mark("x")
    assert (mark.t_ns, mark.payload, marker.resolve(mark), marker.kind) == (gpu.now, "x", True, "host")


def test_a_mark_is_where_the_gpu_was_and_not_the_host():
    gpu = Gpu()
    marker = CudaMarker(0, gpu, gpu)
    gpu.work(50 * MS)  # the host goes on at once
    noted = gpu.now
    mark = marker.mark("batch end")
    assert not marker.resolve(mark)
    gpu.now += 80 * MS
    assert marker.resolve(mark)
    assert abs(mark.t_ns - (noted + 50 * MS)) < 10_000
    assert gpu.synchronised == 1  # the anchor's, before the first batch


def test_events_are_used_again():
    gpu = Gpu()
    marker = CudaMarker(0, gpu, gpu)
    for _ in range(1000):
        gpu.work(10 * MS)
        mark = marker.mark(None)
        gpu.now += 20 * MS
        assert marker.resolve(mark)
    assert gpu.made == 2  # the anchor, and the one in flight


@pytest.mark.parametrize("drift", [0.0, 20e-6, -20e-6])
def test_hours_later_the_time_is_still_right(drift):
    gpu = Gpu(drift)
    marker = CudaMarker(0, gpu, gpu)
    worst = 0.0
    for _ in range(3 * 3600):
        gpu.now += 900 * MS
        gpu.work(100 * MS)
        mark = marker.mark(None)
        truth = mark.event.over_at
        gpu.now += 101 * MS  # seen 1 ms after it was over
        assert marker.resolve(mark)
        worst = max(worst, abs(mark.t_ns - truth))
    # 20 ppm over three hours is 216 ms; seeing events end keeps a slow clock within the 1 ms of the look, and noting them
    # keeps a fast one within the time that the GPU is behind.
    assert worst <= (1 * MS if drift >= 0 else 100 * MS) + 20_000


def test_a_new_anchor_is_taken_in_time():
    gpu = Gpu()
    marker = CudaMarker(0, gpu, gpu)
    first = marker._anchor
    gpu.now += round(CHAIN_MS * MS) + MS
    mark = marker.mark(None)
    assert marker.resolve(mark)
    assert marker._anchor is not first


def test_nothing_is_recorded_inside_a_graph_capture():
    gpu = Gpu(capturing=True)
    marker = CudaMarker(0, gpu, gpu)
    made = gpu.made
    mark = marker.mark(None)
    assert mark.event is None
    assert gpu.made == made
    assert marker.resolve(mark)


def test_the_end_waits_for_the_gpu():
    gpu = Gpu()
    marker = CudaMarker(0, gpu, gpu)
    gpu.work(500 * MS)
    mark = marker.mark(None)
    over = mark.event.over_at
    assert marker.resolve(mark, wait=True)
    assert abs(mark.t_ns - over) < 50_000


def test_a_cpu_and_a_missing_gpu_get_host_marks():
    import torch

    marker, why = marker_for(torch.device("cpu"))
    assert (marker.kind, why) == ("host", "")
    if not torch.cuda.is_available():
        marker, why = marker_for(torch.device("cuda", 0))
        assert marker.kind == "host"
        assert "CUDA events cannot be had" in why


def test_marks_are_told_apart_by_identity():
    assert Mark(1, None) != Mark(1, None)
