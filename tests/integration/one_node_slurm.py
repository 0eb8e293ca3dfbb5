"""A Slurm of one node on loopback, with fake GPUs that it hands out: Debian's daemons, in a directory of their own.

It needs root (the daemons and the device nodes ask for it) and the packages `slurm-wlm` and `munge`; nothing of them has to
be configured or running. The GPUs are nodes with /dev/null's number: Slurm only looks that they are there, and gives each
job the `CUDA_VISIBLE_DEVICES` of its own.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

# Each program, and the Debian package that has it.
PROGRAMS = {
    "munged": "munge",
    "slurmctld": "slurm-wlm",
    "slurmd": "slurm-wlm",
    "sbatch": "slurm-wlm",
    "srun": "slurm-wlm",
    "setpriv": "util-linux",
    "gcc": "gcc",
}
NULL_DEVICE = os.makedev(1, 3)
HOST = "localhost"
# Slurm listens on the address of the machine's name, which in a container is the network's; so all that belongs to it is
# told that the machine's name is localhost.
GETHOSTNAME = f'#include <string.h>\nint gethostname(char *name, size_t size) {{ strncpy(name, "{HOST}", size); return 0; }}'
CPUS = 4  # so that two jobs of two tasks run side by side, however many there are
READY_S = 30.0
GONE_S = 10.0

SLURM_CONF = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmdPort={slurmd_port}
# Nobody but this machine is listened to.
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={directory}/munge.sock
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
# No cgroups, mail, accounting or MPI: containers lack what these need.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
MailProg=/bin/true
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} Gres=gpu:{gpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
GRES_CONF = """
AutoDetect=off
Name=gpu File={directory}/nvidia[0-{last}] Flags=nvidia_gpu_env
"""


def missing() -> str:
    """What this machine lacks to start it, and how to get that; empty if nothing."""
    packages = sorted({package for program, package in PROGRAMS.items() if not shutil.which(program)})
    if packages:
        return f"needs {' and '.join(packages)}: apt-get install {' '.join(packages)}"
    if os.getuid() != 0:
        return "needs root, to start Slurm's daemons"
    with tempfile.TemporaryDirectory() as folder:
        try:
            os.mknod(f"{folder}/null", stat.S_IFCHR | 0o600, NULL_DEVICE)
        except PermissionError:
            return "needs the right to make device nodes (in a container: the capability MKNOD)"
    return ""


class OneNodeSlurm:
    """A running Slurm.

    Args:
        directory: Where its configuration, logs and sockets are; short, for sockets have short names.
        gpus: How many GPUs it hands out.
    """

    def __init__(self, directory: Path, gpus: int = 2) -> None:
        self.directory = directory
        self.gpus = gpus

    def env(self, env: Mapping[str, str]) -> dict[str, str]:
        """An environment whose `sbatch`, `srun` and `squeue` talk to it."""
        return {**env, "SLURM_CONF": str(self.directory / "slurm.conf"), "LD_PRELOAD": str(self.directory / "host.so")}

    def logs(self) -> str:
        """The end of what each daemon said."""
        files = sorted(self.directory.glob("*.out"))
        return "\n".join(f"{file.name}: {file.read_text(errors='replace')[-3000:]}" for file in files)

    def configure(self) -> None:
        """Write everything that the daemons read."""
        for name in ("state", "spool"):
            (self.directory / name).mkdir()
        key = self.directory / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        compiler = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(self.directory / "host.so")]
        subprocess.run(compiler, input=GETHOSTNAME, text=True, check=True)
        for index in range(self.gpus):
            os.mknod(self.directory / f"nvidia{index}", stat.S_IFCHR | 0o600, NULL_DEVICE)
        ctld_port, slurmd_port = free_ports(2)
        about = {"directory": self.directory, "host": HOST, "gpus": self.gpus, "cpus": CPUS}
        slurm = SLURM_CONF.format(**about, ctld_port=ctld_port, slurmd_port=slurmd_port)
        (self.directory / "slurm.conf").write_text(slurm)
        (self.directory / "gres.conf").write_text(GRES_CONF.format(**about, last=self.gpus - 1))

    def start_requeued(self) -> bool:
        """Start the jobs that were requeued, which Slurm lets wait for two minutes; whether there was one."""
        env = self.env(os.environ)
        asked = ["squeue", "--noheader", "--states=PENDING", "--format=%i"]
        waiting = subprocess.run(asked, env=env, capture_output=True, text=True, check=True).stdout.split()
        for job in waiting:
            subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], env=env, check=False)
        return bool(waiting)

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a daemon in the foreground, in a session of its own; at the latest it ends with this process."""
        with (self.directory / f"{command[0]}.out").open("wb") as out:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *command],
                env=self.env(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def is_ready(self) -> bool:
        """Whether the node takes jobs."""
        asked = ["sinfo", "--noheader", "--format=%t"]
        done = subprocess.run(asked, env=self.env(os.environ), capture_output=True, text=True, check=False)
        return done.stdout.strip() == "idle"

    def wait_until_ready(self, daemons: list[subprocess.Popen[bytes]]) -> None:
        """Wait for the node.

        Raises:
            RuntimeError: If a daemon ended, or none of them ever was ready.
        """
        deadline = time.monotonic() + READY_S
        while not self.is_ready():
            if time.monotonic() > deadline or any(daemon.poll() is not None for daemon in daemons):
                raise RuntimeError(f"Slurm did not start:\n{self.logs()}")
            time.sleep(0.2)


@contextmanager
def one_node_slurm(gpus: int = 2) -> Iterator[OneNodeSlurm]:
    """A Slurm that runs within the block; whatever happens, nothing of it is left afterwards."""
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        slurm = OneNodeSlurm(directory, gpus)
        slurm.configure()
        socket_and_files = {"key-file": "munge.key", "socket": "munge.sock", "pid-file": "munged.pid"}
        socket_and_files |= {"log-file": "munged.log", "seed-file": "munged.seed"}
        places = [f"--{option}={directory / name}" for option, name in socket_and_files.items()]
        daemons: list[subprocess.Popen[bytes]] = []
        stack.callback(stop, daemons)
        # --force: a socket that root alone can reach is what is wanted here.
        daemons.append(slurm.start("munged", "--foreground", "--force", *places))
        daemons.append(slurm.start("slurmctld", "-D"))
        daemons.append(slurm.start("slurmd", "-D"))
        slurm.wait_until_ready(daemons)
        stack.callback(cancel_jobs, slurm)
        yield slurm


def cancel_jobs(slurm: OneNodeSlurm) -> None:
    """End the jobs that are still there, so that none outlives its Slurm."""
    env = slurm.env(os.environ)
    subprocess.run(["scancel", "--user=root", "--signal=KILL", "--full"], env=env, check=False, timeout=GONE_S)
    deadline = time.monotonic() + GONE_S
    while time.monotonic() < deadline:
        listed = subprocess.run(["squeue", "--noheader"], env=env, capture_output=True, check=False)
        if not listed.stdout.strip():
            return
        time.sleep(0.2)


def stop(daemons: list[subprocess.Popen[bytes]]) -> None:
    """End the daemons, the last one first: by asking, then by force."""
    for daemon in reversed(daemons):
        daemon.terminate()
        try:
            daemon.wait(GONE_S)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
