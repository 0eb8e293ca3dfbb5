"""Reads the journal, `watt.jsonl`: one line an interval, so that a killed process loses at most one interval.

What its lines hold is in `lines.py`. Somebody may have edited a journal: lines that make no sense are left out and counted,
and nothing in them is executed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from lightning_watt.errors import RecordError
from lightning_watt.host import is_process, this_machine
from lightning_watt.record.files import JOURNAL_NAME, MAX_JOURNAL_BYTES, read_lines
from lightning_watt.record.lines import JournalLine
from lightning_watt.sources.base import Device, devices_from
from lightning_watt.units import UJ_PER_J, nanoseconds, seconds

MAX_SESSIONS = 10_000
IMPOSSIBLE_W = 1e6
"""No device draws more than this; a line that says so is left out."""
SILENT_S = 30.0
"""A session on another host counts as dead if it wrote nothing for this long beyond three of its intervals."""


@dataclass
class Trace:
    """What the journals know of one session.

    Attributes:
        session: its id.
        file: the journal that holds its last line.
        last: its last good line.
        interval_s: seconds between two of its lines.
        devices: what its devices are.
        resumes: ids of the earlier sessions whose energy it took over.
        kept: its last line that says `completed`; what it had used by then is not lost.
        saved: its lines of the moments at which checkpoints were saved, by their numbers.
        where: its machine.
        pid: its process.
        born: when that process was started, seconds since 1970.
        run: the run that it is a part of.
        rank: its global rank there.
        node: the number of its node there.
    """

    session: str
    file: Path
    last: JournalLine
    interval_s: float = 0.0
    devices: dict[str, Device] = field(default_factory=dict)
    resumes: set[str] = field(default_factory=set)
    kept: JournalLine | None = None
    saved: dict[int, JournalLine] = field(default_factory=dict)
    where: str = ""
    pid: int = 0
    born: float = 0.0
    run: str = ""
    rank: int = 0
    node: int = 0

    def __post_init__(self) -> None:
        self._whole = self._before = self.last  # the last two whole lines

    @property
    def status(self) -> str:
        """How it ended: `killed` if its last line does not say how. Such a session may still run: see `lives`."""
        return self.last.status or "killed"

    @property
    def total_uj(self) -> int:
        """Microjoules of this session alone."""
        return sum(self.last.device_uj.values())

    def lives(self, now_unix: float, *, if_elsewhere: bool) -> bool:
        """Whether the session still runs.

        On this machine the process is looked up. For a session on another machine it is a guess.

        Args:
            now_unix: seconds since 1970.
            if_elsewhere: the answer for a session on another machine that wrote a line just now.
        """
        if self.last.status is not None:
            return False
        if self.where == this_machine():
            return self.pid != os.getpid() and is_process(self.pid, self.born)
        return if_elsewhere and now_unix - self.last.t < SILENT_S + 3 * self.interval_s

    def take(self, line: JournalLine, file: Path) -> bool:
        """Add a later line. Returns False, and changes nothing, if no meter can have written this line."""
        known = self._whole
        rise = sum(line.device_uj.values()) - sum(known.device_uj.values())
        passed_s = seconds(line.ns - known.ns)
        if any(line.device_uj.get(label, 0) < uj for label, uj in known.device_uj.items()) or passed_s < 0:
            return False
        if rise > IMPOSSIBLE_W * UJ_PER_J * max(1, len(line.device_uj)) * (passed_s + 1):
            return False
        try:
            devices = devices_from(line.devices or {})
        except msgspec.ValidationError:
            return False
        self.last, self.file = line, file
        self._before, self._whole = self._whole, line
        self.devices |= devices
        self.resumes |= set(line.resumes or ())
        if line.where:
            self.where, self.pid, self.born, self.interval_s = line.where, line.pid, line.born, max(0.0, line.interval_s)
            self.run, self.rank, self.node = line.run, line.rank, line.node
        if line.status == "completed":
            self.kept = line
        if line.saved:
            self.saved[line.saved] = line
        return True

    def take_short(self, line: JournalLine) -> bool:
        """Add a short line: what it adds is shared out as between the last two whole lines."""
        whole, before = self._whole, self._before
        if line.total_j is None:
            return False
        passed_s, rise_j = line.t - whole.t, line.total_j - (whole.total_j or 0.0)
        # The numbers of short lines are rounded.
        if passed_s < -1 or rise_j < -1 or rise_j > IMPOSSIBLE_W * max(1, len(whole.device_uj)) * (passed_s + 2):
            return False
        rise_uj = max(0, round(rise_j * UJ_PER_J))
        self.last = msgspec.structs.replace(
            whole,
            t=line.t,
            total_j=line.total_j,
            device_uj=_raised(whole.device_uj, before.device_uj, rise_uj),
            stage_uj=_raised(whole.stage_uj, before.stage_uj, rise_uj),
            ns=whole.ns + max(0, nanoseconds(passed_s)),
            devices=None,
            resumes=None,
        )
        return True


def _raised(now: Mapping[str, int], before: Mapping[str, int], rise_uj: int) -> dict[str, int]:
    """Some energies, risen by as much as given in all, each as much as it rose before."""
    rose = {key: max(0, uj - before.get(key, 0)) for key, uj in now.items()}
    weights = rose if any(rose.values()) else dict.fromkeys(now, 1)
    raised, passed, given = dict(now), 0, 0
    for key, weight in weights.items():
        passed += weight
        part = rise_uj * passed // sum(weights.values()) - given  # cumulative, so that the parts add up
        raised[key], given = raised[key] + part, given + part
    return raised


@dataclass
class Traces:
    """The sessions in some journals, by id, and sentences about what could not be read."""

    by_session: dict[str, Trace] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Rise:
    """What a journal knows of a session beyond what was known of it before.

    Attributes:
        device_uj: microjoules more, by device; never negative.
        stage_uj: microjoules more, by stage; never negative.
        ns: nanoseconds more; never negative.
        known_uj: microjoules that are known now, by device.
        known_ns: nanoseconds that are known now.
    """

    device_uj: dict[str, int]
    stage_uj: dict[str, int]
    ns: int
    known_uj: dict[str, int]
    known_ns: int

    @property
    def total_uj(self) -> int:
        """Microjoules more, over all devices."""
        return sum(self.device_uj.values())


def beyond(
    trace: Trace, known_uj: Mapping[str, int], known_ns: int, known_stage_uj: Mapping[str, int] | None = None
) -> Rise:
    """What a journal knows of a session beyond what is known of it already.

    What is known may be ahead of the journal, which gets a line only once an interval. Then the rise is zero.

    Args:
        trace: the session in its journal.
        known_uj: the microjoules of this session that are known already, by the session's own device labels.
        known_ns: the nanoseconds of this session that are known already.
        known_stage_uj: the microjoules of this session that are known already, by stage.
    """
    last = trace.last
    device_uj = _more(last.device_uj, known_uj)
    now_uj = {label: known_uj.get(label, 0) + uj for label, uj in device_uj.items()}
    return Rise(
        device_uj=device_uj,
        stage_uj=_more(last.stage_uj, known_stage_uj or {}),
        ns=max(0, last.ns - known_ns),
        known_uj={**known_uj, **now_uj},
        known_ns=max(known_ns, last.ns),
    )


def _more(now: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    return {key: max(0, uj - before.get(key, 0)) for key, uj in now.items()}


def read_journal(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of a `watt.jsonl`, without a last line that was cut off.

    Args:
        path: the file, or the directory that holds it; there it is the journal of the first of several runs.

    Raises:
        RecordError: it is missing or cannot be read, or a line before the last one is broken.
    """
    file = Path(path)
    file = file if file.suffix == ".jsonl" else file / JOURNAL_NAME
    lines: list[dict[str, Any]] = []
    try:
        for number, (line, is_last) in enumerate(_decoded(file, dict[str, Any]), start=1):
            if not isinstance(line, Exception):
                lines.append(line)
            elif not is_last:
                raise RecordError(f"{file}: line {number} is not a line of a journal: {line}. Was it edited?") from line
    except OSError as error:
        raise RecordError(f"{file}: it cannot be read ({error}).") from error
    return lines


def read_traces(directories: Iterable[Path]) -> Traces:
    """Read every rank's journal in these directories. It leaves out and reports what is broken, and raises nothing."""
    found = Traces()
    for file in dict.fromkeys(file for directory in directories for file in _journals(directory)):
        broken, session = 0, ""
        try:
            for line, is_last in _decoded(file, JournalLine):
                if isinstance(line, Exception) or not _take(found.by_session, line, file, session):
                    broken += not is_last  # a kill leaves a last line that was cut off
                else:
                    session = line.session or session
        except OSError as error:
            found.problems.append(f"{file} cannot be read ({error}).")
        if broken:
            found.problems.append(f"{file}: {broken} lines make no sense and were left out. Was it edited?")
    return found


def _journals(directory: Path) -> list[Path]:
    try:
        return sorted(directory.resolve().glob(f"{Path(JOURNAL_NAME).stem}*{Path(JOURNAL_NAME).suffix}"))
    except OSError:
        return []


Kind = TypeVar("Kind")


def _decoded(file: Path, kind: type[Kind]) -> Iterator[tuple[Kind | Exception, bool]]:
    """Each line of a journal, or why it cannot be decoded; and whether it is the last line."""
    decoder = msgspec.json.Decoder(kind)
    for raw, is_last in read_lines(file, MAX_JOURNAL_BYTES):
        line: Kind | Exception
        try:
            line = decoder.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            line = error
        yield line, is_last


def _take(traces: dict[str, Trace], line: JournalLine, file: Path, session: str) -> bool:
    """Add a line to its session's trace; a short line to that of `session`. Returns False if it makes no sense."""
    if not math.isfinite(line.t):
        return False
    if not line.session:
        trace = traces.get(session)
        return trace is not None and (trace.file != file or trace.take_short(line))
    known = traces.get(line.session)
    if known is None:
        if len(traces) >= MAX_SESSIONS:
            return False
        before = JournalLine(t=line.t, session=line.session)
        trace = Trace(line.session, file, before)
        if not trace.take(line, file):
            return False
        traces[line.session] = trace
        return True
    # The same session in two files: somebody copied the run's directory. The longer one counts.
    if file != known.file and line.ns <= known.last.ns:
        return True
    return known.take(line, file)
