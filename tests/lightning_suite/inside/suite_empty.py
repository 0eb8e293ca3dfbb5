"""The arm `empty`: a callback that does nothing. Copied into the throw-away distribution."""

from __future__ import annotations

import lightning.pytorch


class EmptyCallback(lightning.pytorch.Callback):
    """Does nothing."""


def callbacks() -> list[EmptyCallback]:
    return [EmptyCallback()]
