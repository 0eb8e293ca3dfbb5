"""Two variants of one training, in turn: what the callback adds to a step, to ten microseconds.

Two fits on a shared machine differ by more than the callback costs. So one fit is cut into blocks of a second. In one block
of three the callback works as always; in the two others its hooks return at once, and its sources are not read. The order is
drawn anew for each three. The two idle blocks are compared with each other too: that is what the instrument can resolve.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from experiments.bench.training import BATCH_HOOKS, Empty, Steps, boards, fit
from lightning_watt import WattCallback
from lightning_watt.sources import Device, NvmlSource, Reading
from lightning_watt.testing import Lab

KINDS = ("ours", "empty", "empty again")


class Pausing:
    """A source that is not read while it pauses."""

    name = "nvml"

    def __init__(self) -> None:
        self._source = NvmlSource()
        self.due_s = self._source.due_s
        self.pauses = False

    def open(self, clock: Any) -> Sequence[Device]:
        """Open the boards."""
        return self._source.open(clock)

    def read(self) -> Sequence[Reading | Any]:
        """Nothing while it pauses."""
        return [] if self.pauses else self._source.read()

    def close(self) -> None:
        """Close the boards."""
        self._source.close()


class Switched(WattCallback):
    """The callback, whose hooks of a training batch can be left out."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """From here on they go through `at`; the callback has them as they are in this run."""
        super().on_train_start(trainer, pl_module)
        for name in BATCH_HOOKS:
            vars(self)[name] = partial(self.at, name, getattr(self, name))

    def at(self, name: str, hook: Callable[..., None], *args: Any) -> None:
        """Call a hook, or not."""
        raise NotImplementedError


class Alternating(Switched):
    """The callback, which works in one block of three.

    Args:
        block_s: seconds of a block.
        warm_up_s: seconds before the first block.
        seed: of the blocks' order.
        **options: the callback's.
    """

    def __init__(self, block_s: float, warm_up_s: float, seed: int, **options: Any) -> None:
        self._source = Pausing()
        super().__init__(sources=[self._source], record=False, **options)
        self._block_s, self._order = block_s, random.Random(seed)
        self._kinds: list[str] = []
        self._until_s = time.perf_counter() + warm_up_s
        self._works = True
        self.kind = ""
        """The kind of the block that runs; empty in the warm-up."""
        self.blocks: list[tuple[str, list[int]]] = []
        """Each block's kind, and when its batches began, nanoseconds."""

    def at(self, name: str, hook: Callable[..., None], *args: Any) -> None:
        """As the callback's, or nothing; the next block may begin where a batch does."""
        if name == BATCH_HOOKS[0]:
            self._begin_batch()
        if self._works:
            hook(*args)

    def _begin_batch(self) -> None:
        now = time.perf_counter_ns()
        if now / 1e9 >= self._until_s:
            if not self._kinds:
                self._kinds = self._order.sample(KINDS, len(KINDS))
            self.kind = self._kinds.pop()
            self._works = self.kind == "ours"
            self._source.pauses = not self._works
            self._until_s = now / 1e9 + self._block_s
            if self.blocks:
                self.blocks[-1][1].append(now)
            self.blocks.append((self.kind, []))
        if self.blocks:
            self.blocks[-1][1].append(now)


class InTurn(Switched):
    """The callback, whose hooks are called at one batch of three; at the two others an empty callback's are, in its place.

    The first callback in a Trainer's list pays for what Lightning itself has to fetch from memory, some 5 µs of it, so that
    callbacks side by side cannot be compared.

    Args:
        warm_up_s: seconds before the first batch that counts.
        seed: of the order.
        **options: the callback's.

    Attributes:
        spent: CPU nanoseconds of this thread by kind and hook.
    """

    def __init__(self, warm_up_s: float, seed: int, **options: Any) -> None:
        super().__init__(**options)
        self._order, self._kinds, self._kind = random.Random(seed), list[str](), ""
        self._empty = Empty()
        self._from_s = time.perf_counter() + warm_up_s
        self.spent = {kind: {hook: list[int]() for hook in BATCH_HOOKS} for kind in KINDS}

    def at(self, name: str, hook: Callable[..., None], *args: Any) -> None:
        """One of the three."""
        if name == BATCH_HOOKS[0] and time.perf_counter() > self._from_s:
            self._kinds = self._kinds or self._order.sample(KINDS, len(KINDS))
            self._kind = self._kinds.pop()
        called = getattr(self._empty, name) if "empty" in self._kind else hook
        start = time.thread_time_ns()
        called(*args)
        taken = time.thread_time_ns() - start
        if self._kind:
            self.spent[self._kind][name].append(taken)


class Difference(NamedTuple):
    """Microseconds a step: the mean over triples of blocks, and its standard error."""

    mean_us: float
    error_us: float

    def __str__(self) -> str:
        return f"{self.mean_us:+.1f} ± {2 * self.error_us:.1f} µs"


def differences(blocks: Sequence[tuple[str, Sequence[int]]]) -> tuple[Difference, Difference]:
    """Ours less the empty blocks of the same three, and the two empty ones less each other.

    Args:
        blocks: each block's kind and when its steps began, nanoseconds; the last one may be cut short.
    """
    triples = [dict(_step_us(*block) for block in blocks[i : i + 3]) for i in range(0, len(blocks) - 3, 3)]
    ours = [t["ours"] - (t["empty"] + t["empty again"]) / 2 for t in triples]
    empty = [t["empty again"] - t["empty"] for t in triples]
    return _difference(ours), _difference(empty)


def _step_us(kind: str, began: Sequence[int]) -> tuple[str, float]:
    # Without the first two steps, in which the reader's thread may still do what the block before it asked for.
    return kind, (began[-1] - began[2]) / (len(began) - 3) / 1000


def _difference(values: Sequence[float]) -> Difference:
    # One block in which the machine did something else must not decide.
    kept = sorted(values)[len(values) // 10 : len(values) - len(values) // 10]
    return Difference(statistics.fmean(kept), statistics.stdev(kept) / len(kept) ** 0.5)


def steady(seconds: float, step_s: float, board_count: int = 2, **options: Any) -> tuple[Difference, Difference]:
    """What a step of a training costs more, after the first seconds.

    Args:
        seconds: how long to measure.
        step_s: seconds of a step.
        board_count: boards of the lab.
        **options: the callback's.
    """
    with Lab(boards(board_count)).running():
        callback = Alternating(1.0, 3.0, seed=0, **options)
        fit([callback], batches=int((seconds + 3) / step_s), step_s=step_s)
    return differences(callback.blocks)


def beginning(pairs: int, step_s: float, seconds: float = 1.5, **options: Any) -> tuple[Difference, Difference]:
    """The same for the first seconds of a fit, in which the counters' ticks are looked for: fits in turn.

    Args:
        pairs: how many fits of each kind.
        step_s: seconds of a step.
        seconds: how long a fit is.
        **options: the callback's.
    """
    order, blocks = random.Random(1), []
    with Lab(boards(2)).running():
        for _ in range(pairs + 1):
            for kind in order.sample(KINDS, len(KINDS)):
                steps = Steps()
                ours = [WattCallback(gpus="all", record=False, **options)] if kind == "ours" else []
                fit([*ours, steps], batches=int(seconds / step_s), step_s=step_s)
                blocks.append((kind, steps.batches))
    return differences(blocks)
