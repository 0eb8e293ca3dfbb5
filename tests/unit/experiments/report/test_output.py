"""Writing: nothing leaves its directory, and nothing that is written does anything where it is opened."""

from __future__ import annotations

import csv
import io

import pytest

from experiments.report.cells import Energy, Table
from experiments.report.metrics import Amount
from experiments.report.output import Output, escaped, number, shown, to_csv, to_markdown

EVIL = "<script>alert(1)</script>|`x`[a](javascript:b)![c](http://evil)"


def table(*rows, columns=("name", "energy")):
    return Table("key", "Title", columns, rows)


@pytest.mark.parametrize("name", ["../a.csv", "/etc/a", "a/b/c.csv", "A.csv", "a/../b", ".hidden", "a\0.csv", "", "a//b"])
def test_no_name_leads_out_of_the_directory(tmp_path, name):
    with pytest.raises(ValueError, match="no name"):
        Output(tmp_path / "out").write(name, b"x")


def test_links_that_wait_are_replaced_or_refused_and_never_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    output = Output(tmp_path / "out")
    (tmp_path / "out/report.html").symlink_to(victim)
    output.write("report.html", b"page")
    assert victim.read_text() == "mine"
    assert (tmp_path / "out/report.html").read_bytes() == b"page"
    (tmp_path / "out/tables").symlink_to(tmp_path)
    with pytest.raises(OSError, match="is a link"):
        output.write("tables/victim", b"x")
    with pytest.raises(OSError, match="is a link"):
        Output(tmp_path / "out/tables")


def test_a_spreadsheet_takes_texts_for_texts_and_numbers_for_numbers():
    rows = list(csv.reader(io.StringIO(to_csv([("", table(("=1+1", -2.5), ("@x", None), ("-", 1)))]).decode())))
    assert rows == [["name", "energy"], ["'=1+1", "-2.5"], ["'@x", ""], ["'-", "1"]]


def test_a_plus_or_minus_is_a_column_of_its_own():
    rows = list(csv.reader(io.StringIO(to_csv([("digits", table(("a", Amount(1.5, 0.25)), ("b", None)))]).decode())))
    assert rows == [
        ["data", "name", "energy", "energy: plus or minus"],
        ["digits", "a", "1.5", "0.25"],
        ["digits", "b", "", ""],
    ]


def test_tables_with_other_columns_share_a_csv():
    both = [("a", table((1, 2), columns=("x", "y"))), ("b", table((3, 4), columns=("x", "z")))]
    rows = list(csv.reader(io.StringIO(to_csv(both).decode())))
    assert rows == [["data", "x", "y", "z"], ["a", "1", "2", ""], ["b", "3", "", "4"]]


def test_markdown_takes_a_hostile_text_literally():
    text = to_markdown(table((EVIL, 1.0)))
    assert "<script" not in text
    assert "http://" not in text
    (row,) = [line for line in text.splitlines() if "alert" in line]
    assert row.replace("\\|", "").count("|") == 3
    assert "](" not in row.replace("\\]\\(", "")


def test_a_long_table_is_cut_and_says_so():
    assert "100 more rows" in to_markdown(table(*[("a", 1)] * 300))
    assert to_csv([("", table(*[("a", 1)] * 300))]).count(b"\n") == 301


def test_numbers_as_people_write_them():
    assert [number(value) for value in (0, 3, 2021.0, 12345.6, 0.25, 1.5e-7, 2.5e12, -3.25)] == [
        "0",
        "3",
        "2,021",
        "12,346",
        "0.25",
        "1.5e-7",
        "2,500,000,000,000",
        "-3.25",
    ]
    assert number(float("nan")) == number(float("inf")) == ""
    assert shown(2021, "year") == "2021"
    assert shown(Amount(1.23456, 0.0456)) == "1.235 ± 0.046"
    assert shown(None) == ""


def test_escaping_is_idempotent_on_harmless_text():
    assert escaped("vit, 8 x A100") == "vit, 8 x A100"


def test_energies_have_a_unit_that_fits_one_for_each_quantity_and_kwh_in_files():
    columns = ("name", "train: a", "train: b", "1,000 inferences: a")
    rows = [("x", Energy(7200.0, 360.0), Energy(1800.0), Energy(0.5)), ("y", Energy(3600.0), None, Energy(2.0))]
    shown_lines = to_markdown(table(*rows, columns=columns)).splitlines()
    assert shown_lines[2] == "| name | train: a \\(Wh\\) | train: b \\(Wh\\) | 1,000 inferences: a \\(J\\) |"
    assert shown_lines[4] == "| x | 2 ± 0.1 | 0.5 | 0.5 |"
    head, first, _ = csv.reader(io.StringIO(to_csv([("", table(*rows, columns=columns))]).decode()))
    assert head[1:4] == ["train: a (kWh)", "train: a (kWh): plus or minus", "train: b (kWh)"]
    assert float(first[1]) == pytest.approx(0.002)


def test_a_column_that_is_empty_in_every_row_is_not_shown():
    """An inference's Table 1 had the columns of a training, all empty; its CSV still has them."""
    table = Table("t", "T", ("model", "year", "SAM"), [("a", None, ""), ("b", None, "x")])
    shown_columns = to_markdown(table).splitlines()[2]
    assert shown_columns == "| model | SAM |"
    assert b"year" in to_csv([("", table)])
