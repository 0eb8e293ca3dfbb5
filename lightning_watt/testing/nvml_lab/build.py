"""Compiles the fake NVML, once for each state of its sources."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = ("nvml.c", "scenario.c", "scenario.h")
SONAME = "libnvidia-ml.so.1"
FLAGS = (
    *("-std=c11", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-pthread"),
    *("-Wall", "-Wextra", "-Werror"),
)


class LabError(RuntimeError):
    """The lab cannot be built or used as asked; the message gives the remedy."""


@dataclass(frozen=True)
class Built:
    """The compiled libraries: one directory, two names.

    `library` carries the soname that CUDA programs ask for. `in_process` is the same code under a
    soname of its own: a process that loads it by path does not thereby answer every later
    `dlopen("libnvidia-ml.so.1")`, torch's among them, with fake boards.
    """

    directory: Path

    @property
    def library(self) -> Path:
        """The library under the name that CUDA programs ask for."""
        return self.directory / SONAME

    @property
    def in_process(self) -> Path:
        """The library to load by path into this process."""
        return self.directory / "nvml_lab.so"


def cache_directory() -> Path:
    """Where compiled libraries are kept: the user's cache, because an installed package may not be writable."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lightning_watt" / "nvml_lab"


def build() -> Built:
    """Compile unless that is done already; safe when several processes do it at once.

    Raises:
        LabError: gcc is missing, or refuses the sources.
    """
    digest = hashlib.sha256("\0".join(FLAGS).encode())
    for name in SOURCES:
        digest.update((HERE / name).read_bytes())
    final = Built(cache_directory() / digest.hexdigest()[:16])
    if final.library.exists():
        return final
    gcc = shutil.which("gcc")
    if gcc is None:
        raise LabError("The NVML lab is compiled with gcc, which is not on PATH. Install it (Debian: apt install gcc).")
    final.directory.parent.mkdir(parents=True, exist_ok=True)
    scratch = Built(Path(tempfile.mkdtemp(dir=final.directory.parent, prefix="making-")))
    try:
        sources = [str(HERE / name) for name in SOURCES if name.endswith(".c")]
        for output in (scratch.in_process, scratch.library):
            command = [gcc, *FLAGS, f"-Wl,-soname,{output.name}", "-o", str(output), *sources]
            made = subprocess.run(command, capture_output=True, text=True, check=False)
            if made.returncode:
                raise LabError(f"gcc could not compile the NVML lab:\n{' '.join(command)}\n{made.stderr}")
        try:
            scratch.directory.rename(final.directory)
        except OSError as error:
            # Another process was faster: a rename onto a directory with files in it fails.
            if not final.library.exists():
                raise LabError(f"The NVML lab could not be put in {final.directory}: {error}") from error
    finally:
        shutil.rmtree(scratch.directory, ignore_errors=True)
    return final


def function_names() -> tuple[str, ...]:
    """The C symbols that a fault or `missing` may name, as nvml.c lists them."""
    source = (HERE / "nvml.c").read_text(encoding="utf-8")
    return tuple(re.findall(r"\bX\((nvml\w+)\)", source))
