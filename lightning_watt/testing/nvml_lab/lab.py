"""Fake NVIDIA boards whose true energy is known, seen through the real pynvml."""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
import threading
import time
import uuid
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pynvml
from numpy.typing import ArrayLike, NDArray

from lightning_watt.testing.nvml_lab.boards import Board
from lightning_watt.testing.nvml_lab.build import Built, LabError, build
from lightning_watt.testing.nvml_lab.clock import UNIX_OFFSET_NS, ReplayClock
from lightning_watt.testing.nvml_lab.curve import NS_PER_S, PJ_PER_J
from lightning_watt.testing.nvml_lab.faults import Fault, symbol

SCENARIO_VARIABLE = "NVML_LAB_SCENARIO"
# pynvml keeps its library, its init count and its function pointers in these module globals.
_PYNVML_STATE = ("nvmlLib", "_nvmlLib_refcount", "_nvmlGetFunctionPointer_cache")
_one_at_a_time = threading.Lock()


class Lab:
    """A machine with fake boards.

    A lab has one timeline: its time zero is fixed the first time that `running` or `env` is used, and
    holds for every process that gets this lab. Make a new `Lab` to start over.

    Args:
        boards: in NVML's order.
        faults: what befalls every board, and the calls that name none (such as `nvmlDeviceGetCount`).
        missing: C symbols that answer FUNCTION_NOT_FOUND, as an old driver's would.
        init_error: the NVML return code of `nvmlInit`; 0 is success, 9 no driver, 18 a version mismatch.
        driver: the driver version.
        t0_ns: time zero in nanoseconds of CLOCK_MONOTONIC (`time.monotonic_ns`); None is `age_s` before `start`.
        age_s: how long the boards have run at `start`, in seconds: it gives them a history.
        clock: a replay's clock instead of the machine's; only for this process. Time zero is then on it.
        start: "now" is when the scenario is written; "first_reading" when the first process
            asks a board for energy or power, so that imports and a slow machine use none of the time up.

    Example:
        >>> from lightning_watt.testing.nvml_lab import Board, Fault, Lab, constant, square
        >>> lab = Lab(
        ...     [
        ...         Board(power=square(300, 80, 0.81)),
        ...         Board(power=constant(120), faults=[Fault("lost", at_s=2.0)]),
        ...     ]
        ... )
        >>> with lab.running():
        ...     pynvml.nvmlInit()
        ...     pynvml.nvmlDeviceGetCount()
        2
    """

    def __init__(
        self,
        boards: Sequence[Board],
        *,
        faults: Sequence[Fault] = (),
        missing: Sequence[str] = (),
        init_error: int = 0,
        driver: str = "570.86.10",
        t0_ns: int | None = None,
        age_s: float = 0.0,
        clock: ReplayClock | None = None,
        start: str = "now",
    ) -> None:
        if start not in ("now", "first_reading"):
            raise ValueError(f'start is "now" or "first_reading", got {start!r}.')
        self.boards = tuple(boards)
        self._faults = tuple(faults)
        self._missing = tuple(symbol(name) for name in missing)
        self._init_error = init_error
        self._driver = driver
        self._t0_ns = t0_ns
        self._age_ns = round(age_s * NS_PER_S)
        self._clock = clock
        self._start = start
        self._scenario: Path | None = None
        self._library: Any = None

    # ---- using it ----

    def build(self) -> Path:
        """Compile the library if that is not done yet, and return the path of `libnvidia-ml.so.1`.

        Raises:
            LabError: gcc is missing, or refuses the sources.
        """
        return build().library

    def env(self) -> dict[str, str]:
        """A subprocess's environment that lets it see this lab's boards: a copy of ours with two variables.

        `torch` in that process believes in the boards too when it counts devices through NVML: pass
        `accelerator="cpu"` there.

        Raises:
            LabError: this lab is on a replay's clock, which no other process can see.
        """
        if self._clock is not None:
            raise LabError("A replay's clock is this process's own: give the Lab none for other processes.")
        return os.environ | self._variables(build())

    @contextmanager
    def running(self, *, children: bool = True) -> Iterator[Lab]:
        """Within it, this process's pynvml talks to the lab; afterwards everything is as it was.

        A later call to NVML through the lab gets UNINITIALIZED. torch in this process
        does not see the boards, because the library is loaded under another name.

        Args:
            children: let processes that are started within it see the lab too (forked ones always do).

        Raises:
            LabError: another lab is running in this process, or the lab cannot be built.
        """
        built = build()
        if not _one_at_a_time.acquire(blocking=False):
            raise LabError("Another lab is running in this process; NVML has room for one.")
        try:
            variables = self._variables(built)
            if not children or self._clock is not None:
                variables = {SCENARIO_VARIABLE: variables[SCENARIO_VARIABLE]}
            before = {name: os.environ.get(name) for name in variables}
            state = {name: getattr(pynvml, name) for name in _PYNVML_STATE}
            self._library = ctypes.CDLL(str(built.in_process))
            self._library.nvmlLabForgetCalls()
            cell = ctypes.c_longlong.in_dll(self._library, "nvmlLabClockNs")
            if self._clock is not None:
                self._clock.hold(cell)
            os.environ.update(variables)
            for name, value in zip(_PYNVML_STATE, (self._library, 0, {}), strict=True):
                setattr(pynvml, name, value)
            try:
                yield self
            finally:
                if self._clock is not None:
                    self._clock.hold(ctypes.c_longlong())
                    cell.value = 0
                # Every nvmlInit that was left open, ours or the code's under test.
                while self._library.nvmlShutdown() == pynvml.NVML_SUCCESS:
                    pass
                for name, value in state.items():
                    setattr(pynvml, name, value)
                for name, text in before.items():
                    if text is None:
                        os.environ.pop(name, None)
                    else:
                        os.environ[name] = text
        finally:
            _one_at_a_time.release()

    # ---- what it truly was ----

    @property
    def t0_ns(self) -> int:
        """The lab's time zero in nanoseconds of CLOCK_MONOTONIC.

        Raises:
            LabError: before it is fixed.
        """
        if self._t0_ns is None and self._scenario is not None:
            shared = self._scenario.with_name(self._scenario.name + ".t0")
            if shared.exists():
                self._t0_ns = int(shared.read_text(encoding="ascii"))
        if self._t0_ns is None:
            raise LabError("The lab has no time zero yet: use running(), env(), or wait for the first reading.")
        return self._t0_ns

    def true_joules(self, board: int, t0_ns: int, t1_ns: int) -> float:
        """What board number `board` used between two times of CLOCK_MONOTONIC, in joules.

        The integral is exact, then rounded to a float. Gains and faults do not change it.
        """
        curve = self.boards[board].power
        return (curve.energy_pj(t1_ns - self.t0_ns) - curve.energy_pj(t0_ns - self.t0_ns)) / PJ_PER_J

    def true_energy(self, board: int, t_ns: ArrayLike) -> NDArray[np.float64]:
        """Joules from the lab's time zero to each CLOCK_MONOTONIC time of `t_ns`; float64 of its shape."""
        return self.boards[board].power.energy_j(np.asarray(t_ns, dtype=np.int64) - self.t0_ns)

    def true_power(self, board: int, t_ns: ArrayLike) -> NDArray[np.float64]:
        """Watts at each CLOCK_MONOTONIC time of `t_ns`; float64 of its shape."""
        return self.boards[board].power.power_w(np.asarray(t_ns, dtype=np.int64) - self.t0_ns)

    def counter_mj(self, board: int, t_ns: int) -> int:
        """What that board's counter reads at a CLOCK_MONOTONIC time, without faults, in millijoules."""
        return self.boards[board].counter_mj(t_ns - self.t0_ns)

    def uuid(self, board: int) -> str:
        """That board's UUID."""
        return self.boards[board].uuid or "GPU-" + _uuid(f"board {board}")

    def pci_bus_id(self, board: int) -> str:
        """That board's PCI bus id."""
        return self.boards[board].pci_bus_id or f"00000000:{board + 1:02X}:00.0"

    def mig_uuids(self, board: int) -> tuple[str, ...]:
        """The UUIDs of that board's MIG instances."""
        instances = range(self.boards[board].mig or 0)
        return tuple(self.boards[board].mig_uuids) or tuple(
            "MIG-" + _uuid(f"{self.uuid(board)} instance {instance}") for instance in instances
        )

    # ---- who asked ----

    def calls(self, function: str) -> int:
        """How often this process called that NVML function since `running` began (or ended last)."""
        lab_library = self._loaded()
        lab_library.nvmlLabCalls.restype = ctypes.c_ulonglong
        return int(lab_library.nvmlLabCalls(symbol(function).encode()))

    def calling_threads(self) -> set[int]:
        """The native ids (`threading.get_native_id`) of this process's threads that called since then."""
        room = (ctypes.c_long * 256)()
        lab_library = self._loaded()
        lab_library.nvmlLabThreads.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        lab_library.nvmlLabThreads.restype = ctypes.c_size_t
        return set(room[: lab_library.nvmlLabThreads(room, len(room))])

    def forget_calls(self) -> None:
        """Set both counts to zero."""
        self._loaded().nvmlLabForgetCalls()

    # ---- the scenario file ----

    def scenario(self) -> Path:
        """Write the scenario file if that is not done yet, which fixes time zero, and return its path."""
        if self._scenario is None:
            directory = tempfile.mkdtemp(prefix="nvml_lab_")
            weakref.finalize(self, _remove, directory, os.getpid())
            path = Path(directory) / "scenario.txt"
            if self._t0_ns is None and self._start == "now":
                now_ns = self._clock.now_ns() if self._clock is not None else time.monotonic_ns()
                self._t0_ns = now_ns - self._age_ns
            path.write_text("\n".join(self._lines()) + "\n", encoding="utf-8")
            self._scenario = path
        return self._scenario

    def _lines(self) -> list[str]:
        # One offset for all processes: a step of the machine's own clock then changes nothing in the lab.
        offset_ns = time.time_ns() - time.monotonic_ns() if self._clock is None else UNIX_OFFSET_NS
        lines = [f"realtime_offset_ns {offset_ns}", f"driver {self._driver}"]
        if self._t0_ns is not None:
            lines.append(f"t0 {self._t0_ns}")
        elif self._age_ns:
            lines.append(f"age_ns {self._age_ns}")
        if self._init_error:
            lines.append(f"init_error {self._init_error}")
        lines += [f"missing {name}" for name in self._missing]
        lines += [fault.line() for fault in self._faults]
        for i, board in enumerate(self.boards):
            lines += board.lines(self.uuid(i), self.pci_bus_id(i), self.mig_uuids(i))
        return lines

    def _variables(self, built: Built) -> dict[str, str]:
        paths = [str(built.directory), os.environ.get("LD_LIBRARY_PATH", "")]
        return {
            "LD_LIBRARY_PATH": os.pathsep.join(path for path in paths if path),
            SCENARIO_VARIABLE: str(self.scenario()),
        }

    def _loaded(self) -> Any:
        if self._library is None:
            raise LabError("This lab has not run in this process: use it within `with lab.running():`.")
        return self._library


def _remove(directory: str, owner: int) -> None:
    # A forked child that exits must not take its parent's scenario away.
    if os.getpid() == owner:
        shutil.rmtree(directory, ignore_errors=True)


def _uuid(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"lightning_watt.nvml_lab {name}"))
