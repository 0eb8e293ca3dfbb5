"""Which version of the user's project runs: the commit that git has checked out.

Git's own files are read, and git is not run: that takes milliseconds, and an index of a large project seconds.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
MOST_BYTES = 16_000_000
"""Of `packed-refs`, which has a line for each branch and tag."""


def project_facts(*places: Path) -> dict[str, str]:
    """`git_commit`: what is checked out of the project in the first of these places that has one; empty if none has.

    Args:
        *places: directories; by default that of the program that runs, then the working directory. What has changed since
            the commit is not looked for.
    """
    for place in places or (_program(), Path()):
        commit = commit_of(place)
        if commit:
            return {"git_commit": commit}
    return {}


def commit_of(place: Path) -> str:
    """The commit that is checked out in the project that a directory belongs to; empty if that cannot be told."""
    try:
        whole = Path(os.path.realpath(place))
        git = next((found for folder in (whole, *whole.parents) if (found := folder / ".git").exists()), None)
        if git is None:
            return ""
        if git.is_file():  # of a submodule, or of another work tree
            git = git.parent / _text(git).removeprefix("gitdir:").strip()
        head = _text(git / "HEAD")
        if not head.startswith("ref:"):
            return head if COMMIT.fullmatch(head) else ""
        return _commit_of(git, head.removeprefix("ref:").strip())
    except (OSError, ValueError):
        return ""


def _commit_of(git: Path, branch: str) -> str:
    shared = git / _text(git / "commondir") if (git / "commondir").is_file() else git
    for root in (git, shared):
        if (root / branch).is_file():
            commit = _text(root / branch)
            return commit if COMMIT.fullmatch(commit) else ""
    lines = _text(shared / "packed-refs", MOST_BYTES).splitlines() if (shared / "packed-refs").is_file() else []
    return next((line.split()[0] for line in lines if line.endswith(f" {branch}") and COMMIT.match(line)), "")


def _text(file: Path, most: int = 4096) -> str:
    if not file.is_file():  # what is no file may block whoever opens it
        raise OSError(f"{file} is no file")
    with file.open("rb") as opened:
        return opened.read(most).decode("utf-8", "replace").strip()


def _program() -> Path:
    """The directory of the script that runs; of a console, the working directory."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(file).parent if isinstance(file, str) else Path()
