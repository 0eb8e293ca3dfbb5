"""The lines of the journal, `watt.jsonl`, as they are written.

A *session* is one process's part of a run. A line's energies are cumulative, and the session's own, in whole microjoules. So
a line that is cut off or edited loses nothing that a later line does not contain again. Most lines are *short*: a time and
the run's joules, to be read with the whole line before them, so that a month of a line a read stays near 100 MB.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from lightning_watt.record.schema import Status
from lightning_watt.sources.base import Word
from lightning_watt.units import UJ_PER_J

Microjoules = Annotated[int, msgspec.Meta(ge=0, le=2**62)]


class JournalLine(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One line of the journal.

    A short line has `t` and `total_j` alone: the session is that of the whole line before it in the file, and what the run
    has used since then the session has used. The fields from `devices` to `node` are in a session's first line, and again in
    a line where one of them changed.

    Attributes:
        t: seconds since 1970.
        session: the session's id.
        total_j: joules of the whole run so far, with earlier sessions and other nodes.
        power_w: the last known power, watts.
        stage: the trainer's stage.
        epoch: the trainer's epoch.
        device_uj: microjoules of this session alone, by device.
        stage_uj: microjoules of this session alone, by stage.
        ns: nanoseconds that this session has measured.
        devices: what the devices are.
        resumes: ids of the earlier sessions whose energy this run has taken over.
        where: the machine, and the process's own name space on it.
        pid: the process.
        born: when the process was started, seconds since 1970.
        interval_s: seconds between two lines.
        run: the id of the run: the session of its rank zero.
        rank: the process's global rank.
        node: the number of its node among the nodes that measure.
        status: how the run ended; only in a session's last line.
        saved: the line tells what had been used when this checkpoint of the session was saved, its first being number 1.
        stage_edges: there, squared microjoules that may lie on the wrong side of the stages' edges, by stage.
    """

    t: float
    session: Word = ""
    total_j: float | None = None
    power_w: float = 0.0
    stage: Word = ""
    epoch: int = 0
    device_uj: dict[Word, Microjoules] = {}
    stage_uj: dict[Word, Microjoules] = {}
    ns: Annotated[int, msgspec.Meta(ge=0, le=2**62)] = 0
    devices: dict[Word, dict[str, Any]] | None = None
    resumes: list[Word] | None = None
    where: Word = ""
    pid: int = 0
    born: float = 0.0
    interval_s: float = 0.0
    run: Word = ""
    rank: int = 0
    node: int = 0
    status: Status | None = None
    saved: int = 0
    stage_edges: dict[Word, float] = {}


MAX_SHORT = 600
"""Short lines between two whole ones, at most."""


class LineWriter:
    r"""Makes a session's lines as they are in the file: the first ones whole, later one in `MAX_SHORT`.

    Example:
        >>> writer = LineWriter()
        >>> lines = [JournalLine(t=t, session="1", total_j=7.0 * t, device_uj={"gpu0": 7_000_000 * t}) for t in range(101)]
        >>> [writer.to_line(line) for line in lines][-1]
        b'{"t":100,"total_j":700}\n'
    """

    def __init__(self) -> None:
        self._lines = 0
        self._interval_s = 0.0
        self._since_whole = 0
        self._others_j: float | None = None
        self._told_j = 0.0

    def to_line(self, line: JournalLine) -> bytes:
        """The next line."""
        own_j = sum(line.device_uj.values()) / UJ_PER_J
        others_j = round((line.total_j or 0.0) - own_j, 3)
        changed = others_j != self._others_j or line.total_j is None
        tells = line.devices is not None or line.status is not None or line.saved > 0
        self._others_j = others_j
        self._interval_s = line.interval_s or self._interval_s
        self._lines += 1
        self._since_whole += 1
        if changed or tells or self._since_whole > min(MAX_SHORT, self._lines // 20):
            self._since_whole = 0
            self._told_j = line.total_j or 0.0
            return to_line(line)
        t = round(line.t) if self._interval_s >= 1 else round(line.t, 3)
        total_j = line.total_j or 0.0
        short_j = _rounded(total_j)
        if not short_j < self._told_j <= total_j:  # a total does not fall because it is told shorter
            self._told_j = short_j
        return msgspec.json.encode({"t": t, "total_j": self._told_j}) + b"\n"


def _rounded(total_j: float) -> float:
    """Joules down to a microjoule, millijoule or joule: to less than a millionth, and never more than were read."""
    step_uj = 1 if total_j < 1e3 else UJ_PER_J // 1000 if total_j < 1e6 else UJ_PER_J
    short = round(total_j * UJ_PER_J) // step_uj * step_uj / UJ_PER_J
    return int(short) if short == int(short) else short


def to_line(line: JournalLine) -> bytes:
    """A whole line: the first five keys always, the others only if they have a value."""
    always = {name: getattr(line, name) for name in ("t", "total_j", "power_w", "stage", "epoch")}
    return msgspec.json.encode(always | msgspec.to_builtins(line)) + b"\n"
