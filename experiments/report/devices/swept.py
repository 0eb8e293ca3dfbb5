"""The end of `study=boards`: Table 2 and its ranks, printed and kept."""

from __future__ import annotations

from pathlib import Path

from typing_extensions import override

from experiments.report.cells import Table
from experiments.report.comparison import compare
from experiments.report.devices.tables import by_device, orders
from experiments.report.inputs.lineage import lineages
from experiments.report.inputs.records import load
from experiments.sweep import SweepReport


class BoardsTable(SweepReport):
    """Prints them before the sweep's own table; Hydra makes it from `conf/study/boards.yaml`."""

    name = "boards"

    @override
    def tables(self, directory: Path) -> list[Table]:
        compared = compare(lineages(load(directory).runs))
        return [table for comparison in compared for table in (by_device(comparison), orders(comparison))]
