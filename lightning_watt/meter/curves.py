"""What one run has read: the devices' timelines, which of them answer, and what went wrong. No thread and no lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_watt.meter.marks import Mark
from lightning_watt.meter.timeline import SILENT, Timeline
from lightning_watt.sources.base import UNREAD, Device, Failure, Gap, Reading
from lightning_watt.units import NS_PER_S, UJ_PER_J, nanoseconds

RELOAD = "A driver reload or a reset of the board does this."
CAUSES = {
    SILENT: "A driver that is silent, a process that is stopped, or a machine that is paused does this.",
    UNREAD: "A source whose reads are slow does this, unless its first reading is of the moment at which it was opened.",
}
DOUBTED = (
    "The counter's energy is charged, the difference is in the ±, and the counter is read seldom from now on. A meter in "
    "the board's supply shows which of them is right."
)
UNREAD_S = 0.5
"""A device that was read up to so long before the end, and one tick, was read to the end."""
NOT_TO_THE_END = "it was not read up to the end; the joules are what its last known power comes to, not charged"
STALE_S, STALE_TICKS = 5.0, 3
"""A device that has not moved for this long, and for so many of its periods, no longer holds up the others' accounts."""


class Complaints(deque[str]):
    """Sentences for the user, each kind once; the main thread reports them at its next hook.

    Attributes:
        failed: why the devices that fail now could not be read, and the remedy, by label.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failed: dict[str, str] = {}
        self._known: set[str] = set()

    def once(self, about: str, sentence: str) -> None:
        """Add a sentence, unless there was one about the same already."""
        if about not in self._known:
            self._known.add(about)
            self.append(sentence)


class Curves:
    """The timelines of one run.

    Args:
        devices: the devices that are read.
        complaints: where to add what went wrong.
        gaps: where to keep what the counters have lost, beside what is there; a gap goes when its counter comes back.

    Attributes:
        timelines: one for each device.
        started_ns: when the run began.
    """

    def __init__(self, devices: Sequence[Device], complaints: Complaints, gaps: list[Gap]) -> None:
        self.complaints, self._gaps, self._earlier_gaps = complaints, gaps, tuple(gaps)
        self.timelines = [Timeline(device) for device in devices]
        self.started_ns = 0
        self._left_out: set[str] = set()
        self._found: list[tuple[int, Gap]] = []  # when each gap ended, which a reading told
        self._failed = complaints.failed = {}

    def begin(self, t_ns: int) -> None:
        """The run begins."""
        self.started_ns = t_ns
        for line in self.timelines:
            line.began_ns = t_ns

    def leave_out(self, labels: Collection[str]) -> None:
        """Count nothing of these devices."""
        self._left_out = set(labels)
        self.timelines = [line for line in self.timelines if line.device.label not in self._left_out]

    def forked(self) -> None:
        """In a child of the measuring process: the timelines end here."""
        self.timelines = [line.ended() for line in self.timelines]

    def take(self, reading: Reading | Failure, labels: Collection[str], lock: AbstractContextManager[Any]) -> None:
        """Lay a reading on its device's timeline, and report what it reveals.

        Args:
            reading: a reading or a failure.
            labels: the devices of the source that it comes from.
            lock: held only while the timeline changes.
        """
        if reading.label in self._left_out:
            return
        if reading.label not in labels:
            self.complaints.once(
                f"unknown {reading.label}",
                f"A source read {reading.label}, which it had not announced when it was opened, so it is not counted. "
                "Report it to its author.",
            )
            return
        if isinstance(reading, Failure):
            self._failed.setdefault(reading.label, f"{reading.why} {reading.remedy}")
            self.complaints.once(
                f"failed {reading.label}",
                f"{reading.label} could not be read, so its energy is missing from now on: {reading.why} {reading.remedy}",
            )
            return
        line = next(line for line in self.timelines if line.device.label == reading.label)
        with lock:
            step = line.add(reading)
        if step is not None:
            self._gaps[:] = (*self._earlier_gaps, *(gap for other in self.timelines for gap in other.gaps))
        self._failed.pop(reading.label, None)
        if step is not None and step.gap is not None:
            gap = step.gap
            self._found.append((reading.t_ns, gap))
            self.complaints.once(
                f"gap {gap.device}",
                f"{gap.device}: {gap.why}; {gap.joules:.4g} J were charged for {gap.seconds:.3g} s by the power nearest to "
                f"it, and are marked as uncertain. {CAUSES.get(gap.why, RELOAD)}",
            )
        if step is not None and step.returned:
            self.complaints.once(
                f"returned {reading.label}",
                f"{reading.label}: the counter is back where it had been, so what was charged meanwhile gave way to it.",
            )
        if line.doubt:
            self.complaints.once(f"doubt {reading.label}", f"{reading.label}: {line.doubt}. {DOUBTED}")
        if line.standing_still:
            self.complaints.once(
                f"still {reading.label}",
                f"{reading.label}: its energy counter stands still, so its energy is missing from now on. "
                "Reload the driver, or check `nvidia-smi`.",
            )

    def end(self, t_ns: int) -> None:
        """The run has ended: what was used after a device's last reading, and is not known, is a gap."""
        for line in self.timelines:
            known_ns = line.frontier_ns + nanoseconds(line.tick_s)  # one tick more stands in the accounts by the last power
            unread_s = (t_ns - known_ns) / NS_PER_S
            if not line.started or unread_s <= UNREAD_S:
                continue
            tick_j = float(line.ahead_uj_at(np.asarray([t_ns], dtype=np.int64))[0]) / UJ_PER_J
            power_w = tick_j / line.tick_s if line.tick_s else line.power_w
            label, joules = line.device.label, unread_s * power_w
            self._gaps.append(Gap(device=label, seconds=unread_s, joules=joules, why=NOT_TO_THE_END))
            self._found.append((t_ns, self._gaps[-1]))
            if self.answers(line):  # otherwise it has been told that its energy is missing
                self.complaints.once(
                    f"end {label}",
                    f"{label}: nothing is known of its last {unread_s:.3g} s, by its last known power {joules:.4g} J: "
                    "not charged, and uncertain. A driver that is silent does this: check `nvidia-smi` and the kernel log.",
                )

    def frontier_ns(self, now: int) -> int:
        """The answering devices' common frontier; without any, the present, so that nothing waits for the lost."""
        answering = [line for line in self.timelines if self.answers(line)]
        if not answering:
            lost = all(line.started or line.device.label in self._failed for line in self.timelines)
            patience_ns = max((_patience_ns(line) for line in self.timelines), default=0)
            return now if lost or now - self.started_ns > patience_ns else 0
        newest = max(line.frontier_ns for line in answering)
        return min(
            (line.frontier_ns for line in answering if newest - line.frontier_ns < _patience_ns(line)), default=newest
        )

    def answers(self, line: Timeline) -> bool:
        """Whether a device is read and moves."""
        return line.started and line.device.label not in self._failed and not line.standing_still

    def worth_a_glance(self) -> list[str]:
        """The devices whose samples do not tell what is between two readings."""
        return [line.device.label for line in self.timelines if line.worth_a_glance]

    def energy_now_uj(self, now: int, *, runs: bool) -> list[int]:
        """Microjoules of each device by now; the caller holds the lock."""
        return [line.energy_now_uj(now, goes_on=runs and self.answers(line)) for line in self.timelines]

    def energies(self, marks: Sequence[Mark[Any]], *, goes_on: bool) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Energy and edge of each mark (rows) and device (columns), microjoules.

        Args:
            marks: the marks.
            goes_on: no more readings come, and each curve goes on at its last power for the part of a tick that is left.
        """
        times = np.asarray([mark.t_ns for mark in marks], dtype=np.int64)
        if not self.timelines:  # the rank that leads a run may have nothing to read
            return np.zeros((len(times), 0), dtype=np.int64), np.zeros((len(times), 0))
        energy = np.empty((len(times), len(self.timelines)), dtype=np.int64)
        edge = np.empty((len(times), len(self.timelines)))
        for column, line in enumerate(self.timelines):
            energy[:, column], edge[:, column] = line.energy_uj_at(times), line.edge_uj_at(times)
            if goes_on:
                ahead = line.ahead_uj_at(times)
                energy[:, column] += ahead
                edge[:, column] += ahead
        return energy, edge

    def gaps_uj(self, marks: Sequence[Mark[Any]]) -> NDArray[np.float64]:
        """Microjoules of gaps until each of some marks, beside what is in its edge; of one that it lies in, a share."""
        lost = np.zeros(len(marks))
        if not self._found:
            return lost
        times = np.asarray([mark.t_ns for mark in marks], dtype=np.int64)
        standing = frozenset(self._gaps)
        self._found = [(end_ns, gap) for end_ns, gap in self._found if gap in standing]
        for end_ns, gap in self._found:
            left_s = np.maximum(end_ns - times, 0) / NS_PER_S
            lost += gap.beyond_edges_j * UJ_PER_J * np.clip(1 - left_s / max(gap.seconds, 1 / NS_PER_S), 0, 1)
        return lost


def _patience_ns(line: Timeline) -> int:
    """For how long the others wait for a device."""
    return nanoseconds(max(STALE_S, STALE_TICKS * line.tick_s))
