"""The end of a multirun: its study's own tables, one table over all its jobs, and a failure if one of them failed."""

import json
import shlex
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Column, Table
from typing_extensions import override

from experiments.outcome import NAME
from experiments.report.cells import Table as Tabulated
from experiments.report.cells import filled, in_units
from experiments.report.inputs.run import SCRATCH
from experiments.report.output import shown, to_markdown
from experiments.tasks.base import TASKS, Task
from experiments.zoo import ANY
from lightning_watt import energy_of, read_record
from lightning_watt.errors import RecordError
from lightning_watt.units import digits

COLUMNS = ("model", "on", "phase", "accuracy", "own J", "± J", "with inherited", "J/{}", "status")
OF_INFERENCE = ("model", "on", "accuracy", "top-5", "J/{}", "Wh/1000 {}s", "{}s/s", "own J", "± J", "status")
"""The columns of a sweep that does nothing but inference."""
OF_PROJECTIONS = ("model", "on", "projected kWh", "at least", "at most", "projected hours", "projected J/sample", "status")
"""The columns of a sweep that does nothing but project."""
METRICS = {
    "top-5": "test_top5",
    "J/{}": "joules_per_{}",
    "Wh/1000 {}s": "wh_per_1000_{}s",
    "{}s/s": "{}s_per_second",
    "projected kWh": "projected_kwh",
    "at least": "projected_low_kwh",
    "at most": "projected_high_kwh",
    "projected hours": "projected_hours",
    "projected J/sample": "projected_j_per_sample",
}
"""Which metric stands in a column; what an inference is of, an image or a clip, takes the place of {}."""
SHOWN = ("task", "model", "model.timm_name", "data", "scale", "phase")
WIDTH = 110  # where the output is no terminal
WIDEST = 1000


class SweepTable(Callback):
    """Prints the table when a multirun has ended; Hydra makes it from `conf/run.yaml`."""

    @override
    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        directory = Path(config.hydra.sweep.dir)
        outcomes = [json.loads(file.read_text()) for file in sorted(directory.glob(f"*/{NAME}"), key=_job_number)]
        _print(sweep_table(outcomes))
        print(f"sweep        {directory.resolve()}")
        print(f"curves       tensorboard --logdir {shlex.quote(str(directory))}")
        print(f"report       python -m experiments.report {shlex.quote(str(directory))}")
        failed = [outcome for outcome in outcomes if outcome["status"] == "failed"]
        lines = [f"{len(failed)} of {len(outcomes)} jobs failed:"] if failed else []
        lines += [f"{outcome['model']}: {outcome['error'].splitlines()[0]}" for outcome in failed]
        cut_off = [outcome for outcome in outcomes if outcome["status"] not in ("completed", "failed")]
        if cut_off:
            lines.append(
                f"{len(cut_off)} of {len(outcomes)} jobs were interrupted, or run in another process: the same command with "
                "skip_done=true goes on with them."
            )
        if lines:
            raise SystemExit("\n".join(lines))


class SweepReport(SweepTable):
    """Prints some of the report's tables and writes them to `NAME.md`, when a multirun has ended.

    Attributes:
        name: of the file, and of the line that says where it is.
    """

    name: ClassVar[str]

    @abstractmethod
    def tables(self, directory: Path) -> list[Tabulated]:
        """The tables of the sweep in a directory; those without rows are passed over."""

    @override
    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        directory = Path(config.hydra.sweep.dir)
        tables = [table for table in self.tables(directory) if table.rows]
        for table in tables:
            _print(_printed(table))
            _print(table.note)
        if tables:
            file = directory / f"{self.name}.md"
            file.write_text("\n".join(to_markdown(table) for table in tables))
            print(f"{self.name:<13}{file.resolve()}")
        super().on_multirun_end(config, **kwargs)


def sweep_table(outcomes: list[dict[str, Any]]) -> Table:
    """The table of some jobs' outcomes, one row for each run that has a record of its own.

    Args:
        outcomes: what `save_outcome` wrote, read back.
    """
    phases = {outcome["phase"] for outcome in outcomes}
    known = {"inference": OF_INFERENCE, "project": OF_PROJECTIONS}.get(phases.pop() if len(phases) == 1 else "", COLUMNS)
    changed = swept(outcomes)
    tasks = list(dict.fromkeys(_task(outcome) for outcome in outcomes))
    columns = [*known[:2], *changed, *dict.fromkeys(name for column in known[2:] for name in _named(column, tasks))]
    table = Table(*(Column(column, no_wrap=column == "model", overflow="fold") for column in columns), title="The sweep")
    for outcome in outcomes:
        given = overrides_of(outcome)
        about = {"model": _model(outcome), "on": f"{outcome['data']}, {outcome['scale']}", "status": outcome["status"]}
        about |= {key: given.get(key, "-") for key in changed}
        for phase, run in _runs(outcome["phase"], outcome):
            row = about | {"phase": phase} | _figures(run, _task(outcome))
            table.add_row(*(row.get(column, "-") for column in columns))
    return table


def _task(outcome: dict[str, Any]) -> Task:
    """A job's task; what does not say is of the first one."""
    return TASKS[outcome.get("task") or "classify"]


def _named(column: str, tasks: Iterable[Task]) -> list[str]:
    """The columns that some tasks have in the place of one."""
    if column == "accuracy":
        return [metric for task in tasks for metric in _accuracies(task)]
    return [column.format(task.sample) for task in tasks]


def _accuracies(task: Task) -> dict[str, str]:
    """What a task's trainings are measured by, and how it is logged; an encoder is pretrained as a classifier."""
    of_encoder = {"top-1": TASKS["classify"].logged} if task.name == "segment" else {}
    return of_encoder | {task.metric: task.logged}


def _model(outcome: dict[str, Any]) -> str:
    """A job's model: timm's name of it where `model=timm`, also of one that failed."""
    if outcome["model"] != ANY:
        return str(outcome["model"])
    return str(outcome.get("timm_name") or overrides_of(outcome).get("model.timm_name", ANY))


def swept(outcomes: list[dict[str, Any]]) -> list[str]:
    """What the command line changed from job to job, besides what the table has columns for."""
    given = [overrides_of(outcome) for outcome in outcomes]
    keys = dict.fromkeys(key for one in given for key in one)
    return [key for key in keys if key not in SHOWN and len({one.get(key) for one in given}) > 1]


def overrides_of(outcome: dict[str, Any]) -> dict[str, str]:
    """A job's overrides by their key, without the signs for adding."""
    pairs = (text.partition("=") for text in outcome.get("overrides", ()))
    return {key.lstrip("+"): value for key, _, value in pairs}


def _runs(phase: str, outcome: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the runs that an outcome consists of, the parts before the whole."""
    for name, part in outcome.get("parts", {}).items():
        yield from _runs(name, part)
    if outcome.get("status", "completed") != "completed" or phase != "lifecycle":
        yield phase, outcome


def _figures(run: dict[str, Any], task: Task) -> dict[str, str]:
    """A run's metrics and energies by their columns; a dash for what there is not."""
    metrics = run.get("metrics", {})
    own = spread = carried = "-"
    try:
        energy = read_record(run["directory"]).energy
        own, spread = digits(energy.total_j), digits(energy.uncertainty_j, 2)
        carried = digits(energy_of(run["directory"]).total_j)
    except (KeyError, TypeError, RecordError):
        pass  # a run without energy: watt=none, nothing to measure with, or it failed before it began
    logged = {column.format(task.sample): name.format(task.sample) for column, name in METRICS.items()} | _accuracies(task)
    figures = {column: "-" if metrics.get(name) is None else digits(metrics[name]) for column, name in logged.items()}
    if run.get("start") == SCRATCH:
        figures |= dict.fromkeys(list(_accuracies(task))[:1], "random weights")
    return figures | {"own J": own, "± J": spread, "with inherited": carried}


def _print(what: Table | str) -> None:
    """Print a table or a note; where the output is no terminal, a table is as wide as its content: no number is cut off."""
    console = Console()
    if not console.is_terminal:
        content = console.measure(what, options=console.options.update(width=WIDEST)).maximum
        console = Console(width=WIDTH if isinstance(what, str) else max(WIDTH, content))
    console.print(what)


def _printed(table: Tabulated) -> Table:
    table = filled(in_units(table))
    made = Table(*(Column(column, overflow="fold") for column in table.columns), title=table.title)
    for row in table.rows:
        made.add_row(*(shown(cell, column) for cell, column in zip(row, table.columns, strict=True)))
    return made


def _job_number(file: Path) -> int:
    """The number that a job's directory begins with."""
    return int(file.parent.name.split("-")[0])
