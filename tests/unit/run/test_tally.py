"""A batch that needs nothing else is counted beside the run, and every other one is left to it."""

from __future__ import annotations

import pytest
import torch

from lightning_watt.accounts.events import BatchEnd
from lightning_watt.accounts.ledger import Account
from lightning_watt.run.samples import Counting, SampleCount
from lightning_watt.run.session import Session
from lightning_watt.run.tally import Tally
from lightning_watt.warn_once import WarnOnce

TRAIN = Account("train", 3)


@pytest.fixture
def tally() -> Tally:
    """Ten batches of three samples on each of two processes so far, and a log row after the third to come."""
    tally = Tally()
    tally.batches, tally.samples, tally.replicas, tally.until_row, tally.account = 10, 60, 2, 3, TRAIN
    tally.samples_of, tally.is_plain = len, True
    return tally


def test_plain_batches_are_counted_until_a_row_is_due(tally):
    assert [tally.counts("abc", number, True) for number in range(4)] == [True, True, False, False]
    assert (tally.batches, tally.samples, tally.until_row) == (12, 72, 1)
    assert tally.counts("abc", 0, False)  # a validation has no rows between its batches


def raising(batch: object) -> int:
    """A batch of the user's own."""
    raise KeyError(batch)


@pytest.mark.parametrize("samples_of", [raising, lambda batch: None])
def test_a_batch_whose_samples_are_not_known_is_left_to_the_run(tally, samples_of):
    tally.samples_of = samples_of
    assert not tally.counts("abc", 0, True)
    assert (tally.batches, tally.samples, tally.until_row) == (10, 60, 3)


def test_the_end_of_each_batch_is_noted_with_the_counts_after_it(tally):
    noted: list[object] = []
    tally.note = noted.append
    tally.counts("abc", 7, True)
    assert noted == [BatchEnd(TRAIN, 7, 11, 66)]


def test_nothing_is_plain_at_first_and_a_stage_only_if_its_loader_is_known():
    session = Session()
    tally = session.tally
    assert not tally.counts("abc", 0, False)
    tally.is_plain, tally.known = True, {"validate": len}
    for stage, is_plain in (("train", False), ("validate", True), ("test", False), ("validate", True)):
        session.switch(Account(stage, 4))
        assert tally.counts("abc", 0, False) == is_plain
        assert tally.account == Account(stage, 4)
    tally.is_plain = False  # there is news
    session.switch(Account("validate", 5))
    assert not tally.counts("abc", 0, False)


def test_another_fit_s_loaders_are_not_known_from_the_last_one_s():
    session, given = Session(), []

    def count_of_stage(trainer: object) -> SampleCount:
        given.append(trainer)
        return SampleCount()

    counting = Counting(count_of_stage, WarnOnce())
    session.switch(TRAIN)
    counting.count(session, "one", torch.zeros(4, 2), 1)
    assert session.tally.counts(torch.zeros(4, 2), 1, False)
    counting.begin()
    session.switch(TRAIN)
    assert not session.tally.counts(torch.zeros(4, 2), 1, False)
    counting.count(session, "two", torch.zeros(4, 2), 1)
    assert (given, session.tally.batches, session.tally.samples) == (["one", "two"], 3, 12)
