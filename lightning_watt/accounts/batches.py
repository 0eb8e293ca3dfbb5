"""Each batch's energy, and that of the parts of a training step. Pure: points of the ledger go in, rows come out."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic_ns
from typing import Any

from lightning_watt.accounts.events import BatchEnd, BatchesLeftOut, LogPoint, Note, StepPartStart
from lightning_watt.accounts.ledger import Account, Point
from lightning_watt.meter.marks import HostMarker, Marker, Waiting
from lightning_watt.meter.meter import EnergyMeter
from lightning_watt.meter.window import beyond_uj
from lightning_watt.record.schema import BatchRow, StepPart
from lightning_watt.units import UJ_PER_J, joules, seconds

PARTS = ("data", "forward", "backward", "optimizer")
"""What a training step consists of, as far as Lightning's hooks show it: waiting for data (and whatever lies between two
steps), `training_step`, `backward`, and the optimiser's step with what follows it."""
MAY_BE_LEFT_OUT = (LogPoint, BatchEnd, StepPartStart)
MOST_WAITING = 50_000
"""Marks that may wait for a driver, some 25 MB of them; beyond this, those that can be left out are."""
MAX_HISTOGRAM = 10_000
"""Batches of one epoch that a histogram is made of; later ones are left out."""


class BatchEnergy:
    """Batches lie end to end: each begins where the one before it ended, so that they add up to their stage.

    Attributes:
        rows: batches that ended and were not taken yet.
        parts: joules and seconds of the training step's parts.
        epoch_j: joules of the current epoch's training batches.
    """

    def __init__(self) -> None:
        self.rows: list[BatchRow] = []
        self.parts: dict[str, StepPart] = {}
        self.epoch_j: list[float] = []
        self._began: Point | None = None
        self._batch_from: Point | None = None
        self._part_from: Point | None = None
        self._part = "data"

    def begin(self, at: Point) -> None:
        """A measurement begins, whose energies count from there."""
        self._began = at

    def enter(self, account: Account, at: Point) -> None:
        """Another stage or epoch begins."""
        self._close_part(at)
        self._batch_from = at
        self._part, self._part_from = "data", at if account.stage == "train" else None

    def take(self, payload: Any, at: Point, gains: Sequence[float]) -> None:
        """Take what was noted, if it is about batches; arguments as below."""
        if isinstance(payload, StepPartStart):
            self.start_part(payload.part, at)
        elif isinstance(payload, BatchEnd):
            self.end_batch(payload, at, gains)
        elif isinstance(payload, BatchesLeftOut):
            self.leave_out(at)

    def start_part(self, part: str, at: Point) -> None:
        """Another part of the training step begins."""
        self._close_part(at)
        self._part, self._part_from = part, at

    def end_batch(self, end: BatchEnd, at: Point, gains: Sequence[float]) -> None:
        """A batch ended.

        Args:
            end: which one.
            at: where.
            gains: each device's relative error of scale.
        """
        start = self._batch_from or at
        self._batch_from = at
        used = [int(now) - int(was) for now, was in zip(at.energy_uj, start.energy_uj, strict=True)]
        edges = math.sqrt(sum(e**2 for e in (*at.edge_uj, *start.edge_uj)))
        most_uj = at.peak_w * seconds(at.t_ns - start.t_ns) * UJ_PER_J
        boundary = beyond_uj(edges, sum(used), self._likely_uj(start, at), most_uj) + max(0.0, at.gap_uj - start.gap_uj)
        gain = sum(share * uj for share, uj in zip(gains, used, strict=True))
        row = BatchRow(
            end.account.stage,
            end.account.epoch,
            end.batch,
            joules(sum(used)),
            seconds(at.t_ns - start.t_ns),
            joules(math.hypot(boundary, gain)),
        )
        self.rows.append(row)
        if row.stage == "train":
            self.start_part("data", at)
            if len(self.epoch_j) < MAX_HISTOGRAM:
                self.epoch_j.append(row.joules)

    def _likely_uj(self, start: Point, at: Point) -> float:
        """What the mean power since the measurement began comes to from `start` to `at`."""
        began = self._began
        if began is None or at.t_ns <= began.t_ns:
            return 0.0
        share = (at.t_ns - start.t_ns) / (at.t_ns - began.t_ns)
        return share * (sum(map(int, at.energy_uj)) - sum(map(int, began.energy_uj)))

    def leave_out(self, at: Point) -> None:
        """Batches and parts up to here were not noted: what they used is in no row and in no part."""
        self._batch_from = at
        self._part, self._part_from = "data", at if self._part_from is not None else None

    def take_rows(self) -> list[BatchRow]:
        """The rows so far, once."""
        rows, self.rows = self.rows, []
        return rows

    def take_epoch(self) -> list[float]:
        """The epoch's joules by batch, once."""
        values, self.epoch_j = self.epoch_j, []
        return values

    def _close_part(self, at: Point) -> None:
        start = self._part_from
        if start is None:
            return
        before = self.parts.get(self._part, StepPart(joules=0.0, seconds=0.0))
        uj = sum(int(now) - int(was) for now, was in zip(at.energy_uj, start.energy_uj, strict=True))
        self.parts[self._part] = StepPart(
            joules=before.joules + joules(uj), seconds=before.seconds + seconds(at.t_ns - start.t_ns)
        )


class Crowd:
    """Notes marks; leaves some out while a driver hangs so long that too many wait, but never a stage or an epoch's end.

    Attributes:
        append: where the host's own clock is the mark and few wait, takes one as a tuple, as `Waiting` has it, with the time
            of `monotonic_ns`: what is noted at every batch need not come through `note`.
        waiting: the marks that wait.
        few: of these, beside which one more is noted without a further thought.
    """

    def __init__(self) -> None:
        self._meter: EnergyMeter | None = None
        self._marker: Marker = HostMarker()
        self.waiting: Waiting = deque()
        self.append: Callable[[tuple[Any, ...]], None] | None = None
        self.few = 0
        self._is_host = False
        self._is_left_out = False  # a batch, and none was noted since

    def begin(self, meter: EnergyMeter) -> None:
        """Note marks for a meter that runs; it is asked for a reading before there are too many."""
        self._meter = meter
        self._marker, self.waiting = meter.noting
        self._is_host = isinstance(self._marker, HostMarker) and self._marker.now_ns is monotonic_ns
        self.append = self.waiting.append if self._is_host else None
        self.few, self._is_left_out = MOST_WAITING // 2, False

    def end(self) -> None:
        """Note nothing any more."""
        self._meter, self.append, self.few = None, None, 0

    def note(self, payload: Note) -> None:
        """Note this moment."""
        if len(self.waiting) >= self.few:
            self.append = None
            self._note_beside_many(payload)
        else:
            self.append = self.waiting.append if self._is_host else None
            self.waiting.append(self._marker.mark(payload))

    def _note_beside_many(self, payload: Note) -> None:
        meter, waiting = self._meter, len(self.waiting)
        if meter is None:
            return
        if waiting >= MOST_WAITING // 2:  # more than a hook's own marks wait there, so none may come just then
            meter.ask()
        if waiting < MOST_WAITING or not isinstance(payload, MAY_BE_LEFT_OUT):
            taken = self._without_left_out(payload) if self._is_left_out else payload
            if taken is not None:
                meter.mark(taken)
        else:
            meter.complaints.once(
                "crowd",
                "The driver has not answered for so long that no more batches and log rows can wait for it: those from here "
                "on are left out, and the energy by stage and epoch is not. Check `nvidia-smi` and the kernel log.",
            )
            self._is_left_out = self._is_left_out or not isinstance(payload, LogPoint)
        self.few = 0 if self._is_left_out else MOST_WAITING // 2

    def _without_left_out(self, payload: Note) -> Any:
        if isinstance(payload, StepPartStart):
            return None
        if not isinstance(payload, BatchEnd):
            return payload
        # Where this batch began is not known, so it has no row of its own either.
        self._is_left_out = False
        return BatchesLeftOut(payload.batches, payload.samples)
