"""What the figures share: colours and shapes that differ in grey too, log axes, labels that don't overlap."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final, Literal

import matplotlib as mpl
import numpy as np
import textalloc
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from experiments.report.results import ModelResult

FONT: Final = "DejaVu Sans"  # comes with matplotlib, so a figure looks the same everywhere
# Okabe and Ito's colours, which colour-blind readers can distinguish (jfly.uni-koeln.de/color), without the pale yellow.
COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "h", "<", "p", ">", "*")
# Two hatches differ in grey where two colours would not.
HATCHES: Final = ("", "//", "..", "\\\\", "xx", "--", "++", "oo")
DASHES: Final = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)), (0, (8, 2, 1, 2, 1, 2)))
GREY: Final = "#666666"
MOST_ROWS: Final = 60
MOST_CURVES: Final = 10
MOST_NAMED: Final = 12

_SETTINGS: Final[dict[str, Any]] = {
    "font.family": FONT,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "hatch.linewidth": 0.6,
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "lightning_watt",
    # Labels come from record files, where a "$" is a dollar and no formula.
    "text.parse_math": False,
    "text.usetex": False,
}


@dataclass(frozen=True)
class Picture:
    """A figure of the report, or why there is none.

    Attributes:
        key: its file's name, without an ending.
        title: its heading.
        caption: what is drawn and how to read it; also its text alternative.
        figure: None if there is nothing to draw.
        why: the reason for that.
    """

    key: str
    title: str
    caption: str
    figure: Figure | None = None
    why: str = ""


@contextmanager
def settings() -> Iterator[None]:
    """Draw and save with the report's settings, not with the user's."""
    with mpl.rc_context():
        mpl.rcdefaults()
        for name, value in _SETTINGS.items():
            mpl.rcParams[name] = value  # type: ignore[index,unused-ignore]  # newer stubs list every name
        yield


def saved(figure: Figure, kind: Literal["png", "svg"]) -> bytes:
    """A figure as a file's content; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    metadata: dict[str, Any] = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    return buffer.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, whose parts make room for each other."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)  # which can measure texts
    return figure


@cache
def _known_characters() -> frozenset[int]:
    return frozenset(get_font(findfont(FONT)).get_charmap())


def safe(label: str, most: int = 36) -> str:
    """A label that can be drawn: characters that the font lacks become question marks, long ones are cut."""
    shown = "".join(char if ord(char) in _known_characters() else "?" for char in label)
    shown = shown if len(shown) <= most else shown[: most - 1].rstrip() + "…"
    # matplotlib hides legend texts that begin so.
    return f" {shown}" if shown.startswith("_") else shown


def plain_power(value: float, _: object = None) -> str:
    """A tick's label without formula text: 1000 as `1,000`, 1e-6 as `10⁻⁶`.

    Example:
        >>> plain_power(0.01), plain_power(1e-6), plain_power(2e7)
        ('0.01', '10⁻⁶', '2·10⁷')
    """
    if value == 0 or not math.isfinite(value):
        return "0"
    exponent = math.floor(math.log10(abs(value)) + 1e-9)
    if -3 < exponent < 5:
        return f"{value:,.10g}"
    mantissa = value / 10**exponent
    power = "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return power if math.isclose(mantissa, 1) else f"{mantissa:.3g}·{power}"


def log_axis(axes: Axes, which: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, with ticks at powers of ten; at 2 and 5 too if it spans less than two decades."""
    if which == "x":
        axes.set_xscale("log")
    else:
        axes.set_yscale("log")
    axis: Axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 100 else (1,), numticks=12))
    axis.set_major_formatter(FuncFormatter(plain_power))
    axis.set_minor_formatter(NullFormatter())


def percent_axis(axes: Axes, which: Literal["x", "y"]) -> None:
    """Label an accuracy axis in percent."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.10g}"))


@dataclass(frozen=True)
class Look:
    """A family's colour and marker, and a line's dashes."""

    colour: str
    marker: str
    dash: Any = "-"


def looks(families: Sequence[str]) -> dict[str, Look]:
    """A colour and a marker for each family; both change from one to the next.

    Args:
        families: all of the report (`Comparison.families`), so that a family looks the same in every figure. Names that
            differ in upper and lower case only are one family.
    """
    order = {name: n for n, name in enumerate(dict.fromkeys(name.lower() for name in families))}
    return {
        name: Look(COLOURS[order[name.lower()] % len(COLOURS)], MARKERS[order[name.lower()] % len(MARKERS)])
        for name in families
    }


def line_looks(families: Sequence[str], of_lines: Sequence[str]) -> list[Look]:
    """How each line is drawn: in its family's colour and marker; the lines of one family differ in their dashes.

    Args:
        families: all of the report.
        of_lines: each line's family.
    """
    by_family = looks(families)
    seen: Counter[str] = Counter()
    found = []
    for family in of_lines:
        found.append(replace(by_family[family], dash=DASHES[seen[family.lower()] % len(DASHES)]))
        seen[family.lower()] += 1
    return found


@dataclass(frozen=True)
class Dot:
    """A result's place in a figure, the plus or minus of both, and its marker's area in square points."""

    x: float
    y: float
    result: ModelResult
    area: float = 45.0
    x_off: float = 0.0
    y_off: float = 0.0


SHORTEST = 0.1
"""Where a whisker would reach zero or below, which a log axis does not have, it ends at this share of the value."""


def whisker(value: float, off: float, most: float = math.inf) -> NDArray[np.float64]:
    """A point's whisker on a log axis, as matplotlib's `errorbar` takes it: how far down and how far up, to `most`."""
    return np.array([[min(off, (1 - SHORTEST) * value)], [min(off, max(0.0, most - value))]])


def draw_dots(axes: Axes, dots: Sequence[Dot], families: dict[str, Look], shares: str = "") -> None:
    """Draw results: filled if their energy was measured, hollow if not; a grey cross for what isn't ranked.

    `shares` is the axis, "x" or "y", of what cannot be more than one.
    """
    for dot in dots:
        colour = families[dot.result.family].colour if dot.result.ranked else GREY
        x = whisker(dot.x, dot.x_off, 1.0 if shares == "x" else math.inf) if dot.x_off else None
        y = whisker(dot.y, dot.y_off, 1.0 if shares == "y" else math.inf) if dot.y_off else None
        if dot.x_off or dot.y_off:
            axes.errorbar(dot.x, dot.y, y, x, fmt="none", ecolor=colour, elinewidth=0.9, capsize=2, alpha=0.7, zorder=3)
    groups: dict[tuple[str, bool], list[Dot]] = {}
    for dot in dots:
        filled = dot.result.provenance == "measured"
        groups.setdefault((dot.result.family, filled) if dot.result.ranked else ("", filled), []).append(dot)
    for (_, filled), group in groups.items():
        x, y = [dot.x for dot in group], [dot.y for dot in group]
        if not group[0].result.ranked:
            axes.scatter(x, y, s=40, c=GREY, marker="x", linewidths=1.4, zorder=3)
            continue
        look = families[group[0].result.family]
        axes.scatter(
            x,
            y,
            s=[dot.area for dot in group],
            facecolors=look.colour if filled else "white",
            edgecolors=look.colour,
            marker=look.marker,
            linewidths=0.8 if filled else 1.6,
            alpha=0.85,
            zorder=4,
        )


def edge(provenance: str) -> dict[str, Any]:
    """How a bar is outlined: dashed if its energy is estimated or mixed."""
    return {"ec": "black", "lw": 0.6} if provenance == "measured" else {"ec": "black", "lw": 0.9, "ls": (0, (3, 2))}


def result_legend(results: Sequence[ModelResult], families: dict[str, Look]) -> list[Line2D]:
    """The legend's lines: families, then what hollow markers and crosses mean, as far as they occur."""
    filled = any(result.provenance == "measured" for result in results)
    handles = [
        Line2D([], [], ls="", marker=look.marker, mec=look.colour, mfc=look.colour if filled else "white", label=safe(name))
        for name, look in families.items()
        if any(result.family == name and result.ranked for result in results)
    ]
    if any(result.ranked and result.provenance != "measured" for result in results):
        handles.append(Line2D([], [], ls="", marker="o", mec=GREY, mfc="white", mew=1.6, label="hollow: energy estimated"))
    if any(not result.ranked for result in results):
        handles.append(Line2D([], [], ls="", marker="x", mec=GREY, mew=1.4, label="not ranked: did not learn or finish"))
    return handles


@dataclass(frozen=True)
class Spot:
    """A point of a figure: x, y, its name, and its radius in points; without a name it is only to be kept visible."""

    x: float
    y: float
    name: str = ""
    radius: float = 4.0


def name_spots(axes: Axes, spots: Sequence[Spot]) -> None:
    """Write names next to points, where they cover neither each other nor a point, and no line if there is room.

    A name without room is left out. Call it last: the axes' limits and the figure's layout must be final.

    Args:
        axes: where.
        spots: the most important first; the first names get the best places.
    """
    named = [spot for spot in spots if spot.name][:MOST_NAMED]
    if not named:
        return
    axes.figure.canvas.draw()
    ordered = [*named, *(spot for spot in spots if spot not in named)]
    lines = _lines(axes)
    for tries, along in enumerate(({**lines, **APART}, lines, {}), 1):  # rather across a line than not at all
        texts, pointers = _allocate(axes, named, ordered, along)
        if None not in texts or tries == 3:
            break
        for drawn in (*texts, *pointers):
            if drawn is not None:
                drawn.remove()
    for text in texts:
        if text is not None:
            text.set_in_layout(False)  # the layout is final
            text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])  # readable over a line


APART: Final = {"avoid_label_lines_overlap": True, "avoid_crossing_label_lines": True}  # of names and points
INSET: Final = 4.0  # points that names keep away from the frame


def _allocate(
    axes: Axes, named: Sequence[Spot], ordered: Sequence[Spot], along: Mapping[str, Any]
) -> tuple[list[Text | None], list[Line2D | None]]:
    """Write the names clear of all points and of `along`; returns each name's text and the line from it to its point."""
    frame = axes.get_window_extent().padded(-INSET * axes.figure.dpi / 72)
    (left, bottom), (right, top) = axes.transData.inverted().transform(frame.get_points())
    with redirect_stdout(None):  # it prints if a name has no room
        _, _, texts, pointers = textalloc.allocate(
            axes,
            [spot.x for spot in named],
            [spot.y for spot in named],
            [safe(spot.name) for spot in named],
            x_scatter=[spot.x for spot in ordered],
            y_scatter=[spot.y for spot in ordered],
            scatter_sizes=[spot.radius * axes.figure.dpi / 72 for spot in ordered],  # radii in pixels
            textsize=7,
            linecolor=GREY,
            linewidth=0.6,
            max_distance=0.25,
            draw_all=False,
            xlims=(left, right),
            ylims=(bottom, top),
            zorder=6,
            **along,
        )
    return texts, pointers


def _lines(axes: Axes) -> dict[str, list[NDArray[np.float64]]]:
    """The corners of what is drawn as lines in the axes' own coordinates: fronts, curves and whiskers."""
    drawn = [line for line in axes.get_lines() if line.get_transform() == axes.transData and line.get_linestyle() != "None"]
    whiskers = [one for one in axes.collections if isinstance(one, LineCollection)]
    found = [line.get_xydata() for line in drawn] + [segment for one in whiskers for segment in one.get_segments()]
    lines = [corners for one in found if len(corners := np.asarray(one, float)) > 1 and np.isfinite(corners).all()]
    return {"x_lines": [line[:, 0] for line in lines], "y_lines": [line[:, 1] for line in lines]} if lines else {}
