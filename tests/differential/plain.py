"""Values as plain ones that can be compared to the bit and printed: nested tuples of numbers and words."""

from __future__ import annotations

import enum
import hashlib
import random
from collections import deque
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np
import torch


class IncomparableError(TypeError):
    """A value that this module does not know, so that nothing is passed over in silence."""


def digest(raw: bytes) -> str:
    return hashlib.blake2b(raw, digest_size=8).hexdigest()


def plain(value: Any) -> Any:
    """The value, its tensors as type and number, or as shape, the hash of their bytes, and the first numbers for the reader.

    A mapping becomes pairs in its own order, which others see too.
    """
    kind = type(value)
    if value is None or kind in (int, str, bool, bytes):
        return value
    if kind is float:
        return repr(value)  # exact, and a NaN is like another one
    if isinstance(value, torch.Tensor):
        if value.numel() == 1:
            return f"{value.dtype} {tuple(value.shape) or ''} {value.item()!r}"
        array = value.detach().cpu().contiguous()
        first = array.flatten()[:3].tolist()
        return f"{value.dtype} {tuple(value.shape)} {digest(array.numpy().tobytes())} {first}"
    if isinstance(value, (np.ndarray, np.generic)):
        return f"numpy {value.dtype} {value.shape} {digest(value.tobytes())}"
    if isinstance(value, Mapping):
        return tuple((plain(key), plain(item)) for key, item in value.items())
    if isinstance(value, (list, tuple, deque)):
        return tuple(plain(item) for item in value)
    if isinstance(value, Set):
        return tuple(sorted(map(repr, value)))
    if isinstance(value, (enum.Enum, Path, torch.dtype, torch.device)):
        return str(value)
    if isinstance(value, BaseException):
        return f"{kind.__name__}: {value}"
    if isinstance(value, str):  # a class of Lightning's own
        return str(value)
    raise IncomparableError(f"{type(value)}: {value!r}")


def shown(value: Any) -> Any:
    """The same for what a hook is called with, where an object is known by its class."""
    try:
        return plain(value)
    except IncomparableError:
        if isinstance(value, (list, tuple)):
            return tuple(map(shown, value))
        return type(value).__name__


def random_states() -> str:
    """The states of Python's, NumPy's and torch's generators; looking does not draw."""
    _, keys, *rest = np.random.get_state()
    numpy = np.asarray(keys).tobytes() + repr(rest).encode()
    return f"{hash(random.getstate()):x} {digest(numpy)} {digest(torch.get_rng_state().numpy().tobytes())}"
