"""What others see of a training: an event for every hook and every logger's row, and what it leaves at its end."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torchmetrics import Metric

from tests.differential.plain import IncomparableError, plain, random_states, shown

OURS = "WattCallback"
# Lightning's finders name their own files by chance, which is the operating system's and no generator's.
_BY_CHANCE = re.compile(r"\.(lr_find|scale_batch_size)_[0-9a-f-]{36}")
# Lightning's sentences that list the metrics.
_OURS_IN_A_LIST = re.compile(r"(, )?`watt[^`]*`")


def is_ours(key: Any) -> bool:
    """Whether a metric, or a callback's state, is what WattCallback adds."""
    return isinstance(key, str) and key.startswith(("watt", OURS))


def without_ours(values: Mapping[Any, Any]) -> dict[Any, Any]:
    return {key: value for key, value in values.items() if not is_ours(key)}


class Trace:
    """All that is seen of one training.

    Args:
        directory: where it writes; events name it by a word, so that two of them can be compared.
        counters: what else every event is to say, by name: each is called there.

    Attributes:
        events: in the order in which they came, each a mapping of plain values.
        end: what was left, by name.
        trainer: the Trainer that is at work.
        under_test: the callbacks that nobody is to notice.
        faults: the harness's own.
    """

    def __init__(self, directory: Path, counters: Mapping[str, Callable[[], Any]] | None = None) -> None:
        self.directory = directory
        self.events: list[dict[str, Any]] = []
        self.end: dict[str, Any] = {}
        self.trainer: Any = None
        self.under_test: list[Any] = []
        self.faults: list[Exception] = []
        self._counters = dict(counters or {})

    def __deepcopy__(self, memo: dict[int, Any]) -> Trace:
        return self  # of a module that Lightning copies (SWA)

    def note(self, what: str, *told: Any, **facts: Any) -> None:
        """An event: what happened, what it was told, and all that can be seen without computing anything."""
        try:
            self.events.append(self._seen(what, told, facts))
        except Exception as error:
            self.faults.append(error)  # Lightning, or the case, may be about to swallow it
            raise

    def _seen(self, what: str, told: tuple[Any, ...], facts: dict[str, Any]) -> dict[str, Any]:
        seen = {"what": what, "told": self.clean(shown(told)), "random": random_states(), **facts}
        seen |= {name: count() for name, count in self._counters.items()}
        if self.trainer is not None:
            seen |= self._of_trainer()
        return seen

    def _of_trainer(self) -> dict[str, Any]:
        trainer = self.trainer
        # The stores behind the properties: the properties compute what has been logged and not been asked for yet.
        logged = trainer._logger_connector
        loop = trainer.fit_loop.epoch_loop
        return {
            "callbacks": tuple(type(one).__name__ for one in trainer.callbacks if one not in self.under_test),
            "stage": (str(trainer.state.fn), str(trainer.state.stage), str(trainer.state.status)),
            "progress": (trainer.current_epoch, trainer.global_step, trainer.should_stop),
            "callback_metrics": plain(without_ours(logged._callback_metrics)),
            "logged_metrics": plain(without_ours(logged._logged_metrics)),
            "progress_bar_metrics": plain(without_ours(logged._progress_bar_metrics)),
            "to_be_computed": tuple(
                _results(one._results) for one in (loop, loop.val_loop, trainer.validate_loop, trainer.test_loop)
            ),
        }

    def leave(self, name: str, make: Callable[[], Any]) -> None:
        """Keep what was left at the end; where there is nothing to be had, why."""
        try:
            self.end[name] = self.clean(plain(make()))
        except IncomparableError:
            raise
        except Exception as error:  # noqa: BLE001 - both trainings are to fail alike
            self.end[name] = self.clean(f"not to be had: {type(error).__name__}: {error}")

    def leave_files(self) -> None:
        """The names of the files that are not ours, and what is in the checkpoints."""
        files = sorted(
            path for path in self.directory.rglob("*") if path.is_file() and not path.name.startswith(("watt", ".watt"))
        )
        self.leave("files", lambda: [path.relative_to(self.directory) for path in files])
        for path in files:
            if path.suffix == ".ckpt":
                name = str(path.relative_to(self.directory))
                self.leave(name, lambda path=path: checkpoint_without_ours(torch.load(path, weights_only=False)))

    def clean(self, value: Any) -> Any:
        """Without what differs between any two runs, and without our metrics where a sentence lists all metrics."""
        if isinstance(value, str):
            if "/" not in value and "." not in value:
                return value
            value = _OURS_IN_A_LIST.sub("", value.replace(str(self.directory), "<directory>"))
            return _BY_CHANCE.sub(r".\1", value)
        if isinstance(value, tuple):
            return tuple(map(self.clean, value))
        if isinstance(value, dict):
            return {key: self.clean(item) for key, item in value.items()}
        return value


def checkpoint_without_ours(checkpoint: dict[str, Any]) -> dict[str, Any]:
    return {**checkpoint, "callbacks": without_ours(checkpoint.get("callbacks", {}))}


def _results(results: Any) -> tuple[Any, ...]:
    """What has been logged and is to be computed, with whether it has been: whoever computes early is seen here."""
    found = []
    for key, result in results.items():
        states = metric_states(result if result.is_tensor else result.value)
        found.append((key, states, plain(result._computed), plain(result._forward_cache), result.has_reset))
    return tuple(found)


def metric_states(metric: Metric) -> tuple[Any, ...]:
    """All that a torchmetrics object remembers."""
    return (
        type(metric).__name__,
        plain([getattr(metric, state) for state in metric._defaults]),
        plain(metric._computed),
        metric._update_count,
    )


@cache
def recorder_class(pl: ModuleType) -> type[Any]:
    """A callback of one package that notes every hook."""

    class Recorder(pl.Callback):  # type: ignore[name-defined, misc]
        """Notes every hook.

        Args:
            trace: where.
            reads: read `trainer.callback_metrics` too, where callbacks often do: it computes.
        """

        READS = ("on_train_batch_end", "on_validation_end", "on_train_end")

        def __init__(self, trace: Trace, *, reads: bool = False) -> None:
            self.trace, self.reads = trace, reads

        def hear(self, hook: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            told = [checkpoint_without_ours(one) if _is_checkpoint(one) else one for one in args[2:]]
            facts = {}
            if self.reads and hook in self.READS:
                facts["read"] = plain(without_ours(self.trace.trainer.callback_metrics))
            self.trace.note(f"callback.{hook}", *told, *kwargs.items(), **facts)

    def hook(name: str) -> Callable[..., Any]:
        def heard(self: Any, *args: Any, **kwargs: Any) -> Any:
            self.hear(name, args, kwargs)
            return {} if name == "state_dict" else None

        return heard

    for name in callback_hooks(pl):
        setattr(Recorder, name, hook(name))
    return Recorder


def callback_hooks(pl: ModuleType) -> list[str]:
    """The hooks that a callback of this package has."""
    others = ("setup", "teardown", "state_dict", "load_state_dict")
    return [name for name in dir(pl.Callback) if name.startswith("on_") or name in others]


def _is_checkpoint(value: Any) -> bool:
    return isinstance(value, dict) and "pytorch-lightning_version" in value


@cache
def logger_class(pl: ModuleType, *, keywords_only: bool) -> type[Any]:
    """A logger of one package that notes what it is given."""

    class Rows(pl.loggers.logger.Logger):  # type: ignore[name-defined, misc]
        def __init__(self, trace: Trace) -> None:
            super().__init__()
            self.trace = trace

        name = "rows"
        version = 0

        @property
        def save_dir(self) -> str:
            return str(self.trace.directory)

        def log_metrics(self, *, metrics: dict[str, float], step: int | None = None) -> None:
            others = without_ours(metrics)
            if len(others) < len(metrics) and others.keys() <= {"epoch"}:
                return  # a row of ours
            self.trace.note("logger.log_metrics", others, step)

        def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
            self.trace.note("logger.log_hyperparams", params, *args, *kwargs.items())

        def log_graph(self, *args: Any, **kwargs: Any) -> None:
            self.trace.note("logger.log_graph")

        def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
            self.trace.note("logger.after_save_checkpoint", getattr(checkpoint_callback, "best_model_path", ""))

        def finalize(self, status: str) -> None:
            self.trace.note("logger.finalize", status)

    class RowsByPosition(Rows):
        def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
            super().log_metrics(metrics=metrics, step=step)

    return Rows if keywords_only else RowsByPosition


def leave_all(trace: Trace, module: Any, *, save: bool = True) -> None:
    """What a training leaves, the things that compute last."""
    trainer = trace.trainer
    trace.leave("random", random_states)
    trace.leave("metrics in the module", lambda: [metric_states(one) for one in module.modules() if isinstance(one, Metric)])
    if save:
        dump = trainer._checkpoint_connector.dump_checkpoint
        trace.leave("state", lambda: checkpoint_without_ours(dump(weights_only=False)))
    trace.leave("callback_metrics", lambda: without_ours(trainer.callback_metrics))
    trace.leave("logged_metrics", lambda: without_ours(trainer.logged_metrics))
    trace.leave("progress_bar_metrics", lambda: without_ours(trainer.progress_bar_metrics))
    trace.leave(
        "progress", lambda: [trainer.current_epoch, trainer.global_step, trainer.should_stop, trainer.num_val_batches]
    )
    if trainer.is_global_zero:
        trace.leave_files()
