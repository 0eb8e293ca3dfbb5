"""A batch that needs nothing else is counted beside the run, and every other one is left to it."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
import torch

from lightning_watt.accounts.batches import Crowd
from lightning_watt.accounts.events import BatchEnd
from lightning_watt.accounts.ledger import Account
from lightning_watt.meter.marks import oldest
from lightning_watt.run.samples import Counting, SampleCount
from lightning_watt.run.session import Session
from lightning_watt.run.tally import Tally
from lightning_watt.warn_once import WarnOnce
from tests.unit.counting import is_counted

TRAIN = Account("train", 3)


@pytest.fixture
def tally() -> Tally:
    """Ten batches of three samples on each of two processes so far, and a log row after the third to come."""
    tally = Tally()
    tally.batches, tally.samples, tally.replicas, tally.until_row, tally.account = 10, 60, 2, 3, TRAIN
    tally.samples_of, tally.is_plain = len, True
    return tally


def test_plain_batches_are_counted_until_a_row_is_due(tally):
    assert [is_counted(tally, "abc", number, trains=True) for number in range(4)] == [True, True, False, False]
    assert (tally.batches, tally.samples, tally.until_row) == (12, 72, 1)
    assert is_counted(tally, "abc", 0)  # a validation has no rows between its batches


def raising(batch: object) -> int:
    """A batch of the user's own."""
    raise KeyError(batch)


@pytest.mark.parametrize("samples_of", [raising, lambda batch: None])
def test_a_batch_whose_samples_are_not_known_is_left_to_the_run(tally, samples_of):
    tally.samples_of = samples_of
    assert not is_counted(tally, "abc", 0, trains=True)
    assert (tally.batches, tally.samples, tally.until_row) == (10, 60, 3)


def test_the_end_of_each_batch_is_noted_with_the_counts_after_it(tally):
    crowd, waiting, noted = Crowd(), deque[Any](), []
    crowd.note = noted.append
    tally.crowd, tally.until_row = crowd, 9
    is_counted(tally, "abc", 6, trains=True)  # nobody takes marks, or they need an event of the GPU's
    assert noted == [BatchEnd(TRAIN, 6, 11, 66)]
    crowd.append, crowd.few, crowd.waiting = waiting.append, 1, waiting
    is_counted(tally, "abc", 7, trains=True)
    assert oldest(waiting).payload == BatchEnd(TRAIN, 7, 12, 72)
    is_counted(tally, "abc", 8, trains=True)  # another waits already, and that is too many here
    assert (noted[1:], len(waiting)) == ([BatchEnd(TRAIN, 8, 13, 78)], 1)


def test_an_end_that_cannot_be_noted_is_told_and_the_batch_counts(tally):
    def failing(payload: BatchEnd) -> None:
        raise OSError(payload.batch)

    told: list[Any] = []
    tally.crowd = Crowd()
    tally.crowd.note = failing
    assert is_counted(tally, "abc", 7, trains=True, report=lambda owner, name, given, error: told.append(str(error)))
    assert (told, tally.batches) == (["7"], 11)


def test_a_plain_tensor_s_rows_are_read_where_they_are_its_samples(tally):
    tally.tensor, tally.samples_of = torch.Tensor, raising
    assert is_counted(tally, torch.zeros(4, 2), 0)
    assert (tally.batches, tally.samples) == (11, 68)
    assert not is_counted(tally, torch.tensor(1.0), 0)  # it has no rows
    assert not is_counted(tally, [torch.zeros(4, 2)], 0)


def test_nothing_is_plain_at_first_and_a_stage_only_if_its_loader_is_known():
    session = Session()
    tally = session.tally
    assert not is_counted(tally, "abc", 0)
    tally.is_plain, tally.known = True, {"validate": (len, None)}
    for stage, is_plain in (("train", False), ("validate", True), ("test", False), ("validate", True)):
        session.switch(Account(stage, 4))
        assert is_counted(tally, "abc", 0) == is_plain
        assert tally.account == Account(stage, 4)
    tally.is_plain = False  # there is news
    session.switch(Account("validate", 5))
    assert not is_counted(tally, "abc", 0)


def test_another_fit_s_loaders_are_not_known_from_the_last_one_s():
    session, given = Session(), []

    def count_of_stage(trainer: object) -> SampleCount:
        given.append(trainer)
        return SampleCount()

    counting = Counting(count_of_stage, WarnOnce())
    session.switch(TRAIN)
    counting.count(session, "one", torch.zeros(4, 2), 1)
    assert is_counted(session.tally, torch.zeros(4, 2), 1)
    counting.begin()
    session.switch(TRAIN)
    assert not is_counted(session.tally, torch.zeros(4, 2), 1)
    counting.count(session, "two", torch.zeros(4, 2), 1)
    assert (given, session.tally.batches, session.tally.samples) == (["one", "two"], 3, 12)
