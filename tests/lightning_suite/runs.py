"""Runs Lightning's tests in an arm, folder by folder, and goes on after a test that hangs or takes its process with it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tests.lightning_suite.arms import ArmError, distribution, environment, probe

SUITE = Path("tests/tests_pytorch")
FAILED = ("failed", "hung", "died")
WORSE = ("passed", "xfailed", "skipped", *FAILED)
"""Of a test's set-up, call and tear-down, the worst is the test's outcome."""
PATIENCE_S = 60.0
"""How long after a test's limit its process may go on without a word."""
ALONE = 3.0
"""How many times its limit a test may take that is run again, alone: one that is only slow on a busy machine then ends."""


@dataclass(frozen=True)
class Result:
    """How one test came out."""

    test: str
    outcome: str
    seconds: float = 0.0
    error: str = ""
    where: str = ""
    tree: str = ""

    @property
    def file(self) -> str:
        """The test's file, from the checkout's root."""
        return self.test.partition("::")[0]

    @property
    def failed(self) -> bool:
        """Whether something is wrong with it."""
        return self.outcome in FAILED


class Results:
    """An arm's results, kept in a file: a line of JSON for each test."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.by_test = {row["test"]: Result(**row) for row in map(json.loads, lines)}

    def replace(self, files: Sequence[str], rows: Sequence[Result]) -> None:
        """Put in what some files' tests came to, instead of what is known of those files."""
        kept = {test: row for test, row in self.by_test.items() if row.file not in files}
        self.by_test = kept | {row.test: row for row in rows}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_suffix(".part")
        part.write_text("".join(json.dumps(asdict(row)) + "\n" for row in self.by_test.values()))
        part.replace(self._path)

    def counts(self) -> str:
        """How many tests came out in which way."""
        counts = Counter(row.outcome for row in self.by_test.values())
        return ", ".join(f"{counts[outcome]} {outcome}" for outcome in WORSE if counts[outcome])


class Arm:
    """An arm that can be run.

    Args:
        name: one of `ARMS`.
        source: the checkout.
        out: where results and logs stay.
        work: a folder for what is thrown away.
        python: the interpreter.
        timeout_s: how long a test may take.
        jobs: how many processes at once.
        tree: what this tree is called in the results.
    """

    def __init__(
        self, name: str, source: Path, out: Path, work: Path, *, python: str, timeout_s: float, jobs: int, tree: str
    ) -> None:
        self.name = name
        self.results = Results(out / f"{name}.jsonl")
        self._logs = out / "logs" / name
        self._source = source
        self._work = work / name
        self._python = python
        self._timeout_s = timeout_s
        self._jobs = jobs
        self._tree = tree
        self._stopped = threading.Event()
        self._alone: dict[str, Result] = {}
        self._places: queue.SimpleQueue[Path] = queue.SimpleQueue()

    def prepare(self) -> str:
        """Write the distribution and the copies of the checkout's tests; the version of Lightning is returned."""
        self._logs.mkdir(parents=True, exist_ok=True)
        self._work.mkdir(parents=True)
        distribution(self._work / "injected", self.name)
        for job in range(self._jobs):
            place = self._work / f"job{job}"
            (place / "tmp").mkdir(parents=True)
            shutil.copytree(self._source / "tests", place / "copy" / "tests", ignore=shutil.ignore_patterns("__pycache__"))
            shutil.copy(self._source / "pyproject.toml", place / "copy")
            self._places.put(place)
        with self._place() as place:
            return probe(self.name, self._python, self._environment(place), place)

    def run(self, files: Sequence[Path], say: Callable[[str], None]) -> None:
        """Run the tests of files, given from the checkout's root, and keep their results."""
        folders: dict[Path, list[str]] = {}
        for file in files:
            folders.setdefault(file.parent, []).append(str(file))

        def one(folder: Path) -> tuple[Path, list[Result], float]:
            began = time.monotonic()
            name = str(folder.relative_to(SUITE)).replace(os.sep, "-")
            return folder, self._run(folders[folder], self._logs / f"{name}.log"), time.monotonic() - began

        with ThreadPoolExecutor(self._jobs) as pool:
            try:
                for folder, rows, seconds in pool.map(one, folders):
                    self.results.replace(folders[folder], rows)
                    bad = sum(row.failed for row in rows)
                    say(f"{self.name}: {folder.relative_to(SUITE)}: {len(rows)} tests, {bad} failed, {seconds:.0f} s")
            except BaseException:
                self._stopped.set()
                raise

    def alone(self, test: str) -> Result:
        """Run one test in a process of its own, once however often it is asked for."""
        if test not in self._alone:
            self._alone[test] = self._run_alone(test)
        return self._alone[test]

    def _run_alone(self, test: str) -> Result:
        rows = self._run([test], self._logs / "alone" / f"{re.sub(r'[^a-zA-Z0-9]+', '-', test)[-120:]}.log", ALONE)
        return next((row for row in rows if row.test == test), Result(test, "died", error="it was not found"))

    def _run(self, arguments: Sequence[str], log: Path, times: float = 1.0) -> list[Result]:
        """Run what is asked for, in as many processes as that takes."""
        limit_s = self._timeout_s * times
        found: dict[str, Result] = {}
        log.parent.mkdir(parents=True, exist_ok=True)
        with self._place() as place, log.open("w") as output:
            while True:
                events = self._process(arguments, place, list(found), output, limit_s)
                rows = {row.test: row for row in read(events, limit_s, self._tree)}
                news = rows.keys() - found.keys()
                found |= rows
                if any(event["event"] == "finished" for event in events):
                    return list(found.values())
                if not news or self._stopped.is_set():
                    raise ArmError(f"pytest ended without a test: {log} says why.")

    def _process(
        self, arguments: Sequence[str], place: Path, done: Sequence[str], output: Any, limit_s: float
    ) -> list[dict[str, Any]]:
        journal, known = place / "journal.jsonl", place / "done.json"
        journal.write_text("")
        known.write_text(json.dumps(done))
        asked = {"LIGHTNING_SUITE_JOURNAL": str(journal), "LIGHTNING_SUITE_DONE": str(known)}
        options = ["-p", "suite_plugin", "-p", "no:cacheprovider", "--tb=short", "-q", "--color=no"]
        options += ["--continue-on-collection-errors"]
        options += [f"--timeout={limit_s:g}", "--timeout-method=thread", f"--basetemp={place / 'tmp' / 'pytest'}"]
        process = subprocess.Popen(
            [self._python, "-m", "pytest", *options, *(str(place / "copy" / argument) for argument in arguments)],
            env=self._environment(place) | asked,
            cwd=place / "copy" / SUITE,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that ranks which outlive their test can be ended with it
        )
        try:
            while (
                process.poll() is None
                and not self._stopped.is_set()
                and time.time() - journal.stat().st_mtime < limit_s + PATIENCE_S
            ):
                time.sleep(0.2)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        lines = journal.read_text().splitlines()
        now = {"event": "now", "time": time.time()}
        return [*map(json.loads, lines), now]

    def _environment(self, place: Path) -> dict[str, str]:
        return environment(self.name, self._work / "injected", place / "copy", place / "tmp")

    @contextlib.contextmanager
    def _place(self) -> Iterator[Path]:
        place = self._places.get()
        try:
            yield place
        finally:
            self._places.put(place)


def read(events: Sequence[dict[str, Any]], timeout_s: float, tree: str) -> list[Result]:
    """What a process's journal says of its tests.

    Args:
        events: its lines, and when it was over.
        timeout_s: how long a test may take.
        tree: what this tree is called in the results.
    """
    rows: dict[str, Result] = {}
    began: dict[str, float] = {}
    for event in events:
        test = event.get("test", "")
        if event["event"] == "start":
            began[test] = event["time"]
        elif event["event"] == "end":
            began.pop(test, None)
        elif event["event"] == "report":
            before = rows.get(test, Result(test, "passed", tree=tree))
            worse = WORSE.index(event["outcome"]) > WORSE.index(before.outcome)
            rows[test] = Result(
                test,
                event["outcome"] if worse else before.outcome,
                round(before.seconds + event["seconds"], 3),
                before.error or event.get("error", "")[:400],
                before.where or event.get("where", ""),
                tree,
            )
    for test, moment in began.items():  # begun and not ended: it took the process with it
        seconds = events[-1]["time"] - moment
        hung = seconds >= timeout_s
        error = f"no end after {timeout_s:g} s" if hung else "its process ended"
        rows[test] = Result(test, "hung" if hung else "died", round(seconds, 3), error, "", tree)
    return list(rows.values())


def test_files(source: Path, only: str) -> list[Path]:
    """The suite's test files, from the checkout's root, whose path holds the pattern."""
    found = sorted((source / SUITE).rglob("test_*.py"))
    paths = [path.relative_to(source) for path in found]
    return [path for path in paths if fnmatch(str(path.relative_to(SUITE)), f"*{only}*")]
