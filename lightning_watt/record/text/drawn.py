"""Tables and the sentences below them, drawn for a terminal, for Rich's console, or for a notebook."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TextIO

from lightning_watt.tables import draw_with_rich, table

log = logging.getLogger(__name__)

COPY = """const text = this.nextElementSibling.textContent;
if (navigator.clipboard) navigator.clipboard.writeText(text);
else {
  const area = document.body.appendChild(document.createElement('textarea'));
  area.value = text; area.select(); document.execCommand('copy'); area.remove();
}
this.textContent = 'Copied';"""
"""What the notebook's button does. A page that comes unencrypted from elsewhere has no clipboard: it goes the other way."""


@dataclass(frozen=True)
class Drawing:
    """What is shown of a run.

    Attributes:
        tables: each its rows, and the columns' names.
        sentences: what stands below them, one each.
        where: a last line, which is not wrapped, because it names a file.
    """

    tables: Sequence[tuple[list[list[str]], list[str]]]
    sentences: Sequence[str]
    where: str = ""

    def text(self, width: int | None = None) -> str:
        """As text.

        Args:
            width: sentences and cells are wrapped at so many characters; None for no wrapping.
        """
        tables = [part for rows, headers in self.tables for part in (table(rows, headers, "simple", width), "")]
        sentences = [wrapped(sentence, width) for sentence in self.sentences]
        return "\n".join([*([""] if tables else []), *tables, *sentences, *([self.where] if self.where else [])])

    def html(self) -> str:
        """For a notebook, with a button that copies the text. All text is escaped, so that nothing of a record runs."""
        tables = [table(rows, headers, "html") for rows, headers in self.tables]
        sentences = "<br>".join(escape(sentence) for sentence in self.sentences)
        button = (
            f'<button type="button" onclick="{escape(COPY)}">Copy</button><pre hidden>{escape(self.text().strip())}</pre>'
        )
        return "".join([*tables, f"<p>{sentences}</p>", button if tables else ""])

    def say(self, stream: TextIO | None = None, *, with_rich: bool = False) -> None:
        """Print it, wrapped at the terminal's width; never raises.

        Args:
            stream: where to; standard output by default.
            with_rich: on Rich's console, if that is a terminal.
        """
        if not (with_rich and self.tables and draw_with_rich(self.tables, [*self.sentences, self.where])):
            say(self.text(width_of(stream)), stream)


def width_of(stream: TextIO | None = None) -> int | None:
    """The characters in a line of the terminal that a stream goes to; None if it goes to a file or another program."""
    stream = stream or sys.stdout
    try:
        if not stream.isatty():
            return None
        return (
            shutil.get_terminal_size().columns
            if os.environ.get("COLUMNS")
            else os.get_terminal_size(stream.fileno()).columns
        )
    except (AttributeError, OSError, ValueError):
        return None


def wrapped(sentence: str, width: int | None, indent: int = 2) -> str:
    """A sentence in lines of at most so many characters, as far as its words let it; later lines are indented.

    Args:
        sentence: one that may be indented itself.
        width: the characters; None for one line.
        indent: by how much later lines are indented more than the first.

    Example:
        >>> print(wrapped("The numbers above contain it.", 16))
        The numbers
          above contain
          it.
    """
    if not width or len(sentence) <= width:
        return sentence
    later = " " * (len(sentence) - len(sentence.lstrip()) + indent)
    return textwrap.fill(sentence, max(width, 20), subsequent_indent=later, break_long_words=False, break_on_hyphens=False)


def say_wrapped(*sentences: str, stream: TextIO | None = None) -> None:
    """Print sentences, each wrapped at the terminal's width; never raises."""
    width = width_of(stream)
    say("\n".join(wrapped(sentence, width) for sentence in sentences), stream)


def complain(sentence: str) -> None:
    """Print to standard error, in the command's name, what could not be done; never raises."""
    say_wrapped(f"lightning-watt: {sentence}", stream=sys.stderr)


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a text, to standard output if no stream is given.

    On a terminal that has only ASCII it prints ASCII. If the output is closed, it prints nothing, and raises nothing.
    """
    try:
        try:
            _print(text, stream)
        except UnicodeEncodeError:
            _print(text.replace("±", "+-").encode("ascii", "replace").decode("ascii"), stream)
    except (OSError, ValueError) as error:  # a pipe without a reader; a stream that the script has closed
        log.debug("the table was not printed", exc_info=error)


def _print(text: str, stream: TextIO | None) -> None:
    if getattr(stream or sys.stdout, "encoding", None) in ("ascii", "ANSI_X3.4-1968"):
        text.encode("ascii")  # raises, where standard error would print escapes
    print(text, file=stream, flush=True)
