"""`python -m experiments.report` from records to the page: complete, self-contained, and deaf to hostile records."""

from __future__ import annotations

import csv
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from experiments.report import assemble
from experiments.report.__main__ import main
from experiments.report.assemble import FIGURES
from experiments.report.inputs import clean
from lightning_watt.record import Inherited, Stage
from tests.unit.experiments.report.made import REFERENCE, curve, lifecycle, made, write, write_raw

EVIL = "</title><script>alert(1)</script><img src=x onerror=alert(2)>${7*7}{{7*7}}$\\frac{1}{0}$"
PNG = b"\x89PNG\r\n\x1a\n"


class Page(HTMLParser):
    """What a browser would make of the page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data):
        self.text += data

    @property
    def addresses(self) -> list[str]:
        return [value for name, value in self.attributes if name in ("src", "href", "action", "srcset", "data")]


def page_of(out):
    return Page((out / "report.html").read_text())


def assert_safe(out):
    """Nothing in the report runs or asks the network, and every figure is whole."""
    html = (out / "report.html").read_text()
    page = Page(html)
    assert not {"script", "iframe", "object", "embed", "link", "form", "base"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert all(address.startswith(("data:image/svg+xml;base64,", "#")) for address in page.addresses)
    assert "default-src 'none'" in html
    markdown = (out / "report.md").read_text()
    assert "<" not in markdown
    assert set(re.findall(r"(?<!\\)\]\(([^)]*)\)", markdown)) <= {
        f"figures/{f.name}" for f in (out / "figures").glob("*.png")
    }
    for file in (out / "figures").iterdir() if (out / "figures").exists() else ():
        if file.suffix == ".png":
            assert file.read_bytes().startswith(PNG)
            continue
        for element in ElementTree.parse(file).iter():
            assert element.tag.rpartition("}")[2] not in ("script", "foreignObject", "a", "image")
            references = [value for name, value in element.attrib.items() if name.endswith("href")]
            assert all(value.startswith("#") for value in references)


def rows_of(file):
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A small study: five families, one from random weights too, one run each that failed, was interrupted, still runs."""
    root = tmp_path_factory.mktemp("study") / "runs"
    lifecycle(root / "resnet", "resnet", 1.0, 0.90, year=2015)
    lifecycle(root / "vit", "vit", 2.0, 0.93, year=2020)
    lifecycle(root / "swin", "swin", 3.0, 0.95, year=2021, gflops_per_sample=0.5)
    lifecycle(root / "guessed", "clip", 0.1, 0.80, year=2021, provenance="estimated", device="a CPU")
    write(root / "scratch", made(150, 0.7, year=2020, start="scratch"))
    first = write(
        root / "beit/pretrain/tokenizer", made(20, None, phase="tokenizer", family="beit", pretraining="masked tokens")
    )
    facts = {"family": "beit", "pretraining": "masked tokens", "year": 2021}
    inherited = [Inherited(path=str(first), total_j=20)]
    second = write(root / "beit/pretrain", made(500, 0.2, phase="pretrain", inherited=inherited, **facts))
    inherited = [Inherited(path=str(second), total_j=520)]
    third = write(root / "beit/finetune", made(100, 0.94, inherited=inherited, **facts))
    inherited = [Inherited(path=str(third), total_j=620)]
    write(root / "beit/inference", made(2, 0.94, phase="inference", inherited=inherited, **facts))
    for status in ("failed", "interrupted", "running"):
        write(root / status, made(40, 0.3, family="mobilenet", status=status))
    (root / "broken").mkdir()
    (root / "broken/watt.json").write_text('{"schema_version": 1, "status"')
    reference = root.parent / "reference.csv"
    reference.write_text(REFERENCE)
    out = root.parent / "out"
    assert main([str(root), "--reference", str(reference), "--out", str(out)]) == 0
    return out


def test_every_figure_is_drawn_or_says_why_not(study):
    drawn = {file.stem for file in (study / "figures").glob("*.svg")}
    assert drawn == {file.stem for file in (study / "figures").glob("*.png")}
    assert len([name for name in drawn if name.endswith("_digits")]) == len(FIGURES) - 2  # one device; nothing published
    page = page_of(study)
    assert page.text.count("No figure:") == 2 * len(FIGURES) - len(drawn)
    assert page.tags.count("img") == len(drawn)
    assert all(value for name, value in page.attributes if name == "alt")


def test_the_page_needs_nothing_else_and_runs_nothing(study):
    assert_safe(study)


def test_tables_tell_states_and_kinds_of_energy(study):
    models = {row["model"]: row for row in rows_of(study / "tables/table1_models.csv") if row["data"] == "digits"}
    states = {row["state"] for row in models.values()}
    assert states == {"completed", "failed", "interrupted", "running"}
    assert models["clip"]["energy is"] == "estimated"
    assert float(models["beit"]["train, with inherited (kWh)"]) == pytest.approx(620 / 3.6e6)
    assert float(models["beit"]["train, own (kWh)"]) == pytest.approx(100 / 3.6e6)
    assert float(models["vit"]["1,000 inferences (kWh)"]) == pytest.approx(20 / 3.6e6)
    assert models["beit"]["SAM, with inherited"] == ""
    assert float(models["beit"]["SAM shifted, with inherited"]) > 0


def test_ranks_never_mix_measured_and_estimated(study):
    rows = [row for row in rows_of(study / "tables/table1_ranks.csv") if row["data"] == "digits"]
    assert [row["by SAM shifted"] for row in rows if row["energy is"] == "estimated"] == ["1"]
    measured = [row for row in rows if row["energy is"] == "measured"]
    by_energy = [row["by train energy"] for row in sorted(measured, key=lambda row: int(row["by train energy"].split()[0]))]
    # 150, 400, 620, 800 and 1,200 J, each ± 10 % without a word about which part is the board's.
    assert by_energy == ["1", "2", "3", "4", "5"]
    assert not {"failed", "interrupted", "running"} & {row["model"] for row in rows}


def test_a_run_that_did_not_end_well_is_named_on_the_page(study):
    text = page_of(study).text
    for status in ("failed", "interrupted", "running", "did not learn", "broken/watt.json"):
        assert status in text


def test_break_even_is_where_the_energies_meet(study):
    rows = rows_of(study / "tables/breakeven.csv")
    (pair,) = [row for row in rows if (row["dearer to train, cheaper to run"], row["than"]) == ("beit", "resnet")]
    assert float(pair["repaid after inferences"]) == pytest.approx((620 - 400) / (0.01 - 0.002))
    assert not [row for row in rows if "clip" in row.values()]


def test_the_same_records_give_the_same_files(study, tmp_path):
    root = study.parent
    assert main([str(root / "runs"), "--reference", str(root / "reference.csv"), "--out", str(tmp_path)]) == 0
    for file in study.rglob("*.*"):
        assert (tmp_path / file.relative_to(study)).read_bytes() == file.read_bytes(), file.name


def test_hostile_records_run_nothing_and_leave_nothing_outside(tmp_path):
    root, out = tmp_path / "runs", tmp_path / "out"
    texts = ("name", "family", "timm_name", "scale", "data", "phase", "pretraining", "start")
    for n, evil in enumerate(
        (EVIL, "../../../tmp/x", "_hidden", "\n\r\0\x1b[2J", "数据\u202e🜏", "=cmd|' /C calc'!A0", "$$", "x" * 9999)
    ):
        record = made(10.0 ** (n + 1), 0.5 + n / 100, **dict.fromkeys(texts, evil), device=evil, year=2010 + n)
        record.energy.by_stage = {evil: Stage(joules=1.0, seconds=1.0), "train": Stage(joules=2.0, seconds=1.0)}
        record.accuracy.metric = evil
        record.warnings = [evil]
        write(root / f"{n} <script>alert(3)" / '"onload="x', record)
    write_raw(root / "zeros", made(0.0, 0.0), sam__alpha=0, sam__beta=0)
    write_raw(root / "huge", made(1e18, 1.0, year=2100, params=1e18, gflops_per_sample=1e18), sam__alpha=1000)
    write_raw(root / "tiny", made(5e-324, 5e-324, epochs=curve(5e-324, 1.0)), energy__uncertainty_j=1e300)
    write_raw(root / "nulls", made(None, None), model={}, hardware={}, accuracy={}, energy__uncertainty_j=None)
    write_raw(root / "types", made(), model={key: {"a": ["b"]} for key in texts} | {"year": "2020", "params": []})
    (root / "nan").mkdir()
    (root / "nan/watt.json").write_text('{"schema_version": 1, "energy": {"total_j": NaN}}')
    before = {file for file in tmp_path.rglob("*") if out not in file.parents}
    assert main([str(root), "--out", str(out)]) == 0
    assert {file for file in tmp_path.rglob("*") if out not in file.parents} - {out} == before
    assert_safe(out)
    text = page_of(out).text
    assert "alert(1)" in text  # shown as what it is: a text
    assert "49" not in re.findall(r"\$\{?(\d+)\}?", text)
    for file in (out / "tables").iterdir():
        assert not re.search(r"(?m)(^|,)\"?[=@]", file.read_text())


@pytest.mark.parametrize(
    ("joules", "accuracy"), [(0.0, 0.5), (1e-9, 0.0), (1e18, 1.0), (3.6e6, 0.9), (None, 0.5), (5.0, None)]
)
def test_two_runs_at_the_edge_of_what_is_possible_are_reported(tmp_path, joules, accuracy):
    write(tmp_path / "runs/a", made(joules, accuracy))
    write(tmp_path / "runs/b", made(joules, accuracy, family="swin"))
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    assert_safe(tmp_path / "out")


def test_many_data_sets_get_tables_and_the_largest_get_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(assemble, "MOST_DRAWN", 2)
    for name in ("set/0", "set 0", "other"):
        write(tmp_path / "runs" / clean.slug(name, 9) / str(len(name.split())), made(data=name))
    write(tmp_path / "runs/more", made(data="set/0", family="swin"))
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out/figures").glob("figure1_*.png"))) == 2
    assert "Figures are drawn only for" in page_of(tmp_path / "out").text
    assert {row["data"] for row in rows_of(tmp_path / "out/tables/table1_models.csv")} == {"set/0", "set 0", "other"}


def test_data_sets_whose_names_differ_in_signs_only_have_files_of_their_own(tmp_path):
    write(tmp_path / "runs/a", made(data="set/0"))
    write(tmp_path / "runs/b", made(data="set 0"))
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    names = {file.name for file in (tmp_path / "out/figures").glob("figure1_*.png")}
    assert names == {"figure1_household_set-0.png", "figure1_household_set-0--2.png"}


def test_the_default_place_is_below_the_runs_and_is_no_run(tmp_path, capsys):
    write(tmp_path / "a", made())
    assert main([str(tmp_path)]) == 0
    assert main([str(tmp_path)]) == 0
    assert (tmp_path / "report/report.html").exists()
    assert "1 runs, 0 not read" in capsys.readouterr().out


def test_nothing_to_report_and_wrong_arguments_are_said(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "no record" in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "no directory" in capsys.readouterr().err
    write(tmp_path / "a", made())
    assert main([str(tmp_path), "--reference", str(tmp_path / "x.csv")]) == 2
    assert "no such file" in capsys.readouterr().err
    (tmp_path / "report").symlink_to(tmp_path / "a")
    assert main([str(tmp_path)]) == 2
    assert "is a link" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--alpha", "nan"])


def test_the_reference_alone_is_enough(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "reference.csv").write_text(REFERENCE)
    out = tmp_path / "out"
    assert main([str(tmp_path / "runs"), "--reference", str(tmp_path / "reference.csv"), "--out", str(out)]) == 0
    models = {row["model"]: row for row in rows_of(out / "tables/table1_models.csv")}
    assert models["QuickNet (TF)"]["SAM, with inherited"] == ""
    assert float(models["QuickNet (TF)"]["SAM shifted, with inherited"]) > 0
    assert models["VGG16 (PyTorch)"]["state"] == "completed, did not learn"
    assert (out / "figures/figure8_sensitivity_reference.png").exists()


def test_sam_can_be_taken_otherwise(tmp_path):
    write(tmp_path / "runs/a", made(100.0, 0.5))
    out = tmp_path / "out"
    assert main([str(tmp_path / "runs"), "--out", str(out), "--alpha", "1", "--beta", "2", "--unit", "J"]) == 0
    (row,) = rows_of(out / "tables/table1_models.csv")
    assert float(row["SAM, own"]) == pytest.approx(2 * 0.5 / 2)
