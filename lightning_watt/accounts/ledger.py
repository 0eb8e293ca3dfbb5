"""The ledger: which stage and epoch each joule was charged to, each exactly once.

Pure, and in whole microjoules. Accounts are closed and opened at one and the same point of the energy curve, so whatever
leaves one enters the other, and the sum over all accounts is the curve's own rise, to the last digit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lightning_watt.units import NS_PER_S, UJ_PER_J

WASTED = "wasted"
"""What earlier parts of a resumed run used after the checkpoint that it went on from: spent, and its result lost."""
TUNE = "tune"
"""What Lightning's learning-rate and batch-size finders used for their trials, whatever stage they run in."""
STAGES = ("train", "validate", "test", "predict", "sanity_check", TUNE, "other", WASTED)
"""Lightning's stages, `tune`, `other` for what lies between them, and `wasted`."""
PAST = -1
"""The epoch of the account in which a stage's earlier epochs are together."""


class Account(NamedTuple):
    """Where energy is charged to.

    Attributes:
        stage: one of `STAGES`.
        epoch: the trainer's epoch at the time, or `PAST`.
    """

    stage: str
    epoch: int


@dataclass(frozen=True)
class Usage:
    """What was used: by one account, or between two points.

    Attributes:
        uj: microjoules by device label.
        ns: nanoseconds.
        batches: batches that ended meanwhile.
        samples: samples in those batches; 0 if those of any are not known.
        edge_variance: squared microjoules that may lie on the wrong side of the edges, or were lost in gaps.

    Example:
        >>> (Usage({"gpu0": 3}, ns=1) + Usage({"gpu0": 4, "cpu0": 1})).total_uj
        8
    """

    uj: Mapping[str, int] = field(default_factory=dict)
    ns: int = 0
    batches: int = 0
    samples: int = 0
    edge_variance: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        uj = dict(self.uj or other.uj)
        for label, more in other.uj.items() if self.uj else ():
            uj[label] = uj.get(label, 0) + more
        return Usage(
            uj,
            self.ns + other.ns,
            self.batches + other.batches,
            # Samples of which some are not known are none.
            self.samples + other.samples
            if (self.samples or not self.batches) and (other.samples or not other.batches)
            else 0,
            self.edge_variance + other.edge_variance,
        )

    @property
    def total_uj(self) -> int:
        """Microjoules over all devices."""
        return sum(self.uj.values())


NOTHING = Usage()


class Point(NamedTuple):
    """One point of the run, where everything that counts is known.

    Attributes:
        t_ns: when.
        energy_uj: each device's energy so far, microjoules.
        edge_uj: how far each may be off at this point, microjoules.
        batches: batches so far.
        samples: samples so far.
        gap_uj: microjoules of all gaps so far.
        peak_w: the highest power that was seen so far, of all devices together, watts.
    """

    t_ns: int
    energy_uj: Sequence[int]
    edge_uj: Sequence[float]
    batches: int
    samples: int
    gap_uj: float = 0.0
    peak_w: float = 0.0

    @property
    def edge_variance(self) -> float:
        """Squared microjoules that may lie on the wrong side of this point."""
        return sum(float(edge) ** 2 for edge in self.edge_uj)


class Ledger:
    """Charges energy to accounts.

    Example:
        >>> ledger = Ledger()
        >>> ledger.open(["gpu0"], Account("train", 0), Point(0, [0], [0.0], 0, 0))
        >>> ledger.switch(Account("validate", 0), Point(10, [70], [0.0], 4, 64))
        >>> ledger.charge(Point(20, [100], [0.0], 6, 96))
        >>> ledger.by_stage()["train"].total_uj, ledger.by_stage()["validate"].total_uj, ledger.total_uj
        (70, 30, 100)
    """

    def __init__(self) -> None:
        self.labels: tuple[str, ...] = ()
        self.accounts: dict[Account, Usage] = {}
        # Running sums, so that a row of a run of a thousand epochs costs no more than one of the first epoch.
        self._stages: dict[str, Usage] = {}
        self._since: dict[Account, Usage] | None = None  # None while nobody takes it
        self._lost_uj: dict[str, float] = {}  # gaps by stage
        self._account: Account | None = None
        self._at: Point | None = None

    @property
    def account(self) -> Account | None:
        """The account that is open."""
        return self._account

    @property
    def at(self) -> Point | None:
        """The point up to which everything is charged; None while nothing is open."""
        return self._at

    @property
    def open_edge(self) -> float:
        """Squared microjoules that may lie beyond the point up to which everything is charged; 0 while nothing is open."""
        at = self._at
        return at.edge_variance if at is not None else 0.0

    def open(self, labels: Sequence[str], account: Account, at: Point) -> None:
        """Begin charging; what was used before `at` is nobody's.

        Args:
            labels: the devices, in the order of every point's energies from now on.
            account: the first account.
            at: where it begins.
        """
        self.labels, self._account, self._at = tuple(labels), account, at
        self._edge(account, at)

    def charge(self, at: Point) -> None:
        """Charge everything since the last point to the open account."""
        if self._account is None or self._at is None:
            raise ValueError("The ledger has no open account: call open() first.")
        before, self._at = self._at, at
        pairs = zip(self.labels, at.energy_uj, before.energy_uj, strict=True)
        uj = {label: int(now_uj) - int(was_uj) for label, now_uj, was_uj in pairs}
        batches, samples = at.batches - before.batches, at.samples - before.samples
        self.add(self._account, Usage(uj, at.t_ns - before.t_ns, batches, samples, self._lose(at.gap_uj - before.gap_uj)))

    def _lose(self, uj: float) -> float:
        """Squared microjoules that some more of a gap adds to the stage's, whose gaps add up before they are squared."""
        if uj <= 0 or self._account is None:
            return 0.0
        before = self._lost_uj.get(self._account.stage, 0.0)
        self._lost_uj[self._account.stage] = before + uj
        return (before + uj) ** 2 - before**2

    def add(self, account: Account, usage: Usage) -> None:
        """Charge what was used to an account."""
        self.accounts[account] = self.accounts.get(account, NOTHING) + usage
        self._stages[account.stage] = self._stages.get(account.stage, NOTHING) + usage
        if self._since is not None:
            self._since[account] = self._since.get(account, NOTHING) + usage

    def take_since(self) -> dict[Account, Usage]:
        """What was charged to each account since the last call, in the order of the first charges; at first, all of it."""
        since, self._since = self._since, {}
        return dict(self.accounts) if since is None else since

    def fold(self, is_past: Callable[[Account], bool]) -> dict[Account, Usage]:
        """Put the accounts of some epochs together, one a stage, so that there are never many.

        Args:
            is_past: which accounts need not be apart any more.

        Returns:
            What these accounts were.
        """
        past = {account: usage for account, usage in self.accounts.items() if account.epoch != PAST and is_past(account)}
        for account, usage in past.items():
            del self.accounts[account]
            together = Account(account.stage, PAST)
            self.accounts[together] = self.accounts.get(together, NOTHING) + usage
        return past

    def copy(self) -> Ledger:
        """The accounts as they are now, in a ledger of their own."""
        other = Ledger()
        other.labels, other.accounts, other._stages = self.labels, dict(self.accounts), dict(self._stages)
        other._account, other._at = self._account, self._at
        return other

    def switch(self, account: Account, at: Point) -> None:
        """Close the open account and open another, at one and the same point."""
        self.charge(at)
        if self._account is not None and account != self._account:
            self._edge(self._account, at)
            self._edge(account, at)
        self._account = account

    def close(self, at: Point) -> float:
        """Charge up to `at` and end; returns the squared microjoules that may lie beyond it."""
        self.charge(at)
        if self._account is not None:
            self._edge(self._account, at)
        self._account = self._at = None
        return at.edge_variance

    @property
    def total_uj(self) -> int:
        """Everything charged, microjoules."""
        return sum(usage.total_uj for usage in self._stages.values())

    @property
    def ns(self) -> int:
        """Nanoseconds over all accounts."""
        return sum(usage.ns for usage in self._stages.values())

    def by_stage(self) -> dict[str, Usage]:
        """Usage summed over epochs, in the order of `STAGES`; stages that never ran are absent."""
        return {stage: usage for stage in STAGES if (usage := self._stages.get(stage))}

    def uj_by_stage(self) -> dict[str, Mapping[str, int]]:
        """Microjoules by stage and device label."""
        return {stage: usage.uj for stage, usage in self._stages.items()}

    def by_device(self) -> dict[str, int]:
        """Microjoules by device label, over all accounts."""
        found = dict.fromkeys(self.labels, 0)
        for usage in self._stages.values():
            for label, uj in usage.uj.items():
                found[label] = found.get(label, 0) + uj
        return found

    def state_dict(self) -> list[list[Any]]:
        """The accounts as plain lists, for a checkpoint."""
        return [
            [account.stage, account.epoch, dict(used.uj), used.ns, used.batches, used.samples, used.edge_variance]
            for account, used in self.accounts.items()
        ]

    def absorb(self, state: Sequence[Sequence[Any]], rename: Mapping[str, str] | None = None) -> int:
        """Add the accounts of an earlier run to these.

        Args:
            state: what `state_dict` gave.
            rename: new labels for devices of the earlier run whose labels now mean other devices.

        Returns:
            The microjoules that were added.

        Raises:
            ValueError: the state is not one of `state_dict`; then nothing was added.
        """
        found: list[tuple[Account, Usage]] = []
        try:
            for stage, epoch, uj, ns, batches, samples, variance in state:
                if stage not in STAGES or not isinstance(uj, Mapping):
                    raise ValueError(f"stage {stage!r}")
                usage = Usage({}, int(ns), int(batches), int(samples), float(variance))
                # By a GPU's own clock an edge may lie microseconds before the edge that it follows, but no more.
                numbers = [(usage.ns, NS_PER_S), (usage.batches, 0), (usage.samples, 0)]
                numbers += [(int(value), UJ_PER_J) for value in uj.values()]
                if not (all(-below <= number < 2**63 for number, below in numbers) and 0 <= usage.edge_variance < math.inf):
                    raise ValueError("a number that is negative or beyond everything")
                for label, value in uj.items():
                    # Two labels may become one, if a board comes back under its old name: their joules add up.
                    usage += Usage({(rename or {}).get(str(label), str(label)): int(value)})
                found.append((Account(stage, int(epoch)), usage))
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"This is not a ledger's state: {error}. Did lightning_watt write this checkpoint?") from error
        for account, usage in found:
            self.add(account, usage)
        return sum(usage.total_uj for _, usage in found)

    def _edge(self, account: Account, at: Point) -> None:
        self.add(account, Usage(edge_variance=at.edge_variance))


def merged(ledgers: Iterable[Ledger]) -> Ledger:
    """The sum of some ledgers, in a new one without an open account."""
    whole = Ledger()
    for ledger in ledgers:
        whole.labels = (*whole.labels, *(label for label in ledger.labels if label not in whole.labels))
        for account, usage in ledger.accounts.items():
            whole.add(account, usage)
    return whole
