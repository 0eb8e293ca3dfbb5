"""Text and numbers from a record, a file name or a CSV, made harmless: their authors are not trusted.

Escaping for HTML, Markdown and CSV is done where these are written; here control characters, overlong texts and numbers
that no run can have are taken out, once, at the door.
"""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Final

MOST_CHARACTERS: Final = 80
MOST_JOULES: Final = 1e18
"""More than a year's electricity of any country's training runs (0.28 TWh): a larger reading is a broken one."""
MOST_COUNT: Final = 1e18


def text(value: object, most: int = MOST_CHARACTERS) -> str:
    r"""A short printable line; empty if the value is no text and no number.

    Control characters, line breaks, text-direction marks and lone surrogates are replaced.

    Args:
        value: anything that JSON can hold.
        most: the most characters that are kept.

    Example:
        >>> text("a\nb"), text(["not", "text"]), text("long " * 100, most=9)
        ('a b', '', 'long lon…')
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return ""
    raw = str(value)[: 4 * most]
    shown = "".join(" " if char.isspace() else char if _is_shown(char) else "\N{REPLACEMENT CHARACTER}" for char in raw)
    line = re.sub(" +", " ", shown).strip()
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def _is_shown(char: str) -> bool:
    # Stacked marks can cover the lines above and below.
    return char.isprintable() and not unicodedata.combining(char)


def number(value: object, least: float, most: float) -> float | None:
    """The value as a float if it is a finite number within the limits, else None.

    Example:
        >>> number(3, 0, 10), number(10**400, 0, 10), number(float("nan"), 0, 10), number("3", 0, 10)
        (3.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    # Compared before it is converted: an int may be too large for a float.
    return float(value) if least <= value <= most and math.isfinite(value) else None


def energy(value: object) -> float | None:
    """Joules that a run can have used, else None."""
    return number(value, 0.0, MOST_JOULES)


def slug(value: str, most: int = 32) -> str:
    """A text as part of a file name: lower-case letters, digits and dashes only.

    Example:
        >>> slug("../../etc/<Passwd>"), slug("数据")
        ('etc-passwd', 'x')
    """
    return re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-")[:most].strip("-") or "x"
