"""Builds the report: comparisons in, tables, figures and the page out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from experiments.projection.advice import advice
from experiments.projection.tables import held_against, projected
from experiments.report import tables
from experiments.report.cells import Table
from experiments.report.comparison import Comparison, compare
from experiments.report.devices.tables import by_device, orders
from experiments.report.figures import (
    boards,
    breakeven,
    household,
    learning,
    phases,
    pretraining,
    sensitivity,
    stages,
    style,
    tradeoff,
    years,
)
from experiments.report.figures import projected as projections
from experiments.report.html import DrawnFigure, Section, page
from experiments.report.inputs import clean
from experiments.report.inputs.frames import runs_frame, stages_frame
from experiments.report.inputs.lineage import lineages
from experiments.report.inputs.records import Broken, Found
from experiments.report.inputs.reference import Training
from experiments.report.metrics import SamSettings
from experiments.report.output import Output, escaped, to_csv, to_markdown

MOST_DRAWN: Final = 6
"""The number of comparisons that get figures; the others get tables only."""
HEADING: Final = "What training costs: accuracy and energy"
Draw = Callable[[Comparison], style.Picture]
FIGURES: Final[tuple[Draw, ...]] = (
    household.draw,
    years.draw,
    tradeoff.draw,
    phases.draw,
    pretraining.draw,
    stages.draw,
    learning.draw,
    sensitivity.draw,
    breakeven.draw,
    boards.draw,
    years.draw_inference,
)


@dataclass(frozen=True)
class Built:
    """What was written.

    Attributes:
        page: the page.
        figures: how many were drawn.
        without: titles and reasons of those that were not.
    """

    page: Path
    figures: int
    without: Sequence[str]


def write_report(
    found: Found,
    trainings: Sequence[Training],
    unread: Sequence[Broken],
    output: Output,
    settings: SamSettings | None = None,
) -> Built:
    """Write the whole report.

    Args:
        found: the records.
        trainings: trainings that others measured.
        unread: rows of the reference that could not be used.
        output: the directory to write to.
        settings: SAM's parameters; None: as the records say.
    """
    comparisons = compare(lineages([run for run in found.runs if not run.is_part]), trainings, settings)
    drawn = {id(comparison) for comparison in _to_draw(comparisons)}
    sections = [
        _section(comparison, name, output, drawn=id(comparison) in drawn)
        for comparison, name in zip(comparisons, _file_names(comparisons), strict=True)
    ]
    if any(run.projection for run in found.runs):
        sections.append(_projections(found, output))
    closing = [tables.runs(found.runs), tables.household_uses()]
    if found.failed:
        closing.insert(0, tables.failed(found.failed))
    broken = [*found.broken, *unread]
    if broken:
        closing.append(tables.unread(broken))
    _write_tables(sections, closing, output)
    facts = _facts(found, trainings, broken)
    output.write("report.md", _markdown(facts, sections, closing).encode())
    target = output.write("report.html", page(HEADING, facts, sections, closing).encode())
    figures = [figure for section in sections for figure in section.figures]
    without = [
        f"{section.title}: {figure.title}: {figure.why}" for section in sections for figure in section.figures if figure.why
    ]
    return Built(target, sum(bool(figure.svg) for figure in figures), without)


def _to_draw(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The reference, and the comparisons with most results."""
    own = [comparison for comparison in comparisons if not comparison.reference]
    return own[:MOST_DRAWN] + [comparison for comparison in comparisons if comparison.reference]


def _file_names(comparisons: Sequence[Comparison]) -> list[str]:
    """A part of a file name for each comparison, no two alike."""
    seen: Counter[str] = Counter()
    names = []
    for comparison in comparisons:
        name = "reference" if comparison.reference else clean.slug(comparison.title)
        seen[name] += 1
        # Two dashes, which no slug has.
        names.append(name if seen[name] == 1 else f"{name}--{seen[name]}")
    return names


def _section(comparison: Comparison, name: str, output: Output, *, drawn: bool) -> Section:
    figures = _figures(comparison, name, output) if drawn else []
    return Section(
        title=comparison.title,
        summary=tables.summary(comparison),
        tables=[tables.models(comparison), tables.model_ranks(comparison), by_device(comparison), orders(comparison)],
        figures=figures,
        more=[tables.sensitivities(comparison), tables.break_evens(comparison)],
        note="" if drawn else f"Figures are drawn only for the {MOST_DRAWN} data sets with the most models.",
    )


def _projections(found: Found, output: Output) -> Section:
    """What was projected, apart from all that was measured."""
    runs, stages = runs_frame(found.runs), stages_frame(found.runs)
    with style.settings():
        pictures = [draw(held_against(runs, stages)) for draw in (projections.draw, projections.draw_years)]
        drawn = [_drawn(picture, len(FIGURES) + n, "all", output) for n, picture in enumerate(pictures, start=1)]
    table = projected(runs, stages)
    return Section(table.title, "No number of this section was measured.", [table, *advice(runs)], drawn, [])


def _figures(comparison: Comparison, name: str, output: Output) -> list[DrawnFigure]:
    with style.settings():
        return [_drawn(draw(comparison), number, name, output) for number, draw in enumerate(FIGURES, start=1)]


def _drawn(picture: style.Picture, number: int, name: str, output: Output) -> DrawnFigure:
    file_name = f"figure{number}_{picture.key}_{name}"
    svg = b""
    if picture.figure is not None:
        svg = style.saved(picture.figure, "svg")
        output.write(f"figures/{file_name}.svg", svg)
        output.write(f"figures/{file_name}.png", style.saved(picture.figure, "png"))
    return DrawnFigure(f"Figure {number}: {picture.title}", picture.caption, picture.why, svg, file_name)


def _write_tables(sections: Sequence[Section], closing: Sequence[Table], output: Output) -> None:
    by_key: dict[str, list[tuple[str, Table]]] = {}
    for section in sections:
        for table in (*section.tables, *section.more):
            by_key.setdefault(table.key, []).append((section.title, table))
    for table in closing:
        by_key.setdefault(table.key, []).append(("", table))
    for key, members in by_key.items():
        output.write(f"tables/{key}.csv", to_csv(members))


def _facts(found: Found, trainings: Sequence[Training], broken: Sequence[Broken]) -> list[str]:
    states = Counter(run.status for run in found.runs)
    kinds = Counter(run.provenance or "without energy" for run in found.runs)
    facts = []
    if found.runs:
        facts.append(
            f"{len(found.runs)} run records: {_counted(states)}. Their energy is {_counted(kinds)}."
            if len(found.runs) > 1
            else f"One run record, {next(iter(states))}; its energy: {next(iter(kinds))}."
        )
    if kinds["estimated"] or kinds["mixed"]:
        facts.append(
            "Estimated energies are not measured. They are computed from busy time and a table value, and may be wrong by "
            "tens of percent. They are drawn hollow or dashed, and ranked apart from measured energies."
        )
    parts = [run for run in found.runs if run.is_part]
    if parts:
        facts.append(
            f"{len(parts)} of the records are of parts of trainings, from which the whole was projected. They are in no "
            "comparison; what was projected stands apart, and is not measured."
        )
    if found.failed:
        facts.append(
            f"{len(found.failed)} job{'s' if len(found.failed) > 1 else ''} of the study did not complete; "
            "the reasons are below."
        )
    if trainings:
        facts.append(f"{len(trainings)} trainings were measured by others. They are shown apart, as the reference.")
    if broken:
        facts.append(f"{len(broken)} files or rows could not be read; they are listed at the end.")
    return facts


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def _markdown(facts: Sequence[str], sections: Sequence[Section], closing: Sequence[Table]) -> str:
    parts = [f"# {HEADING}", "", *(f"{escaped(fact)}\n" for fact in facts)]
    for section in sections:
        parts += [f"## {escaped(section.title)}", "", escaped(section.summary), ""]
        parts += [to_markdown(table) for table in section.tables]
        for figure in section.figures:
            parts += [f"### {escaped(figure.title)}", ""]
            if figure.svg:
                image = f"![{escaped(figure.title)}](figures/{figure.name}.png)"
                parts += [image, "", escaped(figure.caption), ""]
            else:
                parts += [f"No figure: {escaped(figure.why)}", ""]
        if section.note:
            parts += [escaped(section.note), ""]
        parts += [to_markdown(table) for table in section.more]
    parts += ["## All runs", "", *(to_markdown(table) for table in closing)]
    return "\n".join(parts)
