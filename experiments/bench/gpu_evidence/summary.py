"""The summary: what was asked, what came out, on what and with which command, as Markdown."""

from __future__ import annotations

from typing import Any

from experiments.bench.gpu_evidence import evidence
from experiments.bench.gpu_evidence.figures import number, table
from experiments.bench.gpu_evidence.load import HEAVY, LIGHT
from experiments.bench.gpu_evidence.parts import NAMES, part
from experiments.bench.gpu_evidence.row import row_of
from lightning_watt.sources.nvidia.seen import COLUMNS

NAME = "README.md"


def summary(content: dict[str, Any]) -> str:
    """The Markdown of an evidence file's content."""
    about, parts = content["about"], content["parts"]
    versions = ", ".join(f"{name} {v}" for name, v in about["versions"].items() if v)
    lines = [
        f"# What {about['gpu']} says",
        "",
        f"{about['gpu']}, driver {about['driver']}, power limit {about['power_limit_w']} W; {about['cpus']} CPUs "
        f"({about['machine']}), kernel {about['kernel']}; Python {about['python']}, {versions}; commit {about['commit']}.",
        f"Work: heavy is {about['load'][HEAVY]}; light is {about['load'][LIGHT]}.",
        "",
        f"Raw numbers of every part: `{evidence.NAME}`.",
    ]
    lines += ["", *_row(content)]
    for name in NAMES:
        if name in parts:
            lines += ["", *_section(name, parts[name])]
    absent = [name for name in NAMES if name not in parts]
    if absent:
        lines += ["", f"Not asked for: {', '.join(absent)}."]
    return "\n".join(lines) + "\n"


def _row(content: dict[str, Any]) -> list[str]:
    """The board's row of the library's file, as a table."""
    try:
        row = row_of(content)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        return [f"The findings make no row of `boards.csv` ({error!r})."]
    known = {name: value for name in COLUMNS if (value := getattr(row, name)) is not None}
    cells = [value if isinstance(value, str) else number(value) for value in known.values()]
    return [
        "In short, as `python -m experiments.bench.gpu_evidence.row` puts it into the library:",
        "",
        *table(list(known), [cells]),
    ]


def _section(name: str, one: dict[str, Any]) -> list[str]:
    lines = [f"## {one['title']}", "", f"`{one['command']}`, {one['when']}, {one['seconds']:.0f} s."]
    if one["status"] != "done":
        lines += ["", f"**{one['status'].capitalize()}**: {one['why']}"]
    if one["found"]:
        try:
            lines += ["", *part(name).summarise(one["found"])]
        except (ImportError, KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            lines += ["", f"The findings cannot be summarised ({error!r}); it is in `{evidence.NAME}`."]
    return lines
