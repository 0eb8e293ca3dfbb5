"""The study's eight families at `scale=small`, each for a limited time, their records kept for the report."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

from experiments.bench.gpu_evidence.bench import Bench, NotPossibleError
from experiments.bench.gpu_evidence.figures import number, table
from lightning_watt.record.files import record_files, version_of

TITLE = "The eight families at small"
LIMIT_S = 560.0
NEEDED = {
    "hydra": "hydra-core",
    "omegaconf": "omegaconf",
    "antlr4": "antlr4-python3-runtime",
    "timm": "timm",
    "sklearn": "scikit-learn",
}
START_S = 20.0
"""Importing everything, and drawing up the data, in each family's process."""
INFERENCE_S = 10.0
"""`conf/phase/lifecycle.yaml` repeats the test set for this long at most."""
LEAST_S = 40.0
ROOT = Path(__file__).resolve().parents[4]
ARCHIVE = "families.zip"
KEPT = ("outcome.json", "config.yaml")
"""Beside the runs' own files."""


def run(bench: Bench, found: dict[str, Any]) -> None:
    """One process a family; what is left of the time is shared out equally among those still to come."""
    missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise NotPossibleError(f"{', '.join(missing)} cannot be imported; carry them as wheels.")
    families = list(bench.options.families)
    with tempfile.TemporaryDirectory(prefix="families_") as name:
        directory = Path(name)
        try:
            for i, family in enumerate(families):
                left_s = bench.left_s - 3
                share_s = bench.options.family_seconds or max(LEAST_S, left_s / (len(families) - i))
                if left_s < share_s:
                    found[family] = {"status": "not run", "why": f"{max(0.0, left_s):.0f} s were left for it"}
                    continue
                found[family] = _family(bench, family, directory / family, share_s)
        finally:
            archive(directory, bench.directory / ARCHIVE)


def summarise(found: dict[str, Any]) -> list[str]:
    """A row for each record."""
    rows = []
    for family, one in found.items():
        if not one.get("records"):
            why = (one.get("why") or "").strip().splitlines()
            rows.append([family, "", one.get("status"), why[-1] if why else "", "", "", "", "", ""])
        for where, record in one.get("records", {}).items():
            energy, train = record["energy"], record["energy"]["by_stage"].get("train", {})
            rows.append(
                [
                    family,
                    where,
                    one["status"],
                    "",
                    number(energy["total_j"]),
                    number(energy["uncertainty_j"]),
                    train.get("batches"),
                    number(record["accuracy"]["last"]),
                    ", ".join(device["source"] for device in energy["by_device"].values()),
                ]
            )
    headers = ["family", "run", "status", "why", "J", "±", "train batches", "accuracy", "source"]
    return [*table(headers, rows), "", f"The runs' files are in `{ARCHIVE}`; unzip it and give it to `experiments.report`."]


def command(bench: Bench, family: str, directory: Path, share_s: float) -> list[str]:
    """The run's command line: trainings end when their share of the time is over."""
    fits = 2 if bench.options.family_phase == "lifecycle" else 1
    inference_s = INFERENCE_S if bench.options.family_phase == "lifecycle" else 0.0
    fit_s = max(3, int((share_s - START_S - inference_s) / fits))
    device = ["device=gpu"] if bench.load.on_gpu else ["device=cpu", f"device.boards=[{bench.board.index}]"]
    return [
        *(sys.executable, "-m", "experiments.run", f"model={family}", f"phase={bench.options.family_phase}"),
        *("data=digits", f"scale={bench.options.family_scale}", *device),
        *(f"+trainer.max_time.seconds={fit_s}", f"hydra.run.dir={directory}"),
    ]


def _family(bench: Bench, family: str, directory: Path, share_s: float) -> dict[str, Any]:
    line, started = command(bench, family, directory, share_s), time.monotonic()
    process = subprocess.Popen(
        line, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=share_s)
        status = "completed" if process.returncode == 0 else f"failed with {process.returncode}"
    except subprocess.TimeoutExpired:
        status, output = "out of time", ""
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it and its loader's workers, and nobody else
        process.wait()
    why = output[-1500:] if process.returncode else ""
    seconds = time.monotonic() - started
    return {
        "status": status,
        "seconds": seconds,
        "command": " ".join(line[1:]),
        "why": why,
        "records": {str(file.relative_to(directory)): json.loads(file.read_text()) for file in record_files(directory)},
    }


def archive(directory: Path, into: Path) -> None:
    """The runs' records in one file."""
    files = [file for file in sorted(directory.rglob("*")) if file.name in KEPT or version_of(file.name) is not None]
    if files:
        into.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED) as packed:
            for file in files:
                packed.write(file, Path("families") / file.relative_to(directory))
