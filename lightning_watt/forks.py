"""What a process that is forked off in the middle of a measurement does not take over from its parent.

The child has a copy of everything but the threads: the reader is gone and may have held a lock, open files are the parent's,
and whatever the child would settle, write or close at its end is the parent's to settle, write and close. So each living
object that measures is told, in the child, and begins anew; what it held stays referenced for the life of the child, because
a destructor may talk to a driver or flush a file.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import ref

_alive: dict[int, ref[Forked]] = {}
_of_the_parent: list[object] = []


class Forked(Protocol):
    """Something that is told when this process is a child of the one that it was made in."""

    def forked(self) -> None:
        """Forget what is the parent's, without waiting for a lock, a thread or a driver."""


def tell_of_forks(one: Forked) -> None:
    """From now on, as long as it lives, it is told."""
    key = id(one)  # and not its hash, which may be anything in a subclass of the user's
    _alive[key] = ref(one, lambda _: _alive.pop(key, None))


def keep(what: object) -> None:
    """Never let go of this, in this process."""
    _of_the_parent.append(what)


def _tell() -> None:
    for known in list(_alive.values()):
        one = known()
        if one is not None:
            one.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_tell)
