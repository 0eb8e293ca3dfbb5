"""All the work that is put on the GPU: batches of a set duration, heavy (matrix products) or light (a waiting kernel).

Without a GPU the CPU is busy or asleep for as long, so that everything else can be tried anywhere.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

HEAVY, LIGHT = "heavy", "light"
BATCH_S = 0.01
DEPTH = 2
"""Batches that may be queued on the GPU before the host waits, as a training's own back-pressure does."""
SIZES = (8192, 4096, 2048, 1024)
WARM_UP_S = 0.3
"""An idle GPU takes a while to raise its clocks."""


class Load(Protocol):
    """Work in batches.

    Attributes:
        on_gpu: whether it is real.
        device: torch's name of the device.
        batch_s: how long a batch takes, seconds.
        what: what the batches are made of, for the record.
    """

    on_gpu: bool
    device: str
    batch_s: float
    what: dict[str, Any]

    def batch(self, kind: str, until_ns: int | None = None) -> None:
        """Put one batch in the queue; a CPU is busy until then (CLOCK_MONOTONIC), a GPU's batch has its own length."""

    def synchronise(self) -> None:
        """Wait until everything is done."""


@contextmanager
def steady(load: Load, kind: str = HEAVY) -> Iterator[None]:
    """Keep the load going in a thread of its own within this block."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            load.batch(kind)
        load.synchronise()

    worker = threading.Thread(target=work, name="load", daemon=True)
    worker.start()
    try:
        yield
    finally:
        stop.set()
        worker.join(10)


def open_load(batch_s: float = BATCH_S) -> Load:
    """The GPU's load if torch has a GPU, else the CPU's."""
    return CudaLoad(batch_s) if has_cuda() else CpuLoad(batch_s)


def has_cuda() -> bool:
    """Whether torch is here and has a GPU."""
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


def cuda_uuid() -> str | None:
    """The UUID of CUDA's first device, as NVML writes it; None if there is none, or if this torch does not know it."""
    if not has_cuda():
        return None
    import torch

    uuid = getattr(torch.cuda.get_device_properties(0), "uuid", None)
    return None if uuid is None else uuid_text(str(uuid))


def uuid_text(uuid: str) -> str:
    """A UUID as NVML writes it; torch leaves the prefix away."""
    return uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"


class CudaLoad:
    """bf16 matrix products of random numbers, and a kernel of one thread that counts clock cycles."""

    on_gpu = True

    def __init__(self, batch_s: float) -> None:
        import torch

        self._torch = torch
        self.device = "cuda:0"
        self.batch_s = batch_s
        self._queue: deque[Any] = deque()
        self._products, size, product_s = self._find_size()
        self._cycles = self._find_cycles()
        self.what = {
            HEAVY: f"{self._products} bf16 products of {size} x {size}, each {product_s * 1000:.3f} ms when warm",
            LIGHT: f"one kernel of {self._cycles} clock cycles",
            "batch_s": batch_s,
        }

    def batch(self, kind: str, until_ns: int | None = None) -> None:
        """Put one batch on the current stream."""
        if kind == HEAVY:
            for _ in range(self._products):
                self._torch.mm(self._a, self._b, out=self._c)
        else:
            self._torch.cuda._sleep(self._cycles)
        event = self._torch.cuda.Event(blocking=True)
        event.record()
        self._queue.append(event)
        if len(self._queue) > DEPTH:
            self._queue.popleft().synchronize()

    def synchronise(self) -> None:
        """Wait for the GPU."""
        self._torch.cuda.synchronize()

    def _find_size(self) -> tuple[int, int, float]:
        """The largest product of which four fit into a batch."""
        torch = self._torch
        for size in SIZES:
            try:
                self._a, self._b, self._c = (
                    torch.randn(size, size, device=self.device, dtype=torch.bfloat16) for _ in range(3)
                )
                product_s = self._seconds(lambda: torch.mm(self._a, self._b, out=self._c), 20)
            except torch.cuda.OutOfMemoryError:
                continue
            if product_s <= self.batch_s / 4 or size == SIZES[-1]:
                break
        return max(1, round(self.batch_s / product_s)), size, product_s

    def _find_cycles(self) -> int:
        probe = 1_000_000
        return round(probe * self.batch_s / self._seconds(lambda: self._torch.cuda._sleep(probe), 5))

    def _seconds(self, work: Any, repeats: int) -> float:
        """Seconds of one call on the GPU, after some to warm up."""
        torch = self._torch
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        until = time.monotonic() + WARM_UP_S
        while time.monotonic() < until:
            for _ in range(8):
                work()
            torch.cuda.synchronize()
        start.record()
        for _ in range(repeats):
            work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000 / repeats


class CpuLoad:
    """The CPU, busy or asleep; the lab's boards do not care which."""

    on_gpu = False
    device = "cpu"

    def __init__(self, batch_s: float) -> None:
        self.batch_s = batch_s
        self.what = {HEAVY: "a busy CPU", LIGHT: "a sleeping CPU", "batch_s": batch_s}
        try:
            import torch

            torch.set_num_threads(1)
            square = torch.randn(192, 192)
            self._work = lambda: square @ square  # lets other threads run meanwhile, as plain Python would not
        except ImportError:
            self._work = lambda: time.sleep(0)

    def batch(self, kind: str, until_ns: int | None = None) -> None:
        """Be busy, or asleep, for one batch."""
        until = time.monotonic_ns() + round(self.batch_s * 1e9) if until_ns is None else until_ns
        if kind == HEAVY:
            while until - time.monotonic_ns() > 0:
                self._work()
        else:
            time.sleep(max(0, until - time.monotonic_ns()) / 1e9)

    def synchronise(self) -> None:
        """Nothing is queued."""


def image_model(load: Load, images: int) -> tuple[Any, Any, Any, str]:
    """A network to train, a batch of random images and labels on the device, and what they are.

    ResNet-50 at 224 px in channels-last layout on a GPU; on a CPU a network of two layers.
    """
    import torch

    if not load.on_gpu:
        layers = [torch.nn.Conv2d(3, 8, 3, 2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
        network = torch.nn.Sequential(*layers, torch.nn.Linear(8, 10))
        return network, torch.randn(4, 3, 32, 32), torch.randint(0, 10, (4,)), "2 layers, 4 images of 32 px, CPU, float32"
    torch.backends.cudnn.benchmark = True
    try:
        from torchvision.models import resnet50

        network, name = resnet50(), "ResNet-50 (torchvision)"
    except ImportError:
        import timm

        network, name = timm.create_model("resnet50"), "ResNet-50 (timm)"
    network = network.to(load.device, memory_format=torch.channels_last)
    pictures = torch.randn(images, 3, 224, 224, device=load.device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (images,), device=load.device)
    return network, pictures, labels, f"{name}, {images} images of 224 px, bf16-mixed, channels last"
