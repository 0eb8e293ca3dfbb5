"""One training of the matrix, in an arm, and the trace of it."""

from __future__ import annotations

import contextlib
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch

from tests.differential.arms import Arm
from tests.differential.modules import batches, modules
from tests.differential.trace import Trace, leave_all, logger_class, recorder_class

SEED = 7


class Run:
    """A case that is being run.

    Attributes:
        pl: the Lightning package.
        directory: the run's.
        trace: what is seen of it.
        module: what is trained.
        trainer: the Trainer at work.
    """

    def __init__(self, pl: ModuleType, case: Case, arm: Arm, directory: Path, trace: Trace, *, reads: bool = False) -> None:
        self.pl, self.case, self.directory, self.trace = pl, case, directory, trace
        self._arm, self._reads = arm, reads
        self.new_module()
        self.new_trainer()

    def new_module(self) -> None:
        self.module = getattr(modules(self.pl), self.case.module)(self.trace, raises=self.case.module_raises)

    def new_trainer(self, **options: Any) -> None:
        """A Trainer with the case's callbacks around the one under test, and a recorder behind them all."""
        under_test = self._arm(self.pl)
        self.trace.under_test.extend(under_test)
        callbacks = [
            *self.case.before(self.pl),
            *under_test,
            *self.case.after(self.pl),
            recorder_class(self.pl)(self.trace, reads=self._reads),
        ]
        settings: dict[str, Any] = {
            "accelerator": "cpu",
            "devices": 1,
            "default_root_dir": str(self.directory),
            "max_epochs": 2,
            "log_every_n_steps": 1,
            "logger": logger_class(self.pl, keywords_only=self.case.any_logger)(self.trace),
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }
        self.trainer = self.pl.Trainer(callbacks=callbacks, **settings | dict(self.case.options) | options)
        self.trace.trainer = self.trainer

    def fit(self, **options: Any) -> None:
        self.trainer.fit(self.module, **self.case.data(), **options)


def data() -> dict[str, Any]:
    return {"train_dataloaders": batches(4, shuffle=True), "val_dataloaders": batches(1)}


@dataclass(frozen=True)
class Case:
    """One training of the matrix.

    Attributes:
        module: a class of `modules`.
        options: the Trainer's.
        before: callbacks that stand before the one under test in the list.
        after: callbacks behind it.
        data: what `fit` is given.
        run: what is done.
        module_raises: a hook of the module, and what it raises.
        ends: the beginning of the exception that the training ends by, type and text; None where it ends well.
        said: what WattCallback has a reason to say, a pattern.
        any_logger: the logger takes Lightning's keywords only, as a user's own may; some callbacks do not bear that.
    """

    module: str = "Plain"
    options: Mapping[str, Any] = field(default_factory=dict)
    before: Callable[[ModuleType], list[Any]] = lambda pl: []
    after: Callable[[ModuleType], list[Any]] = lambda pl: []
    data: Callable[[], dict[str, Any]] = data
    run: Callable[[Run], None] = Run.fit
    module_raises: tuple[str, type[BaseException]] | None = None
    ends: str | None = None
    said: str | None = None
    any_logger: bool = True


class Steps:
    """A clock that goes a second on at each training step, for `max_time` and Timer: time is not to decide here."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def monotonic(self) -> float:
        return float(sum(event["what"] == "module.training_step" for event in self._trace.events))


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Torch's threads wait for each other, which takes five times as long where a layer has 16 weights."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(
    pl: ModuleType,
    case: Case,
    arm: Arm,
    directory: Path,
    *,
    reads: bool = False,
    counters: Mapping[str, Callable[[], Any]] | None = None,
    save: bool = True,
) -> Trace:
    """Run it and say what was seen.

    Args:
        pl: the Lightning package.
        case: the training.
        arm: makes the callbacks under test.
        directory: an empty one, the same for all ranks.
        reads: the last recorder reads `trainer.callback_metrics` where callbacks often do.
        counters: what else each event is to say.
        save: ask for a checkpoint at the end.
    """
    directory.mkdir(parents=True, exist_ok=True)
    trace = Trace(directory, counters)
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)
    clock = mock.patch.object(pl.callbacks.timer, "time", SimpleNamespace(monotonic=Steps(trace).monotonic))
    with warnings.catch_warnings(), clock, one_thread():
        warnings.simplefilter("ignore")  # Lightning's advice for small runs on a CPU
        warnings.filterwarnings("error", module="lightning_watt")
        running = None
        try:
            running = Run(pl, case, arm, directory, trace, reads=reads)
            case.run(running)
            trace.end["raised"] = None
        except BaseException as error:  # noqa: BLE001 - how it ended is part of what is seen
            trace.end["raised"] = trace.clean(f"{type(error).__name__}: {error}")
        if running is not None:
            leave_all(trace, running.module, save=save)
    if trace.faults:
        raise trace.faults[0]
    return trace
