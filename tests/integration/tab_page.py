"""The Watt tab in a page of headless Chromium, for the tests that look at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from experiments.gallery.tensorboard_page import chromium
from experiments.gallery.watt_tab import SHOWN, open_tab


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


class Page:
    """The tab in a page, with what went wrong in it and whom it asked.

    Args:
        browser: Chromium.
        address: TensorBoard's.
        host: with TensorBoard around it; without, only the frame that it would show, which is there sooner.
        charts: with the charts, whose drawing takes longer than all else; without, the library that draws them never comes.
        clock: its clock can be put forward.
        **options: of `open_tab`.
    """

    def __init__(
        self, browser: Any, address: str, host: bool = False, charts: bool = True, clock: bool = False, **options: Any
    ) -> None:
        # Nothing moves: a browser that draws without a GPU would do little else.
        self.tab = browser.new_page(viewport={"width": 1400, "height": 1100}, reduced_motion="reduce")
        if not charts:
            self.tab.route("**/plotly.js", lambda route: None)
        if clock:
            self.tab.clock.install()
        self.address = address
        self.errors: list[str] = []
        self.asked: list[str] = []
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.on("console", self._hear)
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.on("websocket", lambda socket: self.asked.append(socket.url))
        self.tab.on("popup", lambda other: self.asked.append(f"a new page: {other.url}"))
        self.tab.on("dialog", lambda dialog: self.errors.append(f"a dialog: {dialog.message}"))
        self.frame = open_tab(self.tab, address, **options) if host else self.tab.main_frame
        if not host:
            self.tab.goto(f"{address}/data/plugin_entry.html?name=watt")
            self.frame.wait_for_selector(SHOWN)

    def _hear(self, said: Any) -> None:
        # A page without TensorBoard's head has no icon; the browser looks for one all the same.
        if said.type == "error" and not said.location["url"].endswith("/favicon.ico"):
            self.errors.append(said.text)

    def rows(self) -> list[dict[str, str]]:
        """The leaderboard's rows: the cells' text by column, and the run's whole name."""
        return self.frame.evaluate(
            """() => [...document.querySelectorAll('#leaderboard tbody tr')].map((row) => ({
                name: row.querySelector('.open-run').title,
                ...Object.fromEntries([...row.cells].map((cell) => [cell.dataset.key, cell.textContent])),
            }))"""
        )

    def names(self) -> list[str]:
        return [row["name"] for row in self.rows()]

    def sort(self, column: str) -> None:
        self.frame.locator(f"#leaderboard th[data-key={column}] button").click()

    def traces(self, card: str) -> list[dict[str, Any]]:
        """What plotly draws in a card."""
        return self.frame.evaluate("(card) => document.querySelector(`#${card} .chart`).data", card)

    def close(self) -> None:
        """Nothing went wrong, and nobody else was asked."""
        strangers = [url for url in self.asked if not url.startswith((self.address, "data:", "blob:"))]
        self.tab.close()
        assert self.errors == []
        assert strangers == []


@contextmanager
def opened(browser: Any, address: str, **options: Any) -> Iterator[Page]:
    page = Page(browser, address, **options)
    yield page
    page.close()
