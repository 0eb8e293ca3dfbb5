"""Runs a command without a network: `python -m tests.integration.cut_off COMMAND...`, as root.

In a network namespace with nothing but loopback, whatever wants to leave finds no route, and the kernel counts it. The last
line of the output is that count; the one before it is the count after one attempt of this module's own, which shows that
attempts are counted.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
ELSEWHERE = ("203.0.113.1", 53)  # TEST-NET-3: nobody's


def attempts() -> int:
    """Packets that had no way to go, since the namespace was made."""
    names, values = (line.split() for line in Path("/proc/self/net/snmp").read_text().splitlines()[:2])
    return int(values[names.index("OutNoRoutes")])


def main(command: list[str]) -> int:
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        fcntl.ioctl(door, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    status = subprocess.run(command, check=False).returncode
    count = attempts()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door, contextlib.suppress(OSError):
        door.sendto(b"?", ELSEWHERE)
    sys.stdout.write(f"{attempts() - count}\n{count}\n")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
