"""One process's session of a run, without Lightning: marks go in; the ledger, the log rows and the totals come out.

The trainer's thread only notes marks and counts batches. The reader's thread settles them here: it charges the ledger, lays
out what is to be logged, and writes the files. Log rows go back to the trainer's thread, because loggers belong to it.

| thread | what it does here |
|---|---|
| the trainer's, and its signal handlers | begin, end, switch, note, resume, totals; waits for the reader at the end only |
| the reader's (`meter/reader.py`) | `_settle`, and `on_settled`, which writes the files |
| 3, in `sources/discover.py`, `distributed/nodes.py`, `record/remote.py` | nothing; they wait for a driver or a network |

| lock | what it guards |
|---|---|
| `Session._lock` | ledger, other sessions, log spans, epochs, gaps, noted switches; no source is read while it is held |
| two in `meter/reader.py` | timelines, the news of marks; taken alone or inside `Session._lock`, never around it |
| one in `sources/discover.py` | whether a source was opened too late; taken alone |
| two in `sources/door.py` | who holds which source; one of them for each source, while it is closed |
| none | `ready`, `histograms`: the reader appends, the trainer removes; `news`: either sets it, in one step |
| none | `tally`, `account`, the meter, `epochs.noted`: only the trainer's thread writes; `tally.is_plain` as `news` |

A signal handler may run between any two steps. So a thread can take each lock of the session and the reader again, and a
change replaces a value in one step.
"""

from __future__ import annotations

import platform
import threading
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import time as unix_time
from typing import Any

from lightning_watt.accounts.ahead import usage_ahead
from lightning_watt.accounts.batches import BatchEnergy, Crowd
from lightning_watt.accounts.epochs import FinishedEpochs
from lightning_watt.accounts.events import EpochEnd, LogPoint, Moment, Note, RunEnd, Snapshot, Switch, point_of
from lightning_watt.accounts.forecast import LogSpan, LogSpans
from lightning_watt.accounts.ledger import NOTHING, Account, Ledger, Point, Usage
from lightning_watt.host import keep, tell_of_forks
from lightning_watt.meter.agreement import measured_again
from lightning_watt.meter.marks import Mark
from lightning_watt.meter.meter import EnergyMeter
from lightning_watt.record.lines import JournalLine
from lightning_watt.record.schema import BatchRow, Status
from lightning_watt.run.node_reports import Counted, NodeReport, Reporter, few_gaps
from lightning_watt.run.other_sessions import OtherSessions, WastedWork, label_here
from lightning_watt.run.sums import Sums, sums_ahead, sums_of
from lightning_watt.run.tally import Tally
from lightning_watt.run.totals import Place, Totals, checkpoint_state, journal_line, snapshot_of
from lightning_watt.sources.base import Device, Gap
from lightning_watt.units import joules, seconds


@dataclass
class Session:
    """The accounts of one process in one run, over all its fits and tests, and the queue of what is to be logged.

    Attributes:
        id: distinguishes this process's part of a run from others', so that a joule in two checkpoints is added once.
        started_unix: when it was made, seconds since 1970.
        account: the account that the trainer is in.
        ledger: the accounts of what this process measured.
        others: what earlier sessions of this run used, and other nodes.
        place: where it stands in its run.
        tally, crowd: counts the batches; notes marks. The trainer's thread has both at hand, for each batch.
        ready: snapshots that have been settled and wait to be logged.
        histograms: the loggers' step and each batch's joules, of training epochs that wait to be logged.
        batch_energy: each batch's energy, if it is wanted.
        epochs: the finished epochs.
        gaps: what counters lost.
        spans: what was used from one log row to the next.
        devices: the devices that this process measures and has read, by label.
        on_settled: called in the reader's thread with the batches that ended, and whether an epoch did.
        news: something was settled since the trainer's thread last looked.
        logs_rows: each log row is wanted; without loggers only the newest is.
    """

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    started_unix: float = field(default_factory=unix_time)
    account: Account = Account("other", 0)  # noqa: RUF009 - a tuple
    ledger: Ledger = field(default_factory=Ledger)
    others: OtherSessions = field(default_factory=OtherSessions)
    place: Place = Place()  # noqa: RUF009 - a tuple
    tally: Tally = field(default_factory=Tally)
    crowd: Crowd = field(default_factory=Crowd)
    ready: deque[Snapshot] = field(default_factory=deque)
    histograms: deque[tuple[int, list[float]]] = field(default_factory=deque)
    batch_energy: BatchEnergy = field(default_factory=BatchEnergy)
    epochs: FinishedEpochs = field(default_factory=FinishedEpochs)
    gaps: list[Gap] = field(default_factory=list)
    spans: LogSpans = field(default_factory=LogSpans)
    devices: dict[str, Device] = field(default_factory=dict)
    on_settled: Callable[[Sequence[BatchRow], bool], None] | None = None
    news: bool = False
    logs_rows: bool = True

    def __post_init__(self) -> None:
        self._begin_anew()
        self.began_ns = 0  # the first mark of all
        self._entered: deque[tuple[int, Switch]] = deque()  # when what was entered, of switches that are not settled
        self.reporter = Reporter()
        self._read: dict[str, Device] = {}  # as the meter knew them when they went into `devices`
        self._heading: tuple[Any, ...] = ()  # what stood in the journal's last heading
        self._outer_edges = 0.0  # squared microjoules at the run's own beginnings and ends, those that are past
        tell_of_forks(self)

    def _begin_anew(self) -> None:
        self._lock = threading.RLock()  # a signal handler may save a checkpoint in the middle of anything
        self._meter: EnergyMeter | None = None

    def forked(self) -> None:
        """In a child of the process that measures: nothing is charged any more, and nothing settled or written."""
        keep(dict(vars(self)))
        self.crowd.end()
        self._begin_anew()
        self.on_settled = None

    # -- either thread ------------------------------------------------------------------------------------------------

    def totals(self, *, with_since: bool = False) -> Totals:
        """What the run has used, under one lock, without waiting."""
        energy_uj = self._meter.energy_now_uj() if self._meter is not None else []
        with self._lock:
            return self._totals(self._ahead(energy_uj), self.ledger.take_since() if with_since else None)

    def _totals(self, ahead: Sequence[tuple[Account, Usage]] = (), since: Mapping[Account, Usage] | None = None) -> Totals:
        meter = self._meter  # the caller holds the lock
        return Totals(
            session=self.id,
            started_unix=self.started_unix,
            place=self.place,
            account=self.account,
            settled=self.ledger.copy(),
            ahead=tuple(ahead),
            devices=dict(self.devices),
            power_w=self.power_w,
            others=self.others,
            epochs=self.epochs.copy(),
            step_parts=dict(self.batch_energy.parts),
            gaps=tuple(self._gaps()),
            outer_edges=self._outer_edges + self.ledger.open_edge,
            interval_s=meter.interval_s if meter is not None else 0.0,
            is_over=meter is None,
            since=since or {},
        )

    def _gaps(self) -> list[Gap]:
        return few_gaps([*self.gaps, *(self._meter.gaps if self._meter is not None else ())])

    def _ahead(self, energy_uj: Sequence[int]) -> list[tuple[Account, Usage]]:
        at, account, meter = self.ledger.at, self.ledger.account, self._meter
        if at is None or account is None or meter is None or not self.devices:
            return []
        here = (at.t_ns, Switch(account, at.batches, at.samples))
        now = (meter.now_ns(), Switch(account, self.tally.batches, self.tally.samples))
        edges = [here, *self._entered, now]
        return usage_ahead(at, self.ledger.labels, energy_uj, edges)

    @property
    def energy_j(self) -> float:
        """Joules that are settled, earlier parts of the run and other nodes included."""
        with self._lock:
            return joules(self.ledger.total_uj + sum(ledger.total_uj for ledger in self.others.ledgers))

    @property
    def power_w(self) -> float:
        """The last known power over all devices, watts."""
        return sum(self._meter.power_now_w()) if self._meter is not None else 0.0

    def state_dict(self) -> dict[str, Any]:
        """The accounts by now as plain values, for a checkpoint."""
        return checkpoint_state(self.totals())

    def line(self, status: Status | None = None) -> JournalLine:
        """The journal's line of now, with a heading if what stands there has changed."""
        with self._lock:
            totals = self._totals()
            heading = (tuple(self.devices), tuple(self.others.counted), self.place)
            is_new, self._heading = heading != self._heading, heading
            return journal_line(totals, status, with_heading=is_new)

    # -- the trainer's thread -----------------------------------------------------------------------------------------

    def begin(
        self,
        meter: EnergyMeter,
        account: Account,
        *,
        abandoned: Callable[[], bool] | None = None,
        on_abandoned: Callable[[], None] | None = None,
    ) -> None:
        """Start to charge what a meter reads; the meter is started here, with `abandoned` and `on_abandoned`."""
        self.gaps, self._meter, self.account = self._gaps(), meter, account
        self.spans.begin(None)
        self._entered.clear()
        try:
            meter.start(self._settle, abandoned=abandoned, on_abandoned=on_abandoned)
        except BaseException:
            self._meter = None  # or marks would pile up that nobody settles
            raise
        self.crowd.begin(meter)
        self.switch(account)

    def end(self) -> bool:
        """Charge up to now and stop the meter; False if a driver did not answer in time."""
        if self._meter is None:
            return True
        self.switch(Account("other", self.account.epoch))
        self.note(RunEnd(self.tally.batches, self.tally.samples))
        self.crowd.end()
        known_ns, end_ns, power_w = self._meter.frontier_ns, self._meter.now_ns(), self.power_w
        answered = self._meter.stop()
        with self._lock:
            if not answered and known_ns:
                unread_s = max(0.0, seconds(end_ns - known_ns))
                why = "the driver did not answer at the end; the joules are what its last known power comes to, not charged"
                self.gaps.append(Gap(device="all", seconds=unread_s, joules=unread_s * power_w, why=why))
            if self.ledger.at is not None:  # the reader had ended before
                self._outer_edges += self.ledger.close(self.ledger.at)
        with self._lock:
            self.gaps, self._meter = self._gaps(), None
        return answered

    def switch(self, account: Account) -> None:
        """The trainer enters another stage or epoch."""
        left, self.account = self.account, account
        self.tally.enter(account)
        if self._meter is not None:
            with self._lock:
                switch = Switch(account, self.tally.batches, self.tally.samples)
                self._entered.append((self._meter.mark(switch).t_ns, switch))
            if left.stage != account.stage:
                self._meter.ask(seldom=True)  # a reading close to the edge shows best what lies on either side

    def note(self, payload: Note, *, ask: bool = False, seldom: bool = False) -> None:
        """Note a moment; with `ask`, a reading follows soon. If too many wait for a driver, batches are left out."""
        self.crowd.note(payload)
        if ask and self._meter is not None:
            self._meter.ask(seldom=seldom)

    def end_epoch(self, accuracy: float | None, step: int) -> None:
        """The trainer's epoch of the current stage is over; the record follows."""
        self.epochs.note(self.account, accuracy)
        self.note(EpochEnd(self.account, accuracy, step, self.tally.batches, self.tally.samples), ask=True, seldom=True)

    def now(self, point: LogPoint) -> Snapshot:
        """Where the run stands now, by the last known power; the exact value follows in the log."""
        power_w, energy_uj = (m.power_now_w(), m.energy_now_uj()) if (m := self._meter) is not None else ([], [])
        with self._lock:
            own, sums = self.ledger.by_stage(), self._sums()
            if m is not None and self.devices:
                sums = sums.and_more(sums_ahead(self.ledger, self.devices, energy_uj, self._entered, m.now_ns()))
            power = dict(zip(self.ledger.labels, power_w, strict=False))
            return snapshot_of(sums, point, power, LogSpan(0.0, 0, 0), self.spans.known_rates(own), own)

    def _sums(self) -> Sums:
        edges = self._outer_edges + self.ledger.open_edge  # the caller holds the lock
        return sums_of([self.ledger], self.devices, edges, self._gaps()).and_more(self.others.sums)

    def resume(self, state: Mapping[str, Any]) -> bool:
        """Add an earlier part of this run, from its checkpoint; False if it is here already. ValueError if it is none."""
        with self._lock:
            before, self.others = self.others, self.others.with_checkpoint(state, self.id, self._home)
            return self.others is not before

    def add_earlier(self, counted: Mapping[str, Counted], wasted: Sequence[WastedWork]) -> None:
        """Note which sessions this run goes on with, if another process adds them, and what was wasted since."""
        with self._lock:
            self.others = self.others.with_counted(counted).with_wasted(wasted, self.id, self._home)

    def take_reports(self, reports: Sequence[NodeReport]) -> None:
        """Take the other nodes' reports."""
        with self._lock:
            self.others = self.others.with_reports(reports)
            self.spans.take_nodes(self.ledger.by_stage(), self.others.nodes.ledger.by_stage())

    def _home(self, device: Device) -> str:
        here = platform.node()
        measured = {d.label: d.but(host=here) for d in (self._meter.devices if self._meter else ())}
        return label_here(device, {**self.others.devices, **self.devices, **measured})

    # -- the reader's thread ------------------------------------------------------------------------------------------

    def _settle(self, marks: Sequence[Mark[Any]]) -> None:
        epoch_over = False
        with self._lock:
            for device in self._meter.answered if self._meter is not None else ():
                if self._read.get(device.label) is not device:  # it is new, or more is known of it
                    self._read[device.label], here = device, device.but(host=platform.node())
                    self.devices[device.label] = measured_again(self.devices.get(device.label), here)
            gains = [device.gain for device in self._meter.devices] if self._meter is not None else []
            last_row = next((mark for mark in reversed(marks) if isinstance(mark.payload, LogPoint)), None)
            for mark in marks:
                payload = mark.payload
                if self.ledger.at is None and not isinstance(payload, Switch):
                    continue  # a mark of the meter's own, before the run's first
                point = point_of(mark, self.ledger.at)
                if isinstance(payload, Switch):
                    self._take_switch(payload, point)
                    continue
                self.ledger.charge(point)
                if isinstance(payload, LogPoint) and (self.devices or self.others.nodes.reports):
                    row = self._snapshot(payload, point, is_wanted=self.logs_rows or mark is last_row)
                    self.ready.extend([row] if row is not None else [])
                elif isinstance(payload, Moment):
                    payload.take(self._totals())
                elif isinstance(payload, RunEnd):
                    self._outer_edges += self.ledger.close(point)
                elif isinstance(payload, EpochEnd):
                    if payload.account.stage == "train" and (values := self.batch_energy.take_epoch()):
                        self.histograms.append((payload.step, values))
                    self.epochs.settle(self.ledger, payload.account, payload.accuracy)
                    epoch_over = True
                else:
                    self.batch_energy.take(payload, point, gains)
        self.news, self.tally.is_plain = True, False
        if self.on_settled is not None:
            self.on_settled(self.batch_energy.take_rows(), epoch_over)

    def _take_switch(self, switch: Switch, point: Point) -> None:
        if self._entered:
            self._entered.popleft()
        left = self.ledger.account
        if self.ledger.at is None:
            assert self._meter is not None
            self.began_ns = self.began_ns or point.t_ns
            self._outer_edges += point.edge_variance
            self.batch_energy.begin(point)
            self.ledger.open([device.label for device in self._meter.devices], switch.account, point)
        else:
            self.ledger.switch(switch.account, point)
            self.epochs.fold(self.ledger, switch.account.epoch - 1)
        if left is None or left.stage != switch.account.stage:
            self.spans.begin(point)
        self.batch_energy.enter(switch.account, point)

    def _snapshot(self, log_point: LogPoint, point: Point, *, is_wanted: bool) -> Snapshot | None:
        ticks_s = self._meter.ticks_s if self._meter is not None else {}
        power = self.spans.mean_power_w(point, self.ledger.labels, max(ticks_s.values(), default=0.0))
        stage = self.ledger.account.stage if self.ledger.account else "other"
        own = self.ledger.by_stage()
        span = self.spans.cut(stage, own.get(stage, NOTHING))
        if not is_wanted:
            return None
        return snapshot_of(self._sums(), log_point, power, span, self.spans.known_rates(own), own)
