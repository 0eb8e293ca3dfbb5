"""The Trainer's metrics as they stand, without asking it to compute any.

The Trainer's `callback_metrics`, `progress_bar_metrics` and `logged_metrics` are properties that *compute*: at a training
epoch's end they reduce every metric that was logged for the epoch. Over several ranks that is a collective, which the other
ranks do not come to; and the value is kept, so what the module's own `on_train_epoch_end` still adds is lost. Lightning
computes each metric in its own time, on all ranks, and puts it into the dictionaries behind these properties: after every
batch, after a validation, and after the hooks of a training epoch's end. Only those dictionaries are touched here.

Source: `trainer/connectors/logger_connector/logger_connector.py` of Lightning 2.6, `_LoggerConnector`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def computed(trainer: Any) -> Mapping[str, Any]:
    """What Lightning has computed so far, as the Trainer's `callback_metrics` would show it: tensors of one value."""
    return _behind(trainer, "_callback_metrics")


def give(trainer: Any, values: Mapping[str, float]) -> None:
    """Put values among them, where other callbacks and loggers' users find them."""
    if values:
        tensors = {tag: torch.tensor(value, dtype=torch.float64) for tag, value in values.items()}
        _behind(trainer, "_callback_metrics").update(tensors)


def show(trainer: Any, values: Mapping[str, float]) -> None:
    """Put values into the progress bar."""
    _behind(trainer, "_progress_bar_metrics").update(values)


def _behind(trainer: Any, name: str) -> dict[str, Any]:
    """The dictionary behind a property; a new one, which nobody sees, where this Lightning has none."""
    found = getattr(getattr(trainer, "_logger_connector", None), name, None)
    return found if isinstance(found, dict) else {}
