"""Stand-ins for the machine: a clock that moves only in `sleep`, and sources whose readings the test chooses."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lightning_watt.errors import SourceUnavailable
from lightning_watt.sources.base import Clock, Device, Failure, Reading

S = 1_000_000_000
MS = 1_000_000
UNIX_NS = 1_700_000_000 * S


class FakeClock:
    """Time that passes only in `sleep` (and by `look_ns` at every look, as a real machine's does)."""

    def __init__(self, t_ns: int = 50 * S, *, look_ns: int = 0, late_ns: Callable[[], int] = lambda: 0) -> None:
        self.t_ns = t_ns
        self.look_ns = look_ns
        self.late_ns = late_ns

    def now_ns(self) -> int:
        """The time; it has moved by `look_ns` since the last look."""
        self.t_ns += self.look_ns
        return self.t_ns

    def unix_ns(self) -> int:
        """The same time, since 1970."""
        return UNIX_NS + self.t_ns

    def sleep(self, seconds: float) -> None:
        """Let time pass at once."""
        self.t_ns += round(seconds * S) + self.late_ns()


class ScriptedSource:
    """A source whose reads are a function of the time since it was opened."""

    due_s = 1.0

    def __init__(
        self,
        counter_uj: Callable[[int], int] = lambda ns: ns * 100 // 1000,  # 100 W
        *,
        name: str = "scripted",
        labels: Sequence[str] = ("gpu0",),
        before_read: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.labels = labels
        self.counter_uj = counter_uj
        self.before_read = before_read
        self.open_count = 0
        self.closed_count = 0

    def open(self, clock: Clock) -> list[Device]:
        """Begin: the counters are read from here on."""
        self.clock = clock
        self.opened_ns = clock.now_ns()
        self.open_count += 1
        return [Device(label, f"a {label}", f"uuid-{label}", self.name, tick_s=0.001) for label in self.labels]

    def read(self) -> list[Reading | Failure]:
        """One reading a device, of now."""
        self.before_read()
        now = self.clock.now_ns()
        return [Reading(label, now, self.counter_uj(now - self.opened_ns)) for label in self.labels]

    def close(self) -> None:
        """Count it."""
        self.closed_count += 1


class AbsentSource:
    """A source that this machine does not have."""

    name = "absent"
    due_s = 1.0

    def open(self, clock: Clock) -> list[Device]:
        """Raise: there is none."""
        raise SourceUnavailable(self.name, "It is not here.", "Buy one.")

    def read(self) -> list[Reading | Failure]:
        """Never called, because it cannot be opened."""
        raise AssertionError("it was never opened")

    def close(self) -> None:
        """Nothing is open."""
