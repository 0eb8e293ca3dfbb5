"""How much is printed of the runs of a process: by what was asked for, by their length, number and growth, and how quiet."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lightning_watt.record import Accuracy, DeviceEnergy, Energy, NodeEnergy, Record, Sam, Stage
from lightning_watt.record.text.printed import Printed
from tests.unit.forking import in_a_child
from tests.unit.record.made import a_record

J = 1_000_000
FILE = "/runs/{}/watt.json"


def a_run(session: str, *, seconds: float = 2.0, batches: int = 10, tested: int = 0, joules: int = 100, **changes) -> Record:
    """A run of a Trainer that trained, and tested if it says so, each batch of the test at a joule."""
    stages = {"train": Stage(joules=joules, seconds=seconds, batches=batches)}
    if tested:
        stages["test"] = Stage(joules=tested, seconds=0.5, batches=tested)
    board = {"name": "a board", "uuid": "GPU-0", "source": "nvml-counter", "provenance": "measured", "gain": 0.05}
    total_j = joules + tested
    energy = Energy(
        total_j=total_j,
        total_kwh=total_j / 3.6e6,
        uncertainty_j=5.0,
        provenance="measured",
        boundary_j=3.0,
        by_stage=stages,
        by_device={"gpu0": DeviceEnergy(joules=total_j, **board)},
    )
    node = NodeEnergy(
        session=session,
        device_uj={"gpu0": total_j * J},
        stage_uj={name: round(stage.joules * J) for name, stage in stages.items()},
    )
    nothing = {"accuracy": Accuracy(), "sam": Sam(alpha=5.0, beta=5.0, unit="kWh"), "inherited": [], "status": "completed"}
    return a_record(**nothing | {"session": session, "energy": energy, "nodes": [node]} | changes)


def kinds(printed: Printed, *runs: Record, wanted="auto", quiet=0) -> list[str]:
    """What is printed of runs that end one after the other."""
    texts = [printed.of_run(run, FILE.format(run.session), wanted, quiet) for run in runs]
    return ["table" if "mean W" in text else "line" if text else "none" for text in texts]


# ---- by itself ----


def test_the_first_run_has_a_table_and_later_trainers_have_a_line():
    assert kinds(Printed(), a_run("a"), a_run("b"), a_run("c")) == ["table", "line", "line"]


def test_a_short_run_has_a_line():
    assert kinds(Printed(), a_run("a", seconds=0.9)) == ["line"]
    assert kinds(Printed(), a_run("a", seconds=1.0)) == ["table"]


def test_a_trainer_whose_table_was_printed_has_a_line_for_more_and_nothing_for_the_same():
    printed = Printed()
    runs = [a_run("a"), a_run("a"), a_run("a", tested=7), a_run("a", tested=7)]
    assert kinds(printed, *runs) == ["table", "none", "line", "none"]
    text = printed.of_run(a_run("a", tested=9), FILE.format("a"), "auto")
    assert text.startswith("Test 2 J; in all energy 109 ± 5 J, measured, in 2.5 s. Record: ")


def test_a_run_without_a_batch_is_not_told_and_does_not_count():
    """A search for a learning rate, which takes us out while it trains."""
    assert kinds(Printed(), a_run("a", batches=0), a_run("b"), a_run("c")) == ["none", "table", "line"]


def test_nothing_measured_is_told_once():
    nothing = Energy(total_j=None, total_kwh=None, uncertainty_j=None, provenance=None)
    runs = [a_run(name, energy=nothing, nodes=[]) for name in "ab"]
    assert kinds(Printed(), *runs) == ["line", "none"]


def test_who_turned_lightning_down_is_told_less():
    runs = [a_run("a"), a_run("b"), a_run("b", tested=3)]
    assert kinds(Printed(), *runs, quiet=1) == ["line", "none", "none"]
    assert kinds(Printed(), *runs, quiet=2) == ["none", "none", "none"]
    assert kinds(Printed(), a_run("a", seconds=0.1), quiet=1) == ["line"]


# ---- as it is asked for ----


@pytest.mark.parametrize("wanted", ["table", "line", "none"])
@pytest.mark.parametrize("quiet", [0, 2])
def test_what_was_asked_for_is_done_at_every_end(wanted, quiet):
    printed = Printed()
    runs = [a_run("a", seconds=0.1), a_run("a", seconds=0.1), a_run("b"), a_run("c", batches=0)]
    assert kinds(printed, *runs, wanted=wanted, quiet=quiet) == [wanted] * 4
    assert printed.of_process() == ""  # all of it was told, or none was to be


def test_a_note_stands_below_the_first_table_and_no_other():
    printed, notes = Printed(), {"no accuracy": "No accuracy was logged."}
    first, second = (printed.of_run(a_run(name), "", "table", 0, notes) for name in "ab")
    assert first.endswith("Energy 100 ± 5 J, measured.\nNo accuracy was logged.")
    assert second.endswith("Energy 100 ± 5 J, measured.")


def test_a_note_waits_for_a_table():
    printed, notes = Printed(), {"no accuracy": "No accuracy was logged."}
    assert "No accuracy" not in printed.of_run(a_run("a"), "", "line", 0, notes)
    assert "No accuracy" in printed.of_run(a_run("b"), "", "table", 0, notes)


# ---- all of them, at the end of the process ----


def test_one_table_over_all_has_each_joule_once():
    """The third goes on with the first, whose 100 J its own record holds too."""
    printed = Printed()
    assert printed.of_process() == ""
    resumed = a_run("c", joules=140)
    resumed.resumed_j = 100.0
    resumed.nodes = [NodeEnergy(session="c", device_uj={"gpu0": 40 * J}, stage_uj={"train": 40 * J})]
    kinds(printed, a_run("a"))
    assert printed.of_process() == ""  # of one run there is no more to tell
    kinds(printed, a_run("b"), a_run("b", tested=10), resumed)
    text = printed.of_process()
    rows = [line.split() for line in text.splitlines()]
    assert ["train", "240"] in rows
    assert ["test", "10"] in rows
    assert ["gpu0", "250", "nvml-counter"] in rows
    # 5 % of 250 J, which is the board's and the same in all, and 3 J at the edges of each.
    assert "3 Trainers in this process: energy 250 ± 14 J, measured. Records: in /runs" in text


def test_the_boards_of_other_nodes_keep_their_names():
    run = a_run("a")
    run.nodes.append(NodeEnergy(session="a1", node=1, device_uj={"gpu0": 50 * J}, stage_uj={"train": 50 * J}))
    run.energy.by_device["node1/gpu0"] = run.energy.by_device["gpu0"]
    printed = Printed()
    kinds(printed, run, a_run("b"))
    rows = [line.split() for line in printed.of_process().splitlines()]
    assert ["gpu0", "200", "nvml-counter"] in rows
    assert ["node1/gpu0", "50", "nvml-counter"] in rows


def test_over_all_a_quiet_process_has_one_line_or_nothing():
    printed = Printed()
    kinds(printed, a_run("a"), a_run("b"), quiet=1)
    assert printed.of_process().startswith("2 Trainers in this process: energy 200 ± 11 J")
    assert "\n" not in printed.of_process()
    printed.forget()
    kinds(printed, a_run("a"), a_run("b"), quiet=2)
    assert printed.of_process() == ""


PROGRAM = """
from tests.unit.record.test_printed import a_run
from lightning_watt.record.text.printed import PRINTED
for name in "abc":
    PRINTED.end_of_run(a_run(name), "", "auto")
print("the program ends")
"""


def test_it_comes_when_the_process_ends():
    out = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    assert out.count("mean W") == 2  # of the first run alone: by stage and by device
    assert "3 Trainers in this process: energy 300 ± 16 J" in out.partition("the program ends")[2]


def test_a_forked_child_has_printed_nothing():
    printed = Printed()
    kinds(printed, a_run("a"), a_run("b"))
    assert in_a_child(lambda: (printed.of_process(), kinds(printed, a_run("c")))) == ["", ["table"]]
