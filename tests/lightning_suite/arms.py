"""The ways in which the suite is run: what is given to every Trainer, and the environment that brings it there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from lightning_watt.arguments import VARIABLE

ROOT = Path(__file__).parents[2]
INSIDE = Path(__file__).parent / "inside"
GROUPS = ("lightning.pytorch.callbacks_factory", "pytorch_lightning.callbacks_factory")
FACTORIES = {"empty": "suite_empty:callbacks", "quiet": "suite_quiet:callbacks"}
EXPECTED = {"none": [], "empty": ["EmptyCallback"], "quiet": ["QuietCallback"], "full": ["EnvironmentCallback"]}
"""What a Trainer has in each arm that it lacks otherwise."""
ARMS = tuple(EXPECTED)
PROBE = """
import json, lightning, lightning.pytorch as pl
made = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
plain = ("ModelSummary", "RichModelSummary")
names = [type(callback).__name__ for callback in made.callbacks]
import lightning_watt
found = {"callbacks": [name for name in names if name not in plain]}
print(json.dumps(found | {"watt": lightning_watt.__file__, "lightning": lightning.__version__}))
"""


class ArmError(Exception):
    """An arm that would not be what its name says."""


def distribution(folder: Path, arm: str) -> None:
    """Write the throw-away distribution: the modules, and the metadata that makes them an installed package.

    Args:
        folder: where; it goes on PYTHONPATH.
        arm: one of `ARMS`.
    """
    shutil.copytree(INSIDE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    info = folder / "lightning_suite_arm-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lightning-suite-arm\nVersion: 0\n")
    if arm in FACTORIES:
        groups = (f"[{group}]\nlightning_suite = {FACTORIES[arm]}\n" for group in GROUPS)
        (info / "entry_points.txt").write_text("\n".join(groups))


def environment(arm: str, injected: Path, copy: Path, temporary: Path) -> dict[str, str]:
    """The environment of a process of the arm.

    Args:
        arm: one of `ARMS`.
        injected: the folder of the throw-away distribution.
        copy: the copy of the checkout that the process works on.
        temporary: a folder for its temporary files.
    """
    not_ours = (VARIABLE, "PYTEST_ADDOPTS", "PYTHONPATH")
    env = {name: value for name, value in os.environ.items() if name not in not_ours}
    env["PYTHONPATH"] = os.pathsep.join(map(str, (injected, ROOT, copy / "tests")))
    env["TMPDIR"] = str(temporary)
    if arm == "full":
        env[VARIABLE] = "1"
    return env


def probe(arm: str, python: str, env: dict[str, str], cwd: Path) -> str:
    """Make a Trainer in the arm's environment and look at what it was given.

    Returns:
        Lightning's version.

    Raises:
        ArmError: it was given something else than the arm says, or this tree is not the one that is measured.
    """
    done = subprocess.run([python, "-c", PROBE], env=env, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ArmError(f"{python} cannot make a Trainer in the arm {arm}:\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    if found["callbacks"] != EXPECTED[arm]:
        raise ArmError(
            f"In the arm {arm} a Trainer has {found['callbacks']} and should have {EXPECTED[arm]}. The arm full needs this "
            f"tree's entry points: install it into the environment of {python}."
        )
    if not Path(found["watt"]).is_relative_to(ROOT):
        raise ArmError(f"{python} imports lightning_watt from {found['watt']}, which is not this tree.")
    return str(found["lightning"])
