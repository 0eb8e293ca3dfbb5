"""Writes tables as CSV and Markdown, and files into one directory and nowhere else."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

from experiments.report.cells import FILES_UNIT, Cell, Table, filled, in_units
from experiments.report.metrics import Amount

MOST_ROWS_SHOWN = 200
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9]+)?")


class Output:
    """A directory that the report is written to; a link in it is replaced, never followed.

    Args:
        root: the directory; it is made if it is missing.

    Raises:
        OSError: it cannot be made, or is a link.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._directory(root)

    def write(self, name: str, content: bytes) -> Path:
        """Write a file whole, or not at all.

        Args:
            name: its name, or one folder and its name; lower-case letters, digits, `_` and `-`.
            content: what it holds.

        Raises:
            ValueError: another name; no record can choose one.
            OSError: it cannot be written.
        """
        parts = name.split("/")
        if len(parts) > 2 or not all(_NAME.fullmatch(part) for part in parts):
            raise ValueError(f"{name!r} is no name for a file of the report.")
        folder = self.root if len(parts) == 1 else self._directory(self.root / parts[0])
        target = folder / parts[-1]
        half = folder / f".{parts[-1]}.{os.getpid()}"
        # Made anew, so that a link that waits under this name is not followed; the rename replaces one at the target.
        half.unlink(missing_ok=True)
        descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            half.replace(target)
        except OSError:
            half.unlink(missing_ok=True)
            raise
        return target

    @staticmethod
    def _directory(path: Path) -> Path:
        if path.is_symlink():
            raise OSError(f"{path} is a link. Remove it, or name another directory with --out.")
        path.mkdir(parents=True, exist_ok=True)
        return path


def number(value: float) -> str:
    """A number to four digits, as people write it.

    Example:
        >>> number(12), number(1234567.0), number(0.000123456), number(0.5)
        ('12', '1,234,567', '1.235e-4', '0.5')
    """
    if isinstance(value, int) or (abs(value) < 1e15 and value == int(value)):
        return f"{int(value):,}"
    if not math.isfinite(value):
        return ""
    if 1000 <= abs(value) < 1e7:
        return f"{value:,.0f}"
    text = f"{value:.4g}"
    return re.sub(r"e([+-])0*(\d)", lambda found: "e" + found[1].replace("+", "") + found[2], text)


def shown(cell: Cell, column: str = "") -> str:
    """A cell as people read it; empty if there is nothing."""
    if cell is None:
        return ""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, Amount):
        return number(cell.value) + (f" ± {_rounded(cell)}" if cell.plus_minus is not None else "")
    return str(cell) if column == "year" else number(cell)


def _rounded(amount: Amount) -> str:
    """The plus or minus, to two digits: more would claim to know how uncertain it is."""
    plus_minus = amount.plus_minus or 0.0
    return number(float(f"{plus_minus:.2g}"))


def to_csv(tables: Sequence[tuple[str, Table]]) -> bytes:
    """Tables of one kind as one CSV, numbers in full, energies in kWh; the first column says which comparison a row is from.

    A column with a plus or minus becomes two. A text that a spreadsheet would take for a formula gets a quote before it.
    """
    tables = [(data, in_units(table, FILES_UNIT)) for data, table in tables]
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    columns = list(dict.fromkeys(column for _, table in tables for column in table.columns))
    several = any(data for data, _ in tables)
    split = {
        column
        for _, table in tables
        for n, column in enumerate(table.columns)
        if any(isinstance(row[n], Amount) for row in table.rows)
    }
    header = ["data"] if several else []
    for column in columns:
        header += [column, f"{column}: plus or minus"] if column in split else [column]
    writer.writerow([_unarmed(name) for name in header])
    for data, table in tables:
        for row in table.rows:
            cells = dict(zip(table.columns, row, strict=True))
            line: list[str] = [_unarmed(data)] if several else []
            for column in columns:
                cell = cells.get(column)
                value, plus_minus = (cell.value, cell.plus_minus) if isinstance(cell, Amount) else (cell, None)
                line.append(_plain(value))
                if column in split:
                    line.append(_plain(plus_minus))
            writer.writerow(line)
    return buffer.getvalue().encode()


def _plain(value: str | float | None) -> str:
    if value is None:
        return ""
    return _unarmed(value) if isinstance(value, str) else repr(value)


def _unarmed(text: str) -> str:
    """Keep a spreadsheet from running a text as a formula (OWASP, "CSV Injection")."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def escaped(text: str) -> str:
    r"""A text that Markdown and the HTML inside it take literally.

    Example:
        >>> escaped("a|b <script> [x](y)")
        'a\\|b &lt;script&gt; \\[x\\]\\(y\\)'
    """
    html = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#!|~])", r"\\\1", html).replace("://", ":&#47;&#47;")


def to_markdown(table: Table) -> str:
    """A table in Markdown, with its heading and note; long ones are cut, and the CSV has the rest, empty columns too."""
    table = filled(in_units(table))
    lines = [f"### {escaped(table.title)}", ""]
    if not table.rows:
        return "\n".join([*lines, "Nothing to show.", ""])
    lines += [
        "| " + " | ".join(escaped(column) for column in table.columns) + " |",
        "|" + "---|" * len(table.columns),
    ]
    for row in table.rows[:MOST_ROWS_SHOWN]:
        cells = (escaped(shown(cell, column)) for cell, column in zip(row, table.columns, strict=True))
        lines.append("| " + " | ".join(cells) + " |")
    if len(table.rows) > MOST_ROWS_SHOWN:
        lines += ["", f"{len(table.rows) - MOST_ROWS_SHOWN} more rows are in `tables/{table.key}.csv`."]
    return "\n".join([*lines, "", escaped(table.note), ""])
