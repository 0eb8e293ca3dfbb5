"""What a launcher says of this process: its rank on this machine, and the trial of Ray Tune that it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_watt.host import rank_here, ray_trial


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(
    ("env", "here"),
    [
        ({}, None),
        ({"WORLD_SIZE": "1", "LOCAL_RANK": "0"}, None),
        ({"WORLD_SIZE": "4", "LOCAL_RANK": "3"}, (3, 4)),
        ({"WORLD_SIZE": "4"}, (0, 4)),  # rank zero of Fabric's own launcher
        ({"WORLD_SIZE": "many"}, None),
    ],
)
def test_the_environment_says_which_rank_this_is(monkeypatch, env, here):
    for variable, value in env.items():
        monkeypatch.setenv(variable, value)
    assert rank_here() == here


def test_a_process_group_says_it_where_the_environment_does_not(monkeypatch):
    group = SimpleNamespace(
        is_available=lambda: True, is_initialized=lambda: True, get_world_size=lambda: 2, get_rank=lambda: 1
    )
    monkeypatch.setitem(sys.modules, "torch.distributed", group)
    assert rank_here() == (1, 2)
    group.is_initialized = lambda: False
    assert rank_here() is None


class LocalFileSystem:
    """As Arrow calls that of this machine."""


class S3FileSystem:
    """One that is elsewhere."""


def a_session(filesystem: Any) -> SimpleNamespace:
    """What Ray keeps for a trial."""
    return SimpleNamespace(
        storage=SimpleNamespace(
            storage_filesystem=filesystem, trial_working_directory="/tmp/ray/trial_1", trial_fs_path="/results/trial_1"
        )
    )


@pytest.mark.parametrize(
    ("session", "trial"),
    [
        (a_session(LocalFileSystem()), (Path("/tmp/ray/trial_1"), Path("/results/trial_1"))),
        (a_session(S3FileSystem()), None),
        (SimpleNamespace(storage=None), None),
        (None, None),
    ],
)
def test_the_trial_of_ray_tune(monkeypatch, session, trial):
    monkeypatch.setitem(sys.modules, "ray.train._internal.session", SimpleNamespace(get_session=lambda: session))
    assert ray_trial() == trial


def test_ray_is_not_imported_to_find_out(monkeypatch):
    monkeypatch.delitem(sys.modules, "ray.train._internal.session", raising=False)
    before = set(sys.modules)
    assert ray_trial() is None
    assert not [name for name in set(sys.modules) - before if name.startswith("ray")]
