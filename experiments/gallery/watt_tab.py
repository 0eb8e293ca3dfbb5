"""Takes a picture of the Watt tab over a directory of runs: `python -m experiments.gallery.watt_tab RUNS_DIR OUT.png`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from experiments.gallery.tensorboard_page import WAIT_S, page, tensorboard

SHOWN = ".page:not([hidden]), .empty:not([hidden])"
DRAWN = """() => {
  const charts = [...document.querySelectorAll('.page:not([hidden]) .chart')];
  return charts.length > 0 && charts.every((chart) => chart.querySelector('.xtick'));
}"""


def open_tab(tab: Any, address: str, *, dark: bool = False) -> Any:
    """Open the Watt tab in a page of Chromium.

    Args:
        tab: a Playwright page.
        address: TensorBoard's.
        dark: in TensorBoard's dark theme.

    Returns:
        The tab's frame, as soon as it shows runs or says that there are none.
    """
    tab.goto(f"{address}/?darkMode={str(dark).lower()}#watt")
    frame = tab.wait_for_selector("iframe[src*='name=watt']", timeout=WAIT_S * 1000).content_frame()
    frame.wait_for_selector(SHOWN, timeout=WAIT_S * 1000)
    return frame


def wait_until_drawn(frame: Any) -> None:
    """Wait until every chart stands."""
    frame.wait_for_function(DRAWN, timeout=WAIT_S * 1000)


def take(runs: Path, out: Path, *, dark: bool, width: int, height: int, run: str = "") -> None:
    """Take the picture.

    Args:
        runs: the directory of runs.
        out: the PNG to write.
        dark: in the dark theme.
        width: pixels.
        height: pixels.
        run: the name of a run whose record is to be open.
    """
    with tensorboard(runs) as address, page(width, height) as tab:
        frame = open_tab(tab, address, dark=dark)
        wait_until_drawn(frame)
        if run:
            frame.locator(f".open-run[title='{run}']").click()
            frame.wait_for_selector(".record dl")
        tab.wait_for_timeout(1000)  # the frame's transitions
        out.parent.mkdir(parents=True, exist_ok=True)
        tab.screenshot(path=str(out))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--width", type=int, default=1500)
    parser.add_argument("--height", type=int, default=1130)
    parser.add_argument("--run", default="", help="open this run's record")
    arguments = parser.parse_args()
    take(
        arguments.runs,
        arguments.out,
        dark=arguments.dark,
        width=arguments.width,
        height=arguments.height,
        run=arguments.run,
    )
    print(f"Wrote {arguments.out}")


if __name__ == "__main__":
    main()
