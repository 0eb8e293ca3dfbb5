"""The journal, `watt.jsonl`: one line an interval, so that a killed process loses at most one; and what it tells a resume.

A line's energies are cumulative and the session's own, in whole microjoules: a line that is torn or edited loses nothing
that a later line does not know again. A *session* is one process's part of a run. Journals are read as what they are,
files that somebody may have edited: lines that make no sense are left out and counted, and nothing in them is executed.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from lightning_watt.host import is_process, this_machine
from lightning_watt.units import UJ_PER_J, seconds

JOURNAL_NAME = "watt.jsonl"
RECORD_NAME = "watt.json"
BESIDE = ".watt"
"""What is added to the name of a log directory that holds the checkpoints too, for a directory of ours beside it: many a
program loads whatever lies beside its checkpoints."""
MAX_LINE_BYTES = 2**20
"""A line of the journal is some hundred bytes."""
MAX_JOURNAL_BYTES = 2**33
"""Half a year of lines a second on eight boards; what is larger was not written here."""
MAX_SESSIONS = 10_000
IMPOSSIBLE_W = 1e6
"""More than this no device draws; a line that says so is not believed."""
SILENT_S = 30.0
"""On another host a session is taken for dead when it was silent for this long beyond three of its own intervals."""

Word = Annotated[str, msgspec.Meta(max_length=256)]
Microjoules = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Status = Literal["running", "completed", "interrupted", "failed"]


class About(msgspec.Struct, kw_only=True):
    """What a device is, as a journal and a checkpoint carry it."""

    name: Word
    uuid: Word
    source: Word
    provenance: Literal["measured", "estimated"]
    gain: Annotated[float, msgspec.Meta(ge=0, le=10)]
    host: Word = ""


class Line(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One line of the journal.

    Attributes:
        t: seconds since 1970.
        total_j: joules of the whole run so far, earlier parts and other nodes included.
        power_w: the last known power, watts.
        stage: the trainer's stage.
        epoch: the trainer's epoch.
        session: the id of the process's part of the run.
        device_uj: microjoules of this session alone, by device.
        stage_uj: microjoules of this session alone, by stage.
        ns: nanoseconds that this session has measured.
        devices: what the devices are; in a session's first line, and where it changed.
        resumes: ids of the sessions whose energy this run has taken over; likewise.
        where: the machine, and the process's own name space on it; likewise.
        pid: the process; likewise.
        born: when the process was started, seconds since 1970; likewise.
        interval_s: seconds between two lines; likewise.
        run: the id of the run: the session of its rank zero; likewise.
        rank: the process's global rank; likewise.
        node: the number of its node among those that measure; likewise.
        status: how the run ended; in a session's last line alone.
    """

    t: float
    session: Word
    total_j: float | None = None
    power_w: float = 0.0
    stage: Word = ""
    epoch: int = 0
    device_uj: dict[Word, Microjoules] = {}
    stage_uj: dict[Word, Microjoules] = {}
    ns: Annotated[int, msgspec.Meta(ge=0, le=2**62)] = 0
    devices: dict[Word, About] | None = None
    resumes: list[Word] | None = None
    where: Word = ""
    pid: int = 0
    born: float = 0.0
    interval_s: float = 0.0
    run: Word = ""
    rank: int = 0
    node: int = 0
    status: Status | None = None


@dataclass
class Trace:
    """What the journals know of one session.

    Attributes:
        session: its id.
        file: where its last line stands.
        last: its last good line.
        interval_s: seconds between two of its lines.
        devices: what its devices are.
        resumes: the sessions whose energy it took over.
        kept: its line when it last ended well; what it had used by then is no loss.
        where: its machine.
        pid: its process.
        born: when that was started.
        run: the run that it is a part of.
        rank: its global rank there.
        node: the number of its node there.
    """

    session: str
    file: Path
    last: Line
    interval_s: float = 0.0
    devices: dict[str, About] = field(default_factory=dict)
    resumes: set[str] = field(default_factory=set)
    kept: Line | None = None
    where: str = ""
    pid: int = 0
    born: float = 0.0
    run: str = ""
    rank: int = 0
    node: int = 0

    @property
    def status(self) -> str:
        """How it ended; `killed` where it ended without a word (or goes on still: see `lives`)."""
        return self.last.status or "killed"

    @property
    def total_uj(self) -> int:
        """Microjoules of this session alone."""
        return sum(self.last.device_uj.values())

    def lives(self, now_unix: float, *, if_elsewhere: bool) -> bool:
        """Whether the session still runs.

        Here that is known from its process. On another machine it can only be guessed.

        Args:
            now_unix: seconds since 1970.
            if_elsewhere: the answer for a session on another machine that has written a line just now.
        """
        if self.last.status is not None:
            return False
        if self.where == this_machine():
            return self.pid != os.getpid() and is_process(self.pid, self.born)
        return if_elsewhere and now_unix - self.last.t < SILENT_S + 3 * self.interval_s

    def take(self, line: Line, file: Path) -> bool:
        """Take in a later line; False for one that no meter can have written."""
        rise = sum(line.device_uj.values()) - self.total_uj
        passed_s = seconds(line.ns - self.last.ns)
        if any(line.device_uj.get(label, 0) < uj for label, uj in self.last.device_uj.items()) or passed_s < 0:
            return False
        if rise > IMPOSSIBLE_W * UJ_PER_J * max(1, len(line.device_uj)) * (passed_s + 1):
            return False
        self.last, self.file = line, file
        self.devices |= line.devices or {}
        self.resumes |= set(line.resumes or ())
        if line.where:
            self.where, self.pid, self.born, self.interval_s = line.where, line.pid, line.born, max(0.0, line.interval_s)
            self.run, self.rank, self.node = line.run, line.rank, line.node
        if line.status == "completed":
            self.kept = line
        return True


@dataclass
class Traces:
    """The sessions that some journals tell of, by id, and sentences about what could not be read."""

    by_session: dict[str, Trace] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def read_traces(directories: Iterable[Path]) -> Traces:
    """Read every rank's journal in these directories; what is broken is left out and said, and nothing is raised."""
    found = Traces()
    for file in dict.fromkeys(file for directory in directories for file in _journals(directory)):
        broken = 0
        try:
            for raw, is_last in _raw_lines(file):
                line = _decoded(raw)
                if line is None or not _take(found.by_session, line, file):
                    broken += not is_last  # a last one that was cut off is what a kill leaves
        except OSError as error:
            found.problems.append(f"{file} cannot be read ({error}).")
        if broken:
            found.problems.append(f"{file}: {broken} lines make no sense and were left out. Was it edited?")
    return found


def file_of(name: str, rank: int) -> str:
    """The name that a file of the run has at a rank: `watt.json` at rank zero, `watt.rank2.json` at rank 2."""
    return f"{Path(name).stem}.rank{rank}{Path(name).suffix}" if rank else name


def beside(directory: Path) -> Path:
    """The directory of ours beside a log directory that holds the checkpoints too; in it, where nobody may write beside it.

    Example:
        >>> beside(Path("/tmp/run")).name
        'run.watt'
    """
    whole = Path(os.path.abspath(directory))
    may_write = bool(whole.name) and os.access(whole.parent, os.W_OK)
    return whole.with_name(whole.name + BESIDE) if may_write else whole / BESIDE


def place_of(directory: Path) -> Path:
    """Where the files of a run with this log directory are: in it, or beside it if it holds the checkpoints too."""
    whole = Path(os.path.abspath(directory))
    places = (directory, whole.with_name(whole.name + BESIDE) if whole.name else whole / BESIDE, whole / BESIDE)
    return next((place for place in places if (place / RECORD_NAME).exists()), directory)


def _journals(directory: Path) -> list[Path]:
    try:
        return sorted(directory.resolve().glob(f"{Path(JOURNAL_NAME).stem}*{Path(JOURNAL_NAME).suffix}"))
    except OSError:
        return []


def _raw_lines(file: Path) -> Iterator[tuple[bytes, bool]]:
    """Each line, and whether it is the last."""
    # A pipe or a device would never end; neither is opened.
    about = file.stat()
    if not stat.S_ISREG(about.st_mode):
        raise OSError("it is no regular file")
    if about.st_size > MAX_JOURNAL_BYTES:
        raise OSError(f"it has {about.st_size:,} bytes, and no journal is larger than {MAX_JOURNAL_BYTES:,}")
    with file.open("rb") as lines:
        line = lines.readline(MAX_LINE_BYTES)
        while line:
            following = lines.readline(MAX_LINE_BYTES)
            yield line, not following
            line = following


def to_line(line: Line) -> bytes:
    """A line as it stands in the file: the first five keys always, the others where they say something."""
    always = {name: getattr(line, name) for name in ("t", "total_j", "power_w", "stage", "epoch")}
    return msgspec.json.encode(always | msgspec.to_builtins(line)) + b"\n"


_decoder = msgspec.json.Decoder(Line)


def _decoded(raw: bytes) -> Line | None:
    try:
        line = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return line if math.isfinite(line.t) and line.session else None


def _take(traces: dict[str, Trace], line: Line, file: Path) -> bool:
    known = traces.get(line.session)
    if known is None:
        if len(traces) >= MAX_SESSIONS:
            return False
        before = Line(t=line.t, session=line.session)
        trace = Trace(line.session, file, before)
        if not trace.take(line, file):
            return False
        traces[line.session] = trace
        return True
    # The same session in two files: a run directory that was copied. The longer one is it.
    if file != known.file and line.ns < known.last.ns:
        return True
    return known.take(line, file)
