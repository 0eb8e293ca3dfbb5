"""Each batch's energy and its parts, from points that are given."""

import pytest

from lightning_watt.accounts.batches import BatchEnergy
from lightning_watt.accounts.events import BatchEnd
from lightning_watt.accounts.ledger import Account, Point

TRAIN, VALIDATE = Account("train", 2), Account("validate", 2)


def at(seconds: float, joules: float, edge_j: float = 0.0, gap_j: float = 0.0) -> Point:
    return Point(round(seconds * 1e9), [round(joules * 1e6)], [edge_j * 1e6], 0, 0, gap_j * 1e6)


def test_batches_lie_end_to_end():
    book = BatchEnergy()
    book.enter(TRAIN, at(10, 100))
    book.end_batch(BatchEnd(TRAIN, 0, 1, 8), at(11, 130), [0.0])
    book.end_batch(BatchEnd(TRAIN, 1, 2, 16), at(13, 150), [0.0])
    first, second = book.take_rows()
    assert (first.stage, first.epoch, first.batch, first.joules, first.seconds) == ("train", 2, 0, 30.0, 1.0)
    assert (second.batch, second.joules, second.seconds) == (1, 20.0, 2.0)
    assert book.take_rows() == []


def test_a_stage_begins_anew():
    book = BatchEnergy()
    book.enter(TRAIN, at(0, 0))
    book.enter(VALIDATE, at(5, 500))
    book.end_batch(BatchEnd(VALIDATE, 0, 1, 8), at(6, 510), [0.0])
    assert book.take_rows()[0].joules == 10.0


@pytest.mark.parametrize(("edge_j", "gain", "stated"), [(3.0, 0.0, 18**0.5), (30.0, 0.0, 10.0), (0.0, 0.05, 0.5)])
def test_uncertainty_is_edges_and_gain_and_at_most_the_batch(edge_j, gain, stated):
    book = BatchEnergy()
    book.begin(at(-9, -40))
    book.enter(TRAIN, at(0, 0, edge_j))
    book.end_batch(BatchEnd(TRAIN, 0, 1, 8), at(1, 10, edge_j), [gain])
    assert book.take_rows()[0].uncertainty_j == pytest.approx(stated)


def test_a_gap_within_a_batch_is_in_its_uncertainty():
    book = BatchEnergy()
    book.enter(TRAIN, at(0, 0))
    book.end_batch(BatchEnd(TRAIN, 0, 1, 8), at(1, 10), [0.0])
    book.end_batch(BatchEnd(TRAIN, 1, 2, 16), at(2, 20, gap_j=7), [0.0])
    book.end_batch(BatchEnd(TRAIN, 2, 3, 24), at(3, 30, gap_j=7), [0.0])
    assert [row.uncertainty_j for row in book.take_rows()] == pytest.approx([0, 7, 0])


def test_a_batch_that_seems_to_have_used_nothing_may_have_used_what_others_do():
    """Never 0 ± 0: its joules may lie in its neighbours."""
    book = BatchEnergy()
    book.begin(at(0, 0))
    book.enter(TRAIN, at(10, 500, 30.0))
    for number, (seconds, used_j) in enumerate([(11, 500), (12, 600)]):
        book.end_batch(BatchEnd(TRAIN, number, 1, 8), at(seconds, used_j, 30.0), [0.0])
    nothing, more = book.take_rows()
    assert (nothing.joules, nothing.uncertainty_j) == (0, pytest.approx(30 * 2**0.5))  # up to 1.7 times 45 J
    assert (more.joules, more.uncertainty_j) == (100, pytest.approx(30 * 2**0.5))


def test_parts_take_each_joule_of_training_once():
    book = BatchEnergy()
    book.enter(TRAIN, at(0, 0))
    book.start_part("forward", at(1, 5))
    book.start_part("backward", at(2, 25))
    book.start_part("optimizer", at(4, 85))
    book.end_batch(BatchEnd(TRAIN, 0, 1, 8), at(5, 95), [0.0])
    book.enter(VALIDATE, at(6, 99))
    book.end_batch(BatchEnd(VALIDATE, 0, 2, 8), at(9, 199), [0.0])
    parts = {name: (part.joules, part.seconds) for name, part in book.parts.items()}
    assert parts == {"data": (9.0, 2.0), "forward": (20.0, 1.0), "backward": (60.0, 2.0), "optimizer": (10.0, 1.0)}


def test_a_histogram_is_of_training_batches_and_taken_once():
    book = BatchEnergy()
    book.enter(TRAIN, at(0, 0))
    book.end_batch(BatchEnd(TRAIN, 0, 1, 8), at(1, 10), [0.0])
    book.enter(VALIDATE, at(1, 10))
    book.end_batch(BatchEnd(VALIDATE, 0, 2, 8), at(2, 30), [0.0])
    assert book.take_epoch() == [10.0]
    assert book.take_epoch() == []
