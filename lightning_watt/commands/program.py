"""`lightning-watt run -- COMMAND`: measures any program, and leaves a record of it.

The program runs as it would without us: in the same terminal, with the same input and output, and its exit status is ours. A
signal that would end us is passed on to it, and the record is written when it has ended.
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
from lightning_watt.record.text.drawn import say
from lightning_watt.record.text.summary import drawing
from lightning_watt.record.writer import RunWriter
from lightning_watt.run.session import Session
from lightning_watt.run.state import RunState
from lightning_watt.settings import Settings

NOT_FOUND, NOT_EXECUTABLE, BY_SIGNAL = 127, 126, 128
"""Exit statuses as a shell gives them."""
STOPS = (signal.SIGINT, signal.SIGTERM)


class MeasuredProgram:
    """One program, its meter and its files.

    Args:
        command: the program and its arguments.
        directory: where the record is written.
        settings: what is measured and how.
    """

    def __init__(self, command: Sequence[str], directory: Path, settings: Settings) -> None:
        self._command = list(command)
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
        state.model = {"name": Path(self._command[0]).name, "command": self._command}
        state.hardware = {"host": platform.node(), "machine": platform.machine(), "cpus": os.cpu_count(), **slurm_facts()}
        scripts = [Path(word).parent for word in self._command if os.path.isfile(word)]
        commit = project_facts(*scripts, Path())
        state.software = {"lightning_watt": __version__, "python": platform.python_version(), **commit}
        state.missing = [str(reason) for reason in self._meter.missing]
        self._session.on_settled = self._write
        self._session.begin(self._meter, Account("other", 0))
        ended = None
        try:
            ended = self._wait()
        finally:
            self._end("failed" if ended is None else _status(ended))
        return ended if ended >= 0 else BY_SIGNAL - ended

    def _wait(self) -> int:
        program = subprocess.Popen(self._command)

        def pass_on(number: int, _: FrameType | None) -> None:
            # Ctrl-C in a terminal reaches the program without us.
            if number != signal.SIGINT and program.poll() is None:
                program.send_signal(number)

        before = {number: signal.signal(number, pass_on) for number in STOPS}
        try:
            return program.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

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


def run_program(command: Sequence[str], directory: Path, settings: Settings) -> int:
    """Measure a program.

    Args:
        command: the program and its arguments.
        directory: where the record is written; a finished record there is never replaced.
        settings: what is measured and how.

    Returns:
        The program's exit status; 127 if there is no such program, 126 if it cannot be started.

    Raises:
        WattError: nothing can be measured; a board that is not there.
    """
    if shutil.which(command[0]) is None:
        say(f"lightning-watt: {command[0]}: there is no such program.", sys.stderr)
        return NOT_FOUND
    try:
        return MeasuredProgram(command, directory, settings).run()
    except OSError as error:
        say(f"lightning-watt: {command[0]} cannot be started: {error}.", sys.stderr)
        return NOT_EXECUTABLE
    except ValueError as error:
        raise error if isinstance(error, WattError) else ArgumentError(str(error)) from error


def _status(ended: int) -> Status:
    if ended == 0:
        return "completed"
    return "interrupted" if -ended in STOPS or ended - BY_SIGNAL in STOPS else "failed"
