"""What every batch of a run touches, close together: in a real training nothing of it is in the processor's caches.

Between two batches the training's own work has taken the caches. Each object and each function more that a batch's hook goes
through then costs a microsecond, ten times as much as in a tight loop. So the hook looks here first, and goes on to the
whole of `trainer/measured_run.py` only if more is to be done than to count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning_watt.accounts.events import BatchEnd, Note
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
        known: by stage, what gives the samples of a batch of its loader, as far as that is decided.
        samples_of: that of the present stage.
        replicas: processes that each had a batch like it.
        note: notes the ends of batches, if each is wanted.
    """

    __slots__ = ("account", "batches", "is_plain", "known", "note", "replicas", "samples", "samples_of", "until_row")

    def __init__(self) -> None:
        self.batches = self.samples = 0
        self.is_plain = False
        self.until_row = 0
        self.account = Account("other", 0)
        self.known: dict[str, Callable[[Any], int | None]] = {}
        self.samples_of: Callable[[Any], int | None] = _unknown
        self.replicas = 1
        self.note: Callable[[Note], None] | None = None

    def enter(self, account: Account) -> None:
        """The trainer enters another stage or epoch; its batches are plain from the first on if its loader is known."""
        self.account, self.samples_of = account, self.known.get(account.stage, _unknown)

    def counts(self, batch: Any, batch_idx: int, trains: bool) -> bool:
        """Count a batch that is over, in the training or elsewhere; False if it is not plain, and then nothing is done."""
        if not self.is_plain or (trains and self.until_row <= 1):
            return False
        try:
            size = self.samples_of(batch)
        except Exception:  # noqa: BLE001 - a batch of the user's own may raise anything; who is asked next says so
            return False
        if size is None:
            return False
        self.samples = samples = self.samples + size * self.replicas  # before the batch, which is not counted without them
        self.batches = batches = self.batches + 1
        if trains:
            self.until_row -= 1
        if self.note is not None:
            self.note(BatchEnd(self.account, batch_idx, batches, samples))
        return True


def _unknown(batch: Any) -> None:
    """Nobody has looked at the loader yet."""
