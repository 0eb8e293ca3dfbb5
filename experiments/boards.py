"""One GPU to each job: claims a board for as long as a job runs, so that the jobs of a sweep never share one."""

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from omegaconf import OmegaConf

POLL_S = 1.0
HELD = "EXPERIMENTS_BOARDS"  # tells the processes of a job's other ranks which boards the job has


@contextmanager
def claim_boards(
    boards: Sequence[int],
    count: int = 1,
    *,
    share: bool = False,
    name: Callable[[int], str] = str,
    say: Callable[[str], None] = print,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[list[int]]:
    """Hold `count` of `boards` until the block ends; waits while other jobs hold too many of them.

    The claim is a lock on a file per board in the user's temporary directory: it holds between processes of one
    machine, and the system lifts it when a process dies.

    Args:
        boards: board indices that the job may use, in order of preference; none: nothing is claimed.
        count: how many it uses.
        share: do not claim: take the first `count`, even if others use them.
        name: gives a board's name on this machine, the same in every process; `cuda_name` where masks renumber boards.
        say: called once with a sentence if it has to wait.
        sleep: waits so many seconds between two attempts.

    Yields:
        The indices that are now this job's.

    Raises:
        ValueError: if there are fewer boards than `count`.

    Example:
        >>> with claim_boards([0, 1], share=True) as mine:
        ...     mine
        [0]
    """
    if not boards:
        yield []
        return
    if HELD in os.environ and os.environ.get("LOCAL_RANK", "0") != "0":  # a job's process for another of its ranks
        yield [int(board) for board in os.environ[HELD].split(",")]
        return
    if len(boards) < count:
        raise ValueError(f"{count} boards are wanted and device.boards names {len(boards)}: {list(boards)}")
    # Slurm starts a job's ranks itself, on boards that it gave to this job alone: its tasks must not wait for each other.
    if share or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        yield list(boards[:count])
        return
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun starts them too: the first claims boards that all of them know
        boards = boards[:count]
        if os.environ.get("LOCAL_RANK", "0") != "0":
            yield list(boards)
            return
    waiting = False
    while True:
        with ExitStack() as held:
            mine: list[int] = []
            for board in boards:
                if len(mine) < count and _try_lock(name(board), held):
                    mine.append(board)
            if len(mine) == count:
                os.environ[HELD] = ",".join(map(str, mine))
                try:
                    yield mine
                finally:
                    os.environ.pop(HELD, None)
                return
        if not waiting:
            say(f"waiting for {count} free board(s) among {list(boards)}; device.share=true would not wait")
            waiting = True
        sleep(POLL_S)


def each_board(accelerator: str) -> str:
    """The boards of this machine as a sweep over them, for `study=boards`; "null", which is the CPU, where there is none.

    Args:
        accelerator: `device.accelerator`.

    Example:
        >>> each_board("cpu")
        'null'
    """
    count = 0 if accelerator == "cpu" else torch.cuda.device_count()
    return ",".join(map(str, range(count))) or "null"


def cuda_name(board: int) -> str:
    """The UUID of a CUDA device (its index if torch is too old to know)."""
    return str(getattr(torch.cuda.get_device_properties(board), "uuid", board))


def _try_lock(name: str, held: ExitStack) -> bool:
    """Lock one board's file without waiting; `held` lets go of it."""
    folder = Path(tempfile.gettempdir()) / f"lightning_watt-boards-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    file = (folder / f"{name}.lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return False
    held.enter_context(file)
    return True


OmegaConf.register_new_resolver("each_board", each_board, replace=True)
