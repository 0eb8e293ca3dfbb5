"""`skip_done=true`: the same command finds its sweep's directory, and each job in it what an earlier start left."""

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from experiments.outcome import NAME, read_outcome

SWEEPS = Path("runs/sweep")  # where `conf/run.yaml` puts the sweeps
RUNS_HERE = ".running"  # locked in a job's directory for as long as a process works there
OF_A_START = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")
"""What the ranks that were started together have in common, and no others; none of it if Lightning starts them itself."""
WORD_LIMIT_S = 300.0
"""How long the other ranks wait for the first rank's word, which imports as much as they do."""
POLL_S = 0.1
NOT_COMPARED = ("hydra", "skip_done")
OF_HYDRA = re.compile(r"[+~]*hydra[./]")


def goes_on(cfg: DictConfig) -> bool:
    """Whether a job goes on with what it finds in its directory: it was asked to, or Slurm has started it again."""
    return bool(cfg.skip_done) or int(os.environ.get("SLURM_RESTART_COUNT", 0)) > 0


def config_key(cfg: DictConfig) -> str:
    """Twelve hexadecimal digits that are equal if two jobs' configs are, whatever `skip_done` is."""
    compared = OmegaConf.masked_copy(cfg, [key for key in cfg if key not in NOT_COMPARED])
    text = json.dumps(OmegaConf.to_container(compared, resolve=True), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def find_sweep(arguments: list[str]) -> list[str]:
    """Let a sweep with `skip_done=true` have the directory of the newest one that the same command began.

    What concerns Hydra alone, such as the launcher, may differ.

    Args:
        arguments: the command line's arguments.

    Returns:
        The arguments, with `hydra.sweep.dir=` if there is such a sweep and none is given.
    """
    asked = not {"-m", "--multirun"}.isdisjoint(arguments) and "skip_done=true" in map(str.lower, arguments)
    if not asked or any(argument.startswith("hydra.sweep.dir=") for argument in arguments):
        return arguments
    began = sorted(SWEEPS.glob("*/multirun.yaml"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
    for file in began:
        if _task(OmegaConf.load(file).hydra.overrides.task) == _task(arguments):
            return [*arguments, f"hydra.sweep.dir={file.parent}"]
    return arguments


def _task(arguments: list[str]) -> list[str]:
    """What a command line asks for, besides how Hydra runs it."""
    return sorted(
        argument for argument in arguments if not argument.startswith(("-", "skip_done=")) and not OF_HYDRA.match(argument)
    )


def job_directory(name: str, *, _root_: DictConfig) -> str:
    """The name of a job's directory in its sweep: `name`, unless `skip_done` finds that job under another one.

    A sweep that is started again with longer lists gives its jobs other numbers.
    """
    if not _root_.skip_done:
        return name
    sweep, key = Path(_root_.hydra.sweep.dir), config_key(_root_)
    if read_outcome(sweep / name).get("config", key) == key:
        return name
    for file in sweep.glob(f"*/{NAME}"):
        if read_outcome(file.parent).get("config") == key:
            return file.parent.name
    return f"{name}-{key[:4]}"


@contextmanager
def hold(directory: Path, rank: int = 0) -> Iterator[bool]:
    """Hold a job's directory while the block runs.

    The lock is lifted when the process dies, and a process that is forked off does not have it. The first rank of a job
    locks for all its ranks; those that Slurm or torchrun started beside it wait for its word.

    Args:
        directory: the job's.
        rank: this process's among those of the job.

    Yields:
        Whether no other job has it; also where the file system knows no locks.
    """
    start = "-".join(os.environ[name] for name in OF_A_START if name in os.environ)
    word = directory / f"{RUNS_HERE}-{hashlib.sha256(start.encode()).hexdigest()[:12]}"
    if rank:
        yield not start or _said(word)
        return
    with (directory / RUNS_HERE).open("w") as file:
        mine = True
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            mine = False
        except OSError:
            pass
        if start:
            part = word.with_suffix(".part")
            part.write_text(json.dumps(mine))
            os.replace(part, word)
        yield mine


def _said(word: Path) -> bool:
    """What the first rank says; if it says nothing for long, that it holds the directory: their own meeting then fails."""
    deadline = time.monotonic() + WORD_LIMIT_S
    while time.monotonic() < deadline:
        with suppress(OSError, ValueError):
            return bool(json.loads(word.read_text()))
        time.sleep(POLL_S)
    return True


OmegaConf.register_new_resolver("job_directory", job_directory, replace=True)
