"""What a program prints of its runs: one Trainer and many, a fit and its test, a search; and who wants to hear less."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from experiments.gallery.tensorboard_page import CHROMIUM, chromium
from lightning_watt import WattCallback
from lightning_watt.record.text.printed import PRINTED
from lightning_watt.trainer.ending import LIGHTNING_LOGS, quiet
from tests.integration.tiny import PACKAGES, QUIET, ROOT, Steady, loader, module, trainer
from tests.unit.record.made import a_record

pytestmark = [pytest.mark.filterwarnings(entry) for entry in QUIET]
LOUD = {"enable_progress_bar": True, "enable_model_summary": True}
LONG = {"step_s": 0.3}
"""Four batches of it take more than a second."""


@pytest.fixture(autouse=True)
def _levels() -> Iterator[None]:
    before = {name: logging.getLogger(name).level for name in LIGHTNING_LOGS}
    yield
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


def watt(**options: Any) -> WattCallback:
    return WattCallback(sources=[Steady()], interval=0.1, record=False, **options)


def loud(pl: Any, directory: Any, callback: WattCallback, **options: Any) -> Any:
    """A Trainer as Lightning makes it, but for a bar that draws nothing."""
    bar = pl.callbacks.TQDMProgressBar(refresh_rate=0)
    return trainer(pl, directory, callback, bar, **{**LOUD, "max_epochs": 1, "num_sanity_val_steps": 0} | options)


def ours(text: str) -> list[str]:
    """Our lines of an output: what is above a table's sentences belongs to the table."""
    return [line for line in text.splitlines() if "nergy " in line and " ± " in line]


def test_a_fit_prints_its_table_and_the_test_after_it_one_line(pl, tmp_path, capsys):
    trained, tiny = loud(pl, tmp_path, watt()), module(pl, **LONG)
    trained.fit(tiny, loader(4), loader(1))
    out = capsys.readouterr().out
    assert out.count("mean W") == 2  # by stage, by device
    trained.test(tiny, loader(2), verbose=False)
    out = capsys.readouterr().out
    assert "mean W" not in out
    [line] = ours(out)
    assert line.startswith("Test ")
    assert "; in all energy " in line
    assert line.endswith("; accuracy 0.2500 (test_acc).")


def test_later_trainers_have_a_line_each_and_the_process_one_table(ptl, tmp_path, capsys):
    for _ in range(3):
        loud(ptl, tmp_path, watt()).fit(module(ptl), loader(2), loader(1))
    out = capsys.readouterr().out
    assert len(ours(out)) == 3
    assert "mean W" not in out  # the first took less than a second
    assert "3 Trainers in this process: energy " in PRINTED.of_process()


def test_a_search_for_a_learning_rate_prints_nothing_of_its_own(pl, tmp_path, capsys):
    class Searched(type(module(pl))):
        lr = 0.1

        def train_dataloader(self) -> Any:
            return loader(4)

    from importlib import import_module

    tuner = import_module(f"{pl.__name__}.tuner").Tuner
    trained, tiny = loud(pl, tmp_path, watt()), Searched()
    tuner(trained).lr_find(tiny, num_training=4)
    assert ours(capsys.readouterr().out) == []
    trained.fit(tiny)
    assert len(ours(capsys.readouterr().out)) == 1


@pytest.mark.parametrize("name", LIGHTNING_LOGS)
def test_a_higher_level_of_lightnings_log_is_heard(ptl, tmp_path, capsys, name):
    logging.getLogger(name).setLevel(logging.ERROR)
    for _ in range(2):
        loud(ptl, tmp_path, watt()).fit(module(ptl, **LONG), loader(4), loader(1))
    [line] = ours(capsys.readouterr().out)
    assert line.startswith("Energy ")


@pytest.mark.parametrize("off", LOUD)
def test_drawing_that_is_turned_off_is_heard(pl, tmp_path, capsys, off):
    trained = trainer(pl, tmp_path, watt(), **LOUD | {off: False}, max_epochs=1)
    trained.fit(module(pl), loader(2), loader(1))
    assert quiet(trained) == 1
    assert len(ours(capsys.readouterr().out)) == 1
    logging.getLogger(pl.__name__).setLevel(logging.WARNING)
    assert quiet(trained) == 2
    trainer(pl, tmp_path, watt(), max_epochs=1).fit(module(pl), loader(2), loader(1))
    assert ours(capsys.readouterr().out) == []


def test_messages_that_are_off_for_all_are_off_for_us(ptl, tmp_path):
    trained = trainer(ptl, tmp_path, **LOUD)
    assert quiet(trained) == 0
    logging.disable(logging.INFO)
    try:
        assert quiet(trained) == 1
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.parametrize("wanted", ["table", "line", "none"])
def test_what_is_asked_for_is_printed_whoever_is_quiet(ptl, tmp_path, capsys, wanted):
    logging.getLogger(ptl.__name__).setLevel(logging.ERROR)
    for _ in range(2):
        trainer(ptl, tmp_path, watt(summary=wanted), max_epochs=1).fit(module(ptl), loader(2), loader(1))
    out = capsys.readouterr().out
    assert len(ours(out)) == {"table": 2, "line": 2, "none": 0}[wanted]
    assert out.count("mean W") == (4 if wanted == "table" else 0)


def test_no_accuracy_is_a_sentence_below_the_first_table_and_no_warning(ptl, tmp_path, capsys):
    """`words` fails this test if it is a warning."""
    for _ in range(2):
        trained = trainer(ptl, tmp_path, watt(summary="table"), max_epochs=1)
        trained.fit(module(ptl, accuracy=()), loader(2), loader(1))
    assert capsys.readouterr().out.count("No accuracy was logged, so there is no SAM;") == 1


def test_an_accuracy_of_another_name_is_a_warning_that_offers_it(ptl, tmp_path, words):
    trainer(ptl, tmp_path, watt(accuracy="val_accuracy"), max_epochs=1).fit(module(ptl), loader(2), loader(1))
    assert "Did you mean 'val_acc'?" in words.take("No metric of the name 'val_accuracy' was logged")


PROGRAM = """
import {package} as pl
from tests.integration.tiny import loader, module
for _ in range(12):
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, {options})
    trainer.fit(module(pl), loader(2), loader(1))
print("the program ends")
"""


@pytest.mark.parametrize(("options", "before", "after"), [("", 12, 1), ("enable_progress_bar=False", 1, 1)])
def test_a_program_of_many_small_fits_is_not_drowned(tmp_path, monkeypatch, options, before, after):
    monkeypatch.setenv("LIGHTNING_WATT", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    program = PROGRAM.format(package=PACKAGES[0], options=options)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    first, _, last = done.stdout.partition("the program ends")
    assert (len(ours(first)), len(ours(last))) == (before, after)
    assert "12 Trainers in this process: energy " in last
    assert ("source" in last) == (not options)  # the table over all; or one line


# ---- where the record lies ----


class LocalFileSystem:
    """As Arrow calls that of this machine."""


@pytest.mark.parametrize(
    ("root", "logs", "place"),
    [
        ("work", False, "own/watt.json"),  # Ray has changed into it
        ("work", True, "own/lightning_logs/version_0/watt.json"),
        ("shared", False, "own/watt.json"),  # Ray was told not to; one trial would write over the other
        ("shared", True, "shared/lightning_logs/version_0/watt.json"),  # the script's own choice
    ],
)
def test_in_a_trial_of_ray_tune_the_files_go_to_the_trials_own_directory(ptl, tmp_path, monkeypatch, root, logs, place):
    """What Ray keeps for a trial is made up here; a trial of the real Ray takes a minute to start."""
    storage = SimpleNamespace(
        storage_filesystem=LocalFileSystem(),
        trial_working_directory=str(tmp_path / "work"),
        trial_fs_path=str(tmp_path / "own"),
    )
    ray = SimpleNamespace(get_session=lambda: SimpleNamespace(storage=storage))
    monkeypatch.setitem(sys.modules, "ray.train._internal.session", ray)
    logger = ptl.loggers.CSVLogger(tmp_path / root) if logs else False
    callback = WattCallback(sources=[Steady()], summary="none")
    trainer(ptl, tmp_path / root, callback, max_epochs=1, logger=logger).fit(module(ptl), loader(2), loader(1))
    assert [str(file.relative_to(tmp_path)) for file in tmp_path.rglob("watt.json")] == [place]


@pytest.mark.browser
def test_the_button_of_a_notebook_copies_the_table_as_text(tmp_path):
    pytest.importorskip("playwright", reason="needs playwright: pip install playwright")
    if not any(shutil.which(name) for name in CHROMIUM):
        pytest.skip("needs Chromium: apt-get install chromium")
    record = a_record()
    (tmp_path / "cell.html").write_text(f"<meta charset=utf-8>{record._repr_html_()}", encoding="utf-8")
    with chromium() as browser:
        for has_clipboard in (True, False):  # a page of another machine without encryption has none
            page = browser.new_context(permissions=["clipboard-read", "clipboard-write"]).new_page()
            page.goto((tmp_path / "cell.html").as_uri())
            if not has_clipboard:
                page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
            page.click("text=Copy")
            assert page.inner_text("button") == "Copied"
            page.evaluate("document.body.appendChild(document.createElement('textarea')).focus()")
            page.keyboard.press("Control+V")
            assert page.input_value("textarea").strip() == str(record).strip()
            page.close()
