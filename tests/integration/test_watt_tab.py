"""The Watt tab in headless Chromium, in a real TensorBoard, over real trainings and over many and hostile event files."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.utils.tensorboard import SummaryWriter

from experiments.gallery.tensorboard_page import find_chromium, tensorboard
from experiments.gallery.watt_tab import wait_until_drawn
from lightning_watt import read_record, sustainable_accuracy
from lightning_watt.record.writer import to_json
from lightning_watt.units import J_PER, J_PER_KWH
from tests.integration.tab_page import browser, opened
from tests.integration.tiny import QUIET, Steady, loader, module, package, start_child, trainer, watt
from tests.tab_runs import BEGAN_UNIX, record, write_rows, write_run, write_text

__all__ = ["browser"]  # a fixture

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="Chromium is not installed: apt-get install chromium"),
    *[pytest.mark.filterwarnings(entry) for entry in QUIET],
]

MADE = {  # kWh, accuracy: the cheapest is not the best, and one of them lies at the pole's wrong side
    "made/tiny": (0.5, 0.55),
    "made/small": (4.0, 0.70),
    "made/middle": (60.0, 0.80),
    "made/large": (900.0, 0.86),
    "made/wasteful": (2000.0, 0.75),
}
INHERITED_KWH = 100.0  # of made/small
ESTIMATED = {"made/guessed": (30.0, 0.83)}
TRAINED = {"trained/weak": (50.0, 0.2), "trained/strong": (200.0, 0.45)}  # watts, accuracy
HOSTILE = [
    "<script>window.owned=1<",
    "<img src=x onerror='window.owned=1'>",
    "&lt;b&gt;",
    "%{x}$x$",
    "a/<a href='javascript:1'>x<",
]


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight runs: two real trainings on a source of known power, and six whose energies no test could afford."""
    logdir = tmp_path_factory.mktemp("runs")
    pl = package("pytorch_lightning")
    for name, (watts, accuracy) in TRAINED.items():
        logger = pl.loggers.TensorBoardLogger(logdir, name="", version=name)
        callback = watt(gpus="auto", sources=[Steady(watts)], sam_unit="kWh")
        trainer(pl, logdir, callback, logger=logger).fit(module(pl, accuracy=(accuracy,), step_s=0.03), loader(), loader(3))
    for name, (kwh, accuracy) in MADE.items():
        write_run(logdir, name, kwh, accuracy, inherited_kwh=INHERITED_KWH if name == "made/small" else 0.0)
    for name, (kwh, accuracy) in ESTIMATED.items():
        write_run(logdir, name, kwh, accuracy, provenance="estimated")
    return logdir


@pytest.fixture(scope="module")
def eight(runs_dir: Path) -> Iterator[str]:
    with tensorboard(runs_dir) as address:
        yield address


def known(runs_dir: Path) -> dict[str, tuple[float, float]]:
    """Every run's kWh and accuracy."""
    trained = {name: read_record(runs_dir / name) for name in TRAINED}
    return {name: (found.energy.total_kwh, found.accuracy.last) for name, found in trained.items()} | MADE | ESTIMATED


def ranked(runs: dict[str, tuple[float, float]], **scoring: Any) -> list[str]:
    score = {name: sustainable_accuracy(accuracy, kwh, shifted=True, **scoring) for name, (kwh, accuracy) in runs.items()}
    return sorted(score, key=lambda name: (name in ESTIMATED, -score[name]))


def test_a_click_sorts_and_a_key_too(browser, eight, runs_dir):
    runs = known(runs_dir)
    by_energy = sorted({**MADE, **TRAINED}, key=lambda name: runs[name][0])
    with opened(browser, eight, charts=False) as page:
        assert page.names() == ranked(runs)  # by shifted SAM, before anything is clicked
        head = page.frame.locator("#leaderboard th[data-key=joules]")
        assert head.get_attribute("aria-sort") == "none"
        page.sort("joules")
        assert page.names() == [*by_energy, *ESTIMATED]  # what was not measured stands apart
        assert head.get_attribute("aria-sort") == "ascending"
        head.locator("button").focus()
        page.tab.keyboard.press("Enter")
        assert page.names() == [*by_energy[::-1], *ESTIMATED]
        assert head.get_attribute("aria-sort") == "descending"
        page.sort("accuracy")
        assert page.names() == [*sorted(by_energy, key=lambda name: -runs[name][1]), *ESTIMATED]


def test_a_slider_changes_ranks(browser, eight, runs_dir):
    runs = known(runs_dir)
    with opened(browser, eight, charts=False) as page:
        usual = page.names()
        alpha = page.frame.locator("#alpha")
        alpha.focus()
        page.tab.keyboard.press("Home")  # alpha 0: accuracy counts for nothing, the cheapest wins
        assert page.names() == ranked(runs, alpha=0.0) != usual
        assert [row["rank"] for row in page.rows()] == [*(str(rank) for rank in range(1, 8)), "est. 1"]
        moved = {row["name"]: usual.index(row["name"]) - at for at, row in enumerate(page.rows())}
        shown = {row["name"]: row["moved"] for row in page.rows()}
        assert shown == {name: f"▲{n}" if n > 0 else f"▼{-n}" if n else "" for name, n in moved.items()}
        page.tab.keyboard.press("End")
        assert page.names() == ranked(runs, alpha=10.0)
        page.frame.get_by_role("button", name="Reset", exact=True).click()
        assert page.names() == usual


def test_sam_is_undefined_at_and_below_one_unit_and_says_so(browser, eight, runs_dir):
    with opened(browser, eight, charts=False) as page:
        cells = {row["name"]: row["sam"] for row in page.rows()}
        assert cells["made/tiny"] == cells["trained/weak"] == "E ≤ 1 kWh"
        assert cells["made/small"] == f"{sustainable_accuracy(0.7, 4.0):.2f}"
        page.frame.locator(".choice label", has_text="Wh").filter(has_not_text="kWh").click()
        cells = {row["name"]: row for row in page.rows()}
        assert cells["made/tiny"]["sam"] == f"{sustainable_accuracy(0.55, 0.5, unit='Wh'):.4f}"
        assert cells["made/tiny"]["shifted"] == f"{sustainable_accuracy(0.55, 0.5, unit='Wh', shifted=True):.4f}"
        assert page.names() == ranked(known(runs_dir), unit="Wh")


def test_the_browser_computes_what_python_computes(browser, eight):
    energies = [0.0, 1e-9, 0.5, 1.0, 1.0000001, 2.0, 37.5, 1e6, 1e300]
    grid = [
        {"accuracy": accuracy, "joules": kwh * J_PER_KWH, "alpha": alpha, "beta": beta, "unit": unit, "shifted": shifted}
        for accuracy, kwh, (alpha, beta), unit, shifted in itertools.product(
            [0.0, 0.1, 0.7613, 1.0], energies, [(5, 5), (0, 1), (0.3, 7.5), (10, 0.5)], J_PER, [False, True]
        )
    ]
    code = """async (grid) => {
        const { sam } = await import(new URL('static/metric.js', document.baseURI).href);
        return grid.map((one) => sam(one.accuracy, one.joules, one, one.shifted));
    }"""
    with opened(browser, eight, charts=False) as page:
        theirs = page.frame.evaluate(code, grid)
        wrong = page.frame.evaluate(
            code, [{**grid[0], "accuracy": a, "joules": e} for a, e in [(1.1, 1), (-1, 1), (0.5, -1)]]
        )
    assert wrong == [None] * 3
    for one, score in zip(grid, theirs, strict=True):
        ours = sustainable_accuracy(one.pop("accuracy"), one.pop("joules") / J_PER_KWH, **one)
        assert score == (pytest.approx(ours, rel=1e-12) if math.isfinite(ours) else None), one


def test_a_real_training_is_shown_with_where_its_numbers_come_from(browser, eight, runs_dir):
    found = read_record(runs_dir / "trained/strong")
    with opened(browser, eight, charts=False) as page:
        row = next(row for row in page.rows() if row["name"] == "trained/strong")
        assert (row["accuracy"], row["provenance"], row["status"]) == ("45.0", "measured", "completed")
        assert page.frame.locator("#leaderboard th[data-key=joules]").inner_text() == "Energy, kWh"
        mantissa, _, power = row["joules"].partition("×10")
        shown = float(mantissa) * 10.0 ** int(power.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")) or 0)
        assert shown == pytest.approx(found.energy.total_kwh, rel=0.006)  # three digits
        opener = page.frame.locator(".open-run[title='trained/strong']")
        opener.click()
        panel = page.frame.locator(".record")
        panel.get_by_text("a steady device").wait_for()
        text = panel.inner_text()
        for fact in ("trained/strong", "steady", "gpu0", "measured", "val_acc", "Tiny", "Machine", "Software"):
            assert fact in text
        page.tab.keyboard.press("Escape")
        assert not panel.is_visible()
        assert opener.evaluate("(button) => button === document.activeElement")


def test_estimates_are_drawn_differently_and_have_a_front_of_their_own(browser, eight, runs_dir):
    with opened(browser, eight) as page:
        wait_until_drawn(page.frame)
        traces = page.traces("scatter")
        marks = {trace["marker"]["symbol"]: trace["customdata"] for trace in traces if "markers" in trace["mode"]}
        assert marks["circle-open"] == list(ESTIMATED)
        assert sorted(marks["circle"]) == sorted({**MADE, **TRAINED})
        fronts = [trace for trace in traces if trace["mode"] == "lines"]
        assert [front["line"]["dash"] for front in fronts] == ["solid", "dot"]
        runs = known(runs_dir)
        front = known_front({name: runs[name] for name in {**MADE, **TRAINED}})
        # The last of them reaches on to the dearest run.
        assert fronts[0]["y"] == pytest.approx([100 * runs[name][1] for name in [*front, front[-1]]])
        assert fronts[0]["x"] == pytest.approx([*(runs[name][0] for name in front), 2000.0])
        assert "an estimate may be wrong" in page.frame.locator("#leaderboard .note").inner_text()
        picture = "() => Plotly.toImage(document.querySelector('#scatter .chart'), { format: 'svg' })"
        assert page.frame.evaluate(picture).startswith("data:image/svg+xml")  # what the button for papers saves
        bars = page.traces("stages")
        assert {trace["name"] for trace in bars} >= {"train", "validate", "other"}
        assert bars[0]["marker"]["pattern"]["shape"].count("/") == 1
        titles = page.frame.evaluate(
            """() => [...document.querySelectorAll('.chart')].flatMap(({ layout }) => [layout.xaxis, layout.yaxis])
                .map((axis) => axis.title.text)"""
        )
        assert titles == [
            "Energy, kWh",
            "Accuracy, %",
            "Energy, kWh",
            "",  # the runs' names
            "Time since the run began, min",
            "Energy, kWh",
            "Time since the run began, min",
            "Power, W",
            "Epoch",
            "Energy, J",  # of the two that were really trained
            "gpu0, kWh",
            "",
        ]


def known_front(runs: dict[str, tuple[float, float]]) -> list[str]:
    by_energy = sorted(runs, key=lambda name: runs[name][0])
    return [name for at, name in enumerate(by_energy) if all(runs[other][1] < runs[name][1] for other in by_energy[:at])]


def test_what_is_filtered_out_or_unticked_is_not_drawn(browser, eight):
    with opened(browser, eight) as page:
        wait_until_drawn(page.frame)
        page.frame.get_by_role("searchbox").fill("^made/[st]")
        assert sorted(page.names()) == ["made/small", "made/tiny"]
        page.frame.locator(".runs li", has_text="made/tiny").locator("input").uncheck()
        assert page.names() == ["made/small"]
        page.frame.wait_for_function("() => document.querySelector('#power .chart').data.length === 2")  # its two boards
        page.frame.wait_for_function("() => document.querySelector('#stages .chart').layout.yaxis.ticktext.length === 1")
        drawn = [name for trace in page.traces("scatter") for name in trace.get("customdata", [])]
        assert drawn == ["made/small"]
        page.frame.get_by_role("searchbox").fill("[")  # half typed: no regular expression yet
        assert page.names() == []


def test_inherited_energy_counts_where_it_is_asked_for(browser, eight):
    with opened(browser, eight) as page:
        wait_until_drawn(page.frame)

        def energy() -> str:
            return next(row["joules"] for row in page.rows() if row["name"] == "made/small")

        assert energy() == "4.00"
        page.frame.get_by_label("inherited energy").check()
        assert energy() == "104"
        page.frame.wait_for_function("() => document.querySelector('#stages .chart').data[0].name === 'inherited'")
        assert "inherited energy included" in page.frame.locator("#leaderboard .note").inner_text()


def test_a_mark_is_clicked_for_its_record_and_paths_are_drawn(browser, eight):
    with opened(browser, eight) as page:
        wait_until_drawn(page.frame)
        page.frame.get_by_label("paths").check()
        lines = "() => document.querySelector('#scatter .chart').data.filter(({ mode }) => mode === 'lines').length"
        page.frame.wait_for_function(f"({lines})() === 8 + 2")  # and the two fronts
        page.frame.get_by_role("searchbox").fill("made/large")
        page.frame.wait_for_function("() => document.querySelectorAll('#scatter .points path.point').length === 1")
        place = page.frame.locator("#scatter .points path.point").bounding_box()
        page.tab.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
        page.frame.locator("#scatter .hovertext").wait_for()
        assert "900 kWh ± 45.0 kWh, measured" in page.frame.locator("#scatter .hovertext").text_content()
        page.tab.mouse.down()
        page.tab.mouse.up()
        assert page.frame.locator(".record h2").inner_text() == "made/large"


def test_tensorboards_reload_button_reloads_even_a_tab_that_does_not_poll(browser, eight):
    with opened(browser, eight, host=True) as page:
        wait_until_drawn(page.frame)
        page.frame.get_by_label("live").uncheck()
        with page.tab.expect_request("**/data/plugin/watt/runs"):
            page.tab.locator("button.reload-button").click()


def test_numbers_are_three_digits_and_names_say_what_differs(browser, eight):
    code = """async () => {
        const { sig, energy } = await import(new URL('static/format.js', document.baseURI).href);
        const { shortNames } = await import(new URL('static/names.js', document.baseURI).href);
        const { paretoFront, ranks } = await import(new URL('static/metric.js', document.baseURI).href);
        const short = (...names) => [...shortNames(names).values()];
        const rows = [[1, 0.5], [2, 0.5], [3, 0.9], [4, 0.8], [null, 1]].map(([joules, accuracy]) => ({ joules, accuracy }));
        const ties = ranks(rows, (row) => row.accuracy);
        // A formatter is made for each number of decimals, and not for each of the thousands of numbers in a table.
        const Format = Intl.NumberFormat;
        let made = 0;
        Number.prototype.toLocaleString = () => (made += 1, '');
        Intl.NumberFormat = function (...options) { made += 1; return new Format(...options); };
        for (let number = 1; number < 500; number++) sig(number / 7);
        return {
            made,
            sig: [0, 1, 12.345, 999.6, 1234.5, 0.00123456, 0.99999, -5.5, 1e-7, 1e308, NaN, null].map((one) => sig(one)),
            energy: [0.5, 3599, 3600, 3.6e6, 1e9].map(energy),
            short: [
                short("a/lightning_logs/version_0", "b/lightning_logs/version_0"),
                short("0-pre-vit-tiny", "1-pre-mae-tiny"),
                short("x/a", "y/a/b"),
                short("same", "same/again"),
                short("lightning_logs/version_3"),
            ],
            front: paretoFront(rows).map((row) => row.joules),
            ranks: rows.map((row) => ties.get(row)),
        };
    }"""
    with opened(browser, eight, charts=False) as page:
        found = page.frame.evaluate(code)
    assert found["made"] <= 3
    assert found["sig"] == (
        ["0", "1.00", "12.3", "1,000", "1,230", "0.00123", "1.00", "−5.50", "1.00×10⁻⁷", "1.00×10³⁰⁸", "–", "–"]
    )
    assert found["energy"] == ["0.500 J", "3,600 J", "1.00 Wh", "1.00 kWh", "278 kWh"]
    assert found["short"] == [
        ["a", "b"],
        ["0-vit", "1-mae"],
        ["x/a", "a/b"],
        ["same", "same/again"],
        ["lightning_logs/version_3"],
    ]
    assert found["front"] == [1, 3]
    assert found["ranks"] == [4, 4, 2, 3, 1]


def test_axes_and_labels_can_be_read_also_of_one_run(browser, tmp_path):
    """No accuracy above 100 %, more than one energy on the axis, and a label above a mark at 100 % is whole."""
    write_run(tmp_path, "only", 4.0, 1.0)
    write_run(tmp_path, "another", 8.0, 0.9)
    with tensorboard(tmp_path) as address, opened(browser, address) as page:
        wait_until_drawn(page.frame)
        tops = """() => ['.textpoint text', '.main-svg'].map((all) =>
            Math.min(...[...document.querySelectorAll(`#scatter ${all}`)].map((one) => one.getBoundingClientRect().y)))"""
        label, chart = page.frame.evaluate(tops)
        assert label >= chart
        page.frame.get_by_role("searchbox").fill("only")
        page.frame.wait_for_function("() => document.querySelectorAll('#scatter .textpoint text').length === 1")
        ticks = page.frame.evaluate(
            """() => ['x', 'y'].map((axis) =>
                [...document.querySelectorAll(`#scatter .${axis}tick text`)].map((tick) => Number(tick.textContent)))"""
        )
        assert len(ticks[0]) >= 2
        assert max(ticks[1]) == 100
        assert min(ticks[1]) >= 90


def test_no_button_sends_a_chart_anywhere(browser, eight):
    """Each button of each chart is known by its title, and is clicked: `close` looks at whom the page asked."""
    with opened(browser, eight) as page:
        wait_until_drawn(page.frame)
        page.frame.locator(".chart").first.hover()
        titles = page.frame.evaluate(
            """() => [...document.querySelectorAll('.chart')].map((chart) =>
                [...chart.querySelectorAll('.modebar-btn')].map((button) => button.dataset.title))"""
        )
        assert titles
        assert all(shown == ["Download plot", "Download as PNG", "Zoom", "Pan", "Reset axes"] for shown in titles), titles
        page.tab.on("download", lambda download: download.cancel())
        page.frame.evaluate("() => document.querySelectorAll('.modebar-btn').forEach((button) => button.click())")
        page.tab.wait_for_timeout(300)
        assert page.frame.locator(".plotly-cloud-dialog-box").count() == 0


def test_dark_as_tensorboard_is_dark(browser, eight):
    with opened(browser, eight, dark=True, host=True) as page:
        theme = "() => document.documentElement.dataset.theme"
        assert page.frame.evaluate(theme) == "dark"
        page.tab.get_by_label("Menu for changing light or dark theme").click()
        page.tab.get_by_role("menuitem", name="Light").click()
        page.frame.wait_for_function(f"({theme})() === 'light'")
        colours = page.frame.evaluate("() => getComputedStyle(document.querySelector('.card')).backgroundColor")
        assert colours == "rgb(255, 255, 255)"


def test_without_plotly_or_without_an_answer_the_table_stays_and_says_why(browser, eight):
    tab = browser.new_page(color_scheme="dark")
    tab.route("**/plotly.js", lambda route: route.fulfill(status=404, body="plotly is not installed: pip install it"))
    tab.goto(f"{eight}/data/plugin_entry.html?name=watt")  # alone: it is dark as the browser is
    frame = tab.main_frame
    frame.wait_for_selector("html[data-theme=dark]")
    frame.get_by_text("plotly is not installed: pip install it").first.wait_for()
    assert frame.locator("#leaderboard tbody tr").count() == 8
    tab.route("**/data/plugin/watt/runs", lambda route: route.fulfill(status=503))
    frame.get_by_label("live").uncheck()
    frame.get_by_label("live").check()  # it asks at once
    frame.locator(".fresh.bad").get_by_text("no answer (503").wait_for()
    assert frame.locator("#leaderboard tbody tr").count() == 8  # what was known stays
    tab.close()


def test_an_empty_directory_says_what_to_do(browser, tmp_path):
    with tensorboard(tmp_path, "--load_fast=false") as address, opened(browser, address, host=True) as page:
        text = page.frame.locator(".empty").inner_text()
        for words in ("WattCallback()", "tensorboard --logdir", str(tmp_path), "python -m lightning_watt"):
            assert words in text
        assert not page.frame.locator(".page").is_visible()


def test_hostile_names_and_numbers_are_text(browser, tmp_path):
    for name in HOSTILE:
        write_run(tmp_path, name, 1.5, 0.5)
    with SummaryWriter(str(tmp_path / "toString")) as writer:  # without a row: it has no curves
        write_text(writer, to_json(record(1.5, 0.5)).decode(), BEGAN_UNIX)
    for name, kwh in (("nan", math.nan), ("huge", 3e38)):
        with SummaryWriter(str(tmp_path / name)) as writer:
            write_rows(writer, kwh, 0.5)
    write_run(tmp_path, "beyond", 1e308, 0.9)
    write_run(tmp_path, "edge", 1e300, 0.9)
    with SummaryWriter(str(tmp_path / "marked")) as writer:
        write_rows(writer, 1.0, 0.5)
        hostile = record(2.0, 0.5)
        hostile.warnings = hostile.missing = ["<img src=x onerror='window.owned=1'>"]
        hostile.hardware = {"<b>cpu</b>": ["<script>window.owned=1</script>", 1e308, None]}
        write_text(writer, to_json(hostile).decode(), BEGAN_UNIX + 1e4)
    with tensorboard(tmp_path, "--load_fast=false") as address, opened(browser, address, host=True) as page:
        wait_until_drawn(page.frame)
        cells = {row["name"]: row for row in page.rows()}
        assert {*HOSTILE, "toString"} <= cells.keys()
        page.frame.get_by_label("paths").check()
        assert (cells["nan"]["joules"], cells["nan"]["shifted"], cells["beyond"]["joules"]) == ("–", "–", "–")
        assert cells["huge"]["status"].startswith("silent for")  # no record, and rows of years ago
        assert cells["edge"]["joules"] == "1.00×10³⁰⁰"
        assert cells["huge"]["joules"] == "3.00×10³⁸"
        page.frame.locator(".open-run[title=marked]").click()
        page.frame.locator(".record dt", has_text="cpu").wait_for()
        assert "<script>window.owned=1</script>" in page.frame.locator(".record").inner_text()
        labels = page.frame.locator("#stages .ytick text").all_text_contents()
        assert any("<img src=x" in label for label in labels), labels
        found = "() => [window.owned, document.querySelectorAll('body img, body script[src], table b, a[href]').length]"
        assert page.frame.evaluate(found) == [None, 0]


def test_two_hundred_runs_are_one_request(browser, tmp_path):
    for number in range(200):
        kwh = 10 ** (number / 60)
        write_run(tmp_path, f"family_{number % 8}/seed_{number:03}", kwh, 0.3 + 0.003 * (number * 37 % 200), rows=3)
    with tensorboard(tmp_path) as address, opened(browser, address, host=True) as page:
        wait_until_drawn(page.frame)
        assert len(page.rows()) == 200
        asked = [re.sub(r"\?.*", "", url.removeprefix(address)) for url in page.asked]
        assert asked.count("/data/plugin/watt/runs") == 1
        assert asked.count("/data/plugin/watt/curves") <= 2
        assert page.frame.locator(".runs li").count() == 200
        page.sort("joules")
        assert page.rows()[0]["name"] == "family_0/seed_000"


def test_a_run_that_is_being_written_changes_before_ones_eyes(browser, tmp_path):
    options = {
        "trainer": {"logger": True, "max_epochs": 60},
        "module": {"step_s": 0.05},
        "batches": [15, 2],
        "steady": 100.0,
    }
    process = start_child(tmp_path / "live", **options)
    try:
        with tensorboard(tmp_path, "--reload_interval", "1") as address, opened(browser, address, host=True) as page:
            page.frame.wait_for_selector("#leaderboard tbody tr", timeout=60_000)
            page.frame.wait_for_selector("td[data-key=status][data-status=running]")
            page.frame.wait_for_function(
                "() => document.querySelector('td[data-key=provenance]').textContent === 'measured'", timeout=30_000
            )
            before = page.rows()[0]["joules"]
            page.frame.wait_for_function(
                "(before) => document.querySelector('td[data-key=joules]').textContent !== before",
                arg=before,
                timeout=30_000,
            )
            now = page.rows()[0]["joules"]
            assert float(now.replace(",", "")) > float(before.replace(",", "")) > 0
            assert process.poll() is None
    finally:
        process.kill()
        process.wait()
