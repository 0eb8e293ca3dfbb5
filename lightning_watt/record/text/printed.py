"""How much this process prints of its runs: of each one when it ends, and of all of them when the process ends.

One run's table is what its user waits for. The tables of two hundred small runs (cross-validation, forecasting, a search for
hyperparameters) drown what the program itself prints.
"""

from __future__ import annotations

import atexit
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass

from lightning_watt.host import keep, tell_of_forks
from lightning_watt.record.schema import DeviceEnergy, RecordFields, Stage
from lightning_watt.record.text.drawn import Drawing
from lightning_watt.record.text.summary import drawing, line
from lightning_watt.settings import Summary
from lightning_watt.units import J_PER, digits, energy_in, joules, unit_that_fits

SHORT_S = 1.0
"""A run of less than this gets one line."""
LOUD_NO_MORE = 2
"""Whoever has told Lightning in so many ways to say less is told nothing."""
NO_NOTES: Mapping[str, str] = {}


@dataclass(frozen=True)
class _Run:
    """What is remembered of a run.

    Attributes:
        by_stage: its energy when it was printed last, or would have been.
        quiet: in how many ways its user had told Lightning to say less; None if it is not in the table over all.
        directory: where its record is.
        devices: what its devices used in this process, in joules, and the devices.
        stages: the same by stage.
        boundary_j: the part of its plus or minus that the edges make.
    """

    by_stage: Mapping[str, Stage]
    quiet: int | None
    directory: str
    devices: tuple[tuple[str, float, DeviceEnergy], ...]
    stages: tuple[tuple[str, float], ...]
    boundary_j: float

    @classmethod
    def of(cls, record: RecordFields, quiet: int | None, file: str) -> _Run:
        energy = record.energy
        # By node, because the energy of the whole run may hold that of an earlier run of this process that it goes on with.
        labels = [
            (f"node{node.node}/{label}" if node.node else label, uj)
            for node in record.nodes
            for label, uj in node.device_uj.items()
        ]
        return cls(
            by_stage=dict(energy.by_stage),
            quiet=quiet,
            directory=os.path.dirname(file),
            devices=tuple((label, joules(uj), energy.by_device[label]) for label, uj in labels if label in energy.by_device),
            stages=tuple((stage, joules(uj)) for node in record.nodes for stage, uj in node.stage_uj.items()),
            boundary_j=energy.boundary_j,
        )

    @property
    def batches(self) -> int:
        return sum(stage.batches for stage in self.by_stage.values())


class Printed:
    """What was printed of the runs of one process.

    Example:
        >>> Printed().of_process()
        ''
    """

    def __init__(self) -> None:
        self.forget()
        tell_of_forks(self)

    def forget(self) -> None:
        """Begin anew: nothing was printed."""
        self._runs: dict[str, _Run] = {}  # by session: one of a Trainer, whatever it ran
        self._said: set[str] = set()
        self._at_exit = False

    def forked(self) -> None:
        """In a child of the process: the runs are the parent's."""
        keep(dict(vars(self)))
        self.forget()

    def end_of_run(
        self,
        record: RecordFields,
        file: str,
        wanted: Summary,
        quiet: int = 0,
        notes: Mapping[str, str] = NO_NOTES,
        *,
        with_rich: bool = False,
    ) -> None:
        """Print what is to be printed of a run that has ended; arguments as of `of_run`.

        With `with_rich` a table is drawn by Rich, which draws the progress bar.
        """
        found = self._of_run(record, file, wanted, quiet, notes)
        if found is not None:
            found.say(with_rich=with_rich)
        if not self._at_exit and self.of_process():
            self._at_exit = True
            atexit.register(self._end_of_process)

    def of_run(
        self, record: RecordFields, file: str, wanted: Summary, quiet: int = 0, notes: Mapping[str, str] = NO_NOTES
    ) -> str:
        """The text for a run that has ended; empty for none. From now on it counts as printed.

        Args:
            record: its record.
            file: where the record is; empty if it is not written.
            wanted: what the user wants.
            quiet: in how many ways the user has told Lightning to say less.
            notes: sentences below the table, by what they are about; each is printed once in a process.
        """
        found = self._of_run(record, file, wanted, quiet, notes)
        return "" if found is None else found.text()

    def _of_run(
        self, record: RecordFields, file: str, wanted: Summary, quiet: int, notes: Mapping[str, str]
    ) -> Drawing | None:
        before = self._runs.get(record.session)
        run = _Run.of(record, quiet if wanted == "auto" else None, file)
        if wanted == "auto":
            wanted = self._fitting(record, run, before, quiet)
        if run.batches:
            self._runs[record.session] = run
        if wanted == "none":
            return None
        where = f"Record: {file}" if file else ""
        if wanted == "line":
            return Drawing((), [f"{line(record, before.by_stage if before is not None else None)} {where}".rstrip()])
        return drawing(record, [note for about, note in notes.items() if self._is_new(about)], where)

    def _fitting(self, record: RecordFields, run: _Run, before: _Run | None, quiet: int) -> Summary:
        """What fits a run by its length, its place among the runs of the process, and how quiet its user wants it."""
        if record.energy.total_j is None:
            return "line" if quiet < LOUD_NO_MORE and self._is_new("nothing was measured") else "none"
        if run.batches <= (before.batches if before is not None else 0):
            return "none"  # there is nothing to tell, or it was told
        is_first = not self._runs
        if quiet:
            return "line" if is_first and quiet < LOUD_NO_MORE else "none"
        seconds = sum(stage.seconds for stage in run.by_stage.values())
        return "table" if is_first and seconds >= SHORT_S else "line"

    def _is_new(self, about: str) -> bool:
        is_new = about not in self._said
        self._said.add(about)
        return is_new

    def of_process(self) -> str:
        """The text for all runs of the process; empty if there were not several, or their users wanted less."""
        found = self._of_process()
        return "" if found is None else found.text()

    def _of_process(self) -> Drawing | None:
        runs = [run for run in self._runs.values() if run.quiet is not None]
        quiet = min((run.quiet or 0 for run in runs), default=0)
        if len(runs) < 2 or quiet >= LOUD_NO_MORE:
            return None
        stages, devices, about = dict[str, float](), dict[str, float](), dict[str, DeviceEnergy]()
        for run in runs:
            for stage, used_j in run.stages:
                stages[stage] = stages.get(stage, 0.0) + used_j
            for label, used_j, device in run.devices:
                devices[label] = devices.get(label, 0.0) + used_j
                about[label] = device
        total_j = sum(stages.values())
        gain_j = sum(used_j * about[label].gain for label, used_j in devices.items())
        plus_minus_j = math.hypot(gain_j, *(run.boundary_j for run in runs))
        kinds = {device.provenance for device in about.values()}
        provenance = "mixed" if len(kinds) > 1 else "".join(kinds)
        unit = unit_that_fits(total_j)
        text = f"{len(runs)} Trainers in this process: energy {energy_in(unit, total_j, plus_minus_j)}, {provenance}."
        directories = {os.path.abspath(run.directory) for run in runs if run.directory}
        if directories:
            text += f" Records: in {os.path.commonpath(directories)}"
        if quiet:
            return Drawing((), [text])
        rows = [[label, digits(used_j / J_PER[unit])] for label, used_j in stages.items()]
        by_device = [[label, digits(used_j / J_PER[unit]), about[label].source] for label, used_j in devices.items()]
        return Drawing([(rows, ["stage", unit]), (by_device, ["device", unit, "source"])], [text])

    def _end_of_process(self) -> None:
        found = self._of_process()
        if found is not None:
            found.say()


PRINTED = Printed()
"""Of this process."""
