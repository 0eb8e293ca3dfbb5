"""The finished epochs: nothing but the list of their rows grows, and every joule stays where it belongs."""

from __future__ import annotations

import pickle

import msgspec
import pytest

from lightning_watt.accounts import epochs
from lightning_watt.accounts.events import EpochEnd, Switch
from lightning_watt.accounts.ledger import PAST, Account, Point, Usage
from lightning_watt.record.schema import Epoch
from lightning_watt.run.session import Session
from lightning_watt.run.totals import checkpoint_state, record_epochs
from lightning_watt.sources.base import Device

J = 1_000_000
S = 1_000_000_000
BOARD = Device("gpu0", "a board", "GPU-1", "nvml-counter", host="here")


class Training:
    """A session that trains and validates, 3 J and 1 J an epoch, a second each."""

    def __init__(self, name: str, first_epoch: int = 0) -> None:
        self.session = Session(id=name, devices={"gpu0": BOARD})
        self.t_s, self.used_j = 0, 0
        self.session.ledger.open(["gpu0"], Account("train", first_epoch), self.point())
        self.epoch = first_epoch

    def point(self) -> Point:
        return Point(self.t_s * S, [self.used_j * J], [0.0], 0, 0)

    def use(self, joules: int) -> None:
        self.t_s, self.used_j = self.t_s + 1, self.used_j + joules

    def end(self, then: Account, accuracy: float | None) -> None:
        """The current account's epoch ends, and another is entered."""
        session, account = self.session, self.session.ledger.account
        assert account is not None
        session.epochs.note(account, accuracy)
        session.ledger.charge(self.point())
        session.epochs.settle(session.ledger, account, accuracy)
        session._take_switch(Switch(then, 0, 0), self.point())

    def epochs(self, count: int) -> Training:
        for _ in range(count):
            self.use(3)
            self.end(Account("validate", self.epoch), self.epoch / 1000)
            self.use(1)
            self.end(Account("train", self.epoch + 1), self.epoch / 1000)
            self.epoch += 1
        return self


def rows(session: Session) -> list[tuple[str, int, float, float | None]]:
    return [(row.stage, row.epoch, row.joules, row.accuracy) for row in record_epochs(session.totals())]


def expected(count: int) -> list[tuple[str, int, float, float | None]]:
    return [(stage, e, j, e / 1000) for e in range(count) for stage, j in (("train", 3.0), ("validate", 1.0))]


@pytest.mark.parametrize("count", [1, 2, 3, 30, 1000])
def test_every_epoch_has_its_row(count):
    session = Training("mine").epochs(count).session
    assert rows(session) == expected(count)
    assert session.totals().total_j == 4.0 * count
    assert {stage: used.total_uj for stage, used in session.ledger.by_stage().items()} == {
        "train": 3 * J * count,
        "validate": J * count,
    }


def test_only_the_rows_grow():
    few, many = Training("mine").epochs(200).session, Training("mine").epochs(3000).session
    assert len(many.ledger.accounts) == len(few.ledger.accounts) <= 8
    assert len(many.epochs.accuracies) == len(few.epochs.accuracies) <= 4
    assert len(many.epochs.noted) == len(few.epochs.noted) <= 4
    sizes = [len(pickle.dumps(checkpoint_state(session.totals()))) for session in (few, many)]
    assert sizes[1] < 1.05 * sizes[0]
    # What is taken of them does not copy the rows either.
    assert many.totals().epochs.past is many.epochs.past


def test_totals_do_not_get_the_rows_that_come_later():
    training = Training("mine").epochs(5)
    totals = training.session.totals()
    before = record_epochs(totals)
    training.epochs(5)
    assert record_epochs(totals) == before


def test_an_end_that_comes_after_its_epoch_has_become_a_row_is_not_a_new_one():
    training = Training("mine").epochs(5)
    training.session.epochs.settle(training.session.ledger, Account("train", 0), 0.9)
    assert rows(training.session) == expected(5)


@pytest.mark.parametrize("count", [1, 2, 5, 24])
def test_a_resumed_run_has_the_rows_of_the_part_before_it(count):
    state = Training("first").epochs(count).session.state_dict()
    second = Training("second", first_epoch=count)
    assert second.session.resume(state)
    second.epochs(count)
    assert rows(second.session) == expected(2 * count)
    third = Training("third", first_epoch=2 * count)
    assert third.session.resume(second.session.state_dict())
    assert rows(third.epochs(1).session) == expected(2 * count + 1)
    assert third.session.totals().total_j == 4.0 * (2 * count + 1)


def test_an_epoch_that_was_resumed_in_its_middle_is_one_row():
    first = Training("first").epochs(4)
    first.use(2)
    first.session.ledger.charge(first.point())
    second = Training("second", first_epoch=4)
    assert second.session.resume(first.session.state_dict())
    second.use(1)
    second.end(Account("validate", 4), 4 / 1000)
    second.use(1)
    second.end(Account("train", 5), 4 / 1000)
    second.epoch = 5
    assert rows(second.session) == expected(5)
    assert rows(second.epochs(4).session) == expected(9)
    third = Training("third", first_epoch=9)
    assert third.session.resume(second.session.state_dict())
    assert rows(third.epochs(1).session) == expected(10)


def test_a_checkpoint_has_the_newest_rows_and_says_how_many_are_older():
    state = Training("mine").epochs(200).session.state_dict()
    assert len(state["rows"]) == epochs.IN_CHECKPOINT
    older = state["older_rows"]
    assert [(stage, epoch) for stage, epoch, *_ in state["rows"]] == [
        row[:2] for row in expected(200)[older : older + epochs.IN_CHECKPOINT]
    ]
    assert older + epochs.IN_CHECKPOINT + len(state["accuracies"]) == 400


def test_a_checkpoint_of_an_older_version_had_an_account_for_each_epoch():
    session = Training("second", first_epoch=3).session
    state = Training("first").epochs(3).session.state_dict()
    state["ledger"] = [
        *[[stage, e, {"gpu0": int(j) * J}, S, 0, 0, 0.0] for stage, e, j, _ in expected(3)],
        ["train", 3, {"gpu0": 0}, 0, 0, 0, 0.0],
    ]
    state["accuracies"] = [[stage, e, accuracy] for stage, e, _, accuracy in expected(3)]
    del state["rows"], state["older_rows"]
    assert session.resume(state)
    assert rows(session) == expected(3)
    assert session.totals().total_j == 12.0


def test_parts_are_added_only_to_rows_that_are_there():
    row = Epoch(epoch=1, stage="train", joules=2.0, seconds=1.0, accuracy=0.5)
    accounts = {Account("train", epoch): Usage({"gpu0": J}, S) for epoch in (PAST, 1, 2)}
    (whole,) = epochs.merged_rows([row], epochs.all_rows_of(accounts))
    assert (whole.epoch, whole.joules, whole.seconds, whole.accuracy) == (1, 3.0, 2.0, 0.5)


def test_two_rows_of_one_epoch_are_one_and_the_last_accuracy_counts():
    made = [Epoch(epoch=1, stage="validate", joules=1.0, seconds=1.0, accuracy=a) for a in (0.5, 0.7, None)]
    (whole,) = epochs.merged_rows(made, {})
    assert (whole.joules, whole.seconds, whole.accuracy) == (3.0, 3.0, 0.7)


def test_rows_come_back_from_a_checkpoint_and_what_is_none_is_refused():
    made = [Epoch(epoch=1, stage="validate", joules=1.5, seconds=1.0, accuracy=None)]
    assert epochs.from_plain(epochs.to_plain(made)) == tuple(made)
    with pytest.raises(msgspec.ValidationError):
        epochs.from_plain([["train", "one", 1.0, 1.0, None]])


def test_the_account_of_the_past_is_never_an_epoch_of_the_trainer():
    accounts = Training("mine").epochs(9).session.ledger.accounts
    assert {account.epoch for account in accounts} == {PAST, 8, 9}
    assert EpochEnd(Account("train", 0), None, 0, 0, 0).account.epoch > PAST
