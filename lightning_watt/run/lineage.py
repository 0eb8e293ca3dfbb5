"""What a checkpoint or a run directory has cost, with everything that it started from."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from lightning_watt.accounts.ledger import Ledger
from lightning_watt.errors import RecordError
from lightning_watt.record.files import BESIDE, check_regular, place_of, version_of
from lightning_watt.record.plus_minus import PlusMinus, plus_minus, together
from lightning_watt.record.read import read_record, read_records
from lightning_watt.record.record import Record
from lightning_watt.record.remote import as_local, at_hand, is_remote
from lightning_watt.record.schema import Inherited
from lightning_watt.sources.base import Device, Gap
from lightning_watt.units import joules, kwh

STATE_KEY = "WattCallback"
"""Lightning's key for the callback's state in a checkpoint."""


@dataclass(frozen=True)
class CarriedEnergy:
    """The energy that a checkpoint or a run carries.

    Attributes:
        path: what was asked about.
        own_j: joules of the run itself, up to the checkpoint.
        inherited: the runs that it started from, each with its own inheritance included.
        own: what is uncertain of `own_j`; None if that is not known.
    """

    path: Path | str
    own_j: float
    inherited: tuple[Inherited, ...] = ()
    own: PlusMinus | None = None

    @property
    def total_j(self) -> float:
        """Joules, own and inherited."""
        return self.own_j + sum(run.total_j for run in self.inherited)

    @property
    def total_kwh(self) -> float:
        """Kilowatt-hours, own and inherited."""
        return kwh(self.total_j)

    @property
    def plus_minus(self) -> PlusMinus | None:
        """What is uncertain of `total_j`; None if that is not known."""
        return together([self.own, *(plus_minus(run) for run in self.inherited if run.total_j)])

    def to_inherit(self, path: str) -> Inherited:
        """What the record of a run that starts from this one holds of it.

        Args:
            path: what that run calls it.
        """
        known = self.plus_minus
        inherited = Inherited(path=path, total_j=self.total_j)
        if known is not None:
            inherited.uncertainty_j, inherited.boundary_j, inherited.gain_j = known.total_j, known.boundary_j, known.gain_j
        return inherited

    def __float__(self) -> float:
        return self.total_j


def energy_of(path: str | os.PathLike[str]) -> CarriedEnergy:
    """The energy that a checkpoint or run directory carries, with all it inherited.

    If several runs wrote to the directory (`watt.json`, `watt-v1.json`, ...), it is the sum over all of them. Each joule is
    in it once, also where one of them went on from another one's checkpoint, or inherits from it.

    Args:
        path: a Lightning checkpoint of a run with `WattCallback`, the log directory of one run or several, or one record in
            it; or a URL of one of these, which is read through fsspec. Checkpoints are loaded with `weights_only=True`, so
            nothing in them is executed.

    Returns:
        Own, inherited and total joules.

    Raises:
        RecordError: there is no such file, it holds no energy, or it cannot be read safely.

    Example:
        >>> energy_of("runs/pretrain/checkpoints/last.ckpt").total_j  # doctest: +SKIP
        48211.3
    """
    asked = os.fspath(path) if is_remote(os.fspath(path)) else Path(as_local(os.fspath(path)))
    with at_hand(path) as file:
        if file.is_dir():
            return _energy_in(file, asked)
        if file.suffix == ".json":
            record = read_record(file)
            return CarriedEnergy(asked, _measured_j(file, [record]), tuple(record.inherited), plus_minus(record.energy))
        return _energy_in_checkpoint(file, asked)


def energy_below(root: Path, records: Sequence[Record]) -> CarriedEnergy:
    """The energy of all runs in a directory and below it, each joule once.

    Args:
        root: the directory.
        records: the records of the runs there (`records_below`).

    Raises:
        RecordError: none of the runs measured anything.
    """
    inherited = {run.path: run for record in records for run in record.inherited}
    outside = [run for path, run in inherited.items() if not Path(path).absolute().is_relative_to(root.absolute())]
    own_j = _measured_j(root, records)
    return CarriedEnergy(root, own_j, tuple(outside), _plus_minus(own_j, records))


# -- a checkpoint -----------------------------------------------------------------------------------------------------


def _energy_in_checkpoint(file: Path, asked: Path | str) -> CarriedEnergy:
    state = _callback_state(file)
    ledger = Ledger()
    try:
        own_uj = ledger.absorb([*state["session"]["ledger"], *state["session"].get("ahead", [])])
        inherited = inherited_of(state["inherited"])
        own = _plus_minus_in(state["session"], ledger)
    except (KeyError, TypeError, ValueError, OverflowError, msgspec.ValidationError) as error:
        raise RecordError(f"{file}: the energy in this checkpoint is broken: {error}.") from error
    return CarriedEnergy(asked, joules(own_uj), inherited, own)


def inherited_of(saved: Any) -> tuple[Inherited, ...]:
    """What the callback's state in a checkpoint says of the runs that its run started from.

    Raises:
        ValueError: it says something else.
    """
    try:
        inherited = msgspec.convert(saved, tuple[Inherited, ...], strict=False)
    except msgspec.ValidationError as error:  # before msgspec 0.20 it is no ValueError
        raise ValueError(str(error)) from error
    if not all(run.total_j < math.inf for run in inherited):
        raise ValueError("an inherited energy that is none")
    return inherited


def _plus_minus_in(session: Mapping[str, Any], ledger: Ledger) -> PlusMinus | None:
    """What is uncertain of the accounts in a checkpoint; None for one that does not say."""
    if not {"outer_edges", "gaps", "devices"} <= session.keys():
        return None
    devices = msgspec.convert(session["devices"], dict[str, Device])
    gaps_j = sum(gap.beyond_edges_j for gap in msgspec.convert(session["gaps"], list[Gap]))
    gain_uj = sum(devices[label].gain * uj for label, uj in ledger.by_device().items() if label in devices)
    return PlusMinus(joules(math.sqrt(float(session["outer_edges"]))) + gaps_j, joules(gain_uj))


def _callback_state(file: Path) -> dict[str, Any]:
    import torch  # only here: what a run measures needs none

    try:
        check_regular(file)
        # Mapped, so that only the callback's few numbers are read and not gigabytes of weights.
        checkpoint = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except RecordError:
        raise
    except FileNotFoundError as error:
        raise RecordError(f"{file}: there is no such file.") from error
    except Exception as error:  # torch raises many kinds for what is not a checkpoint, or not a safe one
        raise RecordError(
            f"{file}: it cannot be read without running code in it, which is not done here ({type(error).__name__}). "
            "Ask the run's directory instead, or save without pickled objects in the hyperparameters."
        ) from error
    callbacks = checkpoint.get("callbacks") if isinstance(checkpoint, dict) else None
    for key, state in callbacks.items() if isinstance(callbacks, dict) else ():
        if str(key).startswith(STATE_KEY) and isinstance(state, dict):
            return state
    raise RecordError(f"{file}: this checkpoint carries no energy: its run had no WattCallback.")


# -- a directory ------------------------------------------------------------------------------------------------------


def _energy_in(directory: Path, asked: Path | str) -> CarriedEnergy:
    records = read_records(directory)
    inherited = {run.path: run for record in records for run in record.inherited}
    places = {os.path.abspath(place) for place in (asked, place_of(directory), f"{asked}{BESIDE}")}
    if len(records) > 1:  # what one of them inherits from another one is in the other's own energy
        inherited = {path: run for path, run in inherited.items() if not _is_within(path, places)}
    own_j = _measured_j(directory, records)
    return CarriedEnergy(asked, own_j, tuple(inherited.values()), _plus_minus(own_j, records))


def _plus_minus(own_j: float, records: Sequence[Record]) -> PlusMinus | None:
    """What is uncertain of the sum over these records, in which a joule that two of them hold is counted once."""
    energies = [record.energy for record in records if record.energy.total_j]
    whole = together(plus_minus(energy) for energy in energies)
    if whole is None or len(energies) < 2:
        return whole
    counted_j = sum(energy.total_j or 0.0 for energy in energies)
    return whole._replace(gain_j=whole.gain_j * own_j / counted_j)


def _is_within(path: str, places: set[str]) -> bool:
    """Whether a path names a run in these directories, one of its records, or one of its checkpoints."""
    whole = os.path.abspath(path)
    above = os.path.dirname(whole)
    if whole in places:
        return True
    if whole.endswith(".ckpt"):
        return above in places or os.path.dirname(above) in places
    return above in places and version_of(os.path.basename(whole)) is not None


def _measured_j(path: Path, records: Sequence[Record]) -> float:
    """The joules of runs, each joule once.

    What a session used itself is in no other record. What it had used before it was resumed is in the record of the session
    that used it, if that is one of these. If not, it is counted with the resumed run, and once for all that resumed from it.

    Raises:
        RecordError: none of the runs measured anything.
    """
    # Of two records of one session, the one with more joules is the later one.
    known = sorted(records, key=lambda record: record.energy.total_j or 0.0)
    measured = {record.session or str(number): record for number, record in enumerate(known)}
    own_j = {
        session: record.energy.total_j - record.resumed_j - record.wasted_j
        for session, record in measured.items()
        if record.energy.total_j is not None
    }
    if not own_j:
        missing = " ".join(dict.fromkeys(sentence for record in records for sentence in record.missing))
        raise RecordError(f"{path}: the run measured nothing ({missing or 'no source'}).")
    if len(records) == 1:
        return records[0].energy.total_j or 0.0
    before: list[tuple[set[str], float]] = []  # sessions without a record here, and what they used
    for session in own_j:
        record = measured[session]
        gone = {earlier for earlier in record.resumes if earlier not in own_j}
        used_j = record.resumed_j + record.wasted_j - sum(own_j.get(earlier, 0.0) for earlier in record.resumes)
        if used_j > 0 and (gone or not record.resumes):
            shared = [one for one in before if one[0] & gone]
            before = [one for one in before if not one[0] & gone]
            before.append((gone.union(*(ids for ids, _ in shared)), max([used_j, *(j for _, j in shared)])))
    return math.fsum([*own_j.values(), *(used_j for _, used_j in before)])
