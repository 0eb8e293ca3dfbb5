"""`lightning-watt run -- COMMAND`: measures any program, and leaves a record of it.

The program runs as it would without us: in the same terminal, with the same input and output, and its exit status is ours. A
signal that would end us is passed on to it, from before it is started until the record is written. Of its command line the
record keeps the program's name alone, because arguments may hold secrets.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from lightning_watt import __version__
from lightning_watt.accounts.ledger import Account
from lightning_watt.errors import ArgumentError, WattError
from lightning_watt.meter.meter import EnergyMeter
from lightning_watt.origin.project import project_facts
from lightning_watt.origin.slurm import slurm_facts
from lightning_watt.record.claim import RunFiles
from lightning_watt.record.record import Record
from lightning_watt.record.schema import BatchRow, Status
from lightning_watt.record.text.drawn import complain
from lightning_watt.record.text.summary import drawing
from lightning_watt.record.writer import RunWriter
from lightning_watt.run.session import Session
from lightning_watt.run.state import RunState
from lightning_watt.settings import Settings

NOT_FOUND, NOT_EXECUTABLE, BY_SIGNAL = 127, 126, 128
"""Exit statuses as a shell gives them."""
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Who sends one of these wants the program to end."""
OF_TERMINALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
"""A terminal sends these to all processes in its foreground, so that the program has them without us."""
PASSED_ON = (*OF_TERMINALS, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class MeasuredProgram:
    """One program, its meter and its files.

    Args:
        command: the program and its arguments.
        directory: where the record is written.
        settings: what is measured and how.
        keeps_arguments: the record has the arguments too.
    """

    def __init__(
        self, command: Sequence[str], directory: Path, settings: Settings, *, keeps_arguments: bool = False
    ) -> None:
        self._command, self._keeps_arguments = list(command), keeps_arguments
        self._program: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []  # signals that came before it was there
        self._settings = settings
        self._session = Session()
        self._state = RunState(directory=directory, files=RunFiles(directory), interval_s=settings.interval)
        self._meter = EnergyMeter(settings.gpus, settings.sources, settings.interval)
        assert self._state.files is not None
        self._writer = RunWriter(self._state.files, self._meter.complaints.append)
        self._written = False

    def run(self) -> int:
        """Run it to its end.

        Returns:
            Its exit status; 128 and the signal's number if a signal ended it.

        Raises:
            OSError: it cannot be started.
            WattError: nothing can be measured.
            ValueError: `gpus` names a board that is not there.
        """
        self._meter.open()
        state = self._state
        state.model = {"name": Path(self._command[0]).name}
        if self._keeps_arguments:
            state.model["command"] = self._command
        state.hardware = {"host": platform.node(), "machine": platform.machine(), "cpus": os.cpu_count(), **slurm_facts()}
        scripts = [Path(word).parent for word in self._command if os.path.isfile(word)]
        commit = project_facts(*scripts, Path())
        state.software = {"lightning_watt": __version__, "python": platform.python_version(), **commit}
        state.missing = [str(reason) for reason in self._meter.missing]
        self._session.on_settled = self._write
        self._session.begin(self._meter, Account("other", 0))
        ended = None
        # What is ignored stays so, for the program too: `nohup` relies on it.
        passed_on = [number for number in PASSED_ON if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._pass_on) for number in passed_on}
        try:
            ended = self._wait()
        finally:
            self._end("failed" if ended is None else _status(ended))
            for number, handler in before.items():
                signal.signal(number, handler)
        return ended if ended >= 0 else BY_SIGNAL - ended

    def _wait(self) -> int:
        if self._early:
            return -self._early[0]
        program = subprocess.Popen(self._command)
        self._program = program
        for number in self._early:  # while it was being started, so nobody knows whether it has heard them
            program.send_signal(number)
        return program.wait()

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        if self._program is None:
            self._early.append(number)
        elif number not in OF_TERMINALS or not _in_foreground():
            self._program.send_signal(number)

    def _write(self, _: Sequence[BatchRow], epoch_over: bool) -> None:
        self._writer.journal(self._session.line())
        if not self._written or epoch_over:
            self._written = True
            self._writer.record(self._record())

    def _record(self) -> Record:
        return self._state.to_record(self._session, self._settings.scoring)

    def _end(self, status: Status) -> None:
        self._session.end()
        self._meter.stop()
        self._state.status = status
        while self._meter.complaints:
            self._state.warn_once.warn(self._meter.complaints.popleft())
        self._writer.journal(self._session.line(status))
        self._state.ask_cluster()
        record = self._record()
        self._writer.record(record)
        self._writer.close()
        assert self._state.files is not None
        # Its own output may be read by another program.
        drawing(record, where=f"Record: {self._state.files.where}").say(sys.stderr)


def run_program(command: Sequence[str], directory: Path, settings: Settings, *, keeps_arguments: bool = False) -> int:
    """Measure a program.

    Args:
        command: the program and its arguments.
        directory: where the record is written; a finished record there is never replaced.
        settings: what is measured and how.
        keeps_arguments: the record has the program's arguments too; they may hold secrets.

    Returns:
        The program's exit status, or 128 and the signal's number if a signal ended it; 127 if there is no such program, 126
        if it cannot be started.

    Raises:
        WattError: nothing can be measured; a board that is not there.
    """
    name = command[0]
    if shutil.which(name) is None:
        if shutil.which(name, os.F_OK) is not None or (os.path.dirname(name) and os.path.isdir(name)):
            complain(f"{name} is not executable: `chmod +x` it, or name its interpreter before it.")
            return NOT_EXECUTABLE
        complain(f"{name}: there is no such program.")
        return NOT_FOUND
    try:
        return MeasuredProgram(command, directory, settings, keeps_arguments=keeps_arguments).run()
    except OSError as error:
        complain(f"{name} cannot be started: {error}.")
        return NOT_EXECUTABLE
    except ValueError as error:
        raise error if isinstance(error, WattError) else ArgumentError(str(error)) from error


def _in_foreground() -> bool:
    """Whether a terminal sends its signals to this process and to those that it started."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _status(ended: int) -> Status:
    if ended == 0:
        return "completed"
    return "interrupted" if -ended in STOPS or ended - BY_SIGNAL in STOPS else "failed"
