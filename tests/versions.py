"""The unit tests over the versions of Python, torch, Lightning and NumPy that can be had here: `make test-versions`.

Each row of `ROWS` gets an environment of its own, which is removed afterwards. A Python that is not on this machine is asked
of uv, which downloads it if it can. What cannot be had is said, and is no failure.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
TESTS = ("pytest>=8.3", "pytest-timeout>=2.3", "hypothesis>=6.100", "pyyaml")
"""What the unit tests need beside the library and its Watt tab."""
LIGHTNINGS = ("pytorch-lightning", "lightning")


class Row(NamedTuple):
    """Versions that are tested together.

    Attributes:
        python: of Python.
        torch: of torch, as uv takes it.
        lightning: the one package of Lightning that is there.
        numpy: of NumPy, as uv takes it.
    """

    python: str
    torch: str
    lightning: str
    numpy: str


ROWS = (
    Row("3.10", "torch==2.5.*", "pytorch-lightning", "numpy==1.26.*"),
    Row("3.11", "torch==2.7.*", "lightning", "numpy==1.26.*"),
    Row("3.12", "torch", "pytorch-lightning", "numpy>=2"),
    Row("3.13", "torch", "lightning", "numpy>=2"),
    Row("3.14", "torch", "pytorch-lightning", "numpy>=2"),
)


def python_of(version: str) -> str:
    """An interpreter of this version that runs, on the path or of pyenv; the version itself if there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    for found in (shutil.which(f"python{version}"), *pyenv.glob(f"{version}.*/bin/python")):
        if found is not None and subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0:
            return str(found)
    return version


def run(row: Row, uv: str, folder: Path, tests: list[str]) -> list[str]:
    """Make a row's environment, and run the tests in it.

    Args:
        row: the row.
        uv: the program.
        folder: where the environment is made.
        tests: what pytest is given.

    Returns:
        The versions that it got, and the outcome.
    """
    env = os.environ | {"VIRTUAL_ENV": str(folder)}
    python = str(folder / "bin" / "python")
    made = subprocess.run([uv, "venv", "--quiet", "--python", python_of(row.python), str(folder)], check=False)
    if made.returncode:
        return [row.python, "", "", "", "", "this Python cannot be had here"]
    pip = [uv, "pip"]
    wanted = [*TESTS, row.torch, row.lightning, row.numpy, "-e", f"{ROOT}[tensorboard]"]
    if subprocess.run([*pip, "install", "--quiet", *wanted], env=env, check=False).returncode:
        return [row.python, row.torch, row.lightning, "", row.numpy, "these versions do not go together"]
    # `lightning` asks for the other package, and so does this project, which does without.
    (other,) = set(LIGHTNINGS) - {row.lightning}
    subprocess.run([*pip, "uninstall", "--quiet", other], env=env, check=False)
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, "--ignore", "tests/unit/experiments"]
    tested = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    outcome = (tested.stdout.strip().splitlines() or ["nothing was run"])[-1].strip("= ")
    if tested.returncode:
        print(tested.stdout[-20_000:], tested.stderr[-2_000:])
    asked = f"from importlib.metadata import version as v; print(*map(v, ('torch', '{row.lightning}', 'numpy')))"
    versions = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True).stdout.split()
    return [row.python, versions[0], row.lightning, versions[1], versions[2], outcome]


def main() -> int:
    """Run the rows, and print a table.

    Returns:
        1 if a test failed.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uv", default=shutil.which("uv") or "uv")
    parser.add_argument("--python", nargs="*", help="only the rows of these versions, such as 3.12")
    parser.add_argument("--tests", nargs="*", default=["tests/unit"], help="some of the unit tests")
    asked = parser.parse_args()
    rows = [row for row in ROWS if asked.python is None or row.python in asked.python]
    lines = []
    for row in rows:
        with tempfile.TemporaryDirectory(dir=ROOT, prefix=".venv-versions-") as folder:
            lines.append(run(row, asked.uv, Path(folder) / row.python, asked.tests))
        print(" | ".join(lines[-1]), flush=True)
    print("\n| Python | torch | Lightning | its version | NumPy | unit tests |\n|---|---|---|---|---|---|")
    print("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return int(any("failed" in line[-1] or "error" in line[-1] for line in lines))


if __name__ == "__main__":
    sys.exit(main())
