"""The study: eight model families through pretraining, finetuning and inference, each with its energy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.report.inputs.frames import load_runs

__all__ = ["load_runs"]


def __getattr__(name: str) -> Any:
    # pandas takes half a second to import, which no job of the study needs.
    if name in __all__:
        from experiments.report.inputs.frames import load_runs

        return load_runs
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
