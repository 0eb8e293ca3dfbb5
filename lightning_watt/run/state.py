"""What a run's record says beside its energy: status, accuracy, lineage, machine; and the record made of it all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import time as unix_time
from typing import Any

import msgspec

from lightning_watt.accounts.forecast import Forecast
from lightning_watt.errors import WattError
from lightning_watt.origin.slurm import slurm_joules
from lightning_watt.record.claim import RunFiles
from lightning_watt.record.record import Record
from lightning_watt.record.schema import SCHEMA_VERSION, Accuracy, Idle, Inherited, Sam, Status
from lightning_watt.run.lineage import energy_of, inherited_of
from lightning_watt.run.session import Session
from lightning_watt.run.totals import record_energy, record_epochs, record_nodes
from lightning_watt.sam.score import Scoring
from lightning_watt.units import joules, kwh
from lightning_watt.warn_once import WarnOnce


@dataclass
class RunState:
    """What is known about a run.

    Attributes:
        warn_once: the warnings that were given.
        directory: the run's log directory on this machine.
        files: its files there; None if none are written.
        remote: the URL of the directory that its files are copied to; empty if there is none.
        status: where the run stands.
        metric: its accuracy.
        seen_metrics: names of all metrics that were logged.
        last_names: the names at the last look, our own among them.
        inherited: the runs that it started from.
        hardware: the machine.
        model: the model.
        software: the versions.
        missing: what could not be measured, why, and the remedy.
        budget_kwh: what its training may use; None for no limit.
        forecast_kwh: the last forecast; None if the end of the schedule is not known.
        forecast_uncertainty_kwh: half the width of its 95 % interval; None if that is not known yet.
        idle: what the devices drew before the run, if that was measured.
        marks: what a batch's edge is: `host` time or `cuda-events`.
        interval_s: seconds between two lines of the journal.
        slurm_j: joules that the cluster counted for the job; None if it was not asked, or does not know.
        unknown: what is missing of earlier parts of this run.
        silent_nodes: sentences about nodes that did not report their end.
    """

    warn_once: WarnOnce = field(default_factory=WarnOnce)
    directory: Path | None = None
    files: RunFiles | None = None
    remote: str = ""
    status: Status = "running"
    metric: Accuracy = field(default_factory=Accuracy)
    seen_metrics: set[str] = field(default_factory=set)
    last_names: tuple[str, ...] = ()
    inherited: list[Inherited] = field(default_factory=list)
    hardware: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    software: dict[str, Any] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    budget_kwh: float | None = None
    forecast_kwh: float | None = None
    forecast_uncertainty_kwh: float | None = None
    idle: Idle | None = None
    marks: str = "host"
    interval_s: float = 0.0
    slurm_j: float | None = None
    unknown: list[str] = field(default_factory=list)
    silent_nodes: list[str] = field(default_factory=list)

    def warn_missing(self, sentence: str) -> None:
        """Warn of what is missing from the total, once, and keep it for the record."""
        self.warn_once.warn(sentence)
        if sentence not in self.unknown:
            self.unknown.append(sentence)

    def note_forecast(self, forecast: Forecast | None) -> None:
        """Note a forecast; without one the last stays, also during a test after the fit."""
        if forecast is not None:
            self.forecast_kwh = kwh(forecast.joules)
            self.forecast_uncertainty_kwh = kwh(forecast.plus_minus_j) if math.isfinite(forecast.plus_minus_j) else None

    def inherit(self, paths: Iterable[str | Path]) -> None:
        """Add the energy of what the run started from; a path that cannot be read is reported, and is not zero."""
        for path in paths:
            try:
                self.inherit_known([energy_of(path).to_inherit(str(path))])
            except WattError as error:
                self.warn_once.warn(f"What this run inherits is not known: {error}", f"inherit {path}")

    def inherit_known(self, runs: Iterable[Inherited]) -> None:
        """Add runs whose energy is known, each once."""
        known = {run.path for run in self.inherited}
        self.inherited += [run for run in runs if run.path not in known]

    def ask_cluster(self) -> None:
        """In a Slurm job, ask what the cluster counted for it, which takes some seconds at most."""
        job = self.hardware.get("slurm_job_id")
        if job is not None:
            self.slurm_j = slurm_joules(str(job))

    def inherited_to_save(self) -> list[dict[str, Any]]:
        """The runs that it started from, for a checkpoint: plain values."""
        return [msgspec.structs.asdict(run) for run in self.inherited]

    def inherit_saved(self, state: Mapping[str, Any]) -> None:
        """Add what a checkpoint says that its run started from.

        Raises:
            ValueError: it says something else.
        """
        self.inherit_known(inherited_of(state.get("inherited", ())))

    def to_record(self, session: Session, scoring: Scoring) -> Record:
        """The record as of now."""
        totals = session.totals()
        energy = record_energy(totals)
        own_j = energy.total_j or 0.0
        value, shifted = scoring.sam(self.metric.last, own_j)
        spread, shifted_spread = scoring.sam_plus_minus(self.metric.last, own_j, energy.uncertainty_j or 0.0)
        whole_value, whole_shifted = scoring.sam(self.metric.last, own_j + sum(run.total_j for run in self.inherited))
        return Record(
            schema_version=SCHEMA_VERSION,
            status=self.status,
            energy=energy,
            accuracy=self.metric,
            sam=Sam(
                alpha=scoring.alpha,
                beta=scoring.beta,
                unit=scoring.unit,
                value=value,
                shifted=shifted,
                uncertainty=spread,
                shifted_uncertainty=shifted_spread,
                value_with_inherited=whole_value,
                shifted_with_inherited=whole_shifted,
            ),
            epochs=record_epochs(totals),
            parts=dict(totals.step_parts) if len(totals.step_parts) > 1 else {},  # only if they were marked
            inherited=list(self.inherited),
            hardware=self.hardware,
            model=self.model,
            software=self.software,
            session=totals.session,
            marks=self.marks,
            started_unix=totals.started_unix,
            updated_unix=unix_time(),
            interval_s=self.interval_s,
            run=totals.place.run or totals.session,
            nodes=record_nodes(totals),
            resumes=list(totals.others.counted),
            resumed_j=joules(totals.others.resumed_uj),
            wasted_j=joules(totals.others.wasted_uj),
            lost=list(totals.others.lost),
            pue=scoring.pue,
            carbon_intensity=scoring.carbon.g_per_kwh if scoring.carbon is not None else None,
            carbon_source=scoring.carbon.source if scoring.carbon is not None else "",
            country=scoring.carbon.country if scoring.carbon is not None else "",
            co2e_g=scoring.co2e_g(own_j),
            electricity_price=scoring.electricity_price,
            cost=scoring.cost(own_j),
            idle=self.idle,
            slurm_j=self.slurm_j,
            budget_kwh=self.budget_kwh,
            forecast_kwh=self.forecast_kwh,
            forecast_uncertainty_kwh=self.forecast_uncertainty_kwh,
            gaps=totals.all_gaps(),
            missing=[*self.missing, *self.unknown, *self.silent_nodes, *totals.others.nodes.missing],
            warnings=list(self.warn_once.said.values()),
        )
