"""Tables for terminals and notebooks."""

from __future__ import annotations

from lightning_watt.tables import meter_html, ratio, table


def test_words_stand_on_the_left_and_numbers_as_they_were_formatted_on_the_right():
    rows = [["train", "1.50", "a board"], ["validate", "12.250", "b"]]
    lines = table(rows, ["stage", "J", "name"], "simple").splitlines()
    assert lines[2] == "train       1.50  a board"
    assert lines[3] == "validate  12.250  b"


def test_the_first_column_is_on_the_left_whatever_its_name():
    lines = table([["7", "7"], ["1000", "1000"]], ["epoch", "batches"], "simple").splitlines()
    assert lines[2].split() == ["7", "7"]
    assert lines[2].startswith("7")
    assert lines[2].endswith(" 7")


def test_cells_of_words_are_broken_where_the_table_is_broader_than_the_terminal():
    rows = [
        ["gpu0", "12.5", "nvml-counter", "NVIDIA RTX 6000 Ada Generation", "GPU-0123"],
        ["gpu1", "1", "x", "y", "GPU-4567"],
    ]
    headers = ["device", "J", "source", "name", "identity"]
    assert table(rows, headers, "simple", 80) == table(rows, headers, "simple")
    lines = table(rows, headers, "simple", 60).splitlines()
    assert max(map(len, lines)) <= 60
    assert " ".join(line[30:47].strip() for line in lines[2:-1]) == "NVIDIA RTX 6000 Ada Generation"
    assert all(word in "\n".join(lines) for word in ("12.5", "nvml-counter", "GPU-0123"))
    narrow = table(rows, headers, "simple", 20)  # numbers stay whole whatever the width
    assert "12.5" in narrow


def test_a_ratio_has_four_digits_and_a_dash_where_there_is_nothing_to_divide_by():
    assert [ratio(10.0, 3), ratio(10.0, 0), ratio(0.0, 2.0)] == ["3.333", "-", "0"]


def test_a_meter_in_a_notebook_shows_joules_their_error_and_the_mean_power():
    html = meter_html([("gpu0", 1234.5678, 0.05, "nvml", "a board")], 10.0, "")
    assert [cell in html for cell in (">gpu0 ", "1235", "62", "123.5", "a board")] == [True] * 5
    assert html.count("<tr>") == 2


def test_what_stands_in_a_notebook_is_escaped():
    html = meter_html([("gpu0", 1.0, 0.05, "nvml", "<script>")], 0.0, "a < b & c")
    assert "<script>" not in html
    assert html.endswith("<p>a &lt; b &amp; c</p>")
    assert ">-<" in html.replace(" ", "")


def test_a_meter_without_devices_is_its_note():
    assert meter_html([], 1.0, "nothing yet") == "<p>nothing yet</p>"
