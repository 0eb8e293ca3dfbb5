"""The page: one HTML file that needs nothing else, neither network nor scripts."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from experiments.report.cells import Table, filled, in_units
from experiments.report.output import MOST_ROWS_SHOWN, shown

TEMPLATE: Final = "page.html.jinja"


@dataclass(frozen=True)
class DrawnFigure:
    """A figure as the page has it.

    Attributes:
        title: its heading, with its number.
        caption: what it shows; also its text alternative.
        why: why there is none; empty if there is one.
        svg: its content; empty if there is none.
        name: its files' name, without an ending.
    """

    title: str
    caption: str
    why: str
    svg: bytes
    name: str

    @property
    def source(self) -> str:
        """The image as a data address. As an image, an SVG cannot run scripts or load anything."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode()


@dataclass(frozen=True)
class Section:
    """One comparison: its tables and figures.

    Attributes:
        title: what is compared.
        summary: a sentence on it.
        tables: before the figures.
        figures: in order.
        more: tables after the figures.
        note: what was left out.
    """

    title: str
    summary: str
    tables: Sequence[Table]
    figures: Sequence[DrawnFigure]
    more: Sequence[Table]
    note: str = ""


def page(heading: str, facts: Sequence[str], sections: Sequence[Section], closing: Sequence[Table]) -> str:
    """Write the page.

    Args:
        heading: its title.
        facts: sentences at the top.
        sections: one for each comparison.
        closing: tables over all runs.

    Returns:
        HTML; every text in it is escaped, and its policy forbids scripts and any request.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["shown"] = shown
    environment.filters["in_units"] = lambda table: filled(in_units(table))
    template = environment.get_template(TEMPLATE)
    return template.render(heading=heading, facts=facts, sections=sections, closing=closing, most=MOST_ROWS_SHOWN)
