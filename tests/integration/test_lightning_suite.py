"""`tests.lightning_suite` on a checkout of a few tests: each arm is what it says, and a test that hangs costs no other."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.lightning_suite.__main__ import main
from tests.lightning_suite.compare import differences
from tests.lightning_suite.runs import Result, Results

pytestmark = pytest.mark.slow

TRAINED = ("test_counts_callbacks", "test_looks_for_files", "test_looks_for_values")

PLAIN = """
    import os
    import time
    import pytest

    def test_passes():
        pass

    def test_hangs():
        time.sleep(60)

    def test_takes_the_process_with_it():
        os._exit(3)

    def test_after_them():
        pass

    @pytest.mark.xfail
    def test_is_known_to_fail():
        raise ValueError

    def test_fails_always():
        assert 1 == 2, "of course"
"""
SEES = """
    import lightning.pytorch as pl
    import torch
    from lightning.pytorch.demos.boring_classes import BoringModel

    def fitted(tmp_path):
        off = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = pl.Trainer(default_root_dir=tmp_path, accelerator="cpu", max_epochs=1, limit_train_batches=2, **off)
        trainer.fit(BoringModel())
        return trainer

    def test_counts_callbacks(tmp_path):
        assert len(fitted(tmp_path).callbacks) == 0

    def test_looks_for_files(tmp_path):
        fitted(tmp_path)
        assert not list(tmp_path.glob("*"))

    def test_looks_for_values(tmp_path):
        assert not [name for name in fitted(tmp_path).callback_metrics if name.startswith("watt")]
"""
NAMES_US = """
    import lightning.pytorch as pl

    def test_has_nobody_who_measures():
        made = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        assert not [callback for callback in made.callbacks if hasattr(callback, "sam_unit")], "somebody measures"
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    suite = tmp_path / "checkout" / "tests" / "tests_pytorch"
    for name, source in (("plain/test_plain.py", PLAIN), ("sees/test_sees.py", SEES), ("sees/test_us.py", NAMES_US)):
        (suite / name).parent.mkdir(parents=True, exist_ok=True)
        (suite / name).write_text(textwrap.dedent(source))
    (tmp_path / "checkout" / "pyproject.toml").write_text("[tool.pytest.ini_options]\nxfail_strict = true\n")
    return tmp_path / "checkout"


def outcomes(out: Path, arm: str) -> dict[str, str]:
    return {test.rpartition("::")[2]: row.outcome for test, row in Results(out / f"{arm}.jsonl").by_test.items()}


def failed(out: Path, arm: str) -> set[str]:
    return {test for test, outcome in outcomes(out, arm).items() if outcome == "failed"}


def test_a_test_that_hangs_or_dies_costs_no_other_test(checkout, tmp_path, capsys):
    asked = [str(checkout), "--arms", "none", "--only", "plain/", "--timeout", "4", "--out", str(tmp_path / "out")]
    assert main(asked) == 0
    assert outcomes(tmp_path / "out", "none") == {
        "test_passes": "passed",
        "test_hangs": "hung",
        "test_takes_the_process_with_it": "died",
        "test_after_them": "passed",
        "test_is_known_to_fail": "xfailed",
        "test_fails_always": "failed",
    }
    assert "2 passed, 1 xfailed, 1 failed, 1 hung, 1 died" in capsys.readouterr().out
    assert "of course" in (tmp_path / "out" / "logs" / "none" / "plain.log").read_text()


@pytest.mark.timeout(900)
def test_each_arm_is_what_it_says(checkout, tmp_path, capsys):
    counts, files, values = TRAINED
    names = "test_has_nobody_who_measures"
    asked = [str(checkout), "--out", str(tmp_path / "out"), "--only", "sees/"]

    assert main([*asked, "--arms", "empty,full,quiet"]) == 1
    assert failed(tmp_path / "out", "empty") == {counts}
    assert failed(tmp_path / "out", "full") == {counts, names, files, values}
    assert failed(tmp_path / "out", "quiet") == {counts, names}
    said = capsys.readouterr().out
    assert "full beside empty: 3 of 4 tests differ" in said
    assert "quiet beside empty: 1 of 4 tests differ" in said
    assert "passed -> failed: AssertionError: somebody measures" in said


def test_files_that_are_run_again_replace_only_themselves(tmp_path):
    results = Results(tmp_path / "none.jsonl")
    results.replace(
        ["a.py", "b.py"], [Result("a.py::one", "passed"), Result("b.py::two", "failed"), Result("b.py::gone", "failed")]
    )
    results.replace(["b.py"], [Result("b.py::two", "passed")])
    assert outcomes(tmp_path, "none") == {"one": "passed", "two": "passed"}


def test_only_files_that_both_arms_have_run_are_compared():
    here = {"a.py::one": Result("a.py::one", "failed"), "b.py::two": Result("b.py::two", "failed")}
    there = {"a.py::one": Result("a.py::one", "passed"), "a.py::gone": Result("a.py::gone", "passed")}
    found = {difference.here.test: difference.here.error for difference in differences(here, there)}
    assert found == {"a.py::one": "", "a.py::gone": "it was not run in this arm"}


def test_an_arm_that_cannot_be_what_it_says_is_refused(checkout, tmp_path, capsys):
    (tmp_path / "python").write_text("#!/bin/sh\necho no Lightning here >&2\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    asked = [str(checkout), "--arms", "none", "--python", str(tmp_path / "python"), "--out", str(tmp_path / "out")]
    assert main(asked) == 2
    assert "no Lightning here" in capsys.readouterr().err
