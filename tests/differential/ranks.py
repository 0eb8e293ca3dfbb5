"""One rank of a training on several, without and with a callback: `python -m tests.differential.ranks '{"cases": ...}'`.

`start` starts the ranks as torchrun does. Each runs all cases in one process group, one after the other, and writes what
differs to it into `rank<N>.json`. Keys: `directory`, `cases` (names in `CASES`), `arms` (names in `arms`, or of misbehaving
callbacks), `limit_s` (for one training; then every rank prints where it stands, and ends), `nodes`.
"""

from __future__ import annotations

import faulthandler
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests import forked

ROOT = Path(__file__).parents[2]
RANKS = 2
# Starting two processes takes long where many others do.
START_S = 120.0


class StuckError(AssertionError):
    """A rank that waits for ever, or has died; says where all of them stood."""


def start(
    directory: Path, cases: Sequence[str], arms: Sequence[str], limit_s: float = 60.0, *, nodes: int = 1, fresh: bool = False
) -> list[dict[str, Any]]:
    """What differed, by rank: case, arm, sentences.

    Args:
        directory: where to write.
        cases: names in `CASES`.
        arms: names in `arms`, or of misbehaving callbacks.
        limit_s: for one training.
        nodes: 2: each rank is a node of its own.
        fresh: start Python anew for each rank, instead of forking from a process that has the imports.

    Raises:
        StuckError: a rank waits longer than the limit, or died; with the stacks of all.
    """
    options = json.dumps({"directory": str(directory), "cases": cases, "arms": arms, "limit_s": limit_s, "nodes": nodes})
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port = door.getsockname()[1]
    shared = {"WORLD_SIZE": str(RANKS), "LOCAL_WORLD_SIZE": str(RANKS // nodes), "TORCHELASTIC_RUN_ID": "ranks"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    outs = [directory / f"out{rank}.txt" for rank in range(RANKS)]
    processes: list[subprocess.Popen[bytes] | forked.Forked] = []
    for rank, out in enumerate(outs):
        env = os.environ | shared | {"RANK": str(rank)}
        env |= {"GROUP_RANK": str(rank * nodes // RANKS), "LOCAL_RANK": str(rank if nodes == 1 else 0)}
        processes.append(_rank(options, env, out, fresh=fresh))
    try:
        _wait(processes, time.monotonic() + START_S + limit_s * (1 + len(cases) * (1 + len(arms))))
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if any(process.returncode for process in processes):
        ends = [f"rank {rank} ended by {process.returncode}:" for rank, process in enumerate(processes)]
        raise StuckError("\n".join(f"{end}\n{out.read_text()[-6000:]}" for end, out in zip(ends, outs, strict=True)))
    return [json.loads((directory / f"rank{rank}.json").read_text()) for rank in range(RANKS)]


def _rank(options: str, env: dict[str, str], out: Path, *, fresh: bool) -> subprocess.Popen[bytes] | forked.Forked:
    if not fresh:
        imports = "tests.differential.installed"
        return forked.start("tests.differential.ranks", options, env=env, file=out, new_session=True, imports=imports)
    command = [sys.executable, "-m", "tests.differential.ranks", options]
    with out.open("w") as file:
        return subprocess.Popen(command, cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)


def _wait(processes: Sequence[subprocess.Popen[bytes] | forked.Forked], deadline: float) -> None:
    """Until all have ended, or shortly after one has failed: the others wait for it, and are to say so."""
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
        if any(process.returncode for process in processes):
            deadline = min(deadline, time.monotonic() + 5.0)
        time.sleep(0.05)


def main(options: dict[str, Any]) -> None:
    from tests.differential.installed import collectives  # isort: skip - first, because it wraps what the others take

    from tests.differential import arms, training
    from tests.differential.collectives import group_count
    from tests.differential.compare import differences
    from tests.differential.rank_cases import CASES
    from tests.differential.trace import Trace
    from tests.integration.tiny import PACKAGES, package

    pl, rank = package(PACKAGES[0]), os.environ["RANK"]
    directory = Path(options["directory"])
    known = {"empty": arms.empty, "watt": arms.watt, "budget": arms.budget} | arms.misbehaving(pl)

    # Paths of one length, because Lightning broadcasts them.
    places = itertools.count(100)

    def run(name: str, arm: str) -> Trace:
        faulthandler.dump_traceback_later(options["limit_s"], exit=True)
        sys.stderr.write(f"{name}, {arm}\n")
        before = collectives.count()
        group_before = group_count() or 0
        counters = {
            "collectives": lambda: collectives.count() - before,
            "collectives of the group": lambda: (group_count() or 0) - group_before,
        }
        make = known.get(arm, arms.none)
        case = CASES[name]
        if options["nodes"] > 1:
            case = replace(case, options={**case.options, "devices": 1, "num_nodes": options["nodes"]})
        trace = training.run(pl, case, make, directory / str(next(places)), counters=counters)
        trace.end["all collectives"] = tuple(collectives.calls[before:])
        trace.end["collectives of the group"] = (group_count() or 0) - group_before
        faulthandler.cancel_dump_traceback_later()
        return trace

    run(options["cases"][0], "first")  # the group is made here, which no later training does
    found: dict[str, dict[str, list[str]]] = {}
    for name in options["cases"]:
        without = run(name, "none")
        ends = CASES[name].ends
        raised = without.end["raised"]
        assert raised == ends or (ends and raised.startswith(ends)), raised
        assert without.end["all collectives"], "the harness sees no collective at all"
        found[name] = {arm: differences(without, run(name, arm)) for arm in options["arms"]}
    (directory / f"rank{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
