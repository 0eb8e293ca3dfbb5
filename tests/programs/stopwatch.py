"""Run a script with a stopwatch at its Trainers: `python stopwatch.py TIMES.json pytorch_lightning SCRIPT`.

TIMES.json gets, for each call of a Trainer, how long it took whole and how long its loops took, in seconds: a run that is
measured from its `setup` to its `teardown` lies between the two. Calls in other processes are not seen.
"""

from __future__ import annotations

import functools
import json
import runpy
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

CALLS = ("fit", "validate", "test", "predict")


def watch(trainer_class: Any, times: list[dict[str, Any]]) -> None:
    """Note every call of that class's Trainers in `times`."""
    running: list[dict[str, Any]] = []

    def outer(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if running:
                return call(*args, **kwargs)  # a tuner's own, within one that is timed
            running.append({"call": name, "loops_s": 0.0})
            began = time.monotonic()
            try:
                return call(*args, **kwargs)
            finally:
                times.append({**running.pop(), "whole_s": time.monotonic() - began})

        return timed

    def inner(call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.monotonic()
            try:
                return call(*args, **kwargs)
            finally:
                running[-1]["loops_s"] += time.monotonic() - began

        return timed

    for name in CALLS:
        setattr(trainer_class, name, outer(name, getattr(trainer_class, name)))
    trainer_class._run_stage = inner(trainer_class._run_stage)


def main(file: str, package: str, script: str) -> None:
    times: list[dict[str, Any]] = []
    watch(import_module(package).Trainer, times)
    sys.argv = [script]
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        Path(file).write_text(json.dumps(times))


if __name__ == "__main__":
    main(*sys.argv[1:])
