"""Boards: no two jobs on one, unless asked; and how the command line names them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from experiments.boards import HELD, claim_boards, each_board
from experiments.command_line import name_boards


@pytest.fixture(autouse=True)
def _own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


def test_two_jobs_get_two_boards() -> None:
    with claim_boards([0, 1]) as first, claim_boards([0, 1]) as second:
        assert (first, second) == ([0], [1])
    with claim_boards([0, 1]) as third:
        assert third == [0]


def test_a_sweep_over_each_board(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert (each_board("gpu"), each_board("cpu")) == ("0,1,2", "null")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert each_board("auto") == "null"


def test_a_job_waits_for_a_board_in_use() -> None:
    holder = claim_boards([0])
    holder.__enter__()
    said: list[str] = []
    with claim_boards([0], say=said.append, sleep=lambda _: holder.__exit__(None, None, None)) as mine:
        assert mine == [0]
    assert said == ["waiting for 1 free board(s) among [0]; device.share=true would not wait"]


def test_two_boards_are_taken_together_or_not_at_all() -> None:
    with claim_boards([1]):
        tries: list[float] = []

        def give_up(seconds: float) -> None:
            tries.append(seconds)
            with claim_boards([0]) as free:  # nothing is held while waiting
                assert free == [0]
            raise TimeoutError

        with pytest.raises(TimeoutError), claim_boards([0, 1], 2, say=lambda _: None, sleep=give_up):
            pass
        assert len(tries) == 1


def test_shared_boards_are_not_claimed() -> None:
    with claim_boards([0]), claim_boards([0], share=True) as mine:
        assert mine == [0]


def test_the_other_ranks_of_a_job_have_its_boards(monkeypatch: pytest.MonkeyPatch) -> None:
    with claim_boards([2, 3], 2) as mine:
        monkeypatch.setenv("LOCAL_RANK", "1")  # as Lightning sets it in the processes that it starts
        with claim_boards([0, 1, 2, 3], 2) as theirs:
            assert theirs == mine == [2, 3]


def test_the_tasks_of_a_slurm_job_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")  # as srun sets it for each task of a step
    with claim_boards([0, 1], 2) as first, claim_boards([0, 1], 2, sleep=lambda _: pytest.fail("it waits")) as second:
        assert first == second == [0, 1]


def test_torchruns_processes_have_the_same_boards_and_other_jobs_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(seconds: float) -> None:
        raise TimeoutError

    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")  # as torchrun sets it for each process
    with claim_boards([1, 2, 3], 2) as first:
        monkeypatch.delenv(HELD)  # that is the first process's own
        with pytest.raises(TimeoutError), claim_boards([2, 3], 2, say=lambda _: None, sleep=give_up):
            pass
        monkeypatch.setenv("LOCAL_RANK", "1")
        with claim_boards([1, 2, 3], 2, sleep=give_up) as second:
            assert first == second == [1, 2]


def test_no_boards_are_no_boards() -> None:
    with claim_boards([]) as mine:
        assert mine == []


def test_too_few_boards_are_refused() -> None:
    with pytest.raises(ValueError, match="2 boards are wanted"), claim_boards([0], 2):
        pass


def test_a_dead_job_lets_go(tmp_path: Path) -> None:
    code = "import os; from experiments.boards import claim_boards\nwith claim_boards([0]): os._exit(9)"
    subprocess.run([sys.executable, "-c", code], check=False, env={"TMPDIR": str(tmp_path), "PATH": "/usr/bin"})
    with claim_boards([0], sleep=lambda _: pytest.fail("the lock outlived its process")) as mine:
        assert mine == [0]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("device=0", ["device=gpu", "device.boards=0"]),
        ("device=0,1", ["device=gpu", "device.boards=0,1"]),
        ("device=[0, 2]", ["device=gpu", "device.boards=[0,2]"]),
        ("device=cpu", ["device=cpu"]),
        ("device=auto,cpu", ["device=auto,cpu"]),
        ("device.count=2", ["device.count=2"]),
    ],
)
def test_board_numbers_on_the_command_line(given: str, meant: list[str]) -> None:
    assert name_boards([given]) == meant
