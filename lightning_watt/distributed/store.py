"""The key-value store in which the processes of a run met: how they exchange values without ever waiting for ever.

A collective waits for every rank, and a rank on which nobody measures never comes to ours. So there are none here. A rank
leaves what it knows under a key and looks, with a limit, for what the others have left. If all of them must agree on
a value, the first one who writes it wins, and everybody takes what stands there, the late ones too.

Each call is one exchange with the process that holds the store, some 80 µs on one machine, and never blocks inside the
store: there it would keep the training's own calls waiting.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from time import monotonic, sleep
from typing import Any

from lightning_watt.errors import WattError

log = logging.getLogger(__name__)

POLL_S = 0.001
"""How soon a key that was not there is looked for again; the pause grows with the time that has passed."""
MAX_POLL_S = 0.05


class StoreGone(WattError):  # noqa: N818 - it is a finding, like a source that is not there
    """The store does not answer: the process that holds it has ended."""


class SharedStore:
    """A part of the processes' store.

    Args:
        store: a `torch.distributed.Store`.
        prefix: stands before every key.

    Example:
        >>> from torch.distributed import HashStore
        >>> store = SharedStore(HashStore(), "example")
        >>> store.set_if_absent("colour", b"red"), store.set_if_absent("colour", b"blue")
        (b'red', b'red')
    """

    def __init__(self, store: Any, prefix: str) -> None:
        self._store = store
        self._prefix = prefix

    def set(self, key: str, value: bytes) -> None:
        """Leave a value, in the place of an earlier one.

        Raises:
            StoreGone: the store does not answer.
        """
        self._ask("set", self._key(key), value)

    def set_if_absent(self, key: str, value: bytes) -> bytes:
        """Set a value if there is none yet, and return the one that stands there now.

        Raises:
            StoreGone: the store does not answer.
        """
        return bytes(self._ask("compare_set", self._key(key), "", value.decode()))

    def get(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Those of the keys that are there now, with their values.

        Raises:
            StoreGone: the store does not answer.
        """
        there = list(keys) if self._has(keys) else [key for key in keys if self._has([key])]
        values = self._ask("multi_get", [self._key(key) for key in there]) if there else []
        return dict(zip(there, map(bytes, values), strict=True))

    def wait(self, keys: Sequence[str], limit_s: float) -> dict[str, bytes]:
        """The same, once all of them are there or the time is up.

        Raises:
            StoreGone: the store does not answer.
        """
        began_s = monotonic()
        while not self._has(keys):
            passed_s = monotonic() - began_s
            if passed_s >= limit_s:
                break
            sleep(min(MAX_POLL_S, limit_s - passed_s, POLL_S + passed_s / 10))
        return self.get(keys)

    def delete(self, key: str) -> None:
        """Remove a key; nothing happens if it is not there.

        Raises:
            StoreGone: the store does not answer.
        """
        self._ask("delete_key", self._key(key))

    def _has(self, keys: Sequence[str]) -> bool:
        return bool(self._ask("check", [self._key(key) for key in keys]))

    def _ask(self, call: str, *arguments: Any) -> Any:
        try:
            return getattr(self._store, call)(*arguments)
        except Exception as error:  # torch raises several kinds, some of them plain RuntimeError
            raise StoreGone(f"The ranks' key-value store does not answer ({error!r}): has rank zero ended?") from error

    def _key(self, key: str) -> str:
        return f"{self._prefix}/{key}"


def default_store(prefix: str) -> SharedStore | None:
    """The store of the default process group; None if it has none (MPI), or torch does not show it."""
    try:
        from torch.distributed.distributed_c10d import _get_default_store

        return SharedStore(_get_default_store(), prefix)
    except Exception as error:
        log.debug("no store", exc_info=error)
        return None
