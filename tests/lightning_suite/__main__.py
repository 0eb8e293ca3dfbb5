"""The command: which arms to run, then what differs between those that have results."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.lightning_suite.arms import ARMS, ROOT, ArmError
from tests.lightning_suite.compare import PAIRS, confirm, differences, report
from tests.lightning_suite.runs import SUITE, Arm, test_files


def say(sentence: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {sentence}", flush=True)


def tree_name() -> str:
    """The commit that this tree is at, with a plus if it was edited."""
    asked = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "?"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.lightning_suite", description=__doc__)
    parser.add_argument("source", type=Path, metavar="DIR", help="a checkout of Lightning's public repository")
    parser.add_argument("--arms", default=",".join(ARMS), help="which to run, with commas between them; '' only compares")
    parser.add_argument("--only", default="", metavar="PATTERN", help="the test files whose path holds this")
    parser.add_argument("--out", type=Path, default=Path("runs/lightning_suite"), help="where results and logs stay")
    parser.add_argument("--python", default=sys.executable, help="the interpreter; it needs pytest and pytest-timeout")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="S", help="how long a test may take")
    parser.add_argument("--jobs", type=int, default=1, help="how many processes at once")
    parser.add_argument("--confirm", action="store_true", help="run each differing test once more, alone, in both arms")
    asked = parser.parse_args(argv)
    asked.arms = [arm for arm in asked.arms.split(",") if arm]
    unknown = [arm for arm in asked.arms if arm not in ARMS]
    if unknown:
        parser.error(f"there is no arm {', '.join(unknown)}: choose from {', '.join(ARMS)}")
    if not (asked.source / SUITE).is_dir():
        parser.error(f"{asked.source} has no {SUITE}: give a checkout of Lightning's repository")
    return asked


def main(argv: list[str] | None = None) -> int:
    """Run it; 1 if `quiet` differs from `empty`, 2 if an arm is not what it says."""
    asked = arguments(argv)
    files = test_files(asked.source, asked.only)
    with tempfile.TemporaryDirectory(prefix="lightning-suite-") as work:
        options = {"python": asked.python, "timeout_s": asked.timeout, "jobs": asked.jobs, "tree": tree_name()}
        arms = {name: Arm(name, asked.source, asked.out, Path(work), **options) for name in ARMS}
        ready: set[str] = set()
        try:
            for name in asked.arms:
                say(f"{name}: {len(files)} files, Lightning {arms[name].prepare()}, this tree at {options['tree']}")
                ready.add(name)
                arms[name].run(files, say)
        except ArmError as error:
            print(error, file=sys.stderr)
            return 2
        return compare(arms, asked.arms or ARMS, ready if asked.confirm else None)


def compare(arms: dict[str, Arm], asked: Sequence[str], ready: set[str] | None) -> int:
    """Say what differs between the arms that have results.

    Args:
        arms: all of them, by name.
        asked: those that were to be run: the others are not held against each other once more.
        ready: those that are prepared, to run what differs again; None to leave that out.
    """
    for name, arm in arms.items():
        if arm.results.by_test:
            trees = sorted({row.tree for row in arm.results.by_test.values()})
            print(f"{name} (this tree at {', '.join(trees)}): {arm.results.counts()}")
    changed = False
    for one, other in PAIRS:
        here, there = arms[one], arms[other]
        if not here.results.by_test or not there.results.by_test or not {one, other} & set(asked):
            continue
        found = differences(here.results.by_test, there.results.by_test)
        if ready is not None and found:
            for arm in (here, there):
                if arm.name not in ready:
                    arm.prepare()
                    ready.add(arm.name)
            found = confirm(found, here, there, say)
        print(report(here, there, found), flush=True)
        changed |= (one, other) == ("quiet", "empty") and any(difference.again is not False for difference in found)
    return int(changed)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # so that it ends what it started, also in the background
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
