"""The mean power of two kinds of batches that come too fast to be measured one by one: least squares over windows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

TOLD_APART = 10.0
"""Condition number beyond which windows hold both kinds in too equal shares, as strict alternation does."""


def regress(heavy: NDArray[Any], joules: NDArray[Any], seconds: NDArray[Any], window_s: float) -> dict[str, Any] | None:
    """Each kind's power, by least squares over windows of consecutive batches.

    Args:
        heavy: whether each batch is heavy.
        joules: what it was given.
        seconds: how long it took.
        window_s: a window's length.

    Returns:
        `heavy_w` and `light_w` with their standard errors; None if the windows do not separate the kinds.
    """
    window = (np.cumsum(seconds) // window_s).astype(int)
    count = int(window.max()) + 1
    of_heavy = np.bincount(window, seconds * heavy, count)
    of_light = np.bincount(window, seconds * ~heavy, count)
    energy = np.bincount(window, joules, count)
    parts = np.stack([of_heavy, of_light], axis=1)
    if count < 4 or np.linalg.cond(parts) > TOLD_APART:
        return None
    power, *_ = np.linalg.lstsq(parts, energy, rcond=None)
    left = energy - parts @ power
    variance = float(left @ left) / (count - 2)
    errors = np.sqrt(np.diag(np.linalg.inv(parts.T @ parts)) * variance)
    return {
        "window_s": window_s,
        "windows": count,
        "heavy_w": float(power[0]),
        "light_w": float(power[1]),
        "heavy_se_w": float(errors[0]),
        "light_se_w": float(errors[1]),
    }
