"""The end of `study=advice`: its table, printed and kept."""

from __future__ import annotations

from pathlib import Path

from typing_extensions import override

from experiments.projection.advice import advice
from experiments.report.cells import Table
from experiments.report.inputs.frames import load_runs
from experiments.sweep import SweepReport


class AdviceTable(SweepReport):
    """Prints what the sweep says, before the sweep's own table; Hydra makes it from `conf/study/advice.yaml`."""

    name = "advice"

    @override
    def tables(self, directory: Path) -> list[Table]:
        return advice(load_runs(directory))
