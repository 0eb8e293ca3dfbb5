"""What a user installs: built without a network, and looked into."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from email.parser import BytesParser
from pathlib import Path

import pytest
from trove_classifiers import classifiers

from tests.integration.tiny import ROOT

MIB = 2**20


def module(*command: str) -> str:
    """Run a module of this environment; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheel and the source archive; `--no-isolation` takes hatchling from this environment."""
    directory = tmp_path_factory.mktemp("dist")
    module("build", "--no-isolation", "--wheel", "--sdist", "--outdir", str(directory))
    return directory


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    (file,) = built.glob("*.whl")
    return zipfile.ZipFile(file)


def test_twine_finds_nothing_wrong(built):
    """Not in the README either, which is the page of the package."""
    checked = module("twine", "check", "--strict", *map(str, built.iterdir()))
    assert checked.count("PASSED") == 2


def test_the_wheel_holds_the_library_whole_and_nothing_else(wheel):
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    listed = subprocess.run(
        ["git", "ls-files", "lightning_watt"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    files = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "lightning_watt").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert held == (set(listed.stdout.split()) & files if listed.returncode == 0 else files)
    assert {"lightning_watt/py.typed", "lightning_watt/tensorboard/static/index.js"} <= held
    lab = "lightning_watt/testing/nvml_lab/"
    assert {f"{lab}nvml.c", f"{lab}scenario.c", f"{lab}scenario.h"} <= held


def test_the_source_archive_is_small_and_holds_neither_tests_nor_study(built):
    (file,) = built.glob("*.tar.gz")
    assert file.stat().st_size < MIB
    with tarfile.open(file) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "docs/use.md", "examples/fabric.py"} <= names
    assert not [name for name in names if name.startswith(("tests/", "experiments/", "conf/", ".venv"))]


def test_the_metadata(wheel):
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = BytesParser().parsebytes(wheel.read(name))
    given = metadata.get_all("Classifier") or []
    assert set(given) <= set(classifiers)
    for version in ("3.10", "3.11", "3.12", "3.13"):
        assert f"Programming Language :: Python :: {version}" in given
    assert metadata["License-Expression"] == "Apache-2.0"
    assert not [one for one in given if one.startswith("License ::")], "The metadata's standard allows one of the two."
    assert metadata["Version"] == _version_of_changelog()


def _version_of_changelog() -> str:
    """The newest version that the changelog describes."""
    headings = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## [")]
    return next(heading[4:].partition("]")[0] for heading in headings if "Unreleased" not in heading)
