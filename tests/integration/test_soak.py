"""Twenty seconds of `python -m tests.soak`, whose own ten minutes are for a person's machine."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.integration.tiny import ROOT


@pytest.mark.slow
def test_a_short_soak_leaves_nothing_behind():
    command = [sys.executable, "-m", "tests.soak", "--minutes", "0.33", "--seed", "7"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr == ""
    found = {name.strip(): value.strip() for name, value in ((line[:24], line[24:]) for line in done.stdout.splitlines())}
    assert int(found["trainings"]) > 8
    assert int(found["sentences"]) > 5  # faults did befall it
