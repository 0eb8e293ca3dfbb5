"""`lightning-watt run`: the exit status, the signals and what the record keeps of a program that runs for a moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lightning_watt import read_record
from lightning_watt.commands import program
from lightning_watt.commands.program import run_program
from lightning_watt.settings import Settings
from tests.integration.tiny import Steady


def run(directory: Path, script: str, *, keeps_arguments: bool = False) -> int:
    settings = Settings(sources=[Steady()], interval=0.1)
    return run_program(["/bin/sh", "-c", script], directory, settings, keeps_arguments=keeps_arguments)


@pytest.mark.parametrize(
    ("script", "status", "told"),
    [
        ("exit 0", 0, "completed"),
        ("exit 3", 3, "failed"),
        ("kill -TERM $$", 143, "interrupted"),
        ("kill -KILL $$", 137, "failed"),
        ("exit 130", 130, "interrupted"),  # as a shell says that Ctrl-C ended what it ran
    ],
)
def test_the_exit_status_is_the_programs(tmp_path, script, status, told):
    assert run(tmp_path, script) == status
    assert read_record(tmp_path).status == told


def test_what_is_not_found_and_what_is_not_executable(tmp_path, capsys):
    (tmp_path / "plain").write_text("echo no\n")
    (tmp_path / "broken").write_text("#!/no/such/interpreter\n")
    (tmp_path / "broken").chmod(0o755)
    settings = Settings(sources=[Steady()])
    found = {name: run_program([str(tmp_path / name)], tmp_path, settings) for name in ("none", "plain", "", "broken")}
    assert found == {"none": 127, "plain": 126, "": 126, "broken": 126}
    assert run_program(["no-such-program-anywhere"], tmp_path, settings) == 127
    said = capsys.readouterr().err
    assert said.count("there is no such program") == 2
    assert said.count("is not executable: `chmod +x` it") == 2
    assert said.count("cannot be started") == 1


@pytest.mark.parametrize("keeps", [False, True])
def test_arguments_are_kept_only_if_that_is_asked_for(tmp_path, keeps):
    run(tmp_path, ": --api-key hunter2", keeps_arguments=keeps)
    assert read_record(tmp_path).model["name"] == "sh"
    written = "".join(path.read_text() for path in tmp_path.iterdir() if path.is_file())
    assert ("hunter2" in written) == keeps


def test_a_signal_while_the_program_starts_is_not_lost(tmp_path, monkeypatch):
    """It comes when the program runs already and nobody holds it in hand yet."""

    def started(command: list[str]) -> subprocess.Popen[bytes]:
        running = subprocess.Popen(command)
        os.kill(os.getpid(), signal.SIGINT)
        return running

    monkeypatch.setattr(program, "subprocess", type("Starts", (), {"Popen": staticmethod(started)}))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert run(tmp_path, "exec sleep 60") == 128 + signal.SIGINT
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert read_record(tmp_path).status == "interrupted"


def test_after_a_signal_before_the_start_nothing_is_started(tmp_path, monkeypatch):
    monkeypatch.setattr(program.MeasuredProgram, "_wait", lambda self: (self._pass_on(15, None), wait(self))[1])
    assert run(tmp_path, f"touch {tmp_path / 'started'}") == 128 + signal.SIGTERM
    assert not (tmp_path / "started").exists()


wait = program.MeasuredProgram._wait


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_us_alone_reaches_the_program(tmp_path, monkeypatch, number):
    monkeypatch.setattr(program, "_in_foreground", lambda: False)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        # The program itself tells us: it is there, and its trap is set.
        name = signal.Signals(number).name.removeprefix("SIG")
        script = f"trap 'exit 9' {name}; kill -{name} $PPID; while :; do sleep 0.05; done"
        assert run(tmp_path, script) == 9
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("in_foreground", "heard"), [(True, [15]), (False, [2, 15])])
def test_ctrl_c_in_a_terminal_comes_to_the_program_once(tmp_path, monkeypatch, in_foreground, heard):
    """The terminal sends it to both, so it is not passed on."""
    monkeypatch.setattr(program, "_in_foreground", lambda: in_foreground)
    measured = program.MeasuredProgram(["program"], tmp_path, Settings(sources=[Steady()]))
    passed: list[int] = []
    measured._program = SimpleNamespace(send_signal=passed.append)
    for number in (signal.SIGINT, signal.SIGTERM):
        measured._pass_on(number, None)
    assert passed == heard


def test_what_is_ignored_stays_ignored(tmp_path):
    """As `nohup` asks for."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run(tmp_path, "kill -HUP $$; exit 5") == 5
    finally:
        signal.signal(signal.SIGHUP, before)


def test_without_a_terminal_nobody_else_sends_signals():
    """A process in a session of its own has none."""
    script = "from lightning_watt.commands.program import _in_foreground as asked; print(asked())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, start_new_session=True, check=True)
    assert done.stdout == "False\n"
