"""A real Trainer to measure in: steps of a set time, callbacks whose hooks are timed, and blocks that alternate in one fit.

Every figure of what the callback costs comes from here: from inside a fit, after the first reading of the boards, with an
accuracy logged, beside an empty callback in the same fit, and with a second empty one that shows how sure the difference is.
"""

from __future__ import annotations

import contextlib
import io
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from lightning_watt.testing import Board, square

HOOKS = tuple(name for name in dir(pl.Callback) if name.startswith("on_"))
BATCH_HOOKS = ("on_train_batch_start", "on_before_backward", "on_before_optimizer_step", "on_train_batch_end")
WARM_UP_S = 3.0
"""By then the boards were read, and their counters' ticks are known."""


def boards(count: int) -> list[Board]:
    """Boards of the lab, each with a rhythm of its own."""
    return [Board(power=square(300, 80, 0.81 + 0.31 * i)) for i in range(count)]


class Step(pl.LightningModule):
    """A training step that takes a set time, does nothing, and logs a loss and an accuracy."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seconds = seconds

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        """Wait busily, so that the scheduler has no influence."""
        until = time.perf_counter() + self.seconds
        while time.perf_counter() < until:
            pass
        loss = self.layer(batch).sum()
        self.log("train_loss", loss)
        self.log("train_acc", 0.5, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        """Log an accuracy."""
        self.log("val_acc", 0.75)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain SGD."""
        return torch.optim.SGD(self.parameters(), 1e-9)


class Ones(Dataset[torch.Tensor]):
    """Batches of one."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.ones(1)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Turn off Lightning's messages."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def fit(
    callbacks: Sequence[pl.Callback],
    *,
    batches: int,
    step_s: float = 0.0,
    epochs: int = 1,
    validates: bool = False,
    logger: Any = False,
    **options: Any,
) -> pl.Trainer:
    """One fit in a directory that is removed afterwards."""
    with quiet(), tempfile.TemporaryDirectory() as directory:
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            logger=logger(directory) if callable(logger) else logger,
            default_root_dir=directory,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=list(callbacks),
            num_sanity_val_steps=0,
            **options,
        )
        loaders = [DataLoader(Ones(batches), batch_size=1), *([DataLoader(Ones(1), batch_size=1)] if validates else [])]
        trainer.fit(Step(step_s), *loaders)
    return trainer


def timed(kind: type[pl.Callback]) -> type[pl.Callback]:
    """A subclass whose hooks note the CPU time that this thread spends in each, in nanoseconds, in `spent`.

    Those that the class has itself, or all if it has none; and those that it hangs on the callback in `setup`.
    """
    own = [name for name in HOOKS if getattr(kind, name) is not getattr(pl.Callback, name)] or HOOKS

    def around(name: str, hook: Any) -> Any:
        def measured(self: Any, *args: Any, **kwargs: Any) -> Any:
            start = time.thread_time_ns()
            try:
                return hook(self, *args, **kwargs)
            finally:
                self.spent[name].append(time.thread_time_ns() - start)

        return measured

    def begin(self: Any, *args: Any, **kwargs: Any) -> None:
        kind.__init__(self, *args, **kwargs)
        object.__setattr__(self, "spent", {name: [] for name in HOOKS})

    def setup(self: Any, *args: Any, **kwargs: Any) -> None:
        kind.setup(self, *args, **kwargs)
        for name in HOOKS:
            if (hook := vars(self).get(name)) is not None:
                vars(self)[name] = partial(around(name, lambda _, *given, hook=hook: hook(*given)), self)

    return type(
        f"Timed{kind.__name__}", (kind,), {"__init__": begin, "setup": setup} | {n: around(n, getattr(kind, n)) for n in own}
    )


class Empty(pl.Callback):
    """Has the hooks, and does nothing in them."""

    def __init__(self, number: int = 0) -> None:
        self.number = number

    @property
    def state_key(self) -> str:
        """Several may be in one Trainer."""
        return f"Empty{self.number}"


class Steps(pl.Callback):
    """Notes when each training batch and each training epoch began, nanoseconds of a clock that never steps."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.epochs: list[int] = []

    def on_train_epoch_start(self, *args: Any) -> None:
        """An epoch."""
        self.epochs.append(time.perf_counter_ns())

    def on_train_batch_start(self, *args: Any) -> None:
        """A batch."""
        self.batches.append(time.perf_counter_ns())


def beyond_empty_us(spent: dict[str, list[int]], empty: dict[str, list[int]], hooks: Sequence[str], part: slice) -> float:
    """Microseconds that our hooks take beyond an empty callback's: the sum of each hook's mean, without its 0.5 % longest.

    Args:
        spent: ours, by hook.
        empty: the empty callback's.
        hooks: which hooks; one that ours never had costs nothing beyond.
        part: which of their calls, in the order of the fit.
    """

    def mean(taken: list[int]) -> float:
        kept = sorted(taken)[: max(1, int(0.995 * len(taken)))]
        return statistics.fmean(kept) if kept else 0.0

    return sum(mean(spent[hook][part]) - mean(empty[hook][part]) for hook in hooks if spent[hook]) / 1000
