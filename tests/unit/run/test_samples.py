"""How many samples a batch has: what is certain is counted, and what is not is not."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from lightning_watt.accounts.ledger import Account
from lightning_watt.run.samples import Counting, JointCount, SaidCount, SampleCount, count_of, expected_of
from lightning_watt.run.session import Session
from lightning_watt.warn_once import WarnOnce
from tests.unit.counting import is_counted

Fields = namedtuple("Fields", "x y")


@dataclass
class Pictures:
    image: torch.Tensor
    path: list[str]


def rows(*shape: int) -> torch.Tensor:
    return torch.zeros(*shape)


def ragged(layout: torch.layout = torch.strided) -> torch.Tensor:
    return torch.nested.nested_tensor([rows(2, 8), rows(3, 8), rows(4, 8)], layout=layout)


def looped() -> list[Any]:
    batch: list[Any] = [rows(3)]
    batch.append(batch)
    return batch


PICTURES = [rows(3, 8, 8)] * 32
TARGETS = [{"boxes": rows(i % 3, 4)} for i in range(32)]
GRAPH = SimpleNamespace(num_graphs=32, x=rows(900, 3))

CERTAIN = {
    "a tensor": rows(32, 8),
    "fields of several kinds": [rows(32, 8), torch.zeros(32, dtype=torch.long)],
    "one field": [rows(32, 8)],
    "a scalar beside them": {"temperature": torch.tensor(1.0), "x": rows(32, 8)},
    "names beside them": (["a"] * 32, rows(32, 2)),
    "names alone": ["a"] * 32,
    "an empty tensor beside them": (rows(0), rows(32, 2)),
    "fields that are not there": (rows(32, 24, 1), None, None, rows(32, 12, 1)),
    "a padded tensor and targets": (rows(32, 3, 8, 8), TARGETS),
    "views and labels": ([rows(32, 3, 9, 9), rows(32, 3, 9, 9)], rows(32)),
    "a named tuple": Fields(rows(32, 8), rows(32, 1)),
    "a dataclass": Pictures(rows(32, 3, 8, 8), ["a.png"] * 32),
    "an object that says it": GRAPH,
    "such an object and labels": (GRAPH, rows(32)),
    "a size of torch's": SimpleNamespace(batch_size=torch.Size([32])),
    "an array": np.zeros((32, 2)),
    "sequences that were packed": pack_sequence([rows(5, 2)] * 32),
    "these and labels": (pack_sequence([rows(5, 2)] * 32), rows(32)),
}


@pytest.mark.parametrize("what", CERTAIN)
def test_what_is_certain_is_counted(what):
    assert SampleCount().of(CERTAIN[what]) == 32


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_tensors_are_counted(layout):
    assert SampleCount().of(ragged(layout)) == 3
    assert SampleCount().of({"x": ragged(layout), "y": rows(3)}) == 3


AMBIGUOUS = {
    "a list of pictures": PICTURES,
    "a pair of tensors": [rows(32, 8), rows(32, 1)],
    "pictures and targets": (PICTURES, [{"boxes": rows(5, 4)}] * 32),
    "pictures and ragged targets": (PICTURES, TARGETS),
    "samples as they come from the data": [(rows(3, 8, 8), 1)] * 32,
    "samples of two tensors": [(rows(8), rows(1))] * 32,
    "samples with names": [{"image": rows(3, 8 + i)} for i in range(32)],
    "views only": [rows(32, 3, 9, 9)] * 10,
    "a nest of fields": [[rows(32, 8), rows(32, 8)], [rows(32, 1), rows(32, 1)]],
    "sequences of several lengths": [rows(2 + i, 8) for i in range(32)],
}


@pytest.mark.parametrize("what", AMBIGUOUS)
def test_what_is_ambiguous_is_counted_where_the_loader_says_how_many_they_are(what):
    assert SampleCount([32]).of(AMBIGUOUS[what]) == 32
    assert SampleCount().of(AMBIGUOUS[what]) in (None, 32)


@pytest.mark.parametrize("what", [what for what in AMBIGUOUS if what != "pictures and ragged targets"])
def test_what_is_ambiguous_is_not_counted_where_nobody_says_it(what):
    if what == "samples with names":  # tensors that differ in nothing but their later dimensions
        assert SampleCount().of([{"image": rows(3, 8)}] * 32) is None
    else:
        assert SampleCount().of(AMBIGUOUS[what]) is None


@pytest.mark.parametrize(
    "batch",
    [
        torch.tensor(1.0),
        None,
        3,
        [],
        {},
        (rows(900, 3), rows(2, 4000), rows(32)),
        {"nodes": rows(900, 3), "edges": rows(2, 4000)},
        object(),
    ],
    ids=lambda batch: type(batch).__name__,
)
def test_what_does_not_show_its_samples_is_not_counted(batch):
    assert SampleCount([32]).of(batch) is None


def test_a_batch_that_contains_itself_ends():
    SampleCount().of(looped())
    deep: Any = rows(4)
    for _ in range(100):
        deep = [deep]
    assert SampleCount([4]).of({"deep": deep}) is not None


def test_a_last_batch_is_read_as_those_before_it():
    fields, pictures = SampleCount([4]), SampleCount([4])
    assert (fields.of([rows(4, 8), rows(4, 1)]), fields.of([rows(3, 8), rows(3, 1)])) == (4, 3)
    assert (pictures.of([rows(3, 8, 8)] * 4), pictures.of([rows(3, 8, 8)] * 2)) == (4, 2)


def test_a_last_batch_whose_forerunners_could_be_read_both_ways_is_not_counted():
    count = SampleCount([2])
    assert (count.of([rows(2, 8), rows(2, 1)]), count.of([rows(1, 8), rows(1, 1)])) == (2, None)


def test_a_batch_that_is_unlike_those_before_it_is_not_counted():
    count = SampleCount()
    assert (count.of({"x": rows(4, 8), "y": rows(4)}), count.of({"x": rows(4, 8), "y": rows(3)})) == (4, None)


def test_loaders_whose_batches_come_together_add_up_and_one_at_its_end_adds_nothing():
    data = [rows(8)] * 64
    count = count_of({"a": DataLoader(data, batch_size=4), "b": [DataLoader(data, batch_size=8)]})
    assert count.of({"a": [rows(4, 8), rows(4, 1)], "b": [[rows(8, 8), rows(8, 1)]]}) == 12
    assert count.of({"a": None, "b": [rows(8, 8)]}) == 8
    assert count.of({"a": rows(4, 8), "b": [torch.tensor(1.0)]}) is None
    assert JointCount([SampleCount(), SampleCount()]).of([rows(2), rows(3)]) == 5


def test_a_loader_says_its_batch_size_also_through_its_sampler_and_never_fails():
    class Odd(SequentialSampler):
        def __len__(self) -> int:
            raise OSError("the index is gone")

    data = [rows(8)] * 64
    sampler = BatchSampler(SequentialSampler(data), batch_size=16, drop_last=False)
    loaders = [
        DataLoader(data, batch_size=4),
        DataLoader(data, batch_sampler=sampler),
        DataLoader(data, batch_size=100),
        DataLoader(data, batch_size=5, sampler=Odd(data)),
        DataLoader(data, batch_size=None),
        [rows(3)],
    ]
    assert [expected_of([loader]) for loader in loaders] == [{4}, {16}, {64}, {5}, set(), set()]
    assert expected_of(loaders) == {4, 16, 64, 5}


def test_a_module_may_say_it_and_may_not_know_it():
    assert SaidCount(lambda batch: batch).of(torch.tensor(7)) == 7
    assert SaidCount(lambda batch: None).of(rows(3)) is None
    for nonsense, error in ((-1, ValueError), ("7", TypeError), (1.5, TypeError)):
        with pytest.raises(error):
            SaidCount(lambda batch, said=nonsense: said).of(rows(3))


def test_what_is_not_decided_yet_is_asked_again_and_what_is_decided_stays():
    """Two pictures in a list of two say two things; the list of three that follows says which is right."""
    session, count = Session(), SampleCount([3])
    counting = Counting(lambda _: count, WarnOnce())
    session.account = Account("train", 0)
    pictures = [rows(3, 8, 8)] * 3
    counting.count(session, None, pictures, 1)
    assert session.tally.samples == 3
    assert not is_counted(session.tally, pictures, 1)
    counting.count(session, None, {"x": rows(3, 8)}, 1)
    assert session.tally.samples == 6
    assert is_counted(session.tally, {"x": rows(3, 8)}, 1)
    assert session.tally.samples_of == count.of
    assert count.of != count._decide


def test_another_stage_is_counted_by_its_own_loader_and_a_batch_that_raises_ends_the_samples():
    def raising(batch: Any) -> int:
        raise KeyError(batch)

    counts = {"train": SampleCount(), "validate": SaidCount(raising)}
    session, warn_once = Session(), WarnOnce()
    counting = Counting(lambda stage: counts[stage], warn_once)
    session.account = Account("train", 0)
    counting.count(session, "train", rows(4, 2), 2)
    session.account = Account("validate", 0)
    with pytest.warns(UserWarning, match="samples of validate cannot be counted"):
        counting.count(session, "validate", rows(4, 2), 2)
    assert (session.tally.batches, session.tally.samples) == (2, 8)
    assert not is_counted(session.tally, rows(4, 2), 1)
    counting.count(session, "validate", rows(4, 2), 2)
    assert (session.tally.batches, session.tally.samples) == (3, 8)
