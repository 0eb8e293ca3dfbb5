"""One measured run, without Lightning: marks go in, the ledger, the log rows and the record come out.

The trainer's thread only notes marks and counts batches. The meter's thread settles them here: it charges the ledger, lays
out what is to be logged, and writes the files. What is to be logged is handed back to the trainer's thread, because loggers
belong to it.
"""

from __future__ import annotations

import platform
import threading
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import pairwise
from time import time as unix_time
from typing import Any

import msgspec

from lightning_watt.host import keep, process_facts, tell_of_forks
from lightning_watt.meter.marks import Mark
from lightning_watt.meter.meter import EnergyMeter
from lightning_watt.record.journal import About, JournalLine
from lightning_watt.record.schema import BatchRow, DeviceEnergy, Energy, Epoch, LostData, NodeEnergy, Status
from lightning_watt.run.batches import BatchBook
from lightning_watt.run.events import BatchEnd, EpochEnd, LogPoint, PartStart, Snapshot, Switch
from lightning_watt.run.forecast import Rate, forecast
from lightning_watt.run.ledger import Account, Entry, Ledger, Point, merged
from lightning_watt.run.other_sessions import Part, Parts
from lightning_watt.run.stretches import Stretches
from lightning_watt.run.totals import about_of, energy_of_all, epochs_of_all, uncertainty, whole_of
from lightning_watt.run.wasted import Loss, Taken, taken_of
from lightning_watt.sources.base import Device
from lightning_watt.units import joules, seconds


@dataclass
class Session:
    """The accounts of one run, over all its fits and tests, and the queue of what is to be logged.

    Attributes:
        id: tells this process's part of a run from others', so that a joule in two checkpoints is added once.
        ledger: the accounts of what this process measured.
        parts: what earlier sessions of this run used, and other nodes.
        place: the run that this is a part of, this process's rank in it, and its node's number.
        batches: batches so far; the trainer's thread counts here.
        samples: samples so far; likewise.
        ready: snapshots that have been settled and wait to be logged.
        histograms: the loggers' step and each batch's joules, of training epochs that wait to be logged.
        book: each batch's energy, where it is wanted.
        accuracies: the accuracy at the end of every finished epoch of every stage.
        gaps: what counters lost.
        stretches: what was used from one log row to the next.
        devices: what is known about each device that this process measures, by label.
        on_settled: called in the meter's thread with the batches that ended, and whether an epoch did.
        news: something was settled since the trainer's thread last looked.
    """

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    started_unix: float = field(default_factory=unix_time)
    ledger: Ledger = field(default_factory=Ledger)
    parts: Parts = field(default_factory=Parts)
    place: tuple[str, int, int] = ("", 0, 0)
    batches: int = 0
    samples: int = 0
    ready: deque[Snapshot] = field(default_factory=deque)
    histograms: deque[tuple[int, list[float]]] = field(default_factory=deque)
    book: BatchBook = field(default_factory=BatchBook)
    accuracies: dict[Account, float | None] = field(default_factory=dict)
    gaps: list[LostData] = field(default_factory=list)
    stretches: Stretches = field(default_factory=Stretches)
    devices: dict[str, DeviceEnergy] = field(default_factory=dict)
    on_settled: Callable[[Sequence[BatchRow], bool], None] | None = None
    news: bool = False

    def __post_init__(self) -> None:
        self._begin_anew()
        self._account = Account("other", 0)
        self.began_ns = 0  # the run's first mark
        self._logged: Point | None = None  # the last log point of the stage, or the stage's beginning
        # Switches that are noted and not settled: when, to where, and the batches and samples by then.
        self._entered: deque[tuple[int, Switch]] = deque()
        self._ended: dict[Account, float | None] = {}  # epochs whose end is noted, settled or not
        self._heading: tuple[Any, ...] = ()  # what stood in the journal's last heading
        self._outer_edges = 0.0  # squared microjoules at the run's own beginnings and ends, those that are past
        tell_of_forks(self)

    def _begin_anew(self) -> None:
        self._lock = threading.RLock()  # a signal handler may save a checkpoint in the middle of anything
        self._meter: EnergyMeter | None = None

    def forked(self) -> None:
        """In a child of the process that measures: nothing is charged any more, and nothing settled or written."""
        keep(dict(vars(self)))
        self._begin_anew()
        self.on_settled = None

    # -- the trainer's thread -----------------------------------------------------------------------------------------

    @property
    def account(self) -> Account:
        """The account that the trainer is in."""
        return self._account

    def begin(
        self,
        meter: EnergyMeter,
        account: Account,
        *,
        abandoned: Callable[[], bool] | None = None,
        on_abandoned: Callable[[], None] | None = None,
    ) -> None:
        """Start to charge what a meter reads; the meter is started here, with `abandoned` and `on_abandoned`."""
        self._meter, self._account = meter, account
        self._logged = None
        self._entered.clear()
        try:
            meter.start(self._settle, abandoned=abandoned, on_abandoned=on_abandoned)
        except BaseException:
            self._meter = None  # or marks would pile up that nobody settles
            raise
        self.switch(account)

    def end(self) -> bool:
        """Charge up to now and stop the meter; False if a driver did not answer in time."""
        if self._meter is None:
            return True
        self.switch(Account("other", self._account.epoch))
        known_ns, end_ns, power_w = self._meter.frontier_ns, self._meter.now_ns(), self.power_w
        answered = self._meter.stop()
        with self._lock:
            if not answered and known_ns:
                unread_s = max(0.0, seconds(end_ns - known_ns))
                why = "the driver did not answer at the end; the joules are what its last known power comes to, not charged"
                self.gaps.append(LostData(device="all", seconds=unread_s, joules=unread_s * power_w, why=why))
            if self.ledger.at is not None:
                self._outer_edges += _square(self.ledger.at)
                self.ledger.close(self.ledger.at)
        self._meter = None
        return answered

    def switch(self, account: Account) -> None:
        """The trainer enters another stage or epoch."""
        left, self._account = self._account, account
        if self._meter is not None:
            with self._lock:
                switch = Switch(account, self.batches, self.samples)
                self._entered.append((self._meter.mark(switch).t_ns, switch))
            if left.stage != account.stage:
                self._meter.ask()  # a reading close to the edge tells best what lies on either side

    def note(self, payload: LogPoint | BatchEnd | PartStart | EpochEnd) -> None:
        """Note a moment."""
        if self._meter is not None:
            self._meter.mark(payload)

    def end_epoch(self, accuracy: float | None, step: int) -> None:
        """The trainer's epoch of the current stage is over; the record follows."""
        self._ended[self._account] = accuracy
        self.note(EpochEnd(self._account, accuracy, step, self.batches, self.samples))
        if self._meter is not None:
            self._meter.ask()

    def now(self, point: LogPoint) -> Snapshot:
        """Where the run stands now: what is settled, and the last moment's energy by the last known power.

        Nothing waits for a driver here; the exact value follows in the log.
        """
        energy = self._energy_now_uj()
        with self._lock:
            stage_uj = {stage: entry.total_uj for stage, entry in self._whole().by_stage().items()}
            for account, entry in self._unsettled(energy):
                stage_uj[account.stage] = stage_uj.get(account.stage, 0) + entry.total_uj
            power = dict(zip(self.ledger.labels, self._meter.power_now_w() if self._meter else [], strict=False))
            stage_j = {stage: joules(uj) for stage, uj in stage_uj.items()}
            total_j = sum(stage_j.values())
            return Snapshot(
                point=point,
                total_j=total_j,
                uncertainty_j=self._uncertainty_j(),
                stage_j=stage_j,
                power_w=power,
                stretch_j=0.0,
                stretch_batches=0,
                stretch_samples=0,
                forecast=forecast(total_j, point.ahead, self._rates()),
            )

    def _energy_now_uj(self) -> list[int]:
        return self._meter.energy_now_uj() if self._meter is not None else []

    def _unsettled(self, energy_uj: Sequence[int]) -> list[tuple[Account, Entry]]:
        """What has been used since the last settled point, shared out by time among the accounts entered since."""
        at, account = self.ledger.at, self.ledger.account
        if at is None or account is None or self._meter is None or not self.devices:
            return []
        ahead_uj = [max(0, now - int(was)) for now, was in zip(energy_uj, at.energy_uj, strict=True)]
        now_ns = self._meter.now_ns()
        here = (at.t_ns, Switch(account, at.batches, at.samples))
        edges = [here, *self._entered, (now_ns, Switch(account, self.batches, self.samples))]
        whole_ns = max(1, now_ns - at.t_ns)
        found, used_uj = [], [0] * len(ahead_uj)
        for (since_ns, entered), (until_ns, left) in pairwise(edges):
            # Cumulative, so that the shares add up to the last microjoule.
            passed_ns = min(whole_ns, max(0, until_ns - at.t_ns))
            by_then_uj = [uj * passed_ns // whole_ns for uj in ahead_uj]
            uj = {label: now - was for label, now, was in zip(self.ledger.labels, by_then_uj, used_uj, strict=True)}
            used_uj = by_then_uj
            entry = Entry(uj, max(0, until_ns - since_ns), left.batches - entered.batches, left.samples - entered.samples)
            found.append((entered.account, entry))
        return found

    def resume(self, state: Mapping[str, Any]) -> bool:
        """Add an earlier part of this run, from its checkpoint; a part that is here already is not added again.

        Returns:
            Whether it was added.

        Raises:
            ValueError: the state is not one of `state_dict`.
        """
        with self._lock:
            parts = deepcopy(self.parts)  # and in one step: whoever saves a checkpoint meanwhile has all of it or nothing
            added = parts.absorb(state, self.id, self._home)
            self.parts = parts
            return added

    def note_earlier(self, state: Mapping[str, Any]) -> None:
        """Only note which sessions this run goes on with; another process adds their energy.

        Raises:
            ValueError: the state is not one of `state_dict`.
        """
        with self._lock:
            self.parts.taken |= taken_of(state)

    def waste(self, losses: Sequence[Loss]) -> None:
        """Add what earlier sessions used and nobody has the result of."""
        with self._lock:
            parts = deepcopy(self.parts)  # likewise
            parts.waste(losses, self.id, self._home)
            self.parts = parts

    def join(self, part: Part) -> None:
        """Take what another node tells of its part of this run, in the place of what it told before."""
        with self._lock:
            self.parts.join(part)
            others: dict[str, int] = {}
            for ledger in self.parts.ledgers()[1:]:
                for stage, entry in ledger.by_stage().items():
                    others[stage] = others.get(stage, 0) + entry.total_uj
            own = {stage: entry.total_uj for stage, entry in self.ledger.by_stage().items()}
            self.stretches.whole_of_own = {stage: 1 + others.get(stage, 0) / uj for stage, uj in own.items() if uj > 0}

    def part(self, missing: Sequence[str] = ()) -> Part:
        """This process's part of the run by now, for rank zero; the last moment by its last known power."""
        energy = self._energy_now_uj()
        with self._lock:
            ledger = self._by_now(energy)
            return Part(
                session=self.id,
                rank=self.place[1],
                node=self.place[2],
                host=platform.node(),
                ledger=ledger.state_dict(),
                devices=self._about(),
                taken=Taken(ledger.by_device(), ledger.ns),
                outer_edges=self._own_edges(),
                gaps=list(self.gaps),
                missing=list(missing),
                final=self._meter is None,
            )

    def state_dict(self) -> dict[str, Any]:
        """The accounts by now as plain values, which load without running code.

        What is not settled yet is in them by the last known power; a resume that finds the journal sets the sum right.
        """
        energy = self._energy_now_uj()
        with self._lock:
            ledger = self._by_now(energy)
            taken = Taken(ledger.by_device(), ledger.ns)
            unsettled_uj = sum(entry.total_uj for _, entry in self._unsettled(energy))
            accuracies = {**self.parts.accuracies, **self.accuracies, **self._ended}
            return {
                **self.parts.state_dict({self.id: taken}),
                "ledger": merged([ledger, *self.parts.ledgers()]).state_dict(),
                "devices": msgspec.to_builtins({**self.parts.all_devices(), **self._about()}),
                "accuracies": [[account.stage, account.epoch, value] for account, value in accuracies.items()],
                "outer_edges": self._own_edges() + float(unsettled_uj) ** 2 + self.parts.all_edges,
                "gaps": msgspec.to_builtins([*self.parts.all_gaps(), *self.gaps]),
            }

    def line(self, status: Status | None = None) -> JournalLine:
        """The journal's line of now, with a heading where what stands there has changed."""
        with self._lock:
            own = self.ledger
            line = JournalLine(
                t=unix_time(),
                total_j=joules(self._total_uj()),
                power_w=self.power_w,
                stage=self._account.stage,
                epoch=self._account.epoch,
                session=self.id,
                device_uj=own.by_device() if self.devices else {},
                stage_uj={stage: entry.total_uj for stage, entry in own.by_stage().items()},
                ns=own.ns,
                status=status,
            )
            heading = (tuple(self.devices), tuple(self.parts.taken), self.place)
            if heading != self._heading:
                self._heading = heading
                line.devices, line.resumes = self._about(), list(self.parts.taken)
                line.where, line.pid, line.born = process_facts()
                line.run, line.rank, line.node = self.place
                line.interval_s = self._meter.interval_s if self._meter is not None else 0.0
            return line

    def _by_now(self, energy_uj: Sequence[int]) -> Ledger:
        """A copy of the ledger with what is not settled yet."""
        ledger = merged([self.ledger])
        for account, entry in self._unsettled(energy_uj):
            ledger.add(account, entry)
        return ledger

    def _home(self, label: str, about: About) -> str:
        """The label of an earlier session's device here: its old one, the one that it has now, or the old one and whose."""
        here = platform.node()
        known = {device.label: _about(device, here) for device in (self._meter.devices if self._meter else ())}
        known = {**self.parts.devices, **self._about(), **known}
        if label not in known or _is_same(known[label], about):
            return label
        now = next((other for other, device in known.items() if _is_same(device, about)), None)
        return now or f"{label}@{about.uuid if _is_unique(about) else about.host or about.uuid}"

    def _about(self) -> dict[str, About]:
        return {label: about_of(device) for label, device in self.devices.items()}

    def _whole(self) -> Ledger:
        return whole_of(self.ledger, self.parts)

    def _total_uj(self) -> int:
        return self.ledger.total_uj + sum(ledger.total_uj for ledger in self.parts.ledgers())

    def _edges(self) -> float:
        return self._own_edges() + self.parts.all_edges

    def _own_edges(self) -> float:
        return self._outer_edges + (_square(self.ledger.at) if self.ledger.at is not None else 0.0)

    # -- either thread ------------------------------------------------------------------------------------------------

    def energy(self) -> Energy:
        """The energy part of the record."""
        with self._lock:
            ticks_s = self._meter.ticks_s if self._meter is not None else {}
            return energy_of_all(self.ledger, self.devices, self.parts, ticks_s, self._edges(), self.gaps)

    def epochs(self) -> list[Epoch]:
        """The finished epochs of every stage, in order; validation that runs several times in an epoch is one row."""
        with self._lock:
            return epochs_of_all(self.ledger, self.parts, self.accuracies)

    def nodes(self) -> list[NodeEnergy]:
        """What each node's reader has used in this run, this one first."""
        with self._lock:
            own, (_, rank, node) = self.ledger, self.place
            ns = own.ns
            mine = NodeEnergy(session=self.id, rank=rank, node=node, host=platform.node(), device_uj=own.by_device(), ns=ns)
            mine.stage_uj = {stage: entry.total_uj for stage, entry in own.by_stage().items()}
            return [mine, *self.parts.nodes()]

    def all_gaps(self) -> list[LostData]:
        """What counters lost, in this run's earlier and other parts too."""
        with self._lock:
            return [*self.parts.all_gaps(), *self.gaps]

    @property
    def energy_j(self) -> float:
        """Joules that are settled, earlier parts of the run and other nodes included."""
        with self._lock:
            return joules(self._total_uj())

    @property
    def power_w(self) -> float:
        """The last known power over all devices, watts."""
        return sum(self._meter.power_now_w()) if self._meter is not None else 0.0

    # -- the meter's thread -------------------------------------------------------------------------------------------

    def _settle(self, marks: Sequence[Mark[Any]]) -> None:
        epoch_over = False
        with self._lock:
            self._meet_devices()
            for mark in marks:
                payload = mark.payload
                if self.ledger.at is None and not isinstance(payload, Switch):
                    continue  # a mark of the meter's own, before the run's first
                point = self._point(mark)
                if isinstance(payload, Switch):
                    self._take_switch(payload, point)
                    continue
                self.ledger.charge(point)
                if isinstance(payload, LogPoint) and self.devices:
                    self.ready.append(self._snapshot(payload, point))
                elif isinstance(payload, PartStart):
                    self.book.start_part(payload.part, point)
                elif isinstance(payload, BatchEnd):
                    self.book.end_batch(payload, point, self._gains())
                elif isinstance(payload, EpochEnd):
                    if payload.account.stage == "train" and (values := self.book.take_epoch()):
                        self.histograms.append((payload.step, values))
                    self.accuracies[payload.account] = payload.accuracy
                    epoch_over = True
            if self._meter is not None:
                lost, self._meter.gaps = self._meter.gaps, []
                self.gaps += [LostData(device=g.device, seconds=g.seconds, joules=g.joules, why=g.why) for g in lost]
        self.news = True
        if self.on_settled is not None:
            self.on_settled(self.book.take_rows(), epoch_over)

    def _meet_devices(self) -> None:
        """Enter the devices that have been read for the first time."""
        for device in self._meter.answered if self._meter is not None else ():
            if device.label not in self.devices or self.devices[device.label].uuid != device.uuid:
                self.devices[device.label] = DeviceEnergy(
                    joules=0.0,
                    name=device.name,
                    uuid=device.uuid,
                    source=device.source,
                    provenance=device.provenance,
                    gain=device.gain,
                    host=platform.node(),
                    note=device.note,
                )

    def _point(self, mark: Mark[Any]) -> Point:
        """A settled mark as a point of the ledger; a mark without counts ended no batch."""
        assert mark.energy_uj is not None
        assert mark.edge_uj is not None
        before = self.ledger.at
        batches = getattr(mark.payload, "batches", before.batches if before else 0)
        samples = getattr(mark.payload, "samples", before.samples if before else 0)
        return Point(mark.t_ns, mark.energy_uj.tolist(), mark.edge_uj.tolist(), batches, samples)

    def _take_switch(self, switch: Switch, point: Point) -> None:
        if self._entered:
            self._entered.popleft()
        left = self.ledger.account
        if self.ledger.at is None:
            assert self._meter is not None
            self.began_ns = self.began_ns or point.t_ns
            self._outer_edges += _square(point)
            self.ledger.open([device.label for device in self._meter.devices], switch.account, point)
        else:
            self.ledger.switch(switch.account, point)
        if left is None or left.stage != switch.account.stage:
            self._logged = point
        self.book.enter(switch.account, point)

    def _snapshot(self, log_point: LogPoint, point: Point) -> Snapshot:
        before = self._logged or point
        passed_s = seconds(point.t_ns - before.t_ns)
        power: dict[str, float] = {}
        # Over less than a tick of the slowest counter a mean is the edges' noise: the stretch goes on to the next log point.
        if passed_s > max(self._meter.ticks_s.values() if self._meter is not None else (), default=0.0):
            self._logged = point
            power = {
                label: joules(int(uj) - int(was)) / passed_s
                for label, uj, was in zip(self.ledger.labels, point.energy_uj, before.energy_uj, strict=True)
            }
        stage = self.ledger.account.stage if self.ledger.account else "other"
        stretch = self.stretches.cut(stage, self.ledger.by_stage().get(stage, Entry()))
        return Snapshot(
            point=log_point,
            total_j=joules(self._total_uj()),
            uncertainty_j=self._uncertainty_j(),
            stage_j={name: joules(entry.total_uj) for name, entry in self._whole().by_stage().items()},
            power_w=power,
            stretch_j=stretch.joules,
            stretch_batches=stretch.batches,
            stretch_samples=stretch.samples,
            forecast=forecast(joules(self._total_uj()), log_point.ahead, self._rates()),
        )

    def known_rates(self) -> dict[str, Rate]:
        """Joules a batch by stage, as far as they are known."""
        with self._lock:
            return self._rates()

    def _rates(self) -> dict[str, Rate]:
        return self.stretches.known_rates(self.ledger.by_stage())

    def _gains(self) -> list[float]:
        return [device.gain for device in self._meter.devices] if self._meter is not None else []

    def _uncertainty_j(self) -> float:
        about = {**self.parts.all_devices(), **self._about()}
        return uncertainty(self._whole(), about, self._edges(), [*self.parts.all_gaps(), *self.gaps])[0]


def _about(device: Device, host: str) -> About:
    return About(
        name=device.name,
        uuid=device.uuid,
        source=device.source,
        provenance=device.provenance,
        gain=device.gain,
        host=host,
    )


def _is_same(one: About, other: About) -> bool:
    """Whether two descriptions mean one device. Boards' UUIDs are the world's; a CPU package's is its host's."""
    return one.uuid == other.uuid and (_is_unique(one) or one.host == other.host or not (one.host and other.host))


def _is_unique(about: About) -> bool:
    return about.uuid.startswith("GPU-")


def _square(point: Point) -> float:
    return sum(float(edge) ** 2 for edge in point.edge_uj)
