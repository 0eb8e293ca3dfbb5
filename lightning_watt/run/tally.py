"""What every batch of a run touches, close together: in a real training nothing of it is in the processor's caches.

Between two batches the training's own work has taken the caches. Each object and each function more that a batch's hook goes
through then costs a microsecond, ten times as much as in a tight loop. So the hook is one function, which looks here, and
goes on to the whole of `trainer/measured_run.py` only if more is to be done than to count.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from time import monotonic_ns
from typing import Any

from lightning_watt.accounts.batches import Crowd
from lightning_watt.accounts.events import BatchEnd
from lightning_watt.accounts.ledger import Account


class Tally:
    """Counts the batches of a run that need nothing else.

    Attributes:
        batches: batches so far.
        samples: samples so far.
        is_plain: the next batch needs nothing but to be counted. Whoever has more to do with it says False; the trainer's
            thread looks for everything, and says True again.
        until_row: training batches until the next log row, that of the row included.
        account: the account that the trainer is in.
        known: by stage, what gives the samples of a batch of its loader, as far as that is decided, and the type of which
            the first dimension is just that; None if there is no such type.
        samples_of, tensor: both of the present stage.
        replicas: processes that each had a batch like it.
        crowd: where the ends of batches are noted; None if they are not wanted.
    """

    __slots__ = (
        "account",
        "batches",
        "crowd",
        "is_plain",
        "known",
        "replicas",
        "samples",
        "samples_of",
        "tensor",
        "until_row",
    )

    def __init__(self) -> None:
        self.batches = self.samples = 0
        self.is_plain = False
        self.until_row = 0
        self.account = Account("other", 0)
        self.known: dict[str, tuple[Callable[[Any], int | None], type | None]] = {}
        self.samples_of: Callable[[Any], int | None] = _unknown
        self.tensor: Any = None
        self.replicas = 1
        self.crowd: Crowd | None = None

    def enter(self, account: Account) -> None:
        """The trainer enters another stage or epoch; its batches are plain from the first on if its loader is known."""
        self.account = account
        self.samples_of, self.tensor = self.known.get(account.stage, (_unknown, None))


def counted(
    report: Callable[[Any, str, tuple[Any, ...], Exception], None], *, trains: bool
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a decorator of a hook in which a batch ends: counts a plain one, and leaves every other one to the hook.

    The callback has its `Tally` as `_tally`.

    Args:
        report: told what cannot be noted, as by `never_raise`.
        trains: the batch is one of the training.
    """

    def decorate(hook: Callable[..., None]) -> Callable[..., None]:
        @wraps(hook)
        def on_batch_end(
            self: Any,
            trainer: Any = None,
            pl_module: Any = None,
            outputs: Any = None,
            batch: Any = None,
            batch_idx: int = 0,
            *others: Any,
            **named: Any,
        ) -> None:
            size = None
            try:
                tally: Tally = self._tally
                if tally.is_plain and (not trains or tally.until_row > 1):
                    size = batch.shape[0] if type(batch) is tally.tensor else tally.samples_of(batch)
            except Exception:  # noqa: BLE001 - a batch of the user's own may raise anything; who is asked next says so
                size = None
            if size is None:
                hook(self, trainer, pl_module, outputs, batch, batch_idx, *others, **named)
                return
            tally.samples = samples = tally.samples + size * tally.replicas  # before the batch: none counts without them
            tally.batches = batches = tally.batches + 1
            if trains:
                tally.until_row -= 1
            if (crowd := tally.crowd) is None:
                return
            if (append := crowd.append) is not None and len(crowd.waiting) < crowd.few:
                append((monotonic_ns(), BatchEnd, tally.account, batch_idx, batches, samples))
                return
            try:
                crowd.note(BatchEnd(tally.account, batch_idx, batches, samples))
            except Exception as error:  # noqa: BLE001 - nothing of ours may stop a training
                report(self, hook.__name__, (trainer,), error)

        return on_batch_end

    return decorate


def _unknown(batch: Any) -> None:
    """Nobody has looked at the loader yet."""
