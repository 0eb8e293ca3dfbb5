"""The parts of a run that this process did not measure: earlier sessions of it, and the other nodes' sessions now.

Pure: checkpoints' states, losses and what nodes tell go in; sums by stage and device come out. Its user holds the lock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from lightning_watt.record.journal import About
from lightning_watt.record.schema import LostData, LostWork, NodeEnergy
from lightning_watt.run.ledger import WASTED, Account, Entry, Ledger
from lightning_watt.run.wasted import Loss, Taken, taken_of
from lightning_watt.units import joules, seconds

Home = Callable[[str, About], str]
"""Gives a device of another session the label that it has here."""


class Part(msgspec.Struct, kw_only=True):
    """One node's part of the run, as its reader tells it to rank zero.

    Attributes:
        session: the id of the reader's session.
        rank: its global rank.
        node: the number of its node.
        host: its host.
        ledger: its accounts, as `Ledger.state_dict` gives them.
        devices: what its devices are, by its own labels.
        taken: what of it is in `ledger`.
        outer_edges: squared microjoules that may lie beyond its beginning and end.
        gaps: what its counters lost.
        missing: what it could not measure, why, and the remedy.
        final: nothing comes after it.
    """

    session: str
    rank: int
    node: int
    host: str
    ledger: list[list[Any]]
    devices: dict[str, About]
    taken: Taken
    outer_edges: float = 0.0
    gaps: list[LostData] = []
    missing: list[str] = []
    final: bool = False

    def label(self, own: str) -> str:
        """The label that a device of this node has in the run's record: `node1/gpu0`."""
        return f"node{self.node}/{own}"

    def accounts(self) -> Ledger:
        """Its energy by stage and epoch, devices by their labels in the run's record.

        Its seconds, batches and samples are those that rank zero counts too, and stay away.
        """
        ledger = Ledger()
        energy = [[stage, epoch, uj, 0, 0, 0, variance] for stage, epoch, uj, _, _, _, variance in self.ledger]
        ledger.absorb(energy, {own: self.label(own) for own in (*self.devices, *self.taken.uj)})
        return ledger


@dataclass
class Parts:
    """What other sessions of this run have used.

    Attributes:
        earlier: accounts of earlier sessions, what they wasted in the stage `wasted`.
        taken: what of each of them is in there, by their ids.
        resumed_uj: what they had used at the checkpoint, microjoules, without what was wasted before it.
        lost: what they used and nobody has the result of.
        devices: what the devices of all these sessions are.
        accuracies: the accuracies at the ends of the earlier sessions' epochs.
        outer_edges: squared microjoules that may lie beyond the beginnings and ends of all these sessions.
        gaps: what their counters lost.
    """

    earlier: Ledger = field(default_factory=Ledger)
    taken: dict[str, Taken] = field(default_factory=dict)
    resumed_uj: int = 0
    lost: list[LostWork] = field(default_factory=list)
    devices: dict[str, About] = field(default_factory=dict)
    accuracies: dict[Account, float | None] = field(default_factory=dict)
    outer_edges: float = 0.0
    gaps: list[LostData] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._others: dict[str, tuple[Part, Ledger]] = {}

    @property
    def others(self) -> list[Part]:
        """The other nodes' parts, as they were last told."""
        return [part for part, _ in self._others.values()]

    def join(self, part: Part) -> None:
        """Take what a node tells, in the place of what it told before.

        Raises:
            ValueError: its accounts are none; then what it told before stays.
        """
        self._others[part.session] = (part, part.accounts())

    def nodes(self) -> list[NodeEnergy]:
        """What the other nodes' readers have used, for the record."""
        return [
            NodeEnergy(
                session=part.session,
                rank=part.rank,
                node=part.node,
                host=part.host,
                device_uj=part.taken.uj,
                stage_uj={stage: entry.total_uj for stage, entry in ledger.by_stage().items()},
                ns=part.taken.ns,
            )
            for part, ledger in self._others.values()
        ]

    def ledgers(self) -> list[Ledger]:
        """All accounts, to be summed with this session's own."""
        return [self.earlier, *(ledger for _, ledger in self._others.values())]

    def all_devices(self) -> dict[str, About]:
        """All devices, by their labels in `ledgers`."""
        now = {part.label(own): about for part, _ in self._others.values() for own, about in part.devices.items()}
        return {**self.devices, **now}

    def missing(self) -> list[str]:
        """What the other nodes could not measure, why, and the remedy."""
        return [f"node{part.node}: {sentence}" for part in self.others for sentence in part.missing]

    def all_gaps(self) -> list[LostData]:
        """What all counters lost."""
        now = [
            msgspec.structs.replace(gap, device=part.label(gap.device))
            for part, _ in self._others.values()
            for gap in part.gaps
        ]
        return [*self.gaps, *now]

    @property
    def all_edges(self) -> float:
        """Squared microjoules beyond the ends of all these sessions."""
        return self.outer_edges + sum(part.outer_edges for part, _ in self._others.values())

    def absorb(self, state: Mapping[str, Any], own: str, home: Home) -> bool:
        """Add an earlier part of this run, from its checkpoint; a part that is here already is not added again.

        Args:
            state: what `state_dict` gave.
            own: the id of this process's session.
            home: gives its devices their labels here.

        Returns:
            Whether it was added.

        Raises:
            ValueError: the state is none; then nothing was added.
        """
        sessions = {str(session) for session in state["sessions"]}
        if own in sessions or sessions & set(self.taken):
            return False
        try:
            # A checkpoint of an older version does not say how much of each session it holds.
            taken = taken_of(state) if "taken" in state else {session: Taken({}) for session in sessions}
            about = msgspec.convert(state["devices"], dict[str, About])
            gaps = msgspec.convert(state.get("gaps", []), list[LostData])
            lost = msgspec.convert(state.get("lost", []), list[LostWork])
            accuracies = {Account(str(stage), int(epoch)): value for stage, epoch, value in state.get("accuracies", [])}
            edges = float(state.get("outer_edges", 0.0))
        except msgspec.ValidationError as error:
            raise ValueError(f"This is not the state of a run: {error}.") from error
        rename = {label: home(label, device) for label, device in about.items()}
        before_uj = self.earlier.total_uj - self.wasted_uj
        self.earlier.absorb(state["ledger"], rename)  # raises before it changes anything
        self.resumed_uj += self.earlier.total_uj - self.wasted_uj - before_uj
        self.taken |= taken
        self.accuracies |= accuracies
        self.gaps += gaps
        self.lost += lost
        self.outer_edges += edges
        for label, device in about.items():
            self.devices.setdefault(rename[label], device)
        return True

    def waste(self, losses: Sequence[Loss], own: str, home: Home) -> None:
        """Add what earlier sessions used and nobody has the result of, in the stage `wasted`."""
        for loss in losses:
            if loss.session == own:
                continue
            rename = {label: home(label, device) for label, device in loss.devices.items()}
            self.earlier.absorb([[WASTED, 0, dict(loss.uj), loss.ns, 0, 0, 0.0]], rename)
            self.taken[loss.session] = loss.taken
            for label, device in loss.devices.items():
                self.devices.setdefault(rename[label], device)
            self.lost.append(
                LostWork(
                    session=loss.session,
                    directory=str(loss.directory),
                    status=loss.status,
                    joules=joules(loss.total_uj),
                    seconds=seconds(loss.ns),
                )
            )
            if loss.unseen_j:
                why = "this earlier part was killed; what it used after its journal's last line is not known, not charged"
                self.gaps.append(LostData(device="all", seconds=loss.unseen_s, joules=loss.unseen_j, why=why))

    @property
    def wasted_uj(self) -> int:
        """Microjoules in the stage `wasted`."""
        return self.earlier.by_stage().get(WASTED, Entry()).total_uj

    def state_dict(self, own: Mapping[str, Taken]) -> dict[str, Any]:
        """What a checkpoint has to know of them, and of this process's session."""
        taken = {**self.taken, **own, **{part.session: part.taken for part in self.others}}
        return {
            "sessions": list(taken),
            "unfinished": [*own, *(part.session for part in self.others)],
            "taken": msgspec.to_builtins(taken),
            "lost": msgspec.to_builtins(self.lost),
        }
