"""The finished epochs of a run, as rows of its record. Pure.

A run may have tens of thousands of epochs, and each of them must cost the same. So the accounts of an epoch stay apart in
the ledger only until the next epoch is over. After that the epoch is a row, which is kept once and never changed or copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from lightning_watt.accounts.ledger import PAST, Account, Ledger, Usage
from lightning_watt.record.schema import Epoch
from lightning_watt.units import joules, seconds

IN_CHECKPOINT = 100
"""The newest rows that a checkpoint carries. The older ones are in the record beside it, whatever their number."""


class Rows:
    """Rows that only become more: each step gives a new value, which shares the list of the one before.

    Args:
        rows: the list, of which only the first `count` are in this value.
        count: how many.

    Example:
        >>> one = Rows().and_more([Epoch(epoch=0, stage="train", joules=1.0, seconds=1.0)])
        >>> two = one.and_more([Epoch(epoch=1, stage="train", joules=1.0, seconds=1.0)])
        >>> one.count, two.count, [row.epoch for row in two.newest(1)]
        (1, 2, [1])
    """

    def __init__(self, rows: list[Epoch] | None = None, count: int = 0) -> None:
        self._rows = [] if rows is None else rows
        self.count = count

    def and_more(self, more: Sequence[Epoch]) -> Rows:
        """These, and then those."""
        if not more:
            return self
        rows = self._rows if self.count == len(self._rows) else self._rows[: self.count]
        rows.extend(more)
        return Rows(rows, len(rows))

    def newest(self, most: int | None = None) -> list[Epoch]:
        """The rows, or only the newest so many."""
        return self._rows[0 if most is None else max(0, self.count - most) : self.count]


class FinishedEpochs:
    """The epochs that are over.

    Attributes:
        accuracies: the accuracy at the end of each that has an account of its own.
        noted: the same of those whose end is noted, settled or not.
        past: those before them.
    """

    def __init__(self) -> None:
        self.accuracies: dict[Account, float | None] = {}
        self.noted: dict[Account, float | None] = {}
        self.past = Rows()

    def copy(self) -> FinishedEpochs:
        """What is known now, unchanged by what comes."""
        other = FinishedEpochs()
        other.accuracies, other.noted = dict(self.accuracies), dict(self.noted)
        other.past = self.past
        return other

    def note(self, account: Account, accuracy: float | None) -> None:
        """The Trainer says that an epoch is over; the energy of its end is not known yet."""
        self.noted[account] = accuracy

    def settle(self, ledger: Ledger, account: Account, accuracy: float | None) -> None:
        """The energy at its end is known."""
        if account in ledger.accounts:
            self.accuracies[account] = accuracy

    def fold(self, ledger: Ledger, before_epoch: int) -> None:
        """Put the accounts of earlier epochs together, and keep a row for each epoch."""
        past = ledger.fold(lambda account: account.epoch < before_epoch)
        self.past = self.past.and_more(rows_of(past, self.accuracies))
        for account in past:
            self.accuracies.pop(account, None)
            self.noted.pop(account, None)


def rows_of(accounts: Mapping[Account, Usage], accuracies: Mapping[Account, float | None]) -> list[Epoch]:
    """The accounts of finished epochs as rows.

    Args:
        accounts: what each used.
        accuracies: the accuracy at its end, of every epoch that is over; the other accounts get no row.
    """
    return [
        Epoch(
            epoch=account.epoch,
            stage=account.stage,
            joules=joules(usage.total_uj),
            seconds=seconds(usage.ns),
            accuracy=accuracies[account],
        )
        for account, usage in accounts.items()
        if account in accuracies
    ]


def all_rows_of(accounts: Mapping[Account, Usage]) -> list[Epoch]:
    """All accounts as rows without an accuracy, those of the past put together aside."""
    return rows_of(accounts, {account: None for account in accounts if account.epoch != PAST})


def merged_rows(rows: Iterable[Epoch], parts: Iterable[Epoch]) -> list[Epoch]:
    """One row for each epoch of each stage, in the order of their first rows; the last accuracy that is known counts.

    Args:
        rows: rows of one or more sessions.
        parts: what else was used in these epochs; it is added to the row of its epoch, if that has one.
    """
    found: dict[Account, Epoch] = {}
    for row in rows:
        account = Account(row.stage, row.epoch)
        found[account] = _sum(found[account], row) if account in found else row
    for row in parts:
        account = Account(row.stage, row.epoch)
        if account in found:
            found[account] = _sum(found[account], row)
    return list(found.values())


def _sum(one: Epoch, other: Epoch) -> Epoch:
    return msgspec.structs.replace(
        one,
        joules=one.joules + other.joules,
        seconds=one.seconds + other.seconds,
        accuracy=one.accuracy if other.accuracy is None else other.accuracy,
    )


def to_plain(rows: Sequence[Epoch]) -> list[list[Any]]:
    """Rows as plain lists, for a checkpoint."""
    return [[row.stage, row.epoch, row.joules, row.seconds, row.accuracy] for row in rows]


def from_plain(plain: Any) -> tuple[Epoch, ...]:
    """What `to_plain` gave, as rows again.

    Raises:
        msgspec.ValidationError: it is something else.
    """
    keys = ("stage", "epoch", "joules", "seconds", "accuracy")
    lists = msgspec.convert(plain, list[tuple[str, int, float, float, float | None]])
    return msgspec.convert([dict(zip(keys, row, strict=True)) for row in lists], tuple[Epoch, ...])
