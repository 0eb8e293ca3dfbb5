"""The Watt tab's views and choices in headless Chromium, over event files that are made for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.gallery.tensorboard_page import find_chromium, tensorboard
from experiments.gallery.watt_tab import wait_until_drawn
from lightning_watt.record import PlusMinus, together
from lightning_watt.sam.score import unit_that_sees
from tests.integration.tab_page import browser, opened
from tests.tab_runs import write_run

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


@pytest.fixture(scope="module")
def made(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    logdir: Path = tmp_path_factory.mktemp("views")
    for name, (kwh, accuracy, inherited_kwh) in RUNS.items():
        write_run(logdir, name, kwh, accuracy, inherited_kwh=inherited_kwh)
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
        listed = page.frame.locator(".runs li .name")
        assert sorted(listed.all_text_contents()) == ["lr=0.01,seed=0", "lr=0.01,seed=1", "lr=0.1,seed=0", "lr=0.1,seed=1"]
        assert listed.first.get_attribute("title") in RUNS
        assert page.traces("scatter")[-1]["customdata"] == page.names()

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
        assert len(page.names()) == 4
        long = page.frame.evaluate(
            """async () => {
                const { cut, shortNames } = await import(new URL('static/names.js', document.baseURI).href);
                return [cut('abcdefghij', 7), cut('abc', 3), [...shortNames(['0-lr=1e-5', '1-lr=1e-6']).values()]];
            }"""
        )
        assert long == ["abc…hij", "abc", ["0-lr=1e-5", "1-lr=1e-6"]]


def test_where_sam_does_not_see_energy_it_says_so_and_offers_the_unit_in_which_it_does(browser, made):
    with opened(browser, made) as page:
        told = page.frame.locator(".blind")
        assert "With E in kWh SAM is undefined for 2 of 4 runs" in told.inner_text()
        page.frame.get_by_role("searchbox").fill("lr=0.1,")
        assert "undefined for all 2 runs, and shifted SAM ranks by accuracy alone" in told.inner_text()
        told.get_by_role("button", name="Take E in Wh").click()
        assert not told.is_visible()
        assert page.frame.locator(".choice input:checked").get_attribute("value") == "Wh"
        assert all(row["sam"] != "E ≤ 1 kWh" for row in page.rows())
        assert page.frame.locator(".formula").inner_text().replace("\n", "") == "β · accuracyα / log10 E"
        # One rule here and where a run is printed.
        energies = [1e-3, 0.5, 2.0, 3599.0, 3601.0, 3.7e6, 4e9]
        code = """async (energies) => {
            const { unitThatSees } = await import(new URL('static/metric.js', document.baseURI).href);
            return energies.map((joules) => unitThatSees([{ accuracy: 0.5, joules }]));
        }"""
        assert page.frame.evaluate(code, energies) == [unit_that_sees(joules) for joules in energies]


def test_no_stage_looks_like_a_run(browser, made):
    code = """async () => {
        const { palettes } = await import(new URL('static/palette.js', document.baseURI).href);
        return palettes();
    }"""
    with opened(browser, made) as page:
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
