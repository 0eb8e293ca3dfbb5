"""What grows with a run, and what does not: epochs, days, nodes, child processes. It looks into the library, so it is here.

`make bench` prints the table and writes it to `experiments/bench/results/growth.md`. How the cost of an epoch's hooks
depends on the number of epochs behind it, `overhead` measures inside a Trainer.
"""

from __future__ import annotations

import gc
import pickle
import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import torch.distributed as dist
from tabulate import tabulate

from experiments.bench.about import RESULTS, about
from lightning_watt import EnergyMeter
from lightning_watt.accounts.ledger import Account, Point
from lightning_watt.distributed import nodes as nodes_module
from lightning_watt.distributed.nodes import Nodes, meet_readers
from lightning_watt.distributed.ranks import Agreement, Arrangement
from lightning_watt.distributed.store import SharedStore
from lightning_watt.meter.reader import SPREAD
from lightning_watt.record.lines import LineWriter
from lightning_watt.record.writer import to_json
from lightning_watt.run.node_reports import NodeReport
from lightning_watt.run.session import Session
from lightning_watt.run.state import RunState
from lightning_watt.run.totals import Place, node_report
from lightning_watt.sam.score import Scoring
from lightning_watt.sources import Device
from lightning_watt.sources.estimate import EstimateSource
from lightning_watt.units import UJ_PER_J

SCORING = Scoring(5.0, 5.0, "kWh")
DAY_S = 86_400


class Filled:
    """A session with the epochs of a long run behind it: a training and a validation each.

    Args:
        node: the number of its node.
        boards: how many boards it measures.
    """

    def __init__(self, node: int = 0, boards: int = 8) -> None:
        self.session = Session(place=Place("r" * 32, 8 * node, node))
        for i in range(boards):
            uuid = f"GPU-{node:08x}-0000-0000-0000-{i:012d}"
            board = Device(f"gpu{i}", "NVIDIA H100 80GB HBM3", uuid, "nvml-counter", host=f"host{node}", tick_s=0.1)
            self.session.devices[board.label] = board
        self._t_ns, self._uj, self._batches, self._epoch = 0, [0] * boards, 0, 0
        self.session.ledger.open(list(self.session.devices), Account("train", 0), self._point())

    def epochs(self, count: int, stage_j: float = 300.0) -> Filled:
        """Go through some more epochs, a second for each stage, in which each board uses `stage_j` joules."""
        for _ in range(count):
            for stage, then in (("train", ("validate", 0)), ("validate", ("train", 1))):
                self._t_ns, self._batches = self._t_ns + 10**9, self._batches + 100
                self._uj = [uj + round(stage_j * UJ_PER_J) for uj in self._uj]
                account = Account(stage, self._epoch)
                self.session.epochs.note(account, 0.5)
                self.session.ledger.charge(self._point())
                self.session.epochs.settle(self.session.ledger, account, 0.5)
                self.session.ledger.switch(Account(then[0], self._epoch + then[1]), self._point())
            self._epoch += 1
            self.session.epochs.fold(self.session.ledger, self._epoch - 1)
        return self

    def _point(self) -> Point:
        return Point(self._t_ns, self._uj, [1e5] * len(self._uj), self._batches, 32 * self._batches)


def cpu_ms(call: Callable[[], Any], times: int = 1) -> float:
    """Milliseconds of CPU time that a call takes in this thread; the median of several."""
    taken = []
    for _ in range(times):
        start = time.thread_time_ns()
        call()
        taken.append((time.thread_time_ns() - start) / 1e6)
    return statistics.median(taken)


def epochs_behind() -> list[list[str]]:
    """A checkpoint's state, a moment's totals, a journal's line and the record, after few epochs and after many."""
    rows = []
    for count in (10, 1_000, 50_000):
        session = Filled().epochs(count).session
        rows.append(
            [
                f"{count:,}",
                f"{len(pickle.dumps(session.state_dict())) / 1024:.1f} KiB",
                f"{cpu_ms(session.state_dict, 5):.2f} ms",
                f"{cpu_ms(session.totals, 20):.3f} ms",
                f"{cpu_ms(session.line, 20):.3f} ms",
                f"{len(_record(session)) / 2**20:.2f} MiB",
                f"{cpu_ms(partial(_record, session), 3):.0f} ms",
            ]
        )
    return rows


def _record(session: Session) -> bytes:
    return to_json(RunState().to_record(session, SCORING))


def journal_bytes() -> list[str]:
    """Bytes of the journal: a line a read, two boards of 300 W, an epoch a minute. Totals grow longer, and so do days."""
    filled, writer = Filled(boards=2), LineWriter()

    reads = round(DAY_S / (1 - SPREAD / 2))  # a day, one up to a fifth sooner than the interval of a second

    def day() -> int:
        size = 0
        for read in range(reads):
            if read % (reads // (DAY_S // 60)) == 0:
                filled.epochs(1, stage_j=9_000.0)
            line = filled.session.line()
            line.interval_s = 1.0  # this session has no meter to say so
            size += len(writer.to_line(line))
        return size

    first = day()
    filled.epochs(28 * DAY_S // 60, stage_j=9_000.0)
    last = day()
    return [f"{first / 1e6:.1f} MB", f"{last / 1e6:.1f} MB", f"{(first + 29 * last) / 1e6:.0f} MB"]


def nodes(count: int, epochs: int = 5) -> list[str]:
    """Joining the nodes at an epoch's end over a real store: rank zero's CPU time, and what a node sends."""
    store = dist.TCPStore("127.0.0.1", 0, 1, True)

    def report_of_a_run_that_goes_on(*arguments: Any) -> NodeReport:
        report = node_report(*arguments)
        report.final = False  # these sessions have no meter, as if they were over
        return report

    nodes_module.node_report = report_of_a_run_that_goes_on
    arrangement = Arrangement(ranks=list(range(count)), world=count)
    agreement = Agreement(run="r", readers=list(range(count)))
    filled = [Filled(node) for node in range(count)]
    gc.collect()  # what the sections before have left
    readers = [Nodes(SharedStore(store, f"bench{count}"), rank, arrangement, agreement) for rank in range(count)]
    filled[0].session.spans.expect_others(True)
    sizes, taken = [], []
    for meeting in range(epochs):
        for one in filled:
            one.epochs(1 if meeting else 20)  # a history, and then one more between two meetings, as in a training
        for rank in range(1, count):
            meet_readers(readers[rank], filled[rank].session, RunState(), measures=True)
        sizes.append(len(store.get(f"bench{count}/part/1/{readers[1]._meetings}")))
        taken.append(cpu_ms(lambda: meet_readers(readers[0], filled[0].session, RunState(), measures=True)))
    assert filled[0].session.totals().total_uj == sum(one.session.ledger.total_uj for one in filled)
    nodes_module.node_report = node_report
    later = f"{max(sizes[1:]) / 1024:.2f} KiB"
    return [f"{count:,}", f"{taken[0]:.1f} ms", f"{min(taken[1:]):.1f} ms", f"{sizes[0] / 1024:.2f} KiB", later]


def children(count: int, seconds: float = 20.0) -> list[str]:
    """The reader's share of a CPU while the estimate looks at child processes, at 400 of them every 15 seconds or so."""
    processes = [subprocess.Popen(["sleep", "1000"]) for _ in range(count)]
    try:
        with EnergyMeter(sources=[EstimateSource()]):
            time.sleep(2.0)
            reader = next(thread.native_id for thread in threading.enumerate() if thread.name == "lightning_watt reader")

            def used_s() -> float:
                return int(Path(f"/proc/self/task/{reader}/schedstat").read_text().split()[0]) / 1e9

            before_s, start_s = used_s(), time.perf_counter()
            time.sleep(seconds)
            share = (used_s() - before_s) / (time.perf_counter() - start_s)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [f"{count}", f"{share:.3%} of a CPU"]


def main() -> None:
    """Measure everything, print the tables and write them."""
    msgspec.json.encode(0)  # what is imported late is not measured
    tables = [
        tabulate(
            epochs_behind(),
            headers=["epochs behind", "checkpoint", "made in", "totals", "a journal line", "watt.json", "made in"],
            tablefmt="github",
            disable_numparse=True,
        ),
        tabulate(
            [journal_bytes()],
            headers=["journal, the first day", "the 30th", "at most in 30 days"],
            tablefmt="github",
            disable_numparse=True,
        ),
        tabulate(
            [nodes(count) for count in (64, 256, 1024)],
            headers=[
                "nodes of 8 boards",
                "first joined, CPU of rank zero",
                "later, at least",
                "a node sends first",
                "later",
            ],
            tablefmt="github",
            disable_numparse=True,
        ),
        tabulate(
            [children(0), children(400, seconds=60.0)],
            headers=["child processes", "reader, estimate"],
            tablefmt="github",
            disable_numparse=True,
        ),
    ]
    text = f"# What grows with a run\n\n`python -m tests.growth` on {about()}.\n\n" + "\n\n".join(tables) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "growth.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
