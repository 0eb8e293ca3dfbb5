"""`python -m experiments.bench.gpu_evidence`: run the parts, keep what they find, summarise it."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from experiments.bench.gpu_evidence.bench import Bench, NotPossibleError
from experiments.bench.gpu_evidence.board import NoBoardError, machine, open_board
from experiments.bench.gpu_evidence.evidence import Evidence, OutOfTime, limited, write_atomically
from experiments.bench.gpu_evidence.load import cuda_uuid, has_cuda
from experiments.bench.gpu_evidence.parts import NAMES, part
from experiments.bench.gpu_evidence.summary import NAME as SUMMARY
from experiments.bench.gpu_evidence.summary import summary

RESULTS = Path(__file__).parents[1] / "results"
FAMILIES = ("resnet", "efficientnet", "mobilenet", "vit", "swin", "beit", "mae", "clip")
LEAST_S = 3.0


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0 if every part did its work."""
    given = sys.argv[1:] if arguments is None else arguments
    options = parse(given)
    try:
        with open_board(options.gpu, cuda_uuid()) as board:
            about = board.about() | machine() | {"cuda": _cuda()}
            directory = Path(options.out or os.environ.get("OUT") or RESULTS / file_name(board.name))
            bench = Bench(board, directory, options.scale, options=options)
            evidence = Evidence(directory, about, options.keep)
            about["load"] = bench.load.what
            command = shlex.join(["python", "-m", "experiments.bench.gpu_evidence", *given])
            return run_parts(bench, evidence, command)
    except (NoBoardError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench.gpu_evidence", description=__doc__)
    parser.add_argument("--out", help="directory; default: $OUT, or experiments/bench/results/<GPU name>")
    parser.add_argument("--keep", type=Path, help="directory with older evidence, whose parts are kept beside the new ones")
    parser.add_argument("--parts", default=",".join(NAMES), help="comma-separated; default: all, in this order: %(default)s")
    parser.add_argument("--gpu", type=int, help="NVML's index of the board; default: that of CUDA's first device, else 0")
    parser.add_argument("--limit", type=float, default=480.0, help="seconds for everything; default: %(default)s")
    parser.add_argument("--scale", type=float, default=1.0, help="every duration times this; 0.1 for a try")
    parser.add_argument("--families", type=_names, default=FAMILIES, help="comma-separated; default: all eight")
    parser.add_argument("--family-scale", default="small", help="their scale; default: %(default)s")
    parser.add_argument("--family-phase", default="lifecycle", help="their phase; default: %(default)s")
    parser.add_argument("--family-seconds", type=float, help="the most for each; default: an equal share of what is left")
    options = parser.parse_args(arguments)
    options.parts = _names(options.parts)
    unknown = [name for name in options.parts if name not in NAMES]
    if unknown:
        parser.error(f"there is no part {', '.join(unknown)}; there are {', '.join(NAMES)}.")
    return options


def run_parts(bench: Bench, evidence: Evidence, command: str) -> int:
    """Run the wanted parts one after another, and keep each one's findings and the summary at once."""
    end_s = time.monotonic() + bench.options.limit
    failed = 0
    for name in [name for name in NAMES if name in bench.options.parts]:
        one = run_part(bench, name, end_s - time.monotonic())
        failed += one["status"] != "done"
        evidence.keep(name, one | {"command": command, "when": evidence.content["about"]["when"]})
        write_atomically(evidence.path.with_name(SUMMARY), summary(evidence.content))
        print(f"{name:<10} {one['status']:<12} {one['seconds']:6.1f} s  {one['why'].splitlines()[-1] if one['why'] else ''}")
    print(f"{evidence.path}\n{evidence.path.with_name(SUMMARY)}")
    return 1 if failed else 0


def run_part(bench: Bench, name: str, left_s: float) -> dict[str, Any]:
    """Run one part within its limit; its failure does not stop the others."""
    found: dict[str, Any] = {}
    started, status, why, title = time.monotonic(), "done", "", name
    try:
        if left_s < LEAST_S:
            raise NotPossibleError(f"{max(0.0, left_s):.0f} s of the whole are left.")
        one = part(name)
        title = one.TITLE
        limit_s = min(one.LIMIT_S, left_s)
        bench.begin_part(limit_s)
        with limited(limit_s):
            one.run(bench, found)
    except OutOfTime:
        status, why = "out of time", f"it was stopped after {time.monotonic() - started:.0f} s; what it had found is below."
    except NotPossibleError as error:
        status, why = "not possible", str(error)
    except bench.board.nvml.NVMLError as error:
        status, why = "not possible", f"NVML says: {error}."
    except ImportError as error:
        status, why = "not possible", f"{error}; carry it as a wheel."
    except Exception as error:  # noqa: BLE001 - one part's failure is reported, and the next part runs
        traceback.print_exc()
        status, why = "failed", repr(error)
    return {"title": title, "status": status, "why": why, "seconds": time.monotonic() - started, "found": found}


def file_name(gpu: str) -> str:
    """A GPU's name as a folder's."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", gpu).strip("_")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _cuda() -> str | None:
    if not has_cuda():
        return None
    import torch

    return f"{torch.version.cuda}, {torch.cuda.get_device_name(0)}"


if __name__ == "__main__":
    sys.exit(main())
