"""The Watt tab's views and choices in headless Chromium, over event files that are made for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.gallery.tensorboard_page import find_chromium, tensorboard
from experiments.gallery.watt_tab import wait_until_drawn
from lightning_watt.record import PlusMinus, together
from tests.integration.tab_page import browser, opened
from tests.tab_runs import write_run

__all__ = ["browser"]  # a fixture

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="Chromium is not installed: apt-get install chromium"),
]

RUNS = {  # kWh, accuracy, kWh inherited
    "tuned/lr=0.1,seed=0": (4.0, 0.70, 100.0),
    "tuned/lr=0.1,seed=1": (6.0, 0.74, 0.0),
    "tuned/lr=0.01,seed=0": (60.0, 0.80, 0.0),
    "tuned/lr=0.01,seed=1": (64.0, 0.84, 0.0),
}


@pytest.fixture(scope="module")
def made(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    logdir: Path = tmp_path_factory.mktemp("views")
    for name, (kwh, accuracy, inherited_kwh) in RUNS.items():
        write_run(logdir, name, kwh, accuracy, inherited_kwh=inherited_kwh)
    with tensorboard(logdir) as address:
        yield address


def test_with_inherited_energy_the_plus_minus_and_the_paths_are_those_of_both(browser, made):
    name = "tuned/lr=0.1,seed=0"
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
        assert (row["joules"], row["uncertainty_j"]) == ("104", "5.2")  # 5 % of each, on one board: they add up
        page.frame.wait_for_function(
            "() => document.querySelector('#scatter .chart').data.some(({ x }) => Math.abs(x[0] - 101) < 1e-6)"
        )
        traces = page.traces("scatter")
        path = next(trace for trace in traces if trace["mode"] == "lines" and trace["x"][0] == pytest.approx(101))
        assert (path["x"][-1], path["y"][-1]) == (pytest.approx(104), pytest.approx(70))
        marks = next(trace for trace in traces if name in trace.get("customdata", []))
        at = marks["customdata"].index(name)
        assert (marks["x"][at], marks["error_x"]["array"][at]) == (pytest.approx(104), pytest.approx(5.2))
