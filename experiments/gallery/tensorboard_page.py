"""Takes a picture of TensorBoard's page for a run: `python -m experiments.gallery.tensorboard_page RUN_DIR OUT.png`.

It starts TensorBoard on loopback, opens it in headless Chromium, pins the cards that matter, and stops both.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WAIT_S = 60.0
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run"]


@contextmanager
def tensorboard(logdir: Path, *options: str) -> Iterator[str]:
    """TensorBoard over a directory, on loopback, with further options of its command line; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--host", "127.0.0.1", "--port", str(port)]
    command += options
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + WAIT_S
        while True:
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                if time.monotonic() > until or server.poll() is not None:
                    raise RuntimeError("TensorBoard did not start. Is it installed (pip install tensorboard)?") from None
                time.sleep(0.3)
        yield address
    finally:
        server.terminate()
        server.wait(10)


def find_chromium() -> str | None:
    """The path of an installed Chromium."""
    return next((path for name in CHROMIUM if (path := shutil.which(name))), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """Headless Chromium."""
    from playwright.sync_api import sync_playwright

    found = find_chromium()
    if found is None:
        raise RuntimeError("Chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=ARGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def page(width: int, height: int) -> Iterator[Any]:
    """A page of headless Chromium."""
    with chromium() as browser:
        yield browser.new_page(viewport={"width": width, "height": height})


def take(run: Path, out: Path, tag_filter: str, width: int = 1500, height: int = 1150) -> None:
    """Take the picture of a run's scalars.

    Args:
        run: the run's directory.
        out: the PNG to write.
        tag_filter: a regular expression of the tags to show.
        width: pixels.
        height: pixels.
    """
    with tensorboard(run) as address, page(width, height) as tab:
        tab.goto(f"{address}/?smoothing=0&tagFilter={tag_filter}#timeseries")
        tab.wait_for_selector("card-view", timeout=WAIT_S * 1000)
        tab.wait_for_load_state("networkidle")
        tab.get_by_role("button", name="Settings").last.click()  # its pane takes a quarter of the page
        tab.wait_for_timeout(4000)  # the curves are drawn by WebGL, which has no event to wait for
        out.parent.mkdir(parents=True, exist_ok=True)
        tab.screenshot(path=str(out))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tags", default="watt%2F(energy_kwh%7Cpower_w%7Caccuracy%7Csam_shifted)$")
    arguments = parser.parse_args()
    take(arguments.run, arguments.out, arguments.tags)
    print(f"Wrote {arguments.out}")


if __name__ == "__main__":
    main()
