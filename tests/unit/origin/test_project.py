"""The commit of the user's project, as git itself tells it, in every form in which its files hold it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from lightning_watt.origin.project import commit_of, project_facts

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git: apt-get install git")


def git(place: Path, *words: str) -> str:
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "protocol.file.allow=always"]
    return subprocess.run(["git", *who, *words], cwd=place, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def project(tmp_path):
    """A project with two commits."""
    place = tmp_path / "project"
    place.mkdir()
    git(place, "init", "--quiet")
    for number in range(2):
        git(place, "commit", "--quiet", "--allow-empty", "-m", str(number))
    return place


def head(place: Path) -> str:
    return git(place, "rev-parse", "HEAD")


def test_the_commit_of_a_branch_also_from_a_folder_below(project):
    (project / "src" / "deep").mkdir(parents=True)
    assert commit_of(project) == commit_of(project / "src" / "deep") == head(project)


def test_a_packed_branch(project):
    git(project, "branch", "other", "HEAD~1")
    git(project, "pack-refs", "--all")
    assert commit_of(project) == head(project)


def test_a_commit_without_a_branch(project):
    git(project, "checkout", "--quiet", "--detach", "HEAD~1")
    assert commit_of(project) == head(project)


def test_another_work_tree_and_a_submodule(project, tmp_path):
    git(project, "worktree", "add", "--quiet", "-b", "side", str(tmp_path / "side"), "HEAD~1")
    assert commit_of(tmp_path / "side") == head(tmp_path / "side") != head(project)
    above = tmp_path / "above"
    above.mkdir()
    git(above, "init", "--quiet")
    git(above, "submodule", "--quiet", "add", str(project), "part")
    assert commit_of(above / "part") == head(above / "part")


def test_what_is_no_project_or_has_no_commit_or_is_broken_is_nothing(tmp_path):
    assert commit_of(tmp_path) == ""
    git(tmp_path, "init", "--quiet")
    assert commit_of(tmp_path) == ""
    (tmp_path / ".git" / "HEAD").write_bytes(b"\xff\0ref")
    assert commit_of(tmp_path) == ""
    (tmp_path / ".git" / "HEAD").unlink()
    os.mkfifo(tmp_path / ".git" / "HEAD")  # reading it would wait for ever
    assert commit_of(tmp_path) == ""


def test_the_first_place_that_has_one(project, tmp_path):
    assert project_facts(tmp_path / "none", project) == {"git_commit": head(project)}
    assert project_facts(tmp_path / "none") == {}
