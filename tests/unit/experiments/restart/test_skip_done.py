"""What a command that is given again finds of its earlier start."""

from __future__ import annotations

import json
import multiprocessing
import os
from contextlib import nullcontext
from multiprocessing.pool import ThreadPool
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from experiments.outcome import NAME
from experiments.restart.skip_done import OF_A_START, POLL_S, SWEEPS, config_key, find_sweep, goes_on, hold, job_directory
from tests.integration.study import composed
from tests.unit.forking import in_a_child


def config(directory: Path, **values: object) -> DictConfig:
    return OmegaConf.create({"skip_done": True, "seed": 0, **values, "hydra": {"sweep": {"dir": str(directory)}}})


def job(directory: Path, cfg: DictConfig, status: str = "completed") -> None:
    directory.mkdir()
    (directory / NAME).write_text(json.dumps({"status": status, "config": config_key(cfg)}))


def began(sweep: Path, *overrides: str) -> None:
    sweep.mkdir(parents=True)
    OmegaConf.save({"hydra": {"overrides": {"task": list(overrides)}}}, sweep / "multirun.yaml")


def test_configs_are_equal_if_all_but_the_asking_is() -> None:
    one = composed("skip_done=true")
    assert config_key(one) == config_key(composed()) != config_key(composed("seed=1"))


def test_the_newest_sweep_of_the_same_command_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["-m", "model=vit,swin", "seed=0,1", "hydra/launcher=joblib", "skip_done=true"]
    assert find_sweep(command) == command
    for number, overrides in enumerate((["seed=0,1", "model=vit,swin"], ["model=vit,swin", "seed=0,1"], ["seed=0,1"])):
        began(SWEEPS / str(number), *overrides)
        os.utime(SWEEPS / str(number) / "multirun.yaml", (number, number))
    assert find_sweep(command)[-1] == f"hydra.sweep.dir={SWEEPS}/1"
    for other in (command[1:], command[:-1], [*command, "hydra.sweep.dir=here"], [*command, "scale=small"]):
        assert find_sweep(other) == other


def test_sweeps_are_looked_for_where_they_are_put() -> None:
    assert Path(composed(hydra=True).hydra.sweep.dir).parent == SWEEPS


def test_a_job_is_found_by_its_config_whatever_its_number(tmp_path: Path) -> None:
    cfg = config(tmp_path, seed=3)
    assert job_directory("0-vit", _root_=cfg) == "0-vit"
    job(tmp_path / "4-vit", config(tmp_path, seed=4))
    assert job_directory("4-vit", _root_=cfg) == f"4-vit-{config_key(cfg)[:4]}"  # that place is another job's
    job(tmp_path / "7-vit", cfg)
    assert job_directory("4-vit", _root_=cfg) == "7-vit"
    assert job_directory("4-vit", _root_=OmegaConf.merge(cfg, {"skip_done": False})) == "4-vit"


def test_slurms_restart_goes_on_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    cfg = composed()
    assert not goes_on(cfg)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert goes_on(cfg)


def test_a_directory_is_held_against_other_processes_until_the_end(tmp_path: Path) -> None:
    def is_free() -> bool:
        with hold(tmp_path) as mine:
            return mine

    with hold(tmp_path) as mine:
        assert mine
        assert not in_a_child(is_free)
    assert in_a_child(is_free)


@pytest.mark.parametrize("is_free", [True, False])
def test_all_ranks_of_a_start_go_on_or_none(is_free: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OF_A_START:
        monkeypatch.delenv(name, raising=False)
    with hold(tmp_path, rank=1) as mine:
        assert mine  # Lightning starts the others once the first one has it
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")

    def second() -> bool:
        with hold(tmp_path, rank=1) as mine:
            return mine

    def first() -> bool:
        with hold(tmp_path) as mine:
            return mine

    with hold(tmp_path) if not is_free else nullcontext():
        monkeypatch.setenv("SLURM_RESTART_COUNT", "2")  # another start, which knows nothing of the word of the one before
        asked = ThreadPool(1).apply_async(second)
        with pytest.raises(multiprocessing.TimeoutError):
            asked.get(3 * POLL_S)
        assert in_a_child(first) == is_free
        assert asked.get(10) == is_free
