"""Finds each run's lineage: tokenizer, pretrain, finetune, inference, each with the energy that it inherited."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.report.certainty import measured_with_all
from experiments.report.inputs.run import Run
from lightning_watt.record import PlusMinus, together

WORST_FIRST = ("failed", "interrupted", "running", "completed")
SAME_J = 1e-6
"""Two energies this close, relative to their size, are the same one."""


@dataclass(frozen=True)
class Lineage:
    """A run that no other started from, and all that it came from, the oldest first.

    Attributes:
        runs: the runs whose records are there; the last one is the lineage's end.
    """

    runs: tuple[Run, ...]

    @property
    def end(self) -> Run:
        """The last run."""
        return self.runs[-1]

    @property
    def trained(self) -> Run | None:
        """The run that trained what is used in the end; None if its record is not there."""
        return next((run for run in reversed(self.runs) if run.phase != "inference"), None)

    @property
    def inference(self) -> Run | None:
        """The inference run; None if there is none."""
        return self.end if self.end.phase == "inference" else None

    @property
    def status(self) -> str:
        """The worst of its runs' statuses."""
        return min((run.status for run in self.runs), key=WORST_FIRST.index)

    @property
    def provenance(self) -> str:
        """Of all its energy: "measured", "estimated", "mixed", or "" if there is none."""
        kinds = {run.provenance for run in self.runs if run.provenance}
        return kinds.pop() if len(kinds) == 1 else "mixed" if kinds else ""

    @property
    def own_j(self) -> float | None:
        """Joules of the last training run alone."""
        return self.trained.own_j if self.trained else None

    @property
    def train_j(self) -> float | None:
        """Joules of training with all that was inherited, without inference."""
        if self.trained is not None:
            return self.trained.carried_j
        return self.end.inherited_j if self.end.inherited else None

    @property
    def train_s(self) -> float | None:
        """Seconds of training with all that was inherited; None if a part of it has no record here."""
        training = [run for run in self.runs if run.phase != "inference"]
        return math.fsum(run.seconds for run in training) if training and "before" not in self.shares() else None

    @property
    def train_plus_minus(self) -> PlusMinus | None:
        """What is uncertain of `train_j`; None if that is not known of a part of it."""
        training = [run for run in self.runs if run.phase != "inference"]
        joules = math.fsum(run.own_j or 0.0 for run in training)
        if self.train_j is None:
            return None
        if math.isclose(joules, self.train_j, rel_tol=SAME_J):
            return together(run.plus_minus for run in training)
        # Not all of it has a record here: what the last one's record says of what it inherited.
        own = [self.trained.plus_minus] if self.trained is not None else []
        return together([*own, (self.trained or self.end).inherited_plus_minus])

    @property
    def train_uncertainty_j(self) -> float | None:
        """Plus or minus of `train_j`; None if that is not known of a part of it."""
        return known.total_j if (known := self.train_plus_minus) is not None else None

    @property
    def train_boundary_j(self) -> float | None:
        """The part of `train_uncertainty_j` that another run on the same boards would not share; None if not known."""
        training = [run for run in self.runs if run.phase != "inference"]
        if any(run.boundary_j is None for run in training):
            return None
        return known.boundary_j if (known := self.train_plus_minus) is not None else None

    @property
    def train_boards(self) -> frozenset[str]:
        """What its training was measured with; empty if any of it is estimated."""
        return measured_with_all(run.boards for run in self.runs if run.phase != "inference")

    @property
    def recipe_key(self) -> object:
        """Equal in lineages that differ at most in seeds and machines, as far as their records tell.

        A lineage stands alone if it did not complete, if a record has no facts to tell by, or if it came from something
        without a record here, whose energy is all that is known of it.
        """
        end = self.end
        if self.status != "completed" or not all(run.recipe_key for run in self.runs):
            return end.place, end.path
        unknown = self.shares().get("before", 0.0)
        return (
            f"{unknown:.6g}",
            *((run.phase, run.recipe_key, run.stages["train"].samples if "train" in run.stages else 0) for run in self.runs),
        )

    @property
    def machine_key(self) -> object:
        """Equal in lineages on machines of one kind, with energies of one kind."""
        return (self.provenance, *(run.machine_key for run in self.runs))

    @property
    def accuracy(self) -> float | None:
        """The task's accuracy of its end, or of the training before it for the same task."""
        known = (run.task_accuracy for run in reversed(self.runs) if run.task == self.end.task)
        return next((accuracy for accuracy in known if accuracy is not None), None)

    def shares(self) -> dict[str, float]:
        """Joules of training by phase; what was inherited from runs without a record here is `before`."""
        found: dict[str, float] = {}
        rest = self.train_j or 0.0
        for run in self.runs:
            if run.phase != "inference" and run.own_j:
                found[run.phase] = found.get(run.phase, 0.0) + run.own_j
                rest -= run.own_j
        return {"before": rest, **found} if rest > SAME_J * (self.train_j or 0.0) else found


def lineages(runs: Sequence[Run]) -> list[Lineage]:
    """Find the lineages.

    Args:
        runs: in any order.

    Returns:
        A lineage for each run that no other run started from, in the runs' order.
    """
    places = _Places(runs)
    parents = {id(run): _parents(run, places) for run in runs}
    used = {id(parent) for found in parents.values() for parent in found}
    ends = [run for run in runs if id(run) not in used]
    # Records that say to have come from each other have no end; each then stands alone.
    reached: set[int] = set()
    found = [Lineage(_ancestry(end, parents, reached)) for end in ends]
    return found + [Lineage((run,)) for run in runs if id(run) not in reached]


class _Places:
    """Finds the runs that a record names as its start, by comparing texts; nothing is opened."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._at: dict[str, list[Run]] = {}
        self._moved: dict[tuple[str, str], list[Run]] = {}
        for run in runs:
            self._at.setdefault(run.place, []).append(run)
            if run.carried_j is not None:
                self._moved.setdefault(self._key(run.place, run.carried_j), []).append(run)

    def find(self, path: str, joules: float) -> list[Run]:
        """The runs at a path that carry this energy; a run directory that was moved is known by its name and energy."""
        there = self._at.get(path, [])
        if there:
            # Another run may have taken the directory since.
            one = [run for run in there if _same(run.carried_j, joules)]
            return one[:1] or (there if _same(math.fsum(run.carried_j or 0.0 for run in there), joules) else [])
        for above in (os.path.dirname(path), os.path.dirname(os.path.dirname(path))):
            there = self._at.get(above, [])
            if there and path.endswith(".ckpt"):
                # A checkpoint carries what had been spent when it was written.
                can = [run for run in there if run.carried_j is not None and joules <= run.carried_j * (1 + SAME_J)]
                return can if len(can) == 1 else []
        moved = self._moved.get(self._key(path, joules), [])
        return moved if len(moved) == 1 else []

    @staticmethod
    def _key(path: str, joules: float) -> tuple[str, str]:
        return os.path.basename(path), f"{joules:.6g}"


def _same(first: float | None, second: float) -> bool:
    return first is not None and math.isclose(first, second, rel_tol=SAME_J, abs_tol=1e-9)


def _parents(run: Run, places: _Places) -> list[Run]:
    found = (parent for path, joules in run.inherited for parent in places.find(path, joules))
    return [parent for parent in found if parent is not run]


def _ancestry(end: Run, parents: dict[int, list[Run]], reached: set[int]) -> tuple[Run, ...]:
    """A run after all that it came from, each once."""
    order: list[Run] = []
    waiting = [end]
    seen: set[int] = set()
    while waiting:
        run = waiting.pop()
        if id(run) in seen:
            continue
        seen.add(id(run))
        order.append(run)
        waiting += parents[id(run)]
    reached |= seen
    return tuple(reversed(order))
