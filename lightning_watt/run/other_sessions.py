"""What the sessions of a run used that this process did not measure: earlier ones, and those of the other nodes now.

Pure: states of checkpoints, wasted work and the nodes' reports go in; sums by stage and device come out. Nothing here is
ever changed: each step gives a new value, so that a reader in another thread sees all of it or nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from lightning_watt.accounts.epochs import all_rows_of, from_plain, merged_rows, rows_of
from lightning_watt.accounts.ledger import NOTHING, WASTED, Account, Ledger
from lightning_watt.record.schema import Epoch, LostWork
from lightning_watt.run.node_reports import Counted, NodeReport, OtherNodes
from lightning_watt.run.sums import Sums, sums_of
from lightning_watt.sources.base import Device, Gap, devices_from
from lightning_watt.units import joules, seconds

Home = Callable[[Device], str]
"""Gives a device of another session the label that it has here."""


def counted_in(state: Mapping[str, Any]) -> dict[str, Counted]:
    """How much of each session a checkpoint's accounts hold, by the sessions' ids.

    Raises:
        ValueError: the state is not one of a session.
    """
    try:
        return msgspec.convert(state["taken"], dict[str, Counted])
    except (KeyError, msgspec.ValidationError) as error:
        raise ValueError(f"This is not the state of a run: {error!r}.") from error


@dataclass(frozen=True)
class WastedWork:
    """What one session used after the checkpoint that the run went on from.

    Attributes:
        session: its id.
        directory: where its journal is: a path or a URL.
        status: how it ended: `killed`, `failed` or `interrupted`.
        uj: microjoules by device.
        ns: nanoseconds.
        devices: what the devices are.
        counted: how much of the session is in the accounts once this is.
        unseen_s: seconds of a killed session that its last journal line may lack.
        unseen_j: the joules that its last known power comes to over them.
    """

    session: str
    directory: Path | str
    status: str
    uj: Mapping[str, int]
    ns: int
    devices: Mapping[str, Device]
    counted: Counted
    unseen_s: float = 0.0
    unseen_j: float = 0.0

    @property
    def total_uj(self) -> int:
        """Microjoules over all devices."""
        return sum(self.uj.values())


@dataclass(frozen=True)
class OtherSessions:
    """What other sessions of this run have used.

    Attributes:
        earlier: accounts of earlier sessions; what they wasted is in the stage `wasted`.
        counted: how much of each of them is in there, by their ids.
        resumed_uj: microjoules that they had used at the checkpoint, without what was wasted before it.
        lost: their wasted work, for the record.
        devices: the devices of all these sessions.
        rows: the finished epochs of the earlier sessions.
        outer_edges: squared microjoules that may lie beyond the beginnings and ends of all these sessions.
        gaps: what their counters lost.
        nodes: the other nodes now.
    """

    earlier: Ledger = field(default_factory=Ledger)
    counted: Mapping[str, Counted] = field(default_factory=dict)
    resumed_uj: int = 0
    lost: tuple[LostWork, ...] = ()
    devices: Mapping[str, Device] = field(default_factory=dict)
    rows: tuple[Epoch, ...] = ()
    outer_edges: float = 0.0
    gaps: tuple[Gap, ...] = ()
    nodes: OtherNodes = field(default_factory=OtherNodes)

    # -- changes, each a new value --

    def with_reports(self, reports: Iterable[NodeReport]) -> OtherSessions:
        """Take what the other nodes report."""
        return replace(self, nodes=self.nodes.with_reports(reports))

    def with_counted(self, counted: Mapping[str, Counted]) -> OtherSessions:
        """Only note which sessions this run goes on with; another process adds their energy."""
        return replace(self, counted={**self.counted, **counted})

    def with_checkpoint(self, state: Mapping[str, Any], own: str, home: Home) -> OtherSessions:
        """Add what a checkpoint holds of this run; if it is here already, this very value comes back.

        Args:
            state: what `totals.checkpoint_state` gave.
            own: the id of this process's session.
            home: gives its devices their labels here.

        Raises:
            ValueError: the state is none.
        """
        sessions = {str(session) for session in state["sessions"]}
        if own in sessions or sessions & set(self.counted):
            return self
        try:
            # A checkpoint of an older version does not say how much of each session it holds.
            counted = counted_in(state) if "taken" in state else {session: Counted({}) for session in sessions}
            devices = devices_from(state["devices"])
            gaps = msgspec.convert(state.get("gaps", []), tuple[Gap, ...])
            lost = msgspec.convert(state.get("lost", []), tuple[LostWork, ...])
            accuracies = {Account(str(stage), int(epoch)): value for stage, epoch, value in state.get("accuracies", [])}
            rows = from_plain(state.get("rows", []))
            edges = float(state.get("outer_edges", 0.0))
        except msgspec.ValidationError as error:
            raise ValueError(f"This is not the state of a run: {error}.") from error
        labels = {label: home(device) for label, device in devices.items()}
        earlier = self.earlier.copy()
        earlier.absorb([*state["ledger"], *state.get("ahead", [])], labels)
        # What an unfinished epoch used stays apart, for the row that it is going to have.
        finished = earlier.fold(lambda account: account in accuracies)
        newest = max((account.epoch for account in (*accuracies, *earlier.accounts)), default=0)
        parts = earlier.fold(lambda account: account.epoch < newest - 1)
        rows = tuple(merged_rows([*rows, *rows_of(finished, accuracies)], all_rows_of(parts)))
        resumed_uj = earlier.total_uj - _wasted_uj(earlier)
        return replace(
            self,
            earlier=earlier,
            counted={**self.counted, **counted},
            resumed_uj=self.resumed_uj + resumed_uj - (self.earlier.total_uj - self.wasted_uj),
            lost=(*self.lost, *lost),
            devices={**_relabelled(devices, labels), **self.devices},
            rows=(*self.rows, *rows),
            outer_edges=self.outer_edges + edges,
            gaps=(*self.gaps, *gaps),
        )

    def with_wasted(self, wasted: Sequence[WastedWork], own: str, home: Home) -> OtherSessions:
        """Add wasted work, in the stage `wasted`.

        Args:
            wasted: the work; that of this process's own session is skipped.
            own: the id of this process's session.
            home: gives its devices their labels here.
        """
        found = self
        for work in wasted:
            if work.session != own:
                found = found._with_one_wasted(work, home)
        return found

    def _with_one_wasted(self, work: WastedWork, home: Home) -> OtherSessions:
        labels = {label: home(device) for label, device in work.devices.items()}
        earlier = self.earlier.copy()
        earlier.absorb([[WASTED, 0, dict(work.uj), work.ns, 0, 0, 0.0]], labels)
        lost = LostWork(
            session=work.session,
            directory=str(work.directory),
            status=work.status,
            joules=joules(work.total_uj),
            seconds=seconds(work.ns),
        )
        gaps = self.gaps
        if work.unseen_j:
            why = "this earlier part was killed; what it used after its journal's last line is not known, not charged"
            gaps = (*gaps, Gap(device="all", seconds=work.unseen_s, joules=work.unseen_j, why=why))
        return replace(
            self,
            earlier=earlier,
            counted={**self.counted, work.session: work.counted},
            lost=(*self.lost, lost),
            devices={**_relabelled(work.devices, labels), **self.devices},
            gaps=gaps,
        )

    # -- what all of them come to --

    @property
    def wasted_uj(self) -> int:
        """Microjoules in the stage `wasted`."""
        return _wasted_uj(self.earlier)

    @property
    def ledgers(self) -> tuple[Ledger, ...]:
        """All accounts, to be summed with this session's own."""
        return (self.earlier, self.nodes.ledger)

    @property
    def all_devices(self) -> dict[str, Device]:
        """All devices, by their labels in `ledgers`."""
        return {**self.devices, **self.nodes.devices}

    @property
    def all_gaps(self) -> list[Gap]:
        """What all counters lost."""
        return [*self.gaps, *self.nodes.gaps]

    @property
    def all_edges(self) -> float:
        """Squared microjoules beyond the ends of all these sessions."""
        return self.outer_edges + self.nodes.outer_edges

    @property
    def sums(self) -> Sums:
        """What all these sessions come to."""
        known: Sums | None = self.__dict__.get("_sums")
        if known is None:  # not a `cached_property`, whose lock a fork may leave held
            known = sums_of(self.ledgers, self.all_devices, self.all_edges, self.all_gaps)
            self.__dict__["_sums"] = known
        return known


def label_here(device: Device, known: Mapping[str, Device]) -> str:
    """The label of another session's device in this one.

    Args:
        device: that device.
        known: the devices of this session, by label.

    Returns:
        Its old label if that is free or means the same device; the one that it has now; or the old one and whose it is.

    Example:
        >>> board = Device("gpu0", "H100", "GPU-1", "nvml-counter")
        >>> label_here(board, {"gpu0": Device("gpu0", "H100", "GPU-2", "nvml-counter")})
        'gpu0@GPU-1'
    """
    label = device.label
    if label not in known or _is_same(known[label], device):
        return label
    now = next((other for other, there in known.items() if _is_same(there, device)), None)
    return now or f"{label}@{device.uuid if _is_unique(device) else device.host or device.uuid}"


def _is_same(one: Device, other: Device) -> bool:
    """Whether two descriptions mean one device. Boards' UUIDs are the world's; a CPU package's is its host's."""
    return one.uuid == other.uuid and (_is_unique(one) or one.host == other.host or not (one.host and other.host))


def _is_unique(device: Device) -> bool:
    return device.uuid.startswith("GPU-")


def _relabelled(devices: Mapping[str, Device], labels: Mapping[str, str]) -> dict[str, Device]:
    return {labels[label]: msgspec.structs.replace(device, label=labels[label]) for label, device in devices.items()}


def _wasted_uj(ledger: Ledger) -> int:
    return ledger.by_stage().get(WASTED, NOTHING).total_uj
