"""The hooks in which the parts of a training step begin. A callback has them only while each batch is wanted.

Lightning calls every hook of every callback. One that has nothing to do still costs a microsecond beside a real training,
and there are three of them in a step. So they hang on the callback itself, and its class has Lightning's own empty ones.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic_ns
from typing import Any
from weakref import ref

from lightning_watt.accounts.batches import Crowd
from lightning_watt.accounts.events import BACKWARD, FORWARD, OPTIMIZER, StepPartStart
from lightning_watt.warn_once import WarnOnce

PART_HOOKS = {"on_train_batch_start": FORWARD, "on_before_backward": BACKWARD, "on_before_optimizer_step": OPTIMIZER}


def begin(callback: Any, base: type) -> None:
    """Before there is a Trainer, take whatever Fabric calls these hooks with; arguments as below."""
    for name in PART_HOOKS:
        if getattr(type(callback), name) is getattr(base, name):
            vars(callback)[name] = _nothing


def _nothing(*_: Any, **__: Any) -> None: ...


def hang_hooks(callback: Any, base: type, crowd: Crowd | None, warn_once: WarnOnce) -> None:
    """Give a callback these hooks, before those that its class may have.

    Args:
        callback: the callback.
        base: Lightning's class of callbacks, whose hooks are empty.
        crowd: where the parts are noted; None takes the hooks away.
        warn_once: tells of a part that could not be noted.
    """
    for name, part in PART_HOOKS.items():
        if crowd is None:
            vars(callback).pop(name, None)
            continue
        of_class = getattr(type(callback), name)
        hook = _noting(part, crowd, warn_once)
        vars(callback)[name] = hook if of_class is getattr(base, name) else _both(hook, of_class, callback)


def _noting(part: StepPartStart, crowd: Crowd, warn_once: WarnOnce) -> Callable[..., None]:
    def on_part_start(*_: Any, **__: Any) -> None:
        if (append := crowd.append) is not None:
            append((monotonic_ns(), part))
            return
        try:
            crowd.note(part)
        except Exception as error:  # noqa: BLE001 - nothing of ours may stop a training
            warn_once.failed(part.part, error)

    return on_part_start


def _both(ours: Callable[..., None], of_class: Callable[..., Any], callback: Any) -> Callable[..., None]:
    """A hook of the user's own subclass follows ours."""
    owner = ref(callback)  # or the callback would hold itself, and nobody would see that it was left

    def on_part_start(*args: Any, **kwargs: Any) -> None:
        ours()
        if (alive := owner()) is not None:
            of_class(alive, *args, **kwargs)

    return on_part_start
