"""Finds the accuracy among the metrics that a training logs, and notes it for the record and SAM."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from lightning_watt.errors import WattError
from lightning_watt.record.schema import Accuracy
from lightning_watt.run.state import RunState

ACCURACY_RANGE = "accuracy range"
"""The key of the warning about an accuracy outside of [0, 1]."""
_STAGES = {
    **dict.fromkeys(("val", "valid", "validation", "eval", "evaluation", "dev"), "validate"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("train", "training"), "train"),
}
_ORDER = {"validate": ("validate", "", "train"), "train": ("validate", "", "train"), "test": ("test", "")}
# What people put beside these words without meaning another quantity; `ptl/val_accuracy` is of Ray's examples. Not `step`: a
# value of one batch; not `best`: one of an earlier epoch; no number but a 1: the accuracy of a class, or the top-5 accuracy.
_BESIDE = "|".join(
    (
        "avg|average|mean|epoch|overall|total|micro|macro|weighted",
        "balanced|bal|binary|multi_?class|multi_?label|ptl|metrics?|score",
    )
)
_WORD = re.compile(
    r"(?P<accuracy>acc(?:uracy)?1?|top_?1)(?![0-9])|(?P<iou>m(?:ean)?_?io_?u)"
    rf"|(?P<stage>{'|'.join(sorted(_STAGES, key=len, reverse=True))})"
    rf"|(?P<beside>{_BESIDE}|at_?1(?![0-9])|dataloader_idx_0)"
)
NO_ACCURACY = "no accuracy"
"""The key of the warning that there is none."""
NOBODY_ASKED = "No accuracy was logged"
"""What the sentence begins with that is no warning."""
MOST_NAMES = 12
"""Names of logged metrics in a sentence."""


def find_accuracy(
    metrics: Mapping[str, Any], wanted: str = "auto", stage: str = "train", *, may_wait: bool = True
) -> tuple[str, float] | None:
    """The accuracy that SAM is to use.

    Args:
        metrics: what has been logged; numbers or tensors of one element.
        wanted: a metric's name; or `"auto"`: the usual names (`val_acc`, `accuracy/validation`, `dev_top1`, `acc`, ...),
            of validation before training; in a test those of the test. Of several, the one with the fewest words. If there
            is none, mean IoU by its usual names (`val_miou`, `test/mean_iou`, ...).
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
    name = wanted if wanted != "auto" else _usual(tuple(metrics), stage)
    if name is None or name not in metrics:
        return None
    found = metrics[name]
    if not may_wait and getattr(getattr(found, "device", None), "type", "cpu") != "cpu":
        return None
    try:
        value = float(found)
    except (TypeError, ValueError, RuntimeError) as error:
        raise WattError(f"The accuracy {name!r} is not one number ({error}), so there is no SAM. Log one.") from error
    if math.isnan(value):
        return None
    if not 0 <= value <= 1:
        cause = "is it in percent? Log it divided by 100." if 1 < value <= 100 else "is it an accuracy?"
        raise WattError(f"The accuracy {name!r} is {value:g}, outside of [0, 1]: {cause} Until then there is no SAM.")
    return name, value


@lru_cache(maxsize=64)  # the names of a training change seldom
def _usual(names: tuple[str, ...], stage: str) -> str | None:
    """The metric with a usual name that counts in this stage."""
    order = _ORDER.get(stage, _ORDER["train"])
    known = [(name, read) for name in names if (read := _read(name)) and read.stage in order]
    found = [(read.is_iou, order.index(read.stage), read.words, name) for name, read in known]
    return min(found, key=lambda one: one[:3])[3] if found else None


class _Name(NamedTuple):
    """What a metric's name says: the stage, empty if it says none, how many words it has, and whether it is a mean IoU's."""

    stage: str
    words: int
    is_iou: bool = False


@lru_cache(maxsize=1024)
def _read(name: str) -> _Name | None:
    """A metric's name, word by word; None if it is not that of an accuracy, or has a word that may mean another quantity.

    Example:
        >>> _read("Accuracy/validation"), _read("val_acc_loss")
        (_Name(stage='validate', words=2, is_iou=False), None)
        >>> _read("val/mean_iou")
        _Name(stage='validate', words=2, is_iou=True)
    """
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().replace("@", "")
    text = re.sub(r"[^a-z0-9]+", "_", apart).strip("_")
    words: list[re.Match[str]] = []
    at = 0
    while at < len(text):
        word = _WORD.match(text, at)
        if word is None:
            return None
        words.append(word)
        at = word.end() + (text[word.end() : word.end() + 1] == "_")
    stages = {_STAGES[word["stage"]] for word in words if word["stage"]}
    is_accuracy, is_iou = (any(word[kind] for word in words) for kind in ("accuracy", "iou"))
    if len(stages) > 1 or is_accuracy == is_iou:
        return None
    return _Name("".join(stages), len(words), is_iou)


def look_for_accuracy(run: RunState, metrics: Mapping[str, Any], wanted: str, stage: str, *, may_wait: bool = True) -> None:
    """Note the accuracy that was logged last, if there is one; arguments as in `find_accuracy`."""
    if (names := tuple(metrics)) != run.last_names:
        run.last_names = names
        run.seen_metrics.update(name for name in names if not name.startswith("watt"))
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
    if before is not None and value == run.metric.last:
        return
    run.metric = Accuracy(metric=name, last=value, best=value if before is None else max(before, value))


def missing_accuracy(run: RunState, wanted: str) -> str:
    """Why a training that is over has no SAM, and what to do; empty if it has one, or the reason was given already."""
    if run.metric.last is not None or {ACCURACY_RANGE, NO_ACCURACY} & run.warn_once.said.keys():
        return ""
    seen = sorted(run.seen_metrics)
    name = wanted if wanted != "auto" else _usual(tuple(seen), "train")
    if name in run.seen_metrics:
        return f"The accuracy {name!r} was logged and never was a number, so there is no SAM."
    there = ", ".join(seen[:MOST_NAMES]) + (", ..." if len(seen) > MOST_NAMES else "") or "none"
    if wanted == "auto":
        what, remedy = NOBODY_ASKED, 'Name the metric that it is to use: WattCallback(accuracy="...").'
    else:
        near = difflib.get_close_matches(wanted, seen, 1, cutoff=0.5)
        what, remedy = (
            f"No metric of the name {wanted!r} was logged",
            f"Did you mean {near[0]!r}?" if near else "Name one of them.",
        )
    return f"{what}, so there is no SAM; the energy is measured all the same. Metrics that were logged: {there}. {remedy}"


def warn_of_missing_accuracy(run: RunState, wanted: str) -> None:
    """Warn of it, unless there is none and nobody named one; then a sentence below the table is enough."""
    sentence = missing_accuracy(run, wanted)
    if sentence and not sentence.startswith(NOBODY_ASKED):
        run.warn_once.warn(sentence, NO_ACCURACY)
