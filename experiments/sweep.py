"""The end of a multirun: one table over all its jobs, and a failure if one of them failed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from typing_extensions import override

from experiments.outcome import NAME
from lightning_watt import energy_of, read_record
from lightning_watt.errors import RecordError
from lightning_watt.units import digits

COLUMNS = ("model", "on", "phase", "top-1", "own J", "± J", "with inherited", "J/image", "status")
WIDTH = 110  # where the output is no terminal


class SweepTable(Callback):
    """Prints the table when a multirun has ended; Hydra makes it from `conf/run.yaml`."""

    @override
    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        directory = Path(config.hydra.sweep.dir)
        outcomes = [json.loads(file.read_text()) for file in sorted(directory.glob(f"*/{NAME}"), key=_job_number)]
        console = Console()
        (console if console.is_terminal else Console(width=WIDTH)).print(sweep_table(outcomes))
        print(f"sweep        {directory.resolve()}")
        failed = [outcome for outcome in outcomes if outcome["status"] == "failed"]
        if failed:
            reasons = [f"{outcome['model']}: {outcome['error'].splitlines()[0]}" for outcome in failed]
            raise SystemExit("\n".join([f"{len(failed)} of {len(outcomes)} jobs failed:", *reasons]))


def sweep_table(outcomes: list[dict[str, Any]]) -> Table:
    """The table of some jobs' outcomes, one row for each run that has a record of its own.

    Args:
        outcomes: what `save_outcome` wrote, read back.
    """
    table = Table(*COLUMNS, title="The sweep")
    for outcome in outcomes:
        about = [str(outcome["model"]), f"{outcome['data']}, {outcome['scale']}"]
        for phase, run in _runs(outcome["phase"], outcome):
            table.add_row(*about, phase, *_figures(run), outcome["status"])
    return table


def _runs(phase: str, outcome: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the runs that an outcome consists of, the parts before the whole."""
    for name, part in outcome.get("parts", {}).items():
        yield from _runs(name, part)
    if outcome.get("status") == "failed" or phase != "lifecycle":
        yield phase, outcome


def _figures(run: dict[str, Any]) -> list[str]:
    """A run's accuracy and energies as the table shows them; a dash for what there is not."""
    metrics = run.get("metrics", {})
    own = spread = carried = "-"
    try:
        energy = read_record(run["directory"]).energy
        own, spread = digits(energy.total_j), digits(energy.uncertainty_j, 2)
        carried = digits(energy_of(run["directory"]).total_j)
    except (KeyError, TypeError, RecordError):
        pass  # a run without energy: watt=none, nothing to measure with, or it failed before it began
    shown = [metrics.get("test_acc"), metrics.get("joules_per_image")]
    accuracy, per_image = ("-" if value is None else digits(value) for value in shown)
    return [accuracy, own, spread, carried, per_image]


def _job_number(file: Path) -> int:
    """The number that a job's directory begins with."""
    return int(file.parent.name.split("-")[0])
