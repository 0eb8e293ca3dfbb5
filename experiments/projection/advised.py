"""The end of `study=advice`: its table, printed and kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Column
from rich.table import Table as Printed
from typing_extensions import override

from experiments.projection.advice import advice
from experiments.report.cells import Table, in_units
from experiments.report.inputs.frames import load_runs
from experiments.report.output import shown, to_markdown
from experiments.sweep import WIDTH, SweepTable

NAME = "advice.md"


class AdviceTable(SweepTable):
    """Prints what the sweep says, before the sweep's own table; Hydra makes it from `conf/study/advice.yaml`."""

    @override
    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        directory = Path(config.hydra.sweep.dir)
        tables = advice(load_runs(directory))
        console = Console()
        console = console if console.is_terminal else Console(width=2 * WIDTH)
        for table in tables:
            console.print(_printed(table))
            console.print(table.note)
        if tables:
            (directory / NAME).write_text("\n".join(to_markdown(table) for table in tables))
            print(f"advice       {directory.resolve() / NAME}")
        super().on_multirun_end(config, **kwargs)


def _printed(table: Table) -> Printed:
    table = in_units(table)
    made = Printed(*(Column(column) for column in table.columns), title=table.title)
    for row in table.rows:
        made.add_row(*(shown(cell, column) for cell, column in zip(row, table.columns, strict=True)))
    return made
