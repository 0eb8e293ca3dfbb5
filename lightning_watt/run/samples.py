"""How many samples a batch has, as far as that is certain: a wrong number is worse than none.

A batch may mean two things. `[a, b]`, two tensors of four rows each, is four samples if PyTorch's own collation made it, and
two if a user's did. So a batch is read in three ways, and where they differ, the loader's `batch_size` decides. What stays
ambiguous is not counted.

| reading | what it takes for the number of samples |
|---|---|
| `rows` | the first dimension of all tensors, as Lightning does; here they must agree |
| `members` | what the members of a tuple, a dictionary or a dataclass agree on: a tensor's rows, a list's length |
| `whole` | the length of a list of like things, such as pictures |

An object that says it itself is believed: `batch_size` or `num_graphs` (anomalib, PyG, TensorDict), and `PackedSequence`.
"""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable, Collection, Mapping, Sequence
from operator import index
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from lightning_watt.accounts.events import LastCounted
from lightning_watt.errors import shown
from lightning_watt.run.session import Session
from lightning_watt.warn_once import WarnOnce

MAX_DEPTH = 8
"""How deep a batch is looked into; one may contain itself."""
MAX_MEMBERS = 1000
"""Of a longer list only the length is looked at."""
_SAYS = ("batch_size", "num_graphs")
_PLAIN = (str, bytes, numbers.Number, type(None))


class SampleCount:
    """Counts the samples of one loader's batches.

    Args:
        expected: how many its full batches have, if the loader says so.

    Example:
        >>> import torch
        >>> SampleCount().of({"scale": torch.tensor(2.0), "picture": torch.zeros(32, 3, 8, 8), "name": ["a"] * 32})
        32
        >>> pictures = [torch.zeros(3, 8, 8)] * 32
        >>> print(SampleCount().of(pictures), SampleCount([32]).of(pictures))
        None 32
    """

    def __init__(self, expected: Collection[int] = ()) -> None:
        self._expected = frozenset(expected)
        self._was_ambiguous = False
        self.is_decided = False
        """`of` stays what it is."""
        self.of: Callable[[Any], int | None] = self._decide
        """The samples of a batch; None if that is not certain. Raises what the batch's own properties raise.

        At first it looks for the reading that is right for this loader's batches, and from then on it is that reading.
        """

    def _decide(self, batch: Any) -> int | None:
        found = {reading: size for reading in (rows, members, whole) if (size := reading(batch)) is not None}
        sizes = set(found.values())
        if found.keys() == {whole} and not isinstance(batch[0], (*_PLAIN, Mapping)):
            sizes = set()  # tensors of several lengths in a list: fields or samples
        if found.get(whole) == 1 and rows in found and not self._expected:
            sizes = {found[rows]}  # a list of one is what PyTorch's own collation makes of samples with one field
        if len(sizes) != 1 and not self._was_ambiguous:
            sizes = set(found.values()) & self._expected
        if len(sizes) != 1:
            return None
        size = sizes.pop()
        right = [reading for reading, value in found.items() if value == size]
        self._was_ambiguous = whole in right and len(right) > 1  # two pictures in a list of two; a last batch would tell
        if not self._was_ambiguous:
            self.of, self.is_decided = right[0], True
        return size


class JointCount:
    """Counts the samples of batches that several loaders give together, in a dictionary or a list: the sum.

    Args:
        counts: a count for each loader, in the same structure.
    """

    is_decided = True

    def __init__(self, counts: Mapping[Any, Any] | Sequence[Any]) -> None:
        self._counts = list(counts.items() if isinstance(counts, Mapping) else enumerate(counts))

    def of(self, batch: Any) -> int | None:
        """The samples of a batch; None if those of a part are not certain. A loader that is at its end gives no part."""
        sizes = [count.of(part) for key, count in self._counts if (part := batch[key]) is not None]
        return None if None in sizes else sum(sizes)


class SaidCount:
    """Asks the user's module.

    Args:
        ask: its `watt_batch_size`, which takes a batch and returns its samples, or None.
    """

    is_decided = True

    def __init__(self, ask: Callable[[Any], Any]) -> None:
        self._ask = ask

    def of(self, batch: Any) -> int | None:
        """What the module says; raises what it raises, and ValueError for what is no number of samples."""
        said = self._ask(batch)
        if said is None:
            return None
        if (size := index(said)) < 0:
            raise ValueError(f"watt_batch_size gave {size}: give the number of samples, or None")
        return size


Count = SampleCount | JointCount | SaidCount


class Counting:
    """Counts a run's batches, and their samples: none of a stage from its first batch on whose samples are not certain.

    Args:
        count_of_stage: gives what counts the batches that the Trainer runs now.
        warn_once: tells what a batch or a module of the user's own raises.
    """

    def __init__(self, count_of_stage: Callable[[Any], Count], warn_once: WarnOnce) -> None:
        self._count_of_stage = count_of_stage
        self._warn_once = warn_once
        self._counts: dict[str, Count | None] = {}
        self._known: dict[str, tuple[Callable[[Any], int | None], type | None]] = {}  # the tally's too

    def begin(self) -> None:
        """Another fit, test or prediction begins, with loaders of its own."""
        self._counts.clear()
        self._known.clear()

    def count(self, session: Session, trainer: Any, batch: Any, replicas: int) -> None:
        """Count a batch that is over; `replicas` processes each had one like it. The tally may count those that follow."""
        tally, stage = session.tally, session.account.stage
        if stage not in self._counts:
            self._counts[stage] = self._count_of_stage(trainer)
        if (count := self._counts[stage]) is not None:
            try:
                size = count.of(batch)
            except Exception as error:  # noqa: BLE001 - a batch, and a module, of the user's own may raise anything
                self._say(stage, error)
                size = None
            if size is None:
                self._counts[stage] = count = None
                self._known.pop(stage, None)
                session.note(LastCounted(tally.batches, tally.samples))
            else:
                tally.samples += size * replicas  # before the batch: a batch without samples is one that is not counted
        tally.batches += 1
        if count is not None and count.is_decided:
            self._known[stage] = count.of, Tensor if count.of is rows else None
        tally.known, tally.replicas, tally.is_plain = self._known, replicas, True
        tally.enter(session.account)

    def _say(self, stage: str, error: Exception) -> None:
        why = f"The samples of {stage} cannot be counted ({shown(error)}), so its joules per sample are left out."
        self._warn_once.warn(why, f"samples {stage}")


def count_of(loaders: Any) -> SampleCount | JointCount:
    """The count for a loader, or for loaders whose batches come together, in a structure of dictionaries and lists."""
    if isinstance(loaders, Mapping):
        return JointCount({key: count_of(loader) for key, loader in loaders.items()})
    if isinstance(loaders, (list, tuple)):
        return JointCount([count_of(loader) for loader in loaders])
    return SampleCount(expected_of([loaders]))


def expected_of(loaders: Collection[Any]) -> set[int]:
    """How many samples the full batches of these loaders have, as far as the loaders say so."""
    found = set()
    for loader in loaders:
        size = getattr(loader, "batch_size", None) or getattr(getattr(loader, "batch_sampler", None), "batch_size", None)
        if not isinstance(size, int):
            continue
        try:
            found.add(min(size, len(loader.sampler)))
        except Exception:  # noqa: BLE001 - a sampler of the user's own may raise anything, or have no length
            found.add(size)
    return found


# -- the readings -----------------------------------------------------------------------------------------------------


def rows(batch: Any) -> int | None:
    """The first dimension that all tensors of a batch have; None if they differ, or there are none."""
    kind = type(batch)
    size = None
    try:
        # The usual batches first: this runs after each of them.
        for part in batch if kind is list or kind is tuple else batch.values() if kind is dict else (batch,):
            if type(part) is not Tensor:
                break
            if shape := part.shape:
                if size is None:
                    size = shape[0]
                elif shape[0] != size:
                    break
        else:
            if size is not None:
                return size
    except RuntimeError:  # a nested tensor has no shape
        pass
    found: set[int] = set()
    _add_rows(batch, found, 0)
    if len(found) > 1:
        found.discard(0)  # an empty tensor stands for a field that is not there
    return found.pop() if len(found) == 1 else None


def members(batch: Any) -> int | None:
    """What the members of a batch agree on; None if they do not, or have no size."""
    found = {size for member in _members(batch) or () if (size := _size_of_member(member)) is not None}
    return found.pop() if len(found) == 1 else None


def whole(batch: Any) -> int | None:
    """The length of a list of like things; None if the batch is no list, or its members are unlike."""
    if not _is_list(batch) or not batch:
        return None
    first = batch[0]
    return len(batch) if all(_is_like(first, other) for other in batch[1:MAX_MEMBERS]) else None


def _add_rows(value: Any, found: set[int], depth: int) -> None:
    size = _own_size(value)
    if size is not None:
        found.add(size)
        return
    for member in (_members(value) or ()) if depth < MAX_DEPTH else ():
        _add_rows(member, found, depth + 1)


def _size_of_member(member: Any) -> int | None:
    size = _own_size(member)
    if size is None and _is_list(member):
        size = len(member)
    return size


def _own_size(value: Any) -> int | None:
    """What an object says, or the first dimension of a tensor or an array."""
    if isinstance(value, (*_PLAIN, dict)) or _is_list(value):
        return None
    if isinstance(value, Tensor):
        return value.size(0) if value.dim() else None
    if isinstance(value, PackedSequence):
        return int(value.batch_sizes[0])
    for said in (getattr(value, name, None) for name in (*_SAYS, "shape")):
        first = said[0] if isinstance(said, tuple) and said else said
        if type(first) is int:
            return first
    return None


def _members(value: Any) -> Collection[Any] | None:
    """The members of a container; None of anything else, and of a list that is very long or holds no tensors."""
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, (list, tuple)):
        return (
            value if len(value) <= MAX_MEMBERS and not isinstance(next(iter(value), None), (str, numbers.Number)) else None
        )
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    return None


def _is_list(value: Any) -> bool:
    """A list or a plain tuple; a named tuple is a record of fields."""
    return isinstance(value, list) or type(value) is tuple


def _is_like(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return bool(one.dtype == other.dtype and one.dim() == other.dim())
    return list(one) == list(other) if isinstance(one, Mapping) else True
