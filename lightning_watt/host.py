"""This machine, this process, what launched it, and the processes that are forked off it.

A process may be forked off in the middle of a measurement. The child has a copy of everything but the threads: the reader
is gone, and may have held a lock. Open files belong to the parent, and only the parent may settle, write and close. So each
object that measures is called in the child, and begins anew. What it held stays referenced while the child lives, because a
destructor may talk to a driver or flush a file.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple, Protocol
from weakref import ref

import psutil

if sys.platform != "win32":
    import resource
    from time import clock_gettime

_alive: dict[int, ref[Forked]] = {}
_of_the_parent: list[object] = []


class Forked(Protocol):
    """An object that is called in a child of the process that made it."""

    def forked(self) -> None:
        """Forget what is the parent's, without waiting for a lock, a thread or a driver."""


def tell_of_forks(one: Forked) -> None:
    """Call its `forked` in each child from now on, as long as it lives."""
    key = id(one)  # and not its hash, which may be anything in a subclass of the user's
    _alive[key] = ref(one, lambda _: _alive.pop(key, None))


def keep(what: object) -> None:
    """Never let go of this, in this process."""
    _of_the_parent.append(what)


def _tell() -> None:
    for known in list(_alive.values()):
        one = known()
        if one is not None:
            one.forked()


def this_machine() -> str:
    """A name for this machine's kernel, and this process's name space of processes, that no other one shares."""
    return f"{host_id()}/{_read_link('/proc/self/ns/pid')}"


@cache
def host_id() -> str:
    """A name for this host that is the same in every container on it and changes with a boot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return platform.node()


def process_facts() -> tuple[str, int, float]:
    """Which process this is: its machine, its number there, and when it was started (seconds since 1970)."""
    return this_machine(), os.getpid(), psutil.Process().create_time()


def is_process(pid: int, born: float) -> bool:
    """Whether a process of this number, started at this time (seconds since 1970), runs here."""
    try:
        # The same number may be another process by now. Two seconds for a clock that was set meanwhile.
        return pid > 0 and abs(psutil.Process(pid).create_time() - born) < 2.0 and _is_running(pid)
    except (psutil.Error, ValueError, OverflowError):
        return False


def _is_running(pid: int) -> bool:
    return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)


def _read_link(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""


class Seen(NamedTuple):
    """A process by its number. To make one of psutil's takes a look at it more, and there may be hundreds."""

    pid: int


def living_children() -> Sequence[Seen | psutil.Process]:
    """This process's living descendants (data-loader workers).

    Beside a busy Python thread each step of the search waits for the interpreter, so it can take seconds.
    """
    return _below(psutil.Process())


def _below(process: psutil.Process) -> Sequence[Seen | psutil.Process]:
    """A process's living descendants. Without the kernel's lists, this looks at every process of the machine."""
    if not _has_lists_of_children():
        return list(process.children(recursive=True))
    return [Seen(pid) for pid in descendants(process.pid)]


@cache
def _has_lists_of_children() -> bool:
    """Whether the kernel was built with CONFIG_PROC_CHILDREN."""
    return Path("/proc/thread-self/children").exists()


def descendants(pid: int) -> list[int]:
    """The numbers of a process's living descendants, by the kernel's lists of each thread's children."""
    found: list[int] = []
    above = [pid]
    while above:
        tasks = f"/proc/{above.pop()}/task"
        with suppress(OSError):  # the process has ended meanwhile
            for task in os.listdir(tasks):
                with suppress(OSError), open(f"{tasks}/{task}/children", encoding="ascii") as listed:
                    children = [int(child) for child in listed.read().split()]
                    found += children
                    above += children
    return found


def busy_seconds(children: Collection[Seen | psutil.Process] | None = None) -> float:
    """CPU seconds of this process, its ended children, and its living ones.

    Args:
        children: the living ones, if the caller has just found them (`living_children`).
    """
    living = living_children() if children is None else children
    # Before the living children: one that ends now is missing once, and is never counted twice.
    total = process_time() + _seconds_of_ended_children()
    return total + sum(_seconds_of(child) for child in living)


def trees_of(pids: Collection[int], children: Collection[Seen | psutil.Process]) -> dict[int, list[Seen | psutil.Process]]:
    """Other processes with their living descendants; without those that have ended and those of this process's own tree.

    Args:
        pids: the numbers of the processes.
        children: this process's living descendants.
    """
    trees: dict[int, list[Seen | psutil.Process]] = {}
    below = {os.getpid(), *(child.pid for child in children)}
    for pid in set(pids) - below:
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            trees[pid] = [process, *(child for child in _below(process) if child.pid not in below)]
    return trees


def busy_seconds_of(tree: Collection[Seen | psutil.Process]) -> float:
    """CPU seconds of these processes and of their ended children."""
    return sum(_seconds_of(one) for one in tree)


def _seconds_of_ended_children() -> float:
    if sys.platform == "win32":
        return 0.0
    used = resource.getrusage(resource.RUSAGE_CHILDREN)  # not `os.times`, which counts in steps of 10 ms
    return float(used.ru_utime + used.ru_stime)


def _seconds_of(one: Seen | psutil.Process) -> float:
    """CPU seconds of one process and its ended children; 0 of one that has ended since it was found."""
    try:
        own_s, ended_s = _listed_seconds(one.pid)
    except (OSError, ValueError, psutil.Error):
        return 0.0
    if sys.platform == "linux":
        with suppress(OSError):  # it counts in steps of 10 ms, each rounded down
            own_s = clock_gettime(~one.pid << 3 | 2)  # clock_getcpuclockid(3), as the C library works it out
    return own_s + ended_s


def _listed_seconds(pid: int) -> tuple[float, float]:
    """CPU seconds of a process, and of its ended children, as the system lists them."""
    if _has_lists_of_children():
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            # Behind the name, which may hold anything, the third field of proc(5) is the first.
            fields = file.read().rpartition(b")")[2].split(maxsplit=15)
        user, system, ended_user, ended_system = (int(ticks) / os.sysconf("SC_CLK_TCK") for ticks in fields[11:15])
        return user + system, ended_user + ended_system
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system, getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)


def machine_busy_seconds() -> float:
    """CPU seconds of all processes of this machine since it was started, in steps of 10 ms a hardware thread."""
    times = psutil.cpu_times()._asdict()
    # Guests are in the user's time already; what another virtual machine stole was not used here.
    return float(sum(value for name, value in times.items() if name in ("user", "nice", "system", "irq", "softirq")))


def is_below(pid: int, above: Collection[int]) -> bool:
    """Whether a process of this machine descends from one of these."""
    with suppress(psutil.Error, OverflowError):
        return any(parent.pid in above for parent in psutil.Process(pid).parents())
    return False


def load() -> float:
    """How many processes wanted to run in the last minute, over the hardware threads that can run them."""
    with suppress(OSError):
        return float(psutil.getloadavg()[0]) / (os.cpu_count() or 1)
    return 0.0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_tell)


# -- what launched this process: nothing is imported to find out, because what nobody has imported launched nothing --------


class RankHere(NamedTuple):
    """Which of several processes this is: its number on this machine, and how many there are on all machines."""

    local: int
    world: int


class RayTrial(NamedTuple):
    """Where a trial works, for the time that Ray runs; and the directory that Ray shows to the user as the trial's."""

    working: Path
    own: Path

    def place_of(self, directory: Path, *, chosen: bool) -> Path:
        """The same place in the trial's own directory; what was chosen elsewhere (by a logger) stays there."""
        whole, working = Path(os.path.abspath(directory)), Path(os.path.abspath(self.working))
        if whole.is_relative_to(working):
            return self.own / whole.relative_to(working)
        return directory if chosen else self.own


def rank_here() -> RankHere | None:
    """This process's place among those that train together; None if there is one."""
    world, local = _number("WORLD_SIZE", 1), _number("LOCAL_RANK", 0)
    dist = sys.modules.get("torch.distributed")
    if world <= 1 and dist is not None and dist.is_available() and dist.is_initialized():
        world, local = dist.get_world_size(), _number("LOCAL_RANK", dist.get_rank())
    return RankHere(local, world) if world > 1 else None


def _number(variable: str, otherwise: int) -> int:
    try:
        return int(os.environ.get(variable, otherwise))
    except ValueError:
        return otherwise


def ray_trial() -> RayTrial | None:
    """The trial of Ray Tune that this process runs, if it is one whose directory is on this machine.

    A trial's working directory is below Ray's temporary one. What `ResultGrid` and `ray_results` show is another, to which
    Ray copies checkpoints and nothing else.
    """
    module: Any = sys.modules.get("ray.train._internal.session")
    try:
        storage = module.get_session().storage
        is_local = type(storage.storage_filesystem).__name__ == "LocalFileSystem"
        return RayTrial(Path(storage.trial_working_directory), Path(storage.trial_fs_path)) if is_local else None
    except Exception:  # noqa: BLE001 - no Ray, no trial, or a Ray that keeps it elsewhere
        return None
