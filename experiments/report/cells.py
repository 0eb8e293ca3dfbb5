"""A table of plain values: its cells, and the unit that its energies are shown in."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from experiments.report.metrics import Amount, in_unit
from lightning_watt.units import EnergyUnit, unit_that_fits


@dataclass(frozen=True)
class Energy:
    """Joules with their plus or minus; the unit is the column's."""

    joules: float
    plus_minus_j: float | None = None


Cell = str | int | float | Amount | Energy | None
FILES_UNIT: Final[EnergyUnit] = "kWh"
"""The unit of all energies in CSV files, so that files can be compared."""


@dataclass(frozen=True)
class Table:
    """A table of plain values.

    Attributes:
        key: its file's name, without an ending.
        title: its heading.
        columns: their headings, with units; that of an energy is added by `in_units`.
        rows: one cell a column.
        note: how to read it.
        quiet: rows shown in grey: those that are not ranked.
    """

    key: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    quiet: frozenset[int] = frozenset()


def in_units(table: Table, unit: EnergyUnit | None = None) -> Table:
    """The table with its energies as numbers in one unit a column, which the column's heading then names.

    Args:
        table: the table.
        unit: of all columns; None: the unit that fits their middle energy, one for all columns that begin alike, as
            "train: one device" and "train: another device" do.
    """
    energies: dict[str, list[float]] = {}
    for row in table.rows:
        for column, cell in zip(table.columns, row, strict=True):
            if isinstance(cell, Energy):
                energies.setdefault(_quantity(column), []).append(cell.joules)
    columns, cells = [], []
    for n, column in enumerate(table.columns):
        values = [row[n] for row in table.rows]
        if any(isinstance(value, Energy) for value in values):
            of_column = unit or unit_that_fits(statistics.median_high(energies[_quantity(column)]))
            column = f"{column} ({of_column})"
            values = [_number(value, of_column) if isinstance(value, Energy) else value for value in values]
        columns.append(column)
        cells.append(values)
    return replace(table, columns=columns, rows=list(zip(*cells, strict=True)) if table.rows else [])


def filled(table: Table) -> Table:
    """The table without the columns that are empty in every row: a report of inferences has no training's.

    Example:
        >>> filled(Table("t", "T", ("model", "year"), [("a", None)])).columns
        ['model']
    """
    if not table.rows:
        return table
    kept = [n for n in range(len(table.columns)) if any(row[n] not in (None, "") for row in table.rows)]
    rows = [[row[n] for n in kept] for row in table.rows]
    return replace(table, columns=[table.columns[n] for n in kept], rows=rows)


def _quantity(column: str) -> str:
    """What a column measures: its heading up to a colon or a comma."""
    return re.split(r"[:,](?!\d)", column)[0]


def _number(energy: Energy, unit: EnergyUnit) -> Amount:
    plus_minus = energy.plus_minus_j
    return Amount(in_unit(energy.joules, unit), None if plus_minus is None else in_unit(plus_minus, unit))
