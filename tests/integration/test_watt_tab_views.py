"""The Watt tab's views and choices in headless Chromium, over event files that are made for them."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from torch.utils.tensorboard import SummaryWriter

from experiments.gallery.tensorboard_page import find_chromium, tensorboard
from experiments.gallery.watt_tab import wait_until_drawn
from lightning_watt.record import Epoch, Idle, LostWork, PlusMinus, difference, together
from lightning_watt.record.writer import to_json
from lightning_watt.run.lineage import energy_below
from lightning_watt.sam.score import unit_that_sees
from lightning_watt.units import J_PER_KWH
from tests.integration.tab_page import browser, opened
from tests.tab_runs import BEGAN_UNIX, ROW_S, record, write_rows, write_run, write_text

__all__ = ["browser"]  # a fixture

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="Chromium is not installed: apt-get install chromium"),
]

SWEEP = "multirun/2026-11-25/12-00-00"
RUNS = {  # kWh, accuracy, kWh inherited
    f"{SWEEP}/lr=0.1,wd=1e-05,seed=0": (0.4, 0.70, 100.0),
    f"{SWEEP}/lr=0.1,wd=1e-05,seed=1": (0.6, 0.74, 0.0),
    f"{SWEEP}/lr=0.01,wd=1e-05,seed=0": (6.0, 0.80, 0.0),
    f"{SWEEP}/lr=0.01,wd=1e-05,seed=1": (6.4, 0.84, 0.0),
}
FIRST = next(iter(RUNS))
OTHER = "other/alone"
BESIDE: dict[str, Any] = {  # of the first of them
    "co2e_g": 250.0, "carbon_intensity": 381.0, "cost": 0.12, "electricity_price": 0.3, "session": "b", "resumes": ["a"],
    "resumed_j": 4e5, "wasted_j": 1e5,
    "lost": [LostWork(session="a", directory="runs/3", status="killed", joules=1e5, seconds=9.0)],
    "idle": Idle(seconds=10.0, power_w={"gpu0": 60.0, "gpu1": 58.0}),
    "epochs": [Epoch(epoch=e, stage=s, joules=1e5 * (e + 1), seconds=5.0) for e in (0, 1) for s in ("train", "validate")],
}  # fmt: skip


@pytest.fixture(scope="module")
def made(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    logdir: Path = tmp_path_factory.mktemp("views")
    for name, (kwh, accuracy, inherited_kwh) in RUNS.items():
        write_run(logdir, name, kwh, accuracy, inherited_kwh=inherited_kwh, **(BESIDE if name == FIRST else {}))
    with SummaryWriter(str(logdir / OTHER)) as writer:  # the same name has another run below it
        write_text(writer, to_json(record(1.0, 0.5, status="running", budget_kwh=14.0)).decode(), BEGAN_UNIX + 1)
        write_rows(writer, 9.0, 0.6)
        for tag, value in (("watt/forecast_kwh", 12.0), ("watt/forecast_uncertainty_kwh", 1.5)):
            for row in (2, 3, 4):
                writer.add_scalar(tag, value, row, walltime=BEGAN_UNIX + ROW_S * row)
    with tensorboard(logdir) as address:
        yield address


def test_with_inherited_energy_the_plus_minus_and_the_paths_are_those_of_both(browser, made):
    name = FIRST
    sums = [[(3.0, 10.0), (4.0, 20.0)], [(1.0, 0.0)], []]
    with opened(browser, made) as page:
        wait_until_drawn(page.frame)
        code = """async (sums) => {
            const { together } = await import(new URL('static/plus_minus.js', document.baseURI).href);
            return sums.map((parts) => together(parts.map(([boundary, gain]) => ({ boundary, gain }))));
        }"""
        theirs = page.frame.evaluate(code, [*sums, [(1.0, None)]])
        ours = [together(PlusMinus(*part) for part in parts) for parts in sums]
        assert theirs == [*(pytest.approx(one.total_j) for one in ours), None]
        page.frame.get_by_label("inherited energy").check()
        page.frame.get_by_label("paths").check()
        row = next(row for row in page.rows() if row["name"] == name)
        assert (row["joules"], row["uncertainty_j"]) == ("100", "5.0")  # 5 % of each, on one board: they add up
        page.frame.wait_for_function(
            "() => document.querySelector('#scatter .chart').data.some(({ x }) => Math.abs(x[0] - 100.1) < 1e-6)"
        )
        traces = page.traces("scatter")
        path = next(trace for trace in traces if trace["mode"] == "lines" and trace["x"][0] == pytest.approx(100.1))
        assert (path["x"][-1], path["y"][-1]) == (pytest.approx(100.4), pytest.approx(70))
        marks = next(trace for trace in traces if name in trace.get("customdata", []))
        at = marks["customdata"].index(name)
        assert (marks["x"][at], marks["error_x"]["array"][at]) == (pytest.approx(100.4), pytest.approx(5.02))


def test_names_groups_and_a_filter_without_a_match(browser, made):
    with opened(browser, made) as page:
        wait_until_drawn(page.frame)
        assert page.traces("scatter")[-1]["customdata"] == page.names()
        page.frame.get_by_role("searchbox").fill("multirun")
        listed = page.frame.locator(".runs li .name")
        assert sorted(listed.all_text_contents()) == ["lr=0.01,seed=0", "lr=0.01,seed=1", "lr=0.1,seed=0", "lr=0.1,seed=1"]
        assert listed.first.get_attribute("title") in RUNS

        # All but the seed: two groups, each with its mean, its deviation and its colour.
        assert not page.frame.locator("#groups").is_visible()
        page.frame.get_by_label("Group and colour by").select_option(label="all but the seed")
        cells = page.frame.locator("#groups tbody tr").all()
        assert [row.locator("td").all_text_contents()[:4] for row in cells] == [
            ["lr 0.01", "2", "82.0 ± 2.8", "6.20 ± 0.283"],
            ["lr 0.1", "2", "72.0 ± 2.8", "0.500 ± 0.141"],
        ]
        page.frame.wait_for_function(
            "() => document.querySelector('#scatter .chart').data.some(({ marker }) => marker?.symbol === 'diamond')"
        )
        marks = {trace["marker"]["symbol"]: trace for trace in page.traces("scatter") if "markers" in trace["mode"]}
        assert len(set(marks["circle"]["marker"]["color"])) == 2
        assert marks["diamond"]["error_y"]["array"] == [pytest.approx(2.83, abs=0.01)]

        page.frame.get_by_label("Group and colour by").select_option(label="regular expression")
        page.frame.get_by_label("Group runs by what").fill("seed=(.)")
        assert page.frame.locator("#groups tbody td:first-child").all_text_contents() == ["1", "0"]
        page.frame.get_by_label("Group runs by what").fill("seed=(0")  # half typed
        assert "No run is in a group" in page.frame.locator("#groups .note").inner_text()
        page.frame.get_by_label("Group and colour by").select_option(label="run")

        page.frame.get_by_role("searchbox").fill("zzz")
        assert page.frame.locator(".runs p.none").inner_text() == "No run's name matches “zzz”."
        assert not page.frame.locator("#scatter").is_visible()
        page.frame.get_by_role("button", name="Show all runs").click()
        assert page.frame.locator("#scatter").is_visible()
        assert len(page.names()) == 5
        long = page.frame.evaluate(
            """async () => {
                const { cut, shortNames } = await import(new URL('static/names.js', document.baseURI).href);
                return [cut('abcdefghij', 7), cut('abc', 3), [...shortNames(['0-lr=1e-5', '1-lr=1e-6']).values()]];
            }"""
        )
        assert long == ["abc…hij", "abc", ["0-lr=1e-5", "1-lr=1e-6"]]


def test_where_sam_does_not_see_energy_it_says_so_and_offers_the_unit_in_which_it_does(browser, made):
    with opened(browser, made, charts=False) as page:
        told = page.frame.locator(".blind")
        assert "With E in kWh SAM is undefined for 2 of 5 runs" in told.inner_text()
        page.frame.get_by_role("searchbox").fill("lr=0.1,")
        assert "undefined for all 2 runs, and shifted SAM ranks by accuracy alone" in told.inner_text()
        told.get_by_role("button", name="Take E in Wh").click()
        assert not told.is_visible()
        assert page.frame.locator(".controls .choice input:checked").get_attribute("value") == "Wh"
        assert all(row["sam"] != "E ≤ 1 kWh" for row in page.rows())
        assert page.frame.locator(".formula").inner_text().replace("\n", "") == "β · accuracyα / log10 E"
        # One rule here and where a run is printed.
        energies = [1e-3, 0.5, 2.0, 3599.0, 3601.0, 3.7e6, 4e9]
        code = """async (energies) => {
            const { unitThatSees } = await import(new URL('static/metric.js', document.baseURI).href);
            return energies.map((joules) => unitThatSees([{ accuracy: 0.5, joules }]));
        }"""
        assert page.frame.evaluate(code, energies) == [unit_that_sees(joules) for joules in energies]


def test_totals_curves_and_one_run_in_full(browser, made):
    with opened(browser, made) as page:
        wait_until_drawn(page.frame)
        tiles = [text.split("\n") for text in page.frame.locator(".tile:visible").all_inner_texts()]
        tiles = [[line for line in lines if line] for lines in tiles]
        # 0.4 + 0.6 + 6 + 6.4 + 9 kWh; the scales' errors add up.
        assert [tile[0] for tile in tiles] == ["Energy", "CO2e", "Cost", "Time", "Best by shifted SAM"]
        assert tiles[0][1:] == ["22.4 kWh", "± 1.12 kWh"]
        assert tiles[1][1:] == ["250 g", "of 1 of 5 runs"]

        # Energy so far: five runs, and the forecast of the one that goes on with its interval and its budget.
        traces = {trace["name"]: trace for trace in page.traces("growth")}
        assert traces["forecast-low"]["y"] == pytest.approx([10.5] * 3)
        assert traces["forecast-high"]["y"] == pytest.approx([13.5] * 3)
        shapes = "() => document.querySelector('#growth .chart').layout.shapes.map((shape) => [shape.y0, shape.label.text])"
        assert page.frame.evaluate(shapes) == [[pytest.approx(14.0), f"budget of {OTHER}"]]
        for over, places in (("steps", [1, 2, 3, 4]), ("epochs", [0, 1, 2, 3]), ("energy", [2.25, 4.5, 6.75, 9.0])):
            page.frame.locator(f"#growth .choice input[value={over}]").check(force=True)
            page.frame.wait_for_function(
                "([over, name]) => document.querySelector('#growth .choice input:checked').value === over",
                arg=[over, OTHER],
            )
            page.tab.wait_for_timeout(100)
            (line,) = [trace for trace in page.traces("growth") if trace["name"] == OTHER]
            assert line["x"] == pytest.approx(places), over
        assert len(page.traces("epochs")) == 2  # the stages of the only run that has epochs
        assert {trace["xaxis"] for trace in page.traces("devices")} == {"x", "x2"}

        page.sort("joules")
        page.frame.locator("summary", has_text="Columns").click()
        for column in ("Time", "CO2e, g", "lr"):
            page.frame.locator(".menu label", has_text=column).locator("input").check()
        first = page.rows()[0]
        assert (first["name"], first["co2e_g"], first["hparam:lr"], first["seconds"]) == (FIRST, "250", "0.1", "10.0 min")

        # Two runs compared, by the rule of `lightning-watt compare`.
        for name in (FIRST, OTHER):
            page.frame.get_by_label(f"Compare {name}").check()
        verdict = page.frame.locator("#compare .verdict")
        ours = difference(record(1.0, 0.5), record(0.4, 0.7))
        page.frame.wait_for_function("() => document.querySelector('#compare .verdict').textContent.startsWith('They')")
        assert verdict.inner_text() == f"{ours.verdict}: {OTHER} used 600 Wh ± 0 J more (+150 %)."
        assert "same devices" in page.frame.locator("#compare").inner_text()

        page.frame.locator(f".open-run[title='{FIRST}']").click()
        panel = page.frame.locator(".record")
        panel.locator("dt", has_text="Cost").wait_for()
        text = panel.inner_text()
        for fact in (
            "0.120, at 0.300 a kWh",
            "118 W over 10.0 s",
            "wasted after it",
            "runs/3",
            "100 kWh ± 5.00 kWh from pretrain",
        ):
            assert fact in text, fact
        assert panel.locator("tbody tr", has_text="validate").count() >= 2  # a stage, and its epochs
        panel.get_by_role("button", name="Statement for a paper").click()
        panel.get_by_text("This run used 400 ± 20 Wh").wait_for()


def test_a_view_can_be_sent_and_a_table_saved(browser, made):
    with opened(browser, made, host=True, charts=False) as page:
        page.frame.get_by_role("searchbox").fill("multirun")
        page.frame.get_by_label("inherited energy").check()
        page.frame.locator(".choice input[value=Wh]").check(force=True)
        page.frame.get_by_label("Group and colour by").select_option(label="all but the seed")
        page.sort("joules")
        page.tab.wait_for_function("() => location.hash.includes('joules')")
        address, before = page.tab.url, page.rows()
        assert address.startswith(f"{made}/")
        assert "#watt&view=" in address
        texts = {}
        for kind in ("CSV", "LaTeX"):
            with page.tab.expect_download() as saved:
                page.frame.get_by_role("button", name=kind).click()
            texts[kind] = Path(saved.value.path()).read_text(encoding="utf-8")
        (first, *_) = csv.DictReader(io.StringIO(texts["CSV"]))
        assert (first["run"], float(first["energy_j"])) == (before[0]["name"], pytest.approx(0.6 * J_PER_KWH))
        lines = texts["LaTeX"].splitlines()
        assert lines[1] == r"\begin{tabular}{rrlrrrrrll}"
        assert " & lr=0.1,seed=1 & 74.0 & 0.600 & 0.030 & " in lines[5]
        code = """async () => {
            const { toLatex, toCsv } = await import(new URL('static/export.js', document.baseURI).href);
            const row = { name: '=1+1,"x"', label: 'a_b%\\\\', measured: true, settings: new Map() };
            const model = { rows: [row], keys: [], unit: { name: 'J', size: 1 } };
            const state = { columns: [], scoring: { alpha: 5, beta: 5, unit: 'J' } };
            return [toCsv(state, model), toLatex(state, model).split('\\n')[5]];
        }"""
        assert page.frame.evaluate(code) == ['run\n"\'=1+1,""x"""\n', r"a\_b\%\textbackslash{} \\"]

        # The page of a colleague.
        page.tab.goto("about:blank")
        page.tab.goto(address)
        page.frame = page.tab.wait_for_selector("iframe[src*='name=watt']").content_frame()
        page.frame.wait_for_selector("#leaderboard tbody tr")
        assert page.rows() == before
        assert page.frame.get_by_role("searchbox").input_value() == "multirun"
        assert page.frame.get_by_label("inherited energy").is_checked()
        assert page.frame.locator(".choice input[value=Wh]").is_checked()
        assert page.frame.locator("#groups tbody tr").count() == 2
        hostile = """async () => {
            const { fromText } = await import(new URL('static/address.js', document.baseURI).href);
            const keys = ['filter', 'hidden', 'group', 'scoring', 'sort', 'columns', 'compared', 'over', 'shares'];
            const all = (value) => fromText(JSON.stringify(Object.fromEntries(keys.map((key) => [key, value]))));
            const found = [fromText('{'), fromText('7'), all(null), all(7), all({}), all([{}])];
            return found.map((one) => Object.keys(one).length);
        }"""
        assert page.frame.evaluate(hostile) == [0] * 6


def test_the_room_of_a_chart_is_there_before_it_is_and_its_buttons_are_of_the_theme(browser, made):
    tab = browser.new_page(color_scheme="dark", viewport={"width": 800, "height": 900}, reduced_motion="reduce")
    tab.route("**/plotly.js", lambda route: None)  # it never comes
    tab.goto(f"{made}/data/plugin_entry.html?name=watt")
    tab.wait_for_selector("#leaderboard tbody tr")
    heights = "() => [...document.querySelectorAll('.chart')].map((chart) => chart.clientHeight)"
    assert min(tab.evaluate(heights)) >= 260
    assert tab.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    tab.close()
    with opened(browser, made) as page:
        wait_until_drawn(page.frame)
        bar = page.frame.evaluate("() => document.querySelector('#scatter .chart').layout.modebar")
        assert bar == {"bgcolor": "rgba(0,0,0,0)", "color": "#9aa0a6", "activecolor": "#c25500"}


def test_an_hour_in_the_tab_with_everything_clicked_asks_nobody_but_tensorboard(browser, made):
    """By the page's own clock, which is put forward; `close` looks at whom it asked, and at what went wrong."""
    click = """(part) => {
        const parts = (all) => [...document.querySelectorAll(all)];
        const able = parts('button, input[type=checkbox], input[type=radio], summary');
        for (const one of able.filter((_, at) => at % 4 === part)) if (one.isConnected && !one.disabled) one.click();
        for (const choice of parts('select')) {
            choice.selectedIndex = part % choice.options.length;
            choice.dispatchEvent(new Event('change', { bubbles: true }));
        }
        const live = parts('label').find((one) => one.textContent === 'live').querySelector('input');
        if (!live.checked) live.click();
    }"""
    with opened(browser, made, host=True, clock=True) as page:
        page.tab.on("download", lambda download: download.cancel())
        wait_until_drawn(page.frame)
        for pick in page.frame.locator(".pick").all()[:2]:
            pick.check()
        page.frame.locator(".open-run").first.click()
        with page.tab.expect_request("**/data/plugin/watt/statement?*"):
            page.frame.get_by_role("button", name="Statement for a paper").click()
        for part in range(4):
            page.frame.evaluate(click, part)
            with page.tab.expect_request("**/data/plugin/watt/runs"):
                page.tab.clock.fast_forward(900_000)
        asked = Counter(urlsplit(url).path.removeprefix("/data/plugin/watt/") for url in page.asked if "/watt/" in url)
    assert asked["runs"] >= 5
    assert {"curves", "epochs", "record", "statement", "compare", "plotly.js"} <= asked.keys()
    assert {path for path in asked if not path.startswith("static/")} <= {
        "runs", "curves", "epochs", "record", "statement", "compare", "plotly.js",
    }  # fmt: skip


def test_a_joule_that_two_runs_hold_is_counted_once(browser, made):
    runs = [("a", [], 100.0, 0.0), ("b", ["a"], 150.0, 94.0), ("c", ["gone"], 120.0, 90.0), ("d", ["gone"], 95.0, 90.0)]
    rows = [
        {"own_j": j, "session": session, "resumes": ids, "earlier_j": before, "co2e_g": j / 10, "cost": j / 100}
        for session, ids, j, before in runs
    ]
    code = """async (rows) => {
        const { totalOf } = await import(new URL('static/totals.js', document.baseURI).href);
        const { tiles } = await import(new URL('static/views/tiles.js', document.baseURI).href);
        const { root, update } = tiles({});
        update({}, { rows: rows.map((row) => ({ ...row, joules: row.own_j, boundary_j: 3, gain_j: 0.1 * row.own_j })) });
        return [totalOf(rows).sum, ...[...root.querySelectorAll('.tile:not([hidden]) p')].map((said) => said.textContent)];
    }"""
    records = []
    for session, resumes, total_j, before_j in runs:
        one = record(1.0, 0.5, session=session, resumes=resumes, resumed_j=before_j)
        one.energy.total_j, one.energy.boundary_j, one.energy.gain_j = total_j, 3.0, 0.1 * total_j
        records.append(one)
    with opened(browser, made, charts=False) as page:
        used = energy_below(Path("x"), records)
        assert used.own_j == 100 + 56 + 30 + 5 + 90
        # With each joule its CO2e and its cost.
        said = ["281 J", f"± {used.own.total_j:.1f} J, each joule once", "28.1 g", "", "2.81", ""]
        assert page.frame.evaluate(code, rows) == [used.own_j, *said]


def test_runs_whose_names_are_numbers_are_told_apart_by_their_models_or_settings(browser, made):
    """As the jobs of Hydra's sweeps are, and Lightning's versions."""
    sweeps = {
        "models": [{"timm_name": "vit", "params": 5}, {"timm_name": "resnet", "params": 6}],
        "rates": [{"lr": 0.1, "seed": 1, "wd": 0}, {"lr": 0.1, "seed": 2, "wd": 1}, {"lr": 1 / 3, "seed": 3, "wd": 1}],
        "seeds": [{"model": "vit", "seed": seed} for seed in (0, 1)],
        "alike": [{"lr": 0.1}, {"lr": 0.1}],
    }
    code = """async (settings) => {
        const { Store } = await import(new URL('static/state.js', document.baseURI).href);
        const store = new Store();
        let labels = [];
        store.subscribe((state, { listed }) => (labels = listed.map(({ label }) => label)));
        const runs = settings.map((hparams, at) => ({ name: `multirun/${at}`, unit: null, by_stage: {}, hparams }));
        store.takeRuns({ runs, now_unix: 0, where: '' });
        const all = labels;
        store.set({ filter: 'resnet' });
        return [all, labels];
    }"""
    with opened(browser, made, charts=False) as page:
        found = {name: page.frame.evaluate(code, runs) for name, runs in sweeps.items()}
    assert {name: labels for name, (labels, _) in found.items()} == {
        "models": ["0 · vit", "1 · resnet"],
        "rates": ["0 · lr 0.1, wd 0", "1 · lr 0.1, wd 1", "2 · lr 0.333, wd 1"],
        "seeds": ["0 · seed 0", "1 · seed 1"],
        "alike": ["0", "1"],
    }
    assert found["models"][1] == ["1 · resnet"]


def test_no_stage_looks_like_a_run(browser, made):
    code = """async () => {
        const { palettes } = await import(new URL('static/palette.js', document.baseURI).href);
        return palettes();
    }"""
    with opened(browser, made, charts=False) as page:
        found = page.frame.evaluate(code)
    for theme in ("light", "dark"):
        runs = [saturation(colour) for colour in found["RUNS"][theme]]
        stages = [(name, colours[theme]) for name, colours in found["STAGES"].items() if name != "wasted"]
        for name, colour in stages:
            assert saturation(colour) < 0.35, name
        assert sorted(runs)[1] > 0.35  # one of them is a grey


def saturation(colour: str) -> float:
    """Of a colour `#rrggbb`: between 0, a grey, and 1."""
    low, *_, high = sorted(int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return (high - low) / high
