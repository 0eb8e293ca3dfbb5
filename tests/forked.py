"""Processes that begin with the imports done: forked from one that has them, because torch and Lightning take 6 s of CPU.

`start` runs a module as `python -m` does, in a process of its own with its own environment, arguments, working directory and
output. The process is real: it has a pid, it can be killed, and it ends as a script ends. What it shares with a fresh one is
everything but the imports and the dynamic loader's settings; each kind of process also has a test with a fresh one.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NVML = "libnvidia-ml.so.1"
LARGEST_REQUEST = 1 << 20
NUMBER = 16
"""How many bytes a number has on its way between two processes."""


class Forked:
    """A forked process, with the part of `subprocess.Popen` that the tests use.

    Args:
        pid: The process.
        status: Where its return code comes, once it has ended.
        out: Where its output comes; None if that goes to a file.
    """

    def __init__(self, pid: int, status: int, out: int | None) -> None:
        self.pid, self._status, self._out = pid, status, out
        self.returncode: int | None = None
        self._said = b""

    def wait(self, timeout: float | None = None) -> int:
        """Its return code; negative for the signal that killed it.

        Raises:
            subprocess.TimeoutExpired: It has not ended within `timeout` seconds.
        """
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            self.returncode = int(os.read(self._status, NUMBER))
            os.close(self._status)
        return self.returncode

    def poll(self) -> int | None:
        """Its return code, if it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """What it and the processes that it started printed, once all of them have ended; `wait` says what is raised."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._out is not None:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([self._out], [], [], left)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            read = os.read(self._out, 1 << 16)
            self._said += read
            if not read:
                os.close(self._out)
                self._out = None
        self.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return self._said.decode(errors="replace"), None

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


def start(
    module: str,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    file: Path | None = None,
    new_session: bool = False,
    imports: str = "tests.integration.tiny",
) -> Forked:
    """Run a module in a forked process.

    Args:
        module: As after `python -m`.
        *arguments: Its arguments.
        env: Its whole environment; without it, this process's.
        cwd: Its working directory.
        file: Where its output goes; without it, `communicate` returns that.
        new_session: Whether it leads a session, and so a process group.
        imports: The module that is imported before the fork, with all that it imports.
    """
    request = {"module": module, "arguments": arguments, "cwd": str(cwd), "new_session": new_session}
    request["env"] = dict(os.environ if env is None else env)
    status, status_end = os.pipe()
    if file is None:
        out, out_end = os.pipe()
    else:
        out, out_end = None, os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    socket.send_fds(_parent(imports), [json.dumps(request).encode()], [status_end, out_end])
    os.close(status_end)
    os.close(out_end)
    return Forked(int(os.read(status, NUMBER)), status, out)


@cache
def _parent(imports: str) -> socket.socket:
    """A connection to the process that has this module imported; it ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGEST_REQUEST)
    command = [sys.executable, "-m", "tests.forked", imports, str(theirs.fileno())]
    # Whoever loads OpenMP reads the number of threads once; the ranks of a test would want two cores each.
    env = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=env, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    theirs.close()
    atexit.register(process.wait)
    atexit.register(ours.close)  # called first
    return ours


# ---- in the process that has the imports ----


def _serve(door: socket.socket) -> dict[str, Any]:
    """Fork a process for each request. Only such a process returns from here; the parent exits when nobody asks any more."""
    gc.freeze()  # what is imported already is looked through by no child, and so stays shared
    while True:
        content, fds, _, _ = socket.recv_fds(door, LARGEST_REQUEST, 2)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not content:
            os._exit(0)
        status, out = fds
        if os.fork() == 0:
            door.close()
            if _kept(status, out):
                return {**json.loads(content), "out": out}
        os.close(status)
        os.close(out)


def _kept(status: int, out: int) -> bool:
    """Fork once more: the child returns, its parent says how the child ends."""
    pid = os.fork()
    if pid == 0:
        os.close(status)
        return True
    os.close(out)
    os.write(status, f"{pid:{NUMBER}}".encode())
    _, code = os.waitpid(pid, 0)
    os.write(status, f"{os.waitstatus_to_exitcode(code):{NUMBER}}".encode())
    os._exit(0)


def _become(request: dict[str, Any]) -> None:
    """Take over all that a fresh process would have been started with."""
    if request["new_session"]:
        os.setsid()
    for fd in (1, 2):
        os.dup2(request["out"], fd)
    os.close(request["out"])
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv[1:] = request["arguments"]
    # Lightning looks for its rank when it is imported.
    if ranks := sys.modules.get("lightning_utilities.core.rank_zero"):
        ranks.rank_zero_only.rank = int(os.environ.get("RANK", 0))
    # The dynamic loader reads this variable when a program starts; a library that is loaded already is found by its name.
    for directory in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep):
        if directory and Path(directory, NVML).exists():
            ctypes.CDLL(str(Path(directory, NVML)), ctypes.RTLD_GLOBAL)
            break


def main() -> None:
    importlib.import_module(sys.argv[1])
    request = _serve(socket.socket(fileno=int(sys.argv[2])))
    _become(request)
    sys.modules.pop(request["module"], None)  # what runs as a script is not imported before
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
