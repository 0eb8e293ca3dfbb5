"""WattCallback: Lightning's hooks turned into marks, and what has been settled turned into logs. No measuring happens here.

No hook raises into the training, waits for a driver, or talks to one. The only place that waits, with a limit, is the end.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar, cast

from typing_extensions import override

from lightning_watt.arguments import check_choice, check_count, check_number, check_switch
from lightning_watt.distributed.nodes import Nodes, end_together, meet_readers
from lightning_watt.distributed.ranks import Opened, Presence, Share, is_alone
from lightning_watt.distributed.rendezvous import OPEN_LIMIT_S, PRESENCE_LIMIT_S, Rendezvous
from lightning_watt.errors import ArgumentError, WattError
from lightning_watt.host import host_id, keep, tell_of_forks
from lightning_watt.meter.marks import marker_for
from lightning_watt.meter.meter import EnergyMeter
from lightning_watt.record.files import RECORD_NAME
from lightning_watt.record.record import Record
from lightning_watt.record.schema import BatchRow, Status
from lightning_watt.record.summary import print_summary
from lightning_watt.record.writer import RunWriter
from lightning_watt.run.events import BatchEnd, LogPoint, StepPartStart
from lightning_watt.run.ledger import Account
from lightning_watt.run.lineage import STATE_KEY
from lightning_watt.run.resume import go_on
from lightning_watt.run.session import Session
from lightning_watt.run.state import RunState
from lightning_watt.run.totals import Place
from lightning_watt.sam import Scoring, check_sam_arguments
from lightning_watt.sources.base import Device, EnergySource, is_source
from lightning_watt.sources.discover import board_uuids
from lightning_watt.sources.masks import GPU, is_gpu
from lightning_watt.sources.nvml import NvmlSource
from lightning_watt.trainer import facts
from lightning_watt.trainer import metrics as trainer_metrics
from lightning_watt.trainer.abandoned import Abandoned
from lightning_watt.trainer.accuracy import look_for_accuracy, warn_of_missing_accuracy
from lightning_watt.trainer.base import Callback, join_loaded_packages
from lightning_watt.trainer.hparams import HParamsTable
from lightning_watt.trainer.idle import measure_idle
from lightning_watt.trainer.loggers import log_record
from lightning_watt.trainer.monitors import Monitors, place
from lightning_watt.trainer.publisher import Publisher
from lightning_watt.units import EnergyUnit

SET_UP_S = 2.0
"""Files are written once every callback was set up, because ModelCheckpoint warns there of a directory that is not empty; or
after this, because a tuner's trial is over before our next hook and may take an hour."""

Hook = TypeVar("Hook", bound=Callable[..., None])


def never_raise(hook: Hook) -> Hook:
    """A hook of ours that fails is told once, and the training goes on."""

    @functools.wraps(hook)
    def guarded(self: WattCallback, *args: Any, **kwargs: Any) -> None:
        try:
            hook(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - this is the place where nothing may pass
            self._run.warn_once.failed(hook.__name__, error)

    return cast(Hook, guarded)


class WattCallback(Callback):
    """Measures what a training costs in electricity, and logs it beside its accuracy.

    Args:
        accuracy: the logged metric that SAM uses, in [0, 1]; `"auto"` finds the usual names.
        gpus: `"auto"`: the devices that the Trainer uses; `"all"`: every board that NVML shows, whatever the mask, also
            beside a CPU Trainer; or NVML indices and UUIDs, none of them for the CPU alone.
        sources: `"auto"`: NVML and RAPL, or a labelled estimate where there is neither; or a list of `EnergySource`.
        alpha: how much accuracy counts in SAM.
        beta: SAM's scale.
        sam_unit: the unit of E in SAM: `"kWh"` (the paper's), `"Wh"` or `"J"`.
        interval: seconds between two reads of the counters.
        log_every_n_steps: training batches between two log rows; None is the Trainer's own.
        budget_kwh: stop the training before it passes this energy, what earlier parts of a resumed run used included.
        pue: power usage effectiveness of the building; it enters CO2e and cost only.
        carbon_intensity: grams of CO2e a kWh; with it `watt/co2e_g` is logged.
        record: write `watt.json` and `watt.jsonl` into the run's log directory; over several nodes each other node's reader
            writes its own beside them (`watt.rank2.json`).
        batches: write each batch's energy to `watt_batches.csv`.
        electricity_price: what a kWh costs; with it the cost stands in the record and in the table at the end.
        idle_s: wait this long before the run and measure what the devices draw meanwhile; it stands beside the run's energy.

    Raises:
        ValueError: a value that means nothing, in a sentence. Boards that are not there raise it in `setup`.

    Example:
        >>> from lightning_watt import WattCallback
        >>> WattCallback(accuracy="val_acc", sam_unit="Wh").sam_unit
        'Wh'
    """

    ranks_limit_s = PRESENCE_LIMIT_S
    """Seconds that the ranks of a run wait for each other at its setup; once in a process where one never comes."""

    def __init__(
        self,
        accuracy: str = "auto",
        *,
        gpus: str | Sequence[GPU] = "auto",
        sources: str | Sequence[EnergySource] = "auto",
        alpha: float = 5.0,
        beta: float = 5.0,
        sam_unit: EnergyUnit = "kWh",
        interval: float = 1.0,
        log_every_n_steps: int | None = None,
        budget_kwh: float | None = None,
        pue: float = 1.0,
        carbon_intensity: float | None = None,
        record: bool = True,
        batches: bool = False,
        electricity_price: float | None = None,
        idle_s: float = 0.0,
    ) -> None:
        join_loaded_packages()
        super().__init__()
        if not isinstance(accuracy, str) or not accuracy:
            raise ValueError(f'accuracy is {accuracy!r}: give the name of a logged metric, or "auto".')
        check_choice("gpus", gpus, ("auto", "all"), "NVML indices and UUIDs", is_gpu, empty=True)
        check_choice("sources", sources, ("auto",), "`EnergySource` objects", is_source)
        check_sam_arguments(alpha, beta, sam_unit)
        check_number("interval", interval, "the seconds between two reads of the counters", above=0.0)
        check_count("log_every_n_steps", log_every_n_steps, "the training batches between two log rows")
        check_number("budget_kwh", budget_kwh, "the kWh that the training may use", above=0.0, optional=True)
        check_number("pue", pue, "the building's power over its computers' power", at_least=1.0)
        check_number("carbon_intensity", carbon_intensity, "grams of CO2e a kWh", at_least=0.0, optional=True)
        check_number("electricity_price", electricity_price, "what a kWh costs", at_least=0.0, optional=True)
        check_number("idle_s", idle_s, "the seconds to measure idle power before the run", at_least=0.0)
        check_switch("record", record)
        check_switch("batches", batches)
        self.accuracy = accuracy
        self.gpus = gpus
        self.sources = sources
        self.interval = interval
        self.log_every_n_steps = log_every_n_steps
        self.budget_kwh = budget_kwh
        self.scoring = Scoring(alpha, beta, sam_unit, pue, carbon_intensity, electricity_price)
        self.record = record
        self.batches = batches
        self.idle_s = idle_s
        self._forget()
        tell_of_forks(self)

    @property
    def sam_unit(self) -> EnergyUnit:
        """The unit of E in SAM."""
        return self.scoring.unit

    def _forget(self) -> None:
        """The state of a run that has not begun; nothing in it holds a device, a file or a thread."""
        self._run = RunState()
        self._session: Session | None = None
        self._meter: EnergyMeter | None = None
        self._scribe: RunWriter | None = None
        self._every = 1
        self._train_batches = 0
        self._publisher = Publisher(self.scoring, self.budget_kwh)
        self._table = HParamsTable()
        self._recorded = False
        self._nodes: Nodes | None = None
        self._monitors = Monitors()
        self._trains = False
        self._nested = 0  # runs of the same Trainer inside of its fit
        self._epoch_open = False
        self._is_set_up, self._writes_from_s = False, 0.0
        self._replicas = 1
        self._restored: dict[str, Any] | None = None

    @property
    @override
    def state_key(self) -> str:
        """Where the energy stands in a checkpoint; the same for subclasses, so that `energy_of` finds it."""
        return STATE_KEY

    def __getstate__(self) -> dict[str, Any]:
        """Only the arguments travel to another process: sources, files and threads stay where they are."""
        # `log` and `log_dict` are the module's, which Lightning hangs on every callback.
        not_ours = {"log", "log_dict"}
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_") and name not in not_ours}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()
        tell_of_forks(self)

    def forked(self) -> None:
        """In a child of the process that trains: the run, its files and its threads are the parent's."""
        keep(dict(vars(self)))
        self._forget()

    def _repr_html_(self) -> str:
        """What a notebook shows of it: what the run has used so far."""
        if self._session is None:
            return "<p>WattCallback: nothing has been measured yet.</p>"
        return self._run.to_record(self._session, self.scoring)._repr_html_()

    # -- a run begins and ends --

    @override
    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Open the sources. Wrong `gpus` raise here; everything else is told and survived."""
        try:
            if self._trains and stage != "fit":  # `trainer.validate` from inside its own `fit`, which goes on to be measured
                self._nested += 1
                return
            self._end_leftover()
            self._set_up(trainer, pl_module)
        except ArgumentError:
            raise
        except WattError as error:
            self._run.warn_once.warn(str(error), "setup")
            self._run.missing.append(str(error))
        except Exception as error:  # noqa: BLE001 - nothing of ours may stop a training
            self._run.warn_once.failed("setup", error)

    def _set_up(self, trainer: Any, pl_module: Any) -> None:
        place(trainer, self)
        ranks = None if is_alone(trainer.world_size) else self._meet_ranks(trainer)
        presence = self._presence(trainer)
        if ranks is None:
            share = Share(reads=True, reader=presence.rank, boards=presence.boards, mine=presence.boards)
            directory = Path(presence.directory)
        else:
            share = ranks.arrange(presence, trainer.local_rank)
            directory = Path(ranks.arrangement.directory)
        if self._run.directory not in (None, directory):
            self._forget()  # another Trainer, another run
        run = self._run
        run.directory, run.status, run.interval_s = directory, "running", self.interval
        self._is_set_up, self._writes_from_s = False, monotonic() + SET_UP_S
        self._every = self.log_every_n_steps or max(1, trainer.log_every_n_steps)
        self._replicas = facts.replicas(trainer)
        failure, leaves = self._open_share(trainer, pl_module, share, presence, ranks)
        if failure is not None:
            raise failure
        session, meter = self._session, self._meter
        if session is None or meter is None:
            return
        if leaves is None or not self._keep(meter, leaves):  # other processes of this host count all of them
            self._session = self._meter = None
            return
        leads = self._leads
        if self._nodes is not None:
            session.place = Place(self._nodes.run, self._nodes.rank, self._nodes.node)
            session.spans.expect_others(self._nodes.many)
        if self.record:
            self._scribe = RunWriter(directory, meter.complaints.append, 0 if leads else trainer.global_rank)
        session.on_settled = self._write
        session.begin(meter, Account("other", 0), abandoned=Abandoned(trainer, self), on_abandoned=self._end_alone)
        if trainer.is_global_zero:
            self._table.begin(trainer, pl_module, run.warn_once)

    @property
    def _leads(self) -> bool:
        """Whether this process keeps the run's record."""
        return self._nodes is None or self._nodes.leads

    def _meet_ranks(self, trainer: Any) -> Rendezvous:
        limit_s = OPEN_LIMIT_S + self.idle_s
        return Rendezvous.of_this_process(trainer.global_rank, trainer.world_size, self.ranks_limit_s, limit_s)

    def _presence(self, trainer: Any) -> Presence:
        not_compared = ("gpus", "sources", "idle_s")  # each rank may see boards of its own
        arguments = {name: value for name, value in self.__getstate__().items() if name not in not_compared}
        return Presence(
            rank=trainer.global_rank,
            host=host_id(),
            node=trainer.node_rank,
            pid=os.getpid(),
            boards=self._boards(trainer),
            directory=str(facts.run_directory(trainer)),
            budget_kwh=self.budget_kwh,
            arguments=repr(sorted(arguments.items())),
        )

    def _boards(self, trainer: Any) -> list[str]:
        """The boards that this rank uses, or was told to measure; over several ranks they may not all see the same ones."""
        try:
            if self.gpus == "auto":
                return facts.boards_in_use(trainer)
            is_asked = isinstance(self.sources, str) and not is_alone(trainer.world_size)
            return board_uuids(self.gpus) if is_asked else []
        except Exception as error:  # noqa: BLE001 - the other ranks wait for the answer
            self._run.warn_once.failed("finding the boards in use", error)
            return []

    def _open_share(
        self, trainer: Any, pl_module: Any, share: Share, presence: Presence, ranks: Rendezvous | None
    ) -> tuple[Exception | None, list[str] | None]:
        """Open what this process reads and agree with the others; a failure is returned once they have been answered."""
        devices: Sequence[Device] = ()
        failure: Exception | None = None
        own: list[str] = []
        try:
            if share.reads:
                devices = self._open(trainer, pl_module, share)
            elif ranks is not None and (own := ranks.boards_unseen(presence.boards, share)):
                devices = self._open(trainer, pl_module, share, own)
        except Exception as error:  # noqa: BLE001 - raised again once the other ranks have been answered
            failure = error
        if ranks is None:
            return failure, []
        measured = {device.label: device.uuid for device in devices if device.provenance == "measured"}
        opened = Opened(
            rank=presence.rank,
            host=presence.host,
            session=self._session.id if self._session is not None else "",
            devices=measured,
            estimates=len(devices) - len(measured),
        )
        leaves = ranks.agree(opened, reads=bool(devices))
        self._nodes = Nodes(ranks.store, presence.rank, ranks.arrangement, ranks.agreement)
        self._publisher.set_budget(ranks.arrangement.budget_kwh)
        if self.budget_kwh is not None and ranks.arrangement.budget_kwh is None and presence.rank == 0:
            ranks.problems.append("So the budget is not kept: one rank cannot stop the training for all.")
        if ranks.problems:
            run = self._run
            run.warn_once.warn(" ".join(ranks.problems), "ranks")
            run.unknown += [problem for problem in ranks.problems if problem not in run.unknown]
        return failure, leaves

    @staticmethod
    def _keep(meter: EnergyMeter, leaves: Sequence[str]) -> bool:
        meter.leave_out(leaves)
        return bool(meter.devices)

    def _open(self, trainer: Any, pl_module: Any, share: Share, own: Sequence[str] = ()) -> Sequence[Device]:
        run = self._run
        run.hardware = facts.hardware_facts(trainer)
        run.model = facts.model_facts(pl_module)
        run.software = facts.software_facts(trainer)
        run.inherit(facts.inherited_paths(pl_module))
        return self._open_sources(trainer, share, own)

    def _open_sources(self, trainer: Any, share: Share, own: Sequence[str] = ()) -> Sequence[Device]:
        """Open what this process reads; nothing is charged yet.

        Args:
            trainer: the Trainer.
            share: what it reads of its node.
            own: boards that only it sees; then it reads those and nothing else.
        """
        run = self._run
        marker, instead = marker_for(trainer.strategy.root_device)
        run.marks = marker.kind
        required = self.gpus != "auto"  # only who named a board can have named a wrong one
        gpus = self.gpus if required else share.boards
        if self.idle_s and run.idle is None:
            self._measure_idle(EnergyMeter(gpus, self.sources, self.interval, processes=share.processes, required=required))
        self._session = self._session or Session()
        sources = [NvmlSource(own, required=False, processes=share.processes)] if own else self.sources
        meter = self._meter = EnergyMeter(
            gpus, sources, self.interval, marker=marker, processes=share.processes, required=required
        )
        devices = meter.open()
        # A board that this process does not see is read by the rank that uses it, or told by it.
        others = {board for board in share.boards if board not in share.mine}
        missing = [reason for reason in meter.missing if reason.device not in others]
        run.missing = [str(reason) for reason in missing] + ([instead] if instead else [])
        # Asked for: the user's own sources, boards that were named, and those that the Trainer computes on.
        boards = bool(share.boards) or self.gpus not in ("auto", "visible")
        for reason in missing:
            if not isinstance(self.sources, str) or (boards and reason.source == "nvml"):
                run.warn_once.warn(str(reason))
        return devices

    def _measure_idle(self, meter: EnergyMeter) -> None:
        try:
            self._run.idle = measure_idle(meter, self.idle_s)
        except ArgumentError:
            raise
        except WattError as error:
            self._run.warn_once.warn(f"The idle power is not known: {error}", "idle")

    @override
    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Settle everything, log it, write the record, print the table."""
        if self._nested:
            self._nested -= 1
            return
        self._finish(trainer, "completed")

    @override
    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """The same, for a run that was stopped."""
        stopped = isinstance(exception, (KeyboardInterrupt, SystemExit)) or "SIGTERM" in type(exception).__name__
        self._finish(trainer, "interrupted" if stopped else "failed")

    @never_raise
    def _finish(self, trainer: Any, status: Status) -> None:
        # Each step is guarded by itself, so that what fails in one takes nothing of the others; what is kept comes first.
        self._trains, self._nested = False, 0
        self._monitors.end()
        if status != "completed" and self._nodes is not None:
            self._nodes.leave()
        self._restored = None  # of a checkpoint that a test or a prediction loaded, and no fit took
        session, meter = self._session, self._meter
        if session is None or meter is None:
            return
        self._run.status = status
        self._end_session(session, meter)
        self._meter = None
        self._note_end(session, meter, status)
        self._end_together(status)
        record = self._last_record(session)
        self._log_last(trainer, session, record)
        self._print_last(trainer, record)

    @never_raise
    def _end_session(self, session: Session, meter: EnergyMeter) -> None:
        try:
            session.end()
        finally:
            meter.stop()  # whatever has failed before it, the reader ends

    @never_raise
    def _note_end(self, session: Session, meter: EnergyMeter, status: Status) -> None:
        if self._scribe is not None:
            self._scribe.journal(session.line(status))
        for snapshot in session.ready:
            self._run.foresee(snapshot.forecast)
        self._say_complaints(meter)
        if status == "completed" and self._train_batches:
            warn_of_missing_accuracy(self._run, self.accuracy)

    def _last_record(self, session: Session) -> Record | None:
        scribe, self._scribe = self._scribe, None
        try:
            record = self._run.to_record(session, self.scoring)
            if scribe is not None:
                scribe.record(record)
        except Exception as error:  # noqa: BLE001 - nothing of ours may stop a training
            self._run.warn_once.failed("the last record", error)
            return None
        else:
            return record
        finally:
            if scribe is not None:
                scribe.close()

    @never_raise
    def _log_last(self, trainer: Any, session: Session, record: Record | None) -> None:
        warn_once = self._run.warn_once
        self._publisher.catch_up(trainer, session, self._run)
        if trainer.is_global_zero:
            if record is not None:
                log_record(trainer.loggers, record, facts.logger_step(trainer), warn_once)
            self._table.end(trainer, warn_once)

    @never_raise
    def _print_last(self, trainer: Any, record: Record | None) -> None:
        directory = self._run.directory
        if self._leads and record is not None:
            facts.stop_live_bar(trainer)
            print_summary(record, str(directory / RECORD_NAME) if self.record and directory is not None else "")

    @never_raise
    def _end_together(self, status: Status) -> None:
        session, nodes, run = self._session, self._nodes, self._run
        if session is not None and nodes is not None and nodes.many:
            end_together(nodes, session, run, status, lambda: self._write_record(session))

    def _write_record(self, session: Session) -> None:
        if self._scribe is not None:
            self._scribe.record(self._run.to_record(session, self.scoring))

    # -- the hooks that note where the training is --

    def _enter(self, stage: str, trainer: Any) -> None:
        self._is_set_up = True
        if self._session is not None:
            self._session.switch(Account(stage, int(trainer.current_epoch)))

    @override
    @never_raise
    def on_sanity_check_start(self, trainer: Any, pl_module: Any) -> None:
        self._enter("sanity_check", trainer)

    @override
    @never_raise
    def on_sanity_check_end(self, trainer: Any, pl_module: Any) -> None:
        self._enter("other", trainer)

    @override
    @never_raise
    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self._is_set_up = True
        self._take_restored(trainer)

    @override
    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        # Two steps: whatever fails in the first, every rank comes to the second, where they speak with each other.
        self._start_training(trainer)
        if self._publisher.budget is not None:  # over several ranks it is the same on all of them
            self._publish(trainer)

    @never_raise
    def _start_training(self, trainer: Any) -> None:
        self._trains = True
        self._take_restored(trainer)  # of strategies that restore only after `on_fit_start`
        self._enter("train", trainer)
        measures = bool(self._meter.devices) if self._meter is not None else not trainer.is_global_zero
        used_j = self._session.energy_j if self._session is not None else 0.0
        self._monitors.begin(trainer, self._run.warn_once, self.scoring, used_j=used_j, measures=measures)

    @override
    @never_raise
    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._close_train_epoch(trainer)
        self._enter("train", trainer)

    @override
    @never_raise
    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._end_epoch(trainer, "train", then="train")

    @override
    @never_raise
    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._trains = False
        self._close_train_epoch(trainer)
        self._enter("other", trainer)

    @override
    @never_raise
    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self._enter("validate", trainer)

    @override
    @never_raise
    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self._end_epoch(trainer, "validate", then="train" if trainer.state.fn == "fit" else "other")

    @override
    @never_raise
    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        self._enter("test", trainer)

    @override
    @never_raise
    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        self._end_epoch(trainer, "test", then="other")

    @override
    @never_raise
    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        self._enter("predict", trainer)

    @override
    @never_raise
    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        self._end_epoch(trainer, "predict", then="other")

    def _end_epoch(self, trainer: Any, stage: str, then: str) -> None:
        # Two steps: whatever fails in the first, every rank comes to the second, where they speak with each other.
        self._close_epoch(trainer, stage, then)
        self._publish(trainer)

    @never_raise
    def _close_epoch(self, trainer: Any, stage: str, then: str) -> None:
        session = self._session
        if session is None:
            return
        if stage != "predict":
            look_for_accuracy(self._run, trainer_metrics.computed(trainer), self.accuracy, stage)
        if stage == "train":
            self._epoch_open = True  # Lightning computes its metrics only after this hook
        else:
            session.note(self._log_point(trainer))
        session.end_epoch(self._run.metric.last, facts.logger_step(trainer))
        if then != stage:
            self._enter(then, trainer)
        self._catch_up(trainer)

    def _close_train_epoch(self, trainer: Any) -> None:
        """Take the training epoch's own metrics, which Lightning has computed by now, after the module's own hook."""
        before = self._run.metric.last
        look_for_accuracy(self._run, trainer_metrics.computed(trainer), self.accuracy, "train")
        session, was_open = self._session, self._epoch_open
        self._epoch_open = False
        if session is None or not was_open:
            return
        session.note(self._log_point(trainer))
        if self._run.metric.last != before:
            session.end_epoch(self._run.metric.last, facts.logger_step(trainer))

    # -- the hooks of every batch --

    @override
    @never_raise
    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        session = self._session
        if self._publisher.budget is not None:
            self._publisher.budget.mind(trainer, self._run.warn_once)
        if session is None:
            return
        self._train_batches += 1
        self._count(trainer, session, batch, batch_idx)
        if self._train_batches % self._every == 0:
            look_for_accuracy(self._run, trainer_metrics.computed(trainer), self.accuracy, "train", may_wait=False)
            session.note(self._log_point(trainer))

    @override
    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._start_part("forward")

    @override
    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        self._start_part("backward")

    @override
    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self._start_part("optimizer")

    def _start_part(self, part: str) -> None:
        if not self.batches or self._session is None:
            return
        try:
            self._session.note(StepPartStart(part))
        except Exception as error:  # noqa: BLE001 - nothing of ours may stop a training
            self._run.warn_once.failed(part, error)

    def _count(self, trainer: Any, session: Session, batch: Any, batch_idx: int) -> None:
        session.batches += 1
        session.samples += facts.batch_size(batch) * self._replicas
        if self.batches:
            session.note(BatchEnd(session.account, batch_idx, session.batches, session.samples))
        if session.news:
            self._catch_up(trainer)

    @override
    @never_raise
    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self._session is not None:
            self._count(trainer, self._session, batch, batch_idx)

    on_test_batch_end = on_validation_batch_end
    on_predict_batch_end = on_validation_batch_end

    # -- checkpoints --

    @override
    def state_dict(self) -> dict[str, Any]:
        """The energy so far and what was inherited, in plain values that load without running code."""
        # Not before the run has begun: the tuners save then and restore while all callbacks are out, and Lightning warns of
        # every callback that had a state.
        if self._session is None or not self._is_set_up:
            return {}
        inherited = [{"path": run.path, "total_j": run.total_j} for run in self._run.inherited]
        metric = self._run.metric
        return {
            "session": self._session.state_dict(),
            "inherited": inherited,
            "accuracy": {"metric": metric.metric, "last": metric.last, "best": metric.best},
            "directory": str(self._run.directory.absolute()) if self._run.directory is not None else "",
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep what a resumed run has used before; it is added when the training starts."""
        self._restored = state_dict or None

    def _take_restored(self, trainer: Any) -> None:
        restored, self._restored = self._restored, None
        if restored is not None and self._session is not None:
            go_on(self._session, self._run, restored, trainer.ckpt_path, adds=self._leads)
            self._recorded = False  # so that the record soon says whose run this one goes on with

    # -- what the trainer's thread does with what was settled --

    def _log_point(self, trainer: Any) -> LogPoint:
        session = self._session
        assert session is not None
        fitting = trainer.state.fn == "fit"
        return LogPoint(
            step=facts.logger_step(trainer),
            epoch=int(trainer.current_epoch),
            accuracy=self._run.metric.last,
            batches=session.batches,
            samples=session.samples,
            ahead=facts.batches_ahead(trainer) if fitting else {},
            trained=facts.batches_trained(trainer) if fitting else 0,
            per_batch=not (fitting and session.account.stage == "validate"),
        )

    def _catch_up(self, trainer: Any) -> None:
        if self._session is not None and self._meter is not None:
            self._say_complaints(self._meter)
            self._publisher.catch_up(trainer, self._session, self._run)

    @never_raise
    def _meet(self) -> None:
        if self._nodes is not None and self._nodes.many:
            meet_readers(self._nodes, self._session, self._run, measures=self._meter is not None)

    def _publish(self, trainer: Any) -> None:
        self._meet()
        measuring = self._session if self._meter is not None else None
        self._give_values(trainer, measuring)

    @never_raise
    def _give_values(self, trainer: Any, session: Session | None) -> None:
        self._publisher.publish(trainer, session, self._run, self._log_point, self._nodes)
        self._monitors.fill(trainer, self._run.warn_once)

    # -- what the meter's thread does with it --

    def _write(self, rows: Sequence[BatchRow], epoch_over: bool) -> None:
        session, scribe = self._session, self._scribe
        if session is None or scribe is None:
            return
        if not self._is_set_up and monotonic() < self._writes_from_s:
            return
        scribe.journal(session.line())
        scribe.batches(rows)
        if epoch_over or not self._recorded:
            self._recorded = True
            scribe.record(self._run.to_record(session, self.scoring))

    def _end_leftover(self) -> None:
        """End a run whose Trainer never told us its end, before the next one begins."""
        if self._meter is not None and self._session is not None:
            self._session.end()
            self._end_alone()
            self._meter = None

    def _end_alone(self) -> None:
        """The Trainer has ended and did not come to us; what is known is kept, as of a training that failed."""
        session, scribe, self._scribe = self._session, self._scribe, None
        self._run.status = "failed"
        if session is None or scribe is None:
            return
        try:
            scribe.journal(session.line("failed"))
            scribe.record(self._run.to_record(session, self.scoring))
        finally:
            scribe.close()

    # -- words --

    def _say_complaints(self, meter: EnergyMeter) -> None:
        while meter.complaints:
            self._run.warn_once.warn(meter.complaints.popleft())
