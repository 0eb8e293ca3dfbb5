"""The beginning of a run: meet the other ranks, agree who reads what, open the sources, measure idle power, start.

Idle power is what the devices draw while nothing runs. It stands beside the run's energy and is neither in it nor taken off
it: a run pays for the board that it keeps awake.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from lightning_watt.accounts.ledger import Account
from lightning_watt.distributed.nodes import Nodes
from lightning_watt.distributed.ranks import Opened, Presence, Share, is_alone
from lightning_watt.distributed.rendezvous import OPEN_LIMIT_S, Rendezvous
from lightning_watt.errors import ArgumentError, SourceUnavailable, WattError
from lightning_watt.host import host_id
from lightning_watt.meter.marks import marker_for
from lightning_watt.meter.meter import EnergyMeter
from lightning_watt.record.claim import RunFiles
from lightning_watt.record.files import first_free
from lightning_watt.record.read import Heading
from lightning_watt.record.remote import RemoteCopy, is_remote
from lightning_watt.record.schema import Idle
from lightning_watt.record.writer import RunWriter
from lightning_watt.run.resume import holds
from lightning_watt.run.session import Session
from lightning_watt.run.totals import Place
from lightning_watt.settings import NAMES, Settings
from lightning_watt.sources.base import Device
from lightning_watt.sources.discover import board_uuids
from lightning_watt.sources.nvml import NvmlSource
from lightning_watt.trainer import facts
from lightning_watt.trainer.ending import Abandoned
from lightning_watt.trainer.measured_run import MeasuredRun
from lightning_watt.trainer.monitors import place

SET_UP_S = 2.0
"""Files are written once every callback was set up, because ModelCheckpoint warns there of a directory that is not empty; or
after this, because a tuner's trial is over before our next hook and may take an hour."""
NOT_COMPARED = ("gpus", "sources", "idle_s", "summary")
"""Settings that may differ between ranks: each rank may see boards of its own."""


class Setup:
    """Begins a run, once for each fit, validation, test or prediction.

    Args:
        run: takes what is opened here.
        trainer: the Trainer.
        module: its module.
        ranks_limit_s: seconds that the ranks wait for each other.
        instead: gives the settings to go on with if `gpus` names a board that is not there; or raises that error.
    """

    def __init__(
        self,
        run: MeasuredRun,
        trainer: Any,
        module: Any,
        ranks_limit_s: float,
        instead: Callable[[ArgumentError], Settings],
    ) -> None:
        self._run = run
        self._trainer = trainer
        self._module = module
        self._ranks_limit_s = ranks_limit_s
        self._instead = instead

    def begin(self, callback: Any) -> None:
        """Open what this process reads, and start to measure.

        Args:
            callback: ours, as it stands among the Trainer's.

        Raises:
            ArgumentError: `gpus` names a board that is not there, or two sources read one device.
            WattError: nothing can be measured.
        """
        run, trainer = self._run, self._trainer
        place(trainer, callback)
        ranks = None if is_alone(trainer.world_size) else self._meet_ranks()
        presence = self._presence()
        if ranks is None:
            share = Share(reads=True, reader=presence.rank, boards=presence.boards, mine=presence.boards)
            said, version = presence.directory, None
        else:
            share = ranks.arrange(presence, trainer.local_rank)
            said, version = ranks.arrangement.directory, ranks.arrangement.version
        if run.state.directory is not None and said != (run.state.remote or str(run.state.directory)):
            run.forget()  # another Trainer, another run
        state = run.state
        state.status, state.interval_s = "running", run.settings.interval
        if is_remote(said):
            state.remote = said
        state.directory = state.directory or Path(said)
        run.is_set_up, run.writes_from_s = False, monotonic() + SET_UP_S
        run.every = run.settings.log_every_n_steps or max(1, trainer.log_every_n_steps)
        run.replicas = facts.replicas(trainer)
        run.counting.begin()
        failure, leaves = self._open_share(share, presence, ranks)
        if failure is not None:
            raise failure
        session, meter = run.session, run.meter
        if session is None or meter is None:
            return
        leads = run.leads
        counts_others = leads and run.nodes is not None and run.nodes.many
        # Other processes count all of them; the one that leads goes on without a device, for the record of the others'.
        if leaves is None or not (_keep(meter, leaves) or counts_others):
            run.session = run.meter = None
            return
        if run.nodes is not None:
            session.place = Place(run.nodes.run, run.nodes.rank, run.nodes.node)
            session.spans.expect_others(run.nodes.many)
        if run.settings.record and not facts.is_rehearsal(trainer):
            self._open_files(meter, 0 if leads else trainer.global_rank, version)
        session.on_settled = run.write
        session.begin(meter, Account("other", 0), abandoned=Abandoned(trainer, callback), on_abandoned=run.end_alone)
        run.tuners.begin(trainer.callbacks, session, state.warn_once)
        if trainer.is_global_zero:
            run.table.begin(trainer, self._module, state.warn_once)

    def _open_files(self, meter: EnergyMeter, rank: int, version: int | None) -> None:
        run, state = self._run, self._run.state
        if state.files is None and state.remote:
            try:
                copy = RemoteCopy(state.remote, rank)
            except OSError as error:
                state.warn_once.warn(f"No file of this run is written: there is no local place for it ({error}).", "files")
                return
            state.directory = copy.directory
            state.files = RunFiles(copy.directory, rank, goes_on=self._may_replace, copy=copy)
        elif state.files is None and state.directory is not None:
            state.files = RunFiles(state.directory, rank, version, self._may_replace)
        if state.files is not None:
            run.writer = RunWriter(state.files, meter.complaints.append)

    def _may_replace(self, heading: Heading) -> bool:
        session = self._run.session
        return session is not None and holds(session, heading, adds=self._run.leads)

    # -- the other ranks ----------------------------------------------------------------------------------------------

    def _meet_ranks(self) -> Rendezvous:
        trainer, limit_s = self._trainer, OPEN_LIMIT_S + self._run.settings.idle_s
        return Rendezvous.of_this_process(trainer.global_rank, trainer.world_size, self._ranks_limit_s, limit_s)

    def _presence(self) -> Presence:
        trainer, settings = self._trainer, self._run.settings
        directory = facts.run_directory(trainer)
        return Presence(
            rank=trainer.global_rank,
            host=host_id(),
            node=trainer.node_rank,
            pid=os.getpid(),
            boards=self._boards(),
            directory=directory,
            version=0 if is_alone(trainer.world_size) or is_remote(directory) else first_free(Path(directory)),
            budget_kwh=settings.budget_kwh,
            arguments=compared(settings),
        )

    def _boards(self) -> list[str]:
        """The boards that this rank uses, or is asked to measure; several ranks may not all see the same ones."""
        trainer, settings = self._trainer, self._run.settings
        try:
            if settings.gpus == "auto":
                return facts.boards_in_use(trainer)
            is_asked = isinstance(settings.sources, str) and not is_alone(trainer.world_size)
            return board_uuids(settings.gpus) if is_asked else []
        except Exception as error:  # noqa: BLE001 - the other ranks wait for the answer
            self._run.state.warn_once.failed("finding the boards in use", error)
            return []

    def _open_share(
        self, share: Share, presence: Presence, ranks: Rendezvous | None
    ) -> tuple[Exception | None, list[str] | None]:
        """Open what this process reads and agree with the others; a failure is returned once they have been answered."""
        run = self._run
        devices: Sequence[Device] = ()
        failure: Exception | None = None
        own: list[str] = []
        try:
            if share.reads:
                devices = self._open(share)
            elif ranks is not None and (own := ranks.boards_unseen(presence.boards, share)):
                devices = self._open(share, own)
        except Exception as error:  # noqa: BLE001 - raised again once the other ranks have been answered
            failure = error
        if ranks is None:
            return failure, []
        measured = {device.label: device.uuid for device in devices if device.provenance == "measured"}
        opened = Opened(
            rank=presence.rank,
            host=presence.host,
            session=run.session.id if run.session is not None else "",
            devices=measured,
            estimates=[device.label for device in devices if device.provenance == "estimated"],
            asked=run.settings.sources != "auto",
        )
        leaves = ranks.agree(opened, reads=bool(devices))
        run.nodes = Nodes(ranks.store, presence.rank, ranks.arrangement, ranks.agreement)
        run.publisher.set_budget(ranks.arrangement.budget_kwh)
        if run.settings.budget_kwh is not None and ranks.arrangement.budget_kwh is None and presence.rank == 0:
            ranks.problems.append("So the budget is not kept: one rank cannot stop the training for all.")
        if run.leads and (sentence := ranks.of_unmeasured()):
            run.state.missing.append(sentence)
        if ranks.problems:
            state = run.state
            state.warn_once.warn(" ".join(ranks.problems), "ranks")
            state.unknown += [problem for problem in ranks.problems if problem not in state.unknown]
        return failure, leaves

    # -- the sources --------------------------------------------------------------------------------------------------

    def _open(self, share: Share, own: Sequence[str] = ()) -> Sequence[Device]:
        state, trainer = self._run.state, self._trainer
        state.hardware = facts.hardware_facts(trainer)
        state.model = facts.model_facts(self._module, trainer.datamodule)
        state.software = facts.software_facts(trainer)
        state.inherit(facts.inherited_paths(self._module))
        try:
            return self._open_sources(share, own)
        except ArgumentError as error:
            self._run.settings = self._instead(error)
            return self._open_sources(share, own)

    def _open_sources(self, share: Share, own: Sequence[str]) -> Sequence[Device]:
        """Open what this process reads; nothing is charged yet.

        Args:
            share: what it reads of its node.
            own: boards that only it sees; then it reads those and nothing else.
        """
        run, settings = self._run, self._run.settings
        marker, instead = marker_for(self._trainer.strategy.root_device)
        run.state.marks = marker.kind
        required = settings.gpus != "auto"  # only who named a board can have named a wrong one
        gpus = settings.gpus if required else share.boards
        others, interval = share.processes, settings.interval
        if settings.idle_s and run.state.idle is None:
            self._measure_idle(EnergyMeter(gpus, settings.sources, interval, processes=others, required=required))
        run.session = run.session or Session()
        sources = [NvmlSource(own, required=False, processes=others)] if own else settings.sources
        run.meter = EnergyMeter(gpus, sources, interval, marker=marker, processes=others, required=required)
        devices = run.meter.open()
        missing = missing_here(run.meter.missing, share)
        run.state.missing = [str(reason) for reason in missing] + ([instead] if instead else [])
        for reason in missing:
            if is_asked_for(reason, settings, share):
                run.state.warn_once.warn(str(reason))
        return devices

    def _measure_idle(self, meter: EnergyMeter) -> None:
        try:
            self._run.state.idle = measure_idle(meter, self._run.settings.idle_s)
        except ArgumentError:
            raise
        except WattError as error:
            self._run.state.warn_once.warn(f"The idle power is not known: {error}", "idle")


def compared(settings: Settings) -> str:
    """The settings that must be the same on all ranks, as text.

    Example:
        >>> compared(Settings(interval=2.0)) == compared(Settings(gpus=[0], interval=2.0)) != compared(Settings())
        True
    """
    return repr(sorted((name, getattr(settings, name)) for name in NAMES if name not in NOT_COMPARED))


def missing_here(missing: Sequence[SourceUnavailable], share: Share) -> list[SourceUnavailable]:
    """What is missing here, without the boards that another rank uses: that rank reads or reports them."""
    others = {board for board in share.boards if board not in share.mine}
    return [reason for reason in missing if reason.device not in others]


def is_asked_for(reason: SourceUnavailable, settings: Settings, share: Share) -> bool:
    """Whether the user asked for what is missing: own sources, named boards, or those that the Trainer computes on."""
    boards = bool(share.boards) or settings.gpus not in ("auto", "visible")
    return not isinstance(settings.sources, str) or (boards and reason.source == "nvml")


def measure_idle(meter: EnergyMeter, seconds: float) -> Idle:
    """Wait, and return what was drawn meanwhile.

    Args:
        meter: one that has not been started, on the devices that the run will use.
        seconds: how long to wait.

    Raises:
        WattError: nothing could be read.
        ValueError: the meter's arguments name what is not there.

    Example:
        >>> from lightning_watt.sources.replay import ReplaySource
        >>> board = ReplaySource({"gpu0": [(0, 0), (60, 1800.0)]})  # 30 W
        >>> list(measure_idle(EnergyMeter(sources=[board]), 0.1).power_w)
        ['gpu0']
    """
    with meter, meter.window("idle") as window:
        sleep(seconds)
    passed_s = window.seconds
    return Idle(seconds=passed_s, power_w={label: joules / passed_s for label, joules in window.by_device.items()})


def _keep(meter: EnergyMeter, leaves: Sequence[str]) -> bool:
    meter.leave_out(leaves)
    return bool(meter.devices)
