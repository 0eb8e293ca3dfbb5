"""The finished epochs of a run, as rows of its record. Pure.

A run may have tens of thousands of epochs, and each of them must cost the same. So the accounts of an epoch stay apart in
the ledger only until the next epoch is over. After that the epoch is a row, which is kept once and never changed or copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from lightning_watt.record.schema import Epoch
from lightning_watt.run.ledger import Account, Ledger, Usage
from lightning_watt.units import joules, seconds

IN_CHECKPOINT = 100
"""The newest rows that a checkpoint carries. The older ones are in the record beside it, whatever their number."""


class FinishedEpochs:
    """The epochs that are over.

    Attributes:
        accuracies: the accuracy at the end of each that has an account of its own.
        noted: the same of those whose end is noted, settled or not.
        past_count: how many have become rows.
    """

    def __init__(self) -> None:
        self.accuracies: dict[Account, float | None] = {}
        self.noted: dict[Account, float | None] = {}
        self._rows: list[Epoch] = []  # it only grows, so copies share it
        self.past_count = 0

    def copy(self) -> FinishedEpochs:
        """What is known now, unchanged by what comes."""
        other = FinishedEpochs()
        other.accuracies, other.noted = dict(self.accuracies), dict(self.noted)
        other._rows, other.past_count = self._rows, self.past_count
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
        self._rows += rows_of(past, self.accuracies)
        self.past_count = len(self._rows)
        for account in past:
            self.accuracies.pop(account, None)
            self.noted.pop(account, None)

    def past(self, newest: int | None = None) -> list[Epoch]:
        """The rows, or only the newest so many."""
        return self._rows[0 if newest is None else max(0, self.past_count - newest) : self.past_count]


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


def merged_rows(rows: Iterable[Epoch], parts: Mapping[Account, Usage]) -> list[Epoch]:
    """One row for each epoch of each stage, in the order of their first rows; the last accuracy that is known counts.

    Args:
        rows: rows of one or more sessions.
        parts: accounts of sessions in which the epoch was not over; they are added to the row of their epoch, if it has one.
    """
    found: dict[Account, Epoch] = {}
    for row in rows:
        account = Account(row.stage, row.epoch)
        found[account] = _sum(found[account], row) if account in found else row
    accuracies = {account: None for account in parts if account in found}
    for row in rows_of(parts, accuracies):
        account = Account(row.stage, row.epoch)
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
