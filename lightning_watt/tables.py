"""Tables for terminals and notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tabulate import tabulate

from lightning_watt.units import digits

WORDS = ("source", "kind", "name", "identity")
"""Columns of words, which stand on the left."""
NARROWER = (("source", "name", "first", "second"), ("identity",))
"""Columns whose cells are broken into lines where a table is too broad; identities only if that is not enough."""
NARROWEST, APART, BESIDE_HEADING = 12, 2, 2
"""Characters of such a column at least, between two columns, and that tabulate leaves free beside a heading."""


def table(rows: list[list[str]], headers: list[str], form: str, width: int | None = None) -> str:
    """Lay out a table: numbers as they were formatted, on the right; the first column and words on the left.

    Args:
        rows: the cells.
        headers: the columns' names.
        form: `"simple"` for a terminal, `"html"` for a notebook.
        width: the terminal's; cells of words take several lines where the table would be broader. None for any.
    """
    words = {headers[0], *WORDS}
    # A table without rows has no columns to align for tabulate before 0.10.
    align = ["left" if header in words else "right" for header in headers] if rows else None
    most = _widths(rows, headers, width) if rows and width else None
    return str(tabulate(rows, headers=headers, tablefmt=form, disable_numparse=True, colalign=align, maxcolwidths=most))


def _widths(rows: list[list[str]], headers: list[str], width: int) -> list[int | None]:
    """Characters of each column so that all fit, as far as words can be broken; None for one that stays as it is."""
    columns = zip(headers, *rows, strict=True)
    natural = [max(len(name) + BESIDE_HEADING, *map(len, cells)) for name, *cells in columns]
    fitted = list(natural)
    for names in NARROWER:
        while sum(fitted) + APART * (len(fitted) - 1) > width:
            able = [at for at, name in enumerate(headers) if name in names and fitted[at] > NARROWEST]
            if not able:
                break
            fitted[max(able, key=fitted.__getitem__)] -= 1
    return [most if most < whole else None for most, whole in zip(fitted, natural, strict=True)]


def draw_with_rich(tables: Sequence[tuple[list[list[str]], list[str]]], sentences: Sequence[str]) -> bool:
    """Draw tables and sentences on the console of Rich, which draws Lightning's progress bar.

    Args:
        tables: each its rows, and the columns' names.
        sentences: what stands below them; empty ones are left out.

    Returns:
        False if that console is no terminal, or cannot do it; then nothing was drawn.
    """
    try:
        from rich import get_console
        from rich.table import Table
        from rich.text import Text

        console = get_console()
        if not console.is_terminal:
            return False
        drawn = []
        for rows, headers in tables:
            one = Table(header_style="bold magenta")
            for header in headers:
                is_word = header in {headers[0], *WORDS}
                one.add_column(Text(header), justify="left" if is_word else "right", overflow="fold")
            for row in rows:
                one.add_row(*map(Text, row))
            drawn.append(one)
        for part in [*drawn, *(Text(sentence) for sentence in sentences if sentence)]:
            console.print(part)
    except Exception:  # noqa: BLE001 - the table can be printed without it
        return False
    return True


def ratio(joules: float, by: float) -> str:
    """Joules by seconds, batches or samples; a dash if there are none."""
    return digits(joules / by) if by else "-"


def meter_html(devices: Sequence[tuple[str, float, float, str, str]], seconds: float, note: str) -> str:
    """A meter for a notebook.

    Args:
        devices: label, joules, relative error of scale, source and name of each.
        seconds: how long it measured.
        note: what else is to be known.
    """
    rows = [
        [label, digits(joules), digits(joules * gain, 2), ratio(joules, seconds), source, name]
        for label, joules, gain, source, name in devices
    ]
    drawn = table(rows, ["device", "J", "± J", "mean W", "source", "name"], "html") if rows else ""
    return f"{drawn}<p>{escape(note)}</p>"
