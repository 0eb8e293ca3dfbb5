"""One measured run, without Lightning: marks go in, the ledger, the log rows and the record come out.

The trainer's thread only notes marks and counts batches. The meter's thread settles them here: it charges the ledger, lays
out what is to be logged, and writes the files. What is to be logged is handed back to the trainer's thread, because loggers
belong to it.
"""

from __future__ import annotations

import math
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from lightning_watt.batches import BatchBook
from lightning_watt.events import BatchEnd, BatchRow, EpochEnd, LogPoint, PartStart, Snapshot, Switch
from lightning_watt.forecast import Rate, forecast
from lightning_watt.ledger import Account, Entry, Ledger, Point
from lightning_watt.marks import Mark
from lightning_watt.meter import EnergyMeter
from lightning_watt.record import DeviceEnergy, Energy, Epoch, LostData, Stage
from lightning_watt.units import UJ_PER_J, joules, kwh, seconds


@dataclass
class Session:
    """The accounts of one run, over all its fits and tests, and the queue of what is to be logged.

    Attributes:
        id: tells this process's part of a run from others', so that a joule in two checkpoints is added once.
        ledger: the accounts.
        batches: batches so far; the trainer's thread counts here.
        samples: samples so far; likewise.
        ready: snapshots that have been settled and wait to be logged.
        histograms: the loggers' step and each batch's joules, of training epochs that wait to be logged.
        book: each batch's energy, where it is wanted.
        accuracies: the accuracy at the end of every finished epoch of every stage.
        gaps: what counters lost.
        rates: joules a batch by stage, for the forecast.
        devices: what is known about each device, by label.
        absorbed: the ids of the earlier parts of this run that are in the ledger.
        resumed_uj: what those parts used, microjoules.
        on_settled: called in the meter's thread with the batches that ended, and whether an epoch did.
        news: something was settled since the trainer's thread last looked.
    """

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    started_unix: float = field(default_factory=time.time)
    ledger: Ledger = field(default_factory=Ledger)
    batches: int = 0
    samples: int = 0
    ready: deque[Snapshot] = field(default_factory=deque)
    histograms: deque[tuple[int, list[float]]] = field(default_factory=deque)
    book: BatchBook = field(default_factory=BatchBook)
    accuracies: dict[Account, float | None] = field(default_factory=dict)
    gaps: list[LostData] = field(default_factory=list)
    rates: dict[str, Rate] = field(default_factory=dict)
    devices: dict[str, DeviceEnergy] = field(default_factory=dict)
    absorbed: list[str] = field(default_factory=list)
    resumed_uj: int = 0
    on_settled: Callable[[Sequence[BatchRow], bool], None] | None = None
    news: bool = False

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._meter: EnergyMeter | None = None
        self._account = Account("other", 0)
        self.began_ns = 0  # the run's first mark
        self._logged: Point | None = None  # the last log point of the stage, or the stage's beginning
        # By stage: microjoules, batches and samples at its last log point.
        self._stretch_from: dict[str, tuple[int, int, int]] = {}
        self._entered: deque[tuple[int, Account]] = deque()  # switches that are noted and not settled
        self._outer_edges = 0.0  # squared microjoules at the run's own beginnings and ends, those that are past

    # -- the trainer's thread -----------------------------------------------------------------------------------------

    @property
    def account(self) -> Account:
        """The account that the trainer is in."""
        return self._account

    def begin(self, meter: EnergyMeter, account: Account) -> None:
        """Start to charge what a meter reads; the meter is started here."""
        self._meter, self._account = meter, account
        self._logged = None
        self._entered.clear()
        try:
            meter.start(self._settle)
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
                mark = self._meter.mark(Switch(account, self.batches, self.samples))
                self._entered.append((mark.t_ns, account))
            if left.stage != account.stage:
                self._meter.ask()  # a reading close to the edge tells best what lies on either side

    def note(self, payload: LogPoint | BatchEnd | PartStart | EpochEnd) -> None:
        """Note a moment."""
        if self._meter is not None:
            self._meter.mark(payload)

    def end_epoch(self, accuracy: float | None, step: int) -> None:
        """The trainer's epoch of the current stage is over; the record follows."""
        self.note(EpochEnd(self._account, accuracy, step, self.batches, self.samples))
        if self._meter is not None:
            self._meter.ask()

    def now(self, point: LogPoint) -> Snapshot:
        """Where the run stands now: what is settled, and the last moment's energy by the last known power.

        Nothing waits for a driver here; the exact value follows in the log.
        """
        energy = self._meter.energy_now_uj() if self._meter is not None else []
        with self._lock:
            stage_uj: dict[str, float] = {stage: entry.total_uj for stage, entry in self.ledger.by_stage().items()}
            for stage, uj in self._unsettled(sum(energy)):
                stage_uj[stage] = stage_uj.get(stage, 0.0) + uj
            power = dict(zip(self.ledger.labels, self._meter.power_now_w() if self._meter else [], strict=False))
            stage_j = {stage: joules(uj) for stage, uj in stage_uj.items()}
            total_j = sum(stage_j.values())
            return Snapshot(
                point=point,
                total_j=total_j,
                uncertainty_j=self._uncertainty()[0],
                stage_j=stage_j,
                power_w=power,
                stretch_j=0.0,
                stretch_batches=0,
                stretch_samples=0,
                forecast=forecast(total_j, point.ahead, self._rates()),
            )

    def _unsettled(self, energy_uj: int) -> list[tuple[str, float]]:
        """What has been used since the last settled point, shared out by time among the stages that were entered since."""
        at, account = self.ledger.at, self.ledger.account
        if at is None or account is None or self._meter is None:
            return []
        ahead_uj = max(0, energy_uj - sum(int(uj) for uj in at.energy_uj))
        now_ns = self._meter.now_ns()
        edges = [(at.t_ns, account), *self._entered, (now_ns, account)]
        whole_ns = max(1, now_ns - at.t_ns)
        return [
            (entered.stage, ahead_uj * max(0, until_ns - since_ns) / whole_ns)
            for (since_ns, entered), (until_ns, _) in pairwise(edges)
        ]

    def absorb(self, state: dict[str, Any]) -> None:
        """Add an earlier part of this run, from its checkpoint; a part that is here already is not added again.

        Raises:
            ValueError: the state is not one of `state_dict`.
        """
        with self._lock:
            sessions = [str(session) for session in state["sessions"]]
            if self.id in sessions or set(sessions) & set(self.absorbed):
                return
            earlier = {label: DeviceEnergy(joules=0.0, **about) for label, about in state["devices"].items()}
            uuids = {label: device.uuid for label, device in self.devices.items()}
            uuids |= {device.label: device.uuid for device in (self._meter.devices if self._meter else ())}
            self.accuracies |= {
                Account(str(stage), int(epoch)): accuracy for stage, epoch, accuracy in state.get("accuracies", [])
            }
            rename = {
                label: f"{label}@{about.uuid}"
                for label, about in earlier.items()
                if uuids.get(label, about.uuid) != about.uuid
            }
            self.resumed_uj += self.ledger.absorb(state["ledger"], rename)
            for stage, entry in self.ledger.by_stage().items():  # what came before is no stretch of this part
                self._stretch_from[stage] = (entry.total_uj, entry.batches, entry.samples)
            self.absorbed += sessions
            for label, about in earlier.items():
                self.devices.setdefault(rename.get(label, label), about)

    def state_dict(self) -> dict[str, Any]:
        """The accounts so far as plain values, which load without running code."""
        with self._lock:
            about = {
                label: {"name": d.name, "uuid": d.uuid, "source": d.source, "provenance": d.provenance, "gain": d.gain}
                for label, d in self.devices.items()
            }
            accuracies = [[account.stage, account.epoch, value] for account, value in self.accuracies.items()]
            return {
                "sessions": [*self.absorbed, self.id],
                "ledger": self.ledger.state_dict(),
                "devices": about,
                "accuracies": accuracies,
            }

    # -- either thread ------------------------------------------------------------------------------------------------

    def energy(self) -> Energy:
        """The energy part of the record."""
        with self._lock:
            if not self.devices:
                return Energy(total_j=None, total_kwh=None, uncertainty_j=None, provenance=None)
            by_device = self.ledger.by_device()
            ticks = self._meter.ticks_s if self._meter is not None else {}
            for label, device in self.devices.items():
                device.joules = joules(by_device.get(label, 0))
                device.tick_s = ticks.get(label, device.tick_s)
            kinds = {d.provenance for d in self.devices.values()}
            total_j = joules(self.ledger.total_uj)
            uncertainty_j, boundary_j, gain_j = self._uncertainty()
            return Energy(
                total_j=total_j,
                total_kwh=kwh(total_j),
                uncertainty_j=uncertainty_j,
                provenance="mixed" if len(kinds) > 1 else kinds.pop(),
                boundary_j=boundary_j,
                gain_j=gain_j,
                by_stage={
                    stage: Stage(
                        joules=joules(entry.total_uj),
                        seconds=seconds(entry.ns),
                        batches=entry.batches,
                        samples=entry.samples,
                        uncertainty_j=math.hypot(joules(math.sqrt(entry.edge_variance)), self._gain_uj(entry.uj) / UJ_PER_J),
                    )
                    for stage, entry in self.ledger.by_stage().items()
                },
                by_device=dict(self.devices),
            )

    def epochs(self) -> list[Epoch]:
        """The finished epochs of every stage, in order; validation that runs several times in an epoch is one row."""
        with self._lock:
            return [
                Epoch(
                    epoch=account.epoch,
                    stage=account.stage,
                    joules=joules(entry.total_uj),
                    seconds=seconds(entry.ns),
                    accuracy=self.accuracies[account],
                )
                for account, entry in self.ledger.entries.items()
                if account in self.accuracies
            ]

    @property
    def energy_j(self) -> float:
        """Joules that are settled, earlier parts of the run included."""
        with self._lock:
            return joules(self.ledger.total_uj)

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
        # By the stage's own account, so that a validation in between does not cut a stretch of training in two.
        stage = self.ledger.account.stage if self.ledger.account else "other"
        entry = self.ledger.by_stage().get(stage, Entry())
        standing = (entry.total_uj, entry.batches, entry.samples)
        earlier = self._stretch_from.get(stage, (0, 0, 0))
        stretch_uj, stretch_batches, stretch_samples = (now - was for now, was in zip(standing, earlier, strict=True))
        if stretch_batches > 0:
            self._stretch_from[stage] = standing
            self.rates.setdefault(stage, Rate()).add(joules(stretch_uj), stretch_batches)
        return Snapshot(
            point=log_point,
            total_j=joules(self.ledger.total_uj),
            uncertainty_j=self._uncertainty()[0],
            stage_j={name: joules(entry.total_uj) for name, entry in self.ledger.by_stage().items()},
            power_w=power,
            stretch_j=joules(stretch_uj),
            stretch_batches=stretch_batches,
            stretch_samples=stretch_samples,
            forecast=forecast(joules(self.ledger.total_uj), log_point.ahead, self._rates()),
        )

    def known_rates(self) -> dict[str, Rate]:
        """Joules a batch by stage, as far as they are known."""
        with self._lock:
            return self._rates()

    def _rates(self) -> dict[str, Rate]:
        """Joules a batch by stage; before the first validation, those of the sanity check stand for its."""
        check = self.ledger.by_stage().get("sanity_check")
        if "validate" in self.rates or check is None or not check.batches:
            return self.rates
        stand_in = Rate()
        stand_in.add(joules(check.total_uj), check.batches)
        return {**self.rates, "validate": stand_in}

    def _gains(self) -> list[float]:
        return [device.gain for device in self._meter.devices] if self._meter is not None else []

    def _gain_uj(self, uj: dict[str, int]) -> float:
        """Microjoules by which scales may be off; boards of one kind err alike, so the shares add up."""
        return sum(self.devices[label].gain * value for label, value in uj.items() if label in self.devices)

    def _uncertainty(self) -> tuple[float, float, float]:
        """Plus or minus of the total in joules: all, its boundary part, its gain part.

        Only the run's own beginning and end count: what an inner edge takes from one account the next one gets.
        """
        at = self.ledger.at
        edges = self._outer_edges + (_square(at) if at is not None else 0.0)
        boundary_j = joules(math.sqrt(edges)) + sum(gap.joules for gap in self.gaps)
        gain_j = joules(self._gain_uj(self.ledger.by_device()))
        return math.hypot(boundary_j, gain_j), boundary_j, gain_j


def _square(point: Point) -> float:
    return sum(float(edge) ** 2 for edge in point.edge_uj)
