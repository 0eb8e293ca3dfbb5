"""Finds the accuracy among the metrics that a training logs, and notes it for the record and SAM."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from lightning_watt.errors import WattError
from lightning_watt.record.schema import Accuracy
from lightning_watt.run.state import RunState

ACCURACY_RANGE = "accuracy range"
"""The key of the warning about an accuracy outside of [0, 1]."""
_NAMES = r"(?:top_?1_?)?acc(?:uracy)?(?:_?(?:top_?)?1)?|top_?1|multiclassaccuracy|binaryaccuracy"
_KINDS = {
    "validate": r"val|valid|validation|eval",
    "test": r"test",
    "train": r"train|training",
    "": r"",
}
_ORDER = {"validate": ("validate", "", "train"), "train": ("validate", "", "train"), "test": ("test", "")}


def find_accuracy(
    metrics: Mapping[str, Any], wanted: str = "auto", stage: str = "train", *, may_wait: bool = True
) -> tuple[str, float] | None:
    """The accuracy that SAM is to use.

    Args:
        metrics: what has been logged; numbers or tensors of one element.
        wanted: a metric's name; or `"auto"`: the usual names (`val_acc`, `val/accuracy`, `valid_top1`, `acc`, ...), of
            validation before training; in a test those of the test.
        stage: the stage that it is looked for in.
        may_wait: read a value that lies on a GPU, which waits for the GPU; not inside an epoch.

    Returns:
        The metric's name and value; None if there is none, or its value is not a number yet.

    Raises:
        WattError: the value lies outside of [0, 1], or is not one number; says the likely cause.

    Example:
        >>> find_accuracy({"train_loss": 0.2, "val/acc": 0.91, "train_acc": 0.99})
        ('val/acc', 0.91)
    """
    name = wanted if wanted != "auto" else _usual(metrics, stage)
    if name is None or name not in metrics:
        return None
    if not may_wait and getattr(getattr(metrics[name], "device", None), "type", "cpu") != "cpu":
        return None
    try:
        value = float(metrics[name])
    except (TypeError, ValueError, RuntimeError) as error:
        raise WattError(f"The accuracy {name!r} is not one number ({error}), so there is no SAM. Log one.") from error
    if math.isnan(value):
        return None
    if not 0 <= value <= 1:
        cause = "is it in percent? Log it divided by 100." if 1 < value <= 100 else "is it an accuracy?"
        raise WattError(f"The accuracy {name!r} is {value:g}, outside of [0, 1]: {cause} Until then there is no SAM.")
    return name, value


def _usual(metrics: Mapping[str, Any], stage: str) -> str | None:
    plain = {name: re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") for name in metrics}
    for kind in _ORDER.get(stage, _ORDER["train"]):
        prefix = f"(?:{_KINDS[kind]})_?" if kind else ""
        pattern = re.compile(f"{prefix}(?:{_NAMES})(?:_epoch)?(?:_dataloader_idx_0)?")
        for name, text in plain.items():
            if not name.startswith("watt") and pattern.fullmatch(text):
                return name
    return None


def look_for_accuracy(run: RunState, metrics: Mapping[str, Any], wanted: str, stage: str, *, may_wait: bool = True) -> None:
    """Note the accuracy that was logged last, if there is one; arguments as in `find_accuracy`."""
    run.seen_metrics.update(name for name in metrics if not name.startswith("watt"))
    try:
        found = find_accuracy(metrics, wanted, stage, may_wait=may_wait)
    except WattError as error:
        run.warn_once.warn(str(error), ACCURACY_RANGE)
        run.metric.last = None
        return
    if found is None:
        return
    name, value = found
    before = run.metric.best if run.metric.metric == name else None
    run.metric = Accuracy(metric=name, last=value, best=value if before is None else max(before, value))


def warn_of_missing_accuracy(run: RunState, wanted: str) -> None:
    """Warn that there is no SAM, unless there is one or the reason was given already."""
    if run.metric.last is not None or ACCURACY_RANGE in run.warn_once.said:
        return
    there = ", ".join(sorted(run.seen_metrics)) or "none"
    what = "No accuracy" if wanted == "auto" else f"The accuracy {wanted!r}"
    run.warn_once.warn(
        f"{what} was logged, so there is no SAM; the energy is measured all the same. "
        f'Metrics that were logged: {there}. Name one: WattCallback(accuracy="...").',
        "no accuracy",
    )
