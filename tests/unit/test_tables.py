"""Tables for terminals and notebooks."""

from __future__ import annotations

import re

from lightning_watt.tables import meter_html, ratio, table


def test_words_are_on_the_left_and_numbers_on_the_right_as_they_were_formatted():
    lines = table(
        [["train", "1.50", "nvml"], ["validate", "20", "rapl-long"]], ["stage", "J", "source"], "simple"
    ).splitlines()
    assert lines[2:] == ["train     1.50  nvml", "validate    20  rapl-long"]


def test_a_ratio_without_a_divisor_is_a_dash():
    assert (ratio(10.0, 4.0), ratio(10.0, 0)) == ("2.5", "-")


def test_a_meter_in_a_notebook_escapes_what_others_named():
    html = meter_html([("gpu0", 200.0, 0.05, "nvml", "<b>board</b>")], 2.0, "a < b")
    assert "<b>" not in html
    assert "&lt;b&gt;board" in html
    assert "a &lt; b" in html
    cells = [cell.strip() for cell in re.findall("<td[^>]*>(.*?)</td>", html)]
    assert cells[1:4] == ["200", "10", "100"]  # joules, plus or minus, mean watts


def test_a_meter_without_devices_shows_only_its_note():
    assert meter_html([], 0.0, "nothing") == "<p>nothing</p>"
