"""How tables and sentences are drawn: at a terminal's width, on Rich's console, in a notebook."""

from __future__ import annotations

import io

import pytest

from lightning_watt.record.text.drawn import Drawing, width_of

ROWS = [["train", "1.5"], ["a stage with a long name of many words that goes on", "12.25"]]
SENTENCE = "The numbers above contain it, as all that devices draw: it is not taken off, and so on to the end of the line."
DRAWING = Drawing(
    [(ROWS, ["stage", "J"])], [SENTENCE], "Record: /a/long/way/to a directory/with a name of its own/watt.json"
)


def test_sentences_wrap_at_the_terminals_width_and_tables_and_paths_do_not(terminal):
    stream, shown = terminal
    DRAWING.say(stream)
    lines = shown().splitlines()
    assert "a stage with a long name of many words that goes on  12.25" in lines
    assert lines[-1] == DRAWING.where
    sentence = lines[lines.index("", 1) + 1 : -1]
    assert len(sentence) > 2
    assert max(map(len, sentence)) <= 40
    assert " ".join(" ".join(sentence).split()) == SENTENCE


def test_in_a_file_a_sentence_is_one_line(capsys):
    assert width_of() is None
    assert width_of(io.StringIO()) is None
    DRAWING.say()
    assert SENTENCE in capsys.readouterr().out.splitlines()


def test_a_word_longer_than_the_width_stays_whole():
    path = "/a/path/" + "x" * 60
    assert path in Drawing((), [f"Wasted in {path} by it"]).text(30).split()


def test_rich_draws_it_where_rich_draws_the_bar(terminal):
    rich = pytest.importorskip("rich", reason="needs rich: pip install rich")
    stream, shown = terminal
    rich.reconfigure(file=stream, force_terminal=True, width=70, no_color=False, color_system="standard")
    try:
        Drawing([(ROWS, ["stage", "J"])], ["[red]Energy"]).say(with_rich=True)
        said = shown()
    finally:
        rich.reconfigure()
    assert "\x1b[1;35m" in said  # heads in the colour of Lightning's own tables
    assert "┃" in said
    assert "train" in said
    assert "[red]Energy" in said  # what stands in a record is no markup


def test_rich_on_no_terminal_leaves_the_plain_text(capsys):
    pytest.importorskip("rich", reason="needs rich: pip install rich")
    DRAWING.say(with_rich=True)
    assert capsys.readouterr().out == DRAWING.text() + "\n"


def test_a_notebook_has_a_button_only_where_there_is_a_table():
    assert "<button" in DRAWING.html()
    assert Drawing((), ["Nothing."]).html() == "<p>Nothing.</p>"
